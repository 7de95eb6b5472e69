import shutil

import pytest
from helpers import prepare_benchmark, read_benchmark, split_sizes, touch

from fgmm_tools.cli import UserError
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
    splits, classes, problems = read_benchmark("msrvtt", tmp_path / "source")
    assert classes is None and split_sizes(splits["full"]) == {"train": 2, "validation": 1, "test": 1}
    assert split_sizes(splits["1k-A"]) == {"train": 3, "validation": 0, "test": 1}
    assert split_sizes(splits["1k-A-7k"]) == {"train": 1, "validation": 0, "test": 1}
    twenty = (("text 0 of 3", None, None), ("text 1 of 3", None, None))
    assert splits["full"]["test"][0].captions == twenty
    assert splits["1k-A"]["test"][0].captions == (("the given one", None, None),)
    assert problems == [
        "video9 of a training list has no captions",
        "video4 is not in source",
        "video5 has no caption",
        "video4 is not in source",
    ]
    prepare_benchmark("msrvtt", tmp_path / "source", tmp_path / "out")
    assert list_configs(str(tmp_path / "out")) == ["full", "1k-A", "1k-A-7k"]
    for config, split, number in (("full", "test", 2), ("1k-A", "test", 1), ("1k-A-7k", "train", 2)):
        rows = list(load_corpus(str(tmp_path / "out"), split, config))
        assert len(rows) == 1 and len(rows[0]["captions"]) == number


def test_msrvtt_without_a_training_list_trains_on_all_others(put, tmp_path):
    write_msrvtt(put)
    put("MSRVTT_JSFUSION_test.csv", [["video_id", "sentence"], ["video3", "the given one"]])
    splits, _, _ = read_benchmark("msrvtt", tmp_path / "source")
    assert [item.video_id for item in splits["1k-A"]["train"]] == ["video0", "video1", "video2"]


def test_msrvtt_in_two_files_and_damaged(put, tmp_path):
    write_msrvtt(put, "train_val_videodatainfo.json")
    splits, _, _ = read_benchmark("msrvtt", tmp_path / "source")
    assert split_sizes(splits["full"]) == {"train": 2, "validation": 1, "test": 1}
    put("train_val_videodatainfo.json", '{"videos": [')
    with pytest.raises(UserError, match=r"train_val_videodatainfo.json cannot be read as published"):
        read_benchmark("msrvtt", tmp_path / "source")


def test_msrvtt_real_list(real_data, put, tmp_path):
    shutil.copytree(real_data / "annotations" / "msrvtt", tmp_path / "source")
    touch(tmp_path / "source" / "videos", ["video9770.mp4", "video7020.webm"])
    splits, _, problems = read_benchmark("msrvtt", tmp_path / "source")
    assert [item.captions[0][0] for item in splits["1k-A"]["test"]] == [
        "a person is connecting something to system",
        "a woman creating a fondant baby and flower",
    ]
    assert len(problems) == 998 and not splits["full"]["test"]
