import csv
import shutil

from helpers import read_benchmark, split_sizes, touch


def test_audiocaps_real_lists(real_data, tmp_path):
    shutil.copytree(real_data / "annotations" / "audiocaps", tmp_path / "source")
    rows = list(csv.DictReader((tmp_path / "source" / "test.csv").open()))
    names = sorted({(row["youtube_id"], row["start_time"], int(row["start_time"]) + 10) for row in rows})
    # Downloaders differ; of one sound there is no file.
    forms = ["{0}_{1}.wav", "Y{0}.flac", "{0}.m4a", "{0}_{1}.000_{2}.000.ogg"]
    touch(tmp_path / "source" / "test", (forms[place % 4].format(*name) for place, name in enumerate(names[:-1])))
    splits, _, problems = read_benchmark("audiocaps", tmp_path / "source")
    assert split_sizes(splits["default"]) == {"train": 0, "validation": 0, "test": 974}
    assert all(len(item.captions) == 5 for item in splits["default"]["test"])
    first = next(item for item in splits["default"]["test"] if item.video_id == "7fmOlUlwoNg_20")
    assert ("Constant rattling noise and sharp vibrations", None, None) in first.captions
    assert len(problems) == 49838 + 495 + 1 and "{}_{} is not in source".format(*names[-1]) in problems


def test_audiocaps_rows_without_a_time_are_named(put, tmp_path):
    for part in ("train", "val", "test"):
        rows = [("1", "abc", "30", "a bell"), ("2", "def", "soon", "a dog")]
        put(f"{part}.csv", [("audiocap_id", "youtube_id", "start_time", "caption"), *rows])
    put("abc_30.wav")
    splits, _, problems = read_benchmark("audiocaps", tmp_path / "source")
    assert split_sizes(splits["default"]) == {"train": 1, "validation": 1, "test": 1}
    assert problems[0] == "def of train.csv has no time to start at" and len(problems) == 3
