"""Readers of benchmarks: slices of the real annotation files where they are at hand, else small files in the layout."""

import csv
import json
import shutil
import wave

import numpy as np
import parquet_shards
import prepare_dataset
import pytest
from benchmarks import BENCHMARKS
from benchmarks.layout import AUDIO, VIDEO, LayoutError, MediaFolder, readable_class, timed_captions
from conftest import write_video
from datasets import ClassLabel, List
from PIL import Image

from processing_fgmm.corpora_fgmm import list_configs, load_corpus
from processing_fgmm.media_fgmm import probe_media


@pytest.fixture(scope="session")
def media(tmp_path_factory):
    """A real file of each kind, by ending."""
    folder = tmp_path_factory.mktemp("media")
    write_video(folder / "clip.mp4", seconds=0.5)
    Image.fromarray(np.full((8, 8, 3), 90, np.uint8)).save(folder / "photo.jpg")
    with wave.open(str(folder / "sound.wav"), "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes(bytes(800))
    return {".mp4": folder / "clip.mp4", ".jpg": folder / "photo.jpg", ".wav": folder / "sound.wav"}


@pytest.fixture
def put(tmp_path, media):
    """Writes a file of the source: text as it is, rows as CSV, other data as JSON, and media of its ending."""

    def write(name, content=None):
        path = tmp_path / "source" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if content is None:
            shutil.copy(media[path.suffix], path)
        elif isinstance(content, str):
            path.write_text(content, encoding="utf-8")
        elif path.suffix == ".csv":
            with path.open("w", newline="") as file:
                csv.writer(file).writerows(content)
        else:
            path.write_text(json.dumps(content))

    return write


def read(name, source):
    """({configuration: {split: items}}, class names, problems)."""
    problems = []
    reading = BENCHMARKS[name].read(source, problems)
    splits = {
        config: {
            split: [item for group in groups for item in reading.groups[group]] for split, groups in splits.items()
        }
        for config, splits in reading.configs.items()
    }
    label = reading.label.feature if isinstance(reading.label, List) else reading.label
    return splits, label and label.names, problems


def sizes(splits):
    return {split: len(items) for split, items in splits.items()}


def prepare(name, source, output, limit=None):
    rows, noise = prepare_dataset.Rows(limit, 0), prepare_dataset.Noise(None, None, 0, 0.0, 0)
    prepare_dataset.prepare(name, source, output, rows, 1, noise)


def touch(folder, names):
    """Empty files: readers look at names only."""
    folder.mkdir(parents=True)
    for name in names:
        (folder / name).touch()


# ---------------------------------------------------------------- what readers share


def test_every_benchmark_says_what_it_is_and_whether_it_may_be_passed_on():
    may = {name for name, benchmark in BENCHMARKS.items() if benchmark.redistributable}
    assert may == {"esc10", "esc50", "speech_commands"}
    for name, benchmark in BENCHMARKS.items():
        assert benchmark.name == name and benchmark.medium in parquet_shards.MEDIA
        assert may.isdisjoint([name]) == (benchmark.license_id == "other")


@pytest.mark.parametrize("name", BENCHMARKS)
def test_an_empty_folder_is_an_error_of_one_sentence(name, tmp_path):
    with pytest.raises(LayoutError, match=r"^[^\n]+\.$"):
        prepare(name, tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_class_names_become_words():
    names = {"BabyCrawling": "baby crawling", "YoYo": "yo yo", "brush_hair": "brush hair"}
    for name, words in {**names, "010 - Fire crackling": "fire crackling", "clock_tick": "clock tick"}.items():
        assert readable_class(name) == words


def test_media_are_found_whatever_their_endings(tmp_path):
    touch(tmp_path / "a" / "b", ["x.mov.MP4", "y.webm", "y.wav", "z.txt"])
    (tmp_path / "a" / "link").symlink_to(tmp_path / "a" / "b")
    videos, problems = MediaFolder(tmp_path / "a", VIDEO), []
    assert videos.find(problems, "x.mov").name == "x.mov.MP4"
    assert videos.find(problems, "none", "y.avi").suffix == ".webm"
    assert MediaFolder(tmp_path / "a" / "link", AUDIO).find(problems, "y").suffix == ".wav"
    assert not problems and videos.find(problems, "z") is None and problems == ["z is not in a"]


@pytest.mark.parametrize(
    ("row", "kept"),
    [
        (("a  b\nc", "1.5", 2), ("a b c", 1.5, 2.0)),
        (("a", 0, 1), ("a", 0.0, 1.0)),
        (("a", 2, 2), None),
        (("a", -1, 2), None),
        (("a", float("nan"), 2), None),
        (("a", 0, float("inf")), None),
        (("a", None, 2), None),
        (("a", "x", 2), None),
        (("  ", 1, 2), None),
        ((None, 1, 2), None),
    ],
)
def test_captions_without_words_or_times_are_named(row, kept):
    problems = []
    assert timed_captions("v7", [row], problems) == ((kept,) if kept else ())
    assert len(problems) == (kept is None) and all("v7" in problem for problem in problems)


@pytest.mark.parametrize(
    ("name", "files", "named"),
    [
        ("msvd", ("YouTubeClips/a.avi", "AllVideoDescriptions.txt"), "AllVideoDescriptions.txt"),
        ("flickr8k", ("Flicker8k_Dataset/a.jpg", "Flickr8k_text/Flickr8k.token.txt"), "Flickr8k.token.txt"),
        ("speech_commands", ("yes/a.wav", "validation_list.txt"), "validation_list.txt"),
        ("hmdb51", ("hit_test_split1.txt",), "hit_test_split1.txt"),
    ],
)
def test_lists_that_are_no_text_are_named(name, files, named, tmp_path):
    for file in files:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_bytes(b"\xff\xfe\x81")
    with pytest.raises(LayoutError, match=f"{named} is not a text in UTF-8"):
        read(name, tmp_path)


def test_a_transcript_that_is_no_text_is_left_out(put, tmp_path):
    put("s1/a.mp4")
    put("s1/b.mp4")
    put("align/s1/a.align", "0 10 hi\n")
    (tmp_path / "source" / "align" / "s1" / "b.align").write_bytes(b"\xff\xfe\x81")
    splits, _, problems = read("grid", tmp_path / "source")
    assert [item.video_id for item in splits["default"]["train"]] == ["s1_a"]
    assert len(problems) == 1 and "b.align is not a text" in problems[0]


# ---------------------------------------------------------------- retrieval


def write_msrvtt(put, name="MSRVTT_data.json"):
    """Videos 0 to 5; of video 4 there is no file, of video 5 no sentence."""
    parts = ("train", "train", "validate", "test", "test", "train")
    videos = [{"video_id": f"video{index}", "split": split, "id": index} for index, split in enumerate(parts)]
    texts = [(f"video{index}", f"text {number} of {index}") for index in range(5) for number in range(2)]
    sentences = [{"video_id": video, "caption": text, "sen_id": 0} for video, text in texts]
    put(name, {"info": {}, "videos": videos, "sentences": sentences})
    for index in (0, 1, 2, 3, 5):
        put(f"TrainValVideo/video{index}.mp4")


def test_msrvtt_full_and_1k_a(put, tmp_path):
    write_msrvtt(put)
    put("MSRVTT_train.9k.csv", [["video_id"], ["video0"], ["video1"], ["video2"], ["video9"]])
    put("MSRVTT_train.7k.csv", [["video_id"], ["video0"]])
    head = ["key", "vid_key", "video_id", "sentence"]
    put(
        "MSRVTT_JSFUSION_test.csv", [head, ["ret0", "msr3", "video3", "the given one"], ["ret1", "msr4", "video4", "x"]]
    )
    splits, classes, problems = read("msrvtt", tmp_path / "source")
    assert classes is None and sizes(splits["full"]) == {"train": 2, "validation": 1, "test": 1}
    assert sizes(splits["1k-A"]) == {"train": 3, "validation": 0, "test": 1}
    assert sizes(splits["1k-A-7k"]) == {"train": 1, "validation": 0, "test": 1}
    twenty = (("text 0 of 3", None, None), ("text 1 of 3", None, None))
    assert splits["full"]["test"][0].captions == twenty
    assert splits["1k-A"]["test"][0].captions == (("the given one", None, None),)
    assert problems == [
        "video9 of a training list has no captions",
        "video4 is not in source",
        "video5 has no caption",
        "video4 is not in source",
    ]
    prepare("msrvtt", tmp_path / "source", tmp_path / "out")
    assert list_configs(str(tmp_path / "out")) == ["full", "1k-A", "1k-A-7k"]
    for config, split, number in (("full", "test", 2), ("1k-A", "test", 1), ("1k-A-7k", "train", 2)):
        rows = list(load_corpus(str(tmp_path / "out"), split, config))
        assert len(rows) == 1 and len(rows[0]["captions"]) == number


def test_msrvtt_without_a_training_list_trains_on_all_others(put, tmp_path):
    write_msrvtt(put)
    put("MSRVTT_JSFUSION_test.csv", [["video_id", "sentence"], ["video3", "the given one"]])
    splits, _, _ = read("msrvtt", tmp_path / "source")
    assert [item.video_id for item in splits["1k-A"]["train"]] == ["video0", "video1", "video2"]


def test_msrvtt_in_two_files_and_damaged(put, tmp_path):
    write_msrvtt(put, "train_val_videodatainfo.json")
    assert sizes(read("msrvtt", tmp_path / "source")[0]["full"]) == {"train": 2, "validation": 1, "test": 1}
    put("train_val_videodatainfo.json", '{"videos": [')
    with pytest.raises(LayoutError, match=r"train_val_videodatainfo.json cannot be read as published"):
        read("msrvtt", tmp_path / "source")


def test_msrvtt_real_list(real_data, put, tmp_path):
    shutil.copytree(real_data / "annotations" / "msrvtt", tmp_path / "source")
    touch(tmp_path / "source" / "videos", ["video9770.mp4", "video7020.webm"])
    splits, _, problems = read("msrvtt", tmp_path / "source")
    assert [item.captions[0][0] for item in splits["1k-A"]["test"]] == [
        "a person is connecting something to system",
        "a woman creating a fondant baby and flower",
    ]
    assert len(problems) == 998 and not splits["full"]["test"]


def test_youcook2_annotations(put, tmp_path):
    def video(subset, *steps):
        steps = [{"segment": [start, end], "id": 0, "sentence": text} for start, end, text in steps]
        return {"duration": 90.0, "subset": subset, "recipe_type": "101", "annotations": steps}

    database = {
        "abc_-1": video("training", (41, 54, "melt butter in the pan"), (60, 60, "stir"), (70, 80, "serve")),
        "def": video("validation", (1, 2, "chop")),
        "gone": video("validation", (1, 2, "chop")),
        "wrong": video("training", (5, 2, "chop")),
    }
    database["def"]["annotations"].append({"segment": [7], "id": 1, "sentence": "fry"})
    put("annotations/youcookii_annotations_trainval.json", {"database": database})
    put("raw_videos/training/101/abc_-1.mp4")
    put("raw_videos/validation/101/def.mp4")
    splits, _, problems = read("youcook2", tmp_path / "source")
    assert sizes(splits["default"]) == {"train": 1, "validation": 1}
    assert splits["default"]["train"][0].captions == (("melt butter in the pan", 41.0, 54.0), ("serve", 70.0, 80.0))
    assert problems == [
        "abc_-1 has a caption from 60 to 60 s",
        "wrong has a caption from 5 to 2 s",
        "wrong has no step that can be used",
        "def has a caption from 7 to 7 s",
        "gone is not in source",
    ]


def test_youcook2_real_list(real_data, tmp_path):
    shutil.copytree(real_data / "annotations" / "youcook2", tmp_path / "source")
    rows = (tmp_path / "source" / "validation_youcook.csv").read_text().splitlines()[1:]
    touch(tmp_path / "source" / "videos", {row.rpartition(",")[2] + ".mp4" for row in rows})
    splits, _, problems = read("youcook2", tmp_path / "source")
    items = splits["default"]["validation"]
    assert not problems and len(items) == 436 and sum(len(item.captions) for item in items) == 3350
    first = next(item for item in items if item.video_id == "xHr8X2Wpmno")
    assert first.captions[0] == ("pick the ends off the verdalago", 47.0, 60.0)


def test_msvd(put, tmp_path):
    lines = ["#MSVD", "", "a-b_1_9 A bird bathes.", "a-b_1_9 Birds  bathe.", "c_2_3 A dog.", "d_4_5 A cat."]
    put("AllVideoDescriptions.txt", "\n".join(lines) + "\n")
    for part, names in (("train", "a-b_1_9\ngone_1_2\n"), ("val", "c_2_3\ne_1_2\n"), ("test", "d_4_5\n")):
        put(f"{part}_list.txt", names)
    for name in ("a-b_1_9", "c_2_3", "d_4_5", "e_1_2"):
        put(f"YouTubeClips/{name}.mp4")
    splits, _, problems = read("msvd", tmp_path / "source")
    assert sizes(splits["default"]) == {"train": 1, "validation": 1, "test": 1}
    assert splits["default"]["train"][0].captions[0] == ("A bird bathes.", None, None)
    assert problems == ["gone_1_2 has no caption", "e_1_2 has no caption"]


def test_didemo_as_paragraphs_and_as_moments(put, tmp_path):
    def entry(video, text, *times):
        return {"annotation_id": 1, "video": video, "description": text, "times": times, "num_segments": 6}

    video = "12090392@N02_13482799053_87ef417396.mov"
    put("train_data.json", [entry(video, "a cat jumps. ", [2, 2], [1, 2], [1, 2]), entry(video, "it sleeps", [5, 5])])
    put("val_data.json", [entry("gone.avi", "a dog", [0, 0])])
    put("test_data.json", [entry("x.3gp", "a dog", [3, 1])])
    put(f"videos/{video}.mp4")
    put("videos/x.mp4")
    splits, _, problems = read("didemo", tmp_path / "source")
    assert splits["default"]["train"][0].captions == (("a cat jumps. it sleeps", None, None),)
    assert splits["default"]["train"][0].video_id == video.removesuffix(".mov") and problems == [
        "gone.avi is not in source"
    ]
    splits, _, problems = read("didemo_moments", tmp_path / "source")
    assert splits["default"]["train"][0].captions == (("a cat jumps.", 5.0, 15.0), ("it sleeps", 25.0, 30.0))
    assert sizes(splits["default"]) == {"train": 1, "validation": 0, "test": 0}
    assert "x.3gp has a caption from 15 to 10 s" in problems and "x.3gp has no sentence that can be used" in problems


@pytest.mark.parametrize(("name", "folder"), [("coco", "val2014"), ("flickr30k", "flickr30k-images")])
def test_karpathy_split(name, folder, put, tmp_path):
    images = []
    for index, split in enumerate(("train", "restval", "val", "test", "test", "test")):
        sentences = [
            {"raw": f" Photo {index}, said {number}.", "tokens": []} for number in range(6 if index < 5 else 0)
        ]
        images.append({"filename": f"{index}.jpg", "split": split, "sentences": sentences})
        if index != 4:
            put(f"{folder}/{index}.jpg")
    put(f"dataset_{name}.json", {"images": images, "dataset": name})
    splits, _, problems = read(name, tmp_path / "source")
    assert sizes(splits["default"]) == {"train": 2, "validation": 1, "test": 1}
    assert splits["default"]["test"][0].captions[4] == ("Photo 3, said 4.", None, None)
    assert [len(splits["default"][split][0].captions) for split in ("train", "test")] == [6, 5]
    assert problems == ["4.jpg is not in source", "5.jpg has no caption"]
    put(f"dataset_{name}.json", {"images": [{"filename": "0.jpg", "split": "train"}]})
    problems = read(name, tmp_path / "source")[2]
    assert problems == [f"image 1 of dataset_{name}.json is not as published (KeyError: 'sentences')"]


def test_audiocaps_real_lists(real_data, tmp_path):
    shutil.copytree(real_data / "annotations" / "audiocaps", tmp_path / "source")
    rows = list(csv.DictReader((tmp_path / "source" / "test.csv").open()))
    names = sorted({(row["youtube_id"], row["start_time"], int(row["start_time"]) + 10) for row in rows})
    # Downloaders differ; of one sound there is no file.
    forms = ["{0}_{1}.wav", "Y{0}.flac", "{0}.m4a", "{0}_{1}.000_{2}.000.ogg"]
    touch(tmp_path / "source" / "test", (forms[place % 4].format(*name) for place, name in enumerate(names[:-1])))
    splits, _, problems = read("audiocaps", tmp_path / "source")
    assert sizes(splits["default"]) == {"train": 0, "validation": 0, "test": 974}
    assert all(len(item.captions) == 5 for item in splits["default"]["test"])
    first = next(item for item in splits["default"]["test"] if item.video_id == "7fmOlUlwoNg_20")
    assert ("Constant rattling noise and sharp vibrations", None, None) in first.captions
    assert len(problems) == 49838 + 495 + 1 and "{}_{} is not in source".format(*names[-1]) in problems


def test_audiocaps_rows_without_a_time_are_named(put, tmp_path):
    for part in ("train", "val", "test"):
        rows = [("1", "abc", "30", "a bell"), ("2", "def", "soon", "a dog")]
        put(f"{part}.csv", [("audiocap_id", "youtube_id", "start_time", "caption"), *rows])
    put("abc_30.wav")
    splits, _, problems = read("audiocaps", tmp_path / "source")
    assert sizes(splits["default"]) == {"train": 1, "validation": 1, "test": 1}
    assert problems[0] == "def of train.csv has no time to start at" and len(problems) == 3


def test_clotho(put, tmp_path):
    head = ["file_name", *(f"caption_{number}" for number in range(1, 6))]
    for part in ("development", "validation", "evaluation"):
        rows = [[f"{part} sound.01.wav", *(f"{part}, {number}" for number in range(5))], ["gone.wav", *"abcde"]]
        put(f"clotho_captions_{part}.csv", [head, *rows])
        put(f"{part}/{part} sound.01.wav")
    splits, _, problems = read("clotho", tmp_path / "source")
    assert sizes(splits["default"]) == {"train": 1, "validation": 1, "test": 1}
    item = splits["default"]["test"][0]
    assert item.video_id == "evaluation sound.01" and item.captions[1] == ("evaluation, 1", None, None)
    assert problems == [f"gone.wav is not in {part}" for part in ("development", "validation", "evaluation")]


# ---------------------------------------------------------------- classification


def test_ucf101_real_splits(real_data):
    splits, classes, problems = read("ucf101", real_data / "ucf101")
    assert not problems and classes == ["baby crawling", "punch", "push ups"]
    for number in (1, 2, 3):
        for split in ("train", "test"):
            lines = (real_data / f"ucf101/ucfTrainTestlist/{split}list0{number}.txt").read_text().split("\n")
            names = {line.split()[0].rpartition("/")[2].removesuffix(".avi") for line in lines if line}
            items = splits[f"split{number}"][split]
            assert len(items) == len(names) and {item.video_id for item in items} == names
            assert all(classes[item.label].replace(" ", "") in item.video_id.lower() for item in items)


def test_ucf101_real_lists_of_all_classes(real_data, tmp_path):
    shutil.copytree(real_data / "annotations" / "ucf101_splits_full", tmp_path / "source" / "ucfTrainTestlist")
    files = ["v_HandstandPushups_g01_c01.mp4", "v_YoYo_g08_c01.avi"]
    touch(tmp_path / "source" / "UCF-101", files)
    splits, classes, problems = read("ucf101", tmp_path / "source")
    assert len(classes) == 101 and classes[100] == "yo yo" and len(problems) == 13320 - 2
    items = {item.path.name: item for item in splits["split1"]["train"] + splits["split1"]["test"]}
    assert items[files[0]].label == 36 and items[files[1]].label == 100
    index = tmp_path / "source" / "ucfTrainTestlist" / "classInd.txt"
    index.write_text("1 HandstandPushups\n")
    problems = read("ucf101", tmp_path / "source")[2]
    assert "YoYo/v_YoYo_g08_c01.avi is of a class that classInd.txt lacks" in problems
    index.write_text("HandstandPushups\n")
    with pytest.raises(LayoutError, match=r"classInd.txt cannot be read as published \(IndexError"):
        read("ucf101", tmp_path / "source")


def test_hmdb51_real_lists_say_what_mil_nce_lists(real_data, tmp_path):
    folder = real_data / "annotations" / "hmdb51_splits"
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "testTrainMulti_7030_splits").symlink_to(folder)
    rows = list(csv.DictReader((folder / "hmdb51_milnce.csv").open()))
    touch(tmp_path / "source" / "clips", (row["video_id"] for row in rows[1:]))
    splits, classes, problems = read("hmdb51", tmp_path / "source")
    assert len(classes) == 51 and classes[:2] == ["brush hair", "cartwheel"]
    assert problems == [f"{rows[0]['video_id']} is not in source"]
    flags = {"train": "1", "test": "2", "validation": "none"}
    for config, parts in splits.items():
        for split, items in parts.items():
            wanted = {row["video_id"] for row in rows[1:] if row[config] == flags[split]}
            assert {item.path.name for item in items} == wanted
            assert len(items) == {"train": 51 * 70, "test": 51 * 30, "validation": 0}[split] - (
                rows[0][config] == flags[split]
            )
    label_of = {row["video_id"]: row["label"].removesuffix("_test").replace("_", " ") for row in rows}
    assert all(classes[item.label] == label_of[item.path.name] for item in splits["split2"]["train"])


def test_kinetics(put, tmp_path):
    head = ["label", "youtube_id", "time_start", "time_end", "split"]
    train = [["zumba", "-0a", "15", "25", "train"], ["air drumming", "b_1", "0", "10", "train"]]
    put("annotations/train.csv", [head, *train, ["zumba", "c", "9", "5", "train"], ["zumba", "d", "1", "11", "train"]])
    put("annotations/val.csv", [head, ["zumba", "e", "100", "110", "val"], ["yoga", "f", "1", "11", "val"]])
    put("annotations/test.csv", [["youtube_id", "time_start", "time_end"], ["g", "1", "11"]])
    put("train/zumba/-0a_000015_000025.mp4")
    put("train/b_1_000000_000010.mp4")
    put("val/e.mp4")
    splits, classes, problems = read("kinetics", tmp_path / "source")
    assert classes == ["air drumming", "zumba"] and sizes(splits["default"]) == {"train": 2, "validation": 1, "test": 0}
    assert [(item.video_id, item.label) for item in splits["default"]["train"]] == [
        ("-0a_000015_000025", 1),
        ("b_1_000000_000010", 0),
    ]
    assert problems == [
        "c has the times '9' to '5'",
        "d_1 is not in source",
        "f is of the class 'yoga', which train.csv lacks",
        "g is of the class '', which train.csv lacks",
    ]


def write_esc50(put):
    """Two sounds a fold, of classes 0 (in ESC-10) and 12; then a sound without a file and one of fold 6."""
    rows = []
    for fold in range(1, 6):
        rows.append([f"{fold}-1-A-0.wav", fold, 0, "dog", "True", 1, "A"])
        rows.append([f"{fold}-2-A-12.wav", fold, 12, "sea_waves", "False", 2, "A"])
    for name, *_ in rows:
        put(f"audio/{name}")
    rows += [["1-9-A-0.wav", 1, 0, "dog", "True", 9, "A"], ["6-1-A-0.wav", 6, 0, "dog", "True", 1, "A"]]
    put("audio/6-1-A-0.wav")
    put("meta/esc50.csv", [["filename", "fold", "target", "category", "esc10", "src_file", "take"], *rows])


@pytest.mark.parametrize(("name", "number"), [("esc50", 2), ("esc10", 1)])
def test_esc_folds(name, number, put, tmp_path):
    write_esc50(put)
    splits, classes, problems = read(name, tmp_path / "source")
    assert classes == ["dog", "sea waves"][:number] and list(splits) == [f"fold{fold}" for fold in range(1, 6)]
    assert problems == ["1-9-A-0.wav is not in audio", "6-1-A-0 is of the fold '6', not 1 or 2 or 3 or 4 or 5"]
    for fold, parts in splits.items():
        assert sizes(parts) == {"train": 4 * number, "test": number}
        assert {item.video_id[0] for item in parts["test"]} == {fold[-1]}
        assert fold[-1] not in {item.video_id[0] for item in parts["train"]}
    assert [item.label for item in splits["fold3"]["test"]] == [0, 1][:number]


def test_esc10_real_folders_end_to_end(real_data, tmp_path):
    prepare("esc10", real_data / "esc10", tmp_path / "out", limit=20)
    corpus = load_corpus(str(tmp_path / "out"), "test", "fold2")
    assert corpus.features["label"].names[9] == "fire crackling" and corpus.features["label"].names[0] == "dog bark"
    rows = list(corpus)
    assert len(rows) == 20 and all(row["video_id"].startswith("2-") and row["captions"] == [] for row in rows)
    labels = [row["label"] for row in rows]
    assert labels != sorted(labels) and len(set(labels)) > 5  # in random order
    folder = sorted((real_data / "esc10").glob("0*"))[rows[0]["label"]]
    assert rows[0]["audio"]["bytes"] == (folder / f"{rows[0]['video_id']}.ogg").read_bytes()
    assert len(list(load_corpus(str(tmp_path / "out"), "train", "fold2"))) == 80


def write_audioset(put):
    head = "# Segments csv created Sun Mar  5 10:54:31 2017\n# num_ytids=2\n# YTID, start_seconds, end_seconds, ...\n"
    put("class_labels_indices.csv", 'index,mid,display_name\n0,/m/a,"Speech, male"\n1,/m/b,Dog\n2,/m/c,Rain\n')
    put("balanced_train_segments.csv", head + '--PJ, 30.000, 40.000, "/m/c,/m/a"\ngone, 0.000, 10.000, "/m/b"\n')
    rows = 'two, 10.000, 20.000, "/m/b"\nbad, 9.000, 4.000, "/m/b"\nworse, soon, 4.000, "/m/b"\n'
    put("unbalanced_train_segments.csv", head + rows)
    put("eval_segments.csv", head + 'three, 0.000, 10.000, "/m/c"\nfour, 0.000, 10.000, "/m/b,/m/z"\n')
    put("audio/Y--PJ.wav")
    put("audio/two_10.000_20.000.wav")
    put("audio/three_0.wav")
    put("audio/four.wav")


def test_audioset_end_to_end(put, tmp_path, capsys):
    write_audioset(put)
    prepare("audioset", tmp_path / "source", tmp_path / "out")
    printed = capsys.readouterr().out
    assert "balanced: 1 train, 1 test; full: 2 train, 1 test; 4 entries were skipped" in printed
    assert "Skipped: gone_0 is not in source." in printed and "Skipped: bad has the times 9.000 to 4.000." in printed
    assert "four is of the class '/m/z', which class_labels_indices.csv lacks" in printed
    assert list_configs(str(tmp_path / "out")) == ["balanced", "full"]
    corpus = load_corpus(str(tmp_path / "out"), "train", "full")
    assert corpus.features["label"] == List(ClassLabel(names=["Speech, male", "Dog", "Rain"]))
    assert sorted((row["video_id"], row["label"]) for row in corpus) == [("--PJ", [2, 0]), ("two", [1])]
    assert [row["label"] for row in load_corpus(str(tmp_path / "out"), "test", "balanced")] == [[2]]
    (tmp_path / "source" / "unbalanced_train_segments.csv").unlink()
    assert list(read("audioset", tmp_path / "source")[0]) == ["balanced"]


def test_speech_commands(put, tmp_path):
    for name in ("yes/a_nohash_0", "yes/b_nohash_0", "no/a_nohash_0", "no/c_nohash_1", "_background_noise_/pink"):
        put(f"{name}.wav")
    put("validation_list.txt", "no/a_nohash_0.wav\nno/gone_nohash_0.wav\n")
    put("testing_list.txt", "yes/b_nohash_0.wav\nmaybe/a_nohash_0.wav\n")
    splits, classes, problems = read("speech_commands", tmp_path / "source")
    assert classes == ["no", "yes"] and sizes(splits["default"]) == {"train": 2, "validation": 1, "test": 1}
    assert [(item.video_id, item.label) for item in splits["default"]["test"]] == [("yes/b_nohash_0", 1)]
    assert problems == [
        "no/gone_nohash_0.wav of validation_list.txt is not there",
        "maybe/a_nohash_0.wav of testing_list.txt is of a word without a folder",
    ]


# ---------------------------------------------------------------- pretraining


def write_howto100m(put, form):
    captions = {
        "one": {"start": [0.5, 3.0, 9.0], "end": [2.5, 5.0, 8.0], "text": ["hi there", "  ", "backwards"]},
        "gone": {"start": [0.0], "end": [1.0], "text": ["x"]},
    }
    if form == "json":
        put("caption.json", captions)
    else:
        put("HowTo100M_v1.csv", [["video_id", "task_id"], ["one", 3]])
        for name, columns in captions.items():
            rows = zip(columns["start"], columns["end"], columns["text"], strict=True)
            put(f"howto100m_csv/{name}.csv", [["start", "end", "text"], *rows])
    put("videos/one.mp4")
    put("videos/mute.mp4")


@pytest.mark.parametrize("form", ["json", "csv"])
def test_howto100m(form, put, tmp_path):
    write_howto100m(put, form)
    splits, _, problems = read("howto100m", tmp_path / "source")
    assert [item.captions for item in splits["default"]["train"]] == [(("hi there", 0.5, 2.5),)]
    assert sorted(problems) == [
        "gone is not in source",
        "mute has no captions",
        "one has a caption from 9.0 to 8.0 s",
        "one has a caption without text at 3.0 s",
    ]


def test_damaged_howto100m_is_named(put, tmp_path):
    put("caption.json", '{"one": {"start": [0.5], "end": [')
    put("videos/one.mp4")
    with pytest.raises(LayoutError, match=r"caption.json cannot be read as published"):
        read("howto100m", tmp_path / "source")


def write_didemo(put):
    for part in ("train", "val", "test"):
        put(f"{part}_data.json", [{"video": "a.mp4", "description": "a cat", "times": [[0, 0]]}])
    put("videos/a.mp4")


@pytest.mark.parametrize(
    ("name", "write", "file", "row", "problem"),
    [
        ("didemo", write_didemo, "train_data.json", '[{"video": "b.mp4"},', "entry 1 of train_data.json"),
        ("esc50", write_esc50, "meta/esc50.csv", "1,1-1-A-0.wav\n", "line 2 of esc50.csv"),
        ("howto100m", lambda put: write_howto100m(put, "json"), "caption.json", '{"b": {"text": ["a"]},', "b"),
    ],
)
def test_one_damaged_row_is_named_and_the_others_are_read(name, write, file, row, problem, put, tmp_path):
    write(put)
    whole = read(name, tmp_path / "source")
    path = tmp_path / "source" / file
    head, rest = path.read_text().split("\n", 1) if file.endswith(".csv") else ("", path.read_text()[1:])
    path.write_text(f"{head}\n{row}{rest}")
    splits, classes, problems = read(name, tmp_path / "source")
    assert (splits, classes) == whole[:2]
    assert any(text.startswith(f"{problem} is not as published") for text in problems)


ROLLING = """WEBVTT
Kind: captions

00:00:00.000 --> 00:00:02.000 align:start
~
salt &amp;<00:00:00.500><c> pepper</c>

00:00:02.000 --> 00:00:02.010 align:start
salt &amp; pepper
~

00:00:02.010 --> 00:00:04.000 align:start
salt &amp; pepper
into<00:00:03.000><c> a bowl</c>

00:00:09.000 --> 00:00:10.000
into a bowl
""".replace("~", " ")


def test_folder_end_to_end(put, tmp_path, capsys):
    put("a/first.mp4")
    put(
        "a/first.srt",
        "1\n00:00:01,500 --> 00:00:03,000\n<i>Crack</i> two\neggs\n\n2\n00:00:05,000 --> 00:00:04,000\nx\n",
    )
    put("b/first.mp4")  # the same name in another folder
    put(
        "b/first.json",
        {"text": "", "segments": [{"id": 0, "start": 0.25, "end": 1.0, "text": " Stir. "}, {"start": 2}]},
    )
    put("roll [x].mp4")
    put("roll [x].en.vtt", ROLLING)
    put("roll [x].info.json", {"title": "no captions"})
    put("list.mp4")
    put("list.json", [{"text": "fold", "start": 1, "end": 2}])
    put("list.vtt", "WEBVTT\n\n00:01.000 --> 00:02.500\nfirst of all\n")
    put("mute.mp4")
    put("two.mp4")
    put("two.en.vtt", ROLLING)
    put("two.de.vtt", ROLLING)
    put("broken.mp4")
    put("broken.json", "{")
    prepare("folder", tmp_path / "source", tmp_path / "out")
    captions = {
        row["video_id"]: [(caption["text"], caption["start"], caption["end"]) for caption in row["captions"]]
        for row in load_corpus(str(tmp_path / "out"), "train")
    }
    assert captions == {
        "a/first": [("Crack two eggs", 1.5, 3.0)],
        "b/first": [("Stir.", 0.25, 1.0)],
        "list": [("first of all", 1.0, 2.5)],
        "roll [x]": [("salt & pepper", 0.0, 2.0), ("into a bowl", 2.01, 4.0), ("into a bowl", 9.0, 10.0)],
    }
    row = next(iter(load_corpus(str(tmp_path / "out"), "train")))
    assert probe_media(row["video"]["bytes"]).duration == pytest.approx(0.5, abs=0.1)
    problems = read("folder", tmp_path / "source")[2]
    assert "4 train; 6 entries were skipped" in capsys.readouterr().out and len(problems) == 6
    for problem in (
        "a/first has a caption from 5.0 to 4.0 s",
        "b/first has a caption without text at 2 s",
        "mute.mp4 has no captions beside it (.srt, .vtt, .json)",
        "two.mp4 has captions in several languages, of which one is to be kept",
        "broken.mp4 has no caption that can be used",
    ):
        assert problem in problems


# ---------------------------------------------------------------- the command


def test_rows_that_stand_twice_or_are_too_large_are_left_out(put, tmp_path, capsys):
    put("one.mp4")
    put("one.srt", "1\n00:00:01,500 --> 00:00:03,000\nhi\n")
    put("one.webm", "")
    put("large.srt", "1\n00:00:01,500 --> 00:00:03,000\nhi\n")
    with (tmp_path / "source" / "large.mp4").open("wb") as file:
        file.truncate(2**31)  # a file of nothing, which takes no room
    prepare("folder", tmp_path / "source", tmp_path / "out")
    printed = capsys.readouterr().out
    assert "1 train; 2 entries were skipped" in printed and "one stands there twice" in printed
    assert "large has more than 2 GB; cut it into pieces" in printed


def test_shards_are_smaller_where_media_are_large(put, tmp_path, media, monkeypatch):
    for index in range(6):
        put(f"{index}.mp4")
        put(f"{index}.srt", "1\n00:00:01,500 --> 00:00:03,000\nhi\n")
    monkeypatch.setattr(parquet_shards, "BYTES_PER_SHARD", 2 * media[".mp4"].stat().st_size)
    prepare("folder", tmp_path / "source", tmp_path / "out")
    assert len(list((tmp_path / "out" / "data").iterdir())) == 3
    assert len(list(load_corpus(str(tmp_path / "out"), "train"))) == 6


def test_large_files_are_spread_over_shards(monkeypatch):
    monkeypatch.setattr(parquet_shards, "BYTES_PER_SHARD", 100)
    sizes = [90] * 4 + [1] * 396
    parts = parquet_shards.cut(list(range(400)), sizes)
    assert [item for part in parts for item in part] == list(range(400))
    assert max(sum(sizes[item] for item in part) for part in parts) < 100 + 90 and len(parts) <= 8
    assert [len(part) for part in parquet_shards.cut(list(range(512)), [0] * 512)] == [256, 256]
    assert all(parquet_shards.cut([1, 2, 3], [1000, 1, 1000]))


def test_media_of_other_sizes_are_not_written_beside_the_former(put, tmp_path, monkeypatch):
    for index in range(2):
        put(f"{index}.mp4")
        put(f"{index}.srt", "1\n00:00:01,500 --> 00:00:03,000\nhi\n")
    prepare("folder", tmp_path / "source", tmp_path / "out")
    monkeypatch.setattr(parquet_shards, "BYTES_PER_SHARD", 10)
    with pytest.raises(SystemExit, match="media of other sizes"):
        prepare("folder", tmp_path / "source", tmp_path / "out")


def test_official_splits_share_no_training_split_to_take_from(real_data, tmp_path):
    rows, noise = prepare_dataset.Rows(None, 5), prepare_dataset.Noise(None, None, 0, 0.0, 0)
    with pytest.raises(LayoutError, match="UCF101 has no training split of its own; leave out --skip"):
        prepare_dataset.prepare("ucf101", real_data / "ucf101", tmp_path / "out", rows, 1, noise)


def test_ucf101_end_to_end_stores_each_clip_once(real_data, tmp_path):
    prepare("ucf101", real_data / "ucf101", tmp_path / "out", limit=6)
    assert list_configs(str(tmp_path / "out")) == ["split1", "split2", "split3"]
    names = {}
    for config in ("split1", "split2", "split3"):
        for split in ("train", "test"):
            corpus = load_corpus(str(tmp_path / "out"), split, config)
            assert corpus.features["label"].names == ["baby crawling", "punch", "push ups"]
            names[config, split] = [row["video_id"] for row in corpus]
            assert len(names[config, split]) == {"train": 18, "test": 6}[split]
        assert len(set(names[config, "train"] + names[config, "test"])) == 24
    assert not set(names["split1", "test"]) & set(names["split2", "test"])
    assert len(list((tmp_path / "out" / "data").iterdir())) == 4
    assert "redistributed" in (tmp_path / "out" / "README.md").read_text()
