"""Readers for retrieval: slices of the real lists where they are at hand, else small files in the layout."""

import csv
import shutil

import pytest
from helpers import prepare, read, sizes, touch

from fgmm_tools.corpora.benchmarks.layout import LayoutError
from processing_fgmm.corpora_fgmm import list_configs, load_corpus


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
