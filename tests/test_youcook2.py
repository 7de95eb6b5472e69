import shutil

from helpers import read_benchmark, split_sizes, touch


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
    splits, _, problems = read_benchmark("youcook2", tmp_path / "source")
    assert split_sizes(splits["default"]) == {"train": 1, "validation": 1}
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
    splits, _, problems = read_benchmark("youcook2", tmp_path / "source")
    items = splits["default"]["validation"]
    assert not problems and len(items) == 436 and sum(len(item.captions) for item in items) == 3350
    first = next(item for item in items if item.video_id == "xHr8X2Wpmno")
    assert first.captions[0] == ("pick the ends off the verdalago", 47.0, 60.0)
