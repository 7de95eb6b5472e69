import shutil

import pytest
from helpers import prepare_benchmark, read_benchmark, touch

from fgmm_tools.cli import UserError
from processing_fgmm.corpora_fgmm import list_configs, load_corpus


def test_ucf101_real_splits(real_data):
    splits, classes, problems = read_benchmark("ucf101", real_data / "ucf101")
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
    splits, classes, problems = read_benchmark("ucf101", tmp_path / "source")
    assert len(classes) == 101 and classes[100] == "yo yo" and len(problems) == 13320 - 2
    items = {item.path.name: item for item in splits["split1"]["train"] + splits["split1"]["test"]}
    assert items[files[0]].label == 36 and items[files[1]].label == 100
    index = tmp_path / "source" / "ucfTrainTestlist" / "classInd.txt"
    index.write_text("1 HandstandPushups\n")
    problems = read_benchmark("ucf101", tmp_path / "source")[2]
    assert "YoYo/v_YoYo_g08_c01.avi is of a class that classInd.txt lacks" in problems
    index.write_text("HandstandPushups\n")
    with pytest.raises(UserError, match=r"classInd.txt cannot be read as published \(IndexError"):
        read_benchmark("ucf101", tmp_path / "source")


def test_ucf101_end_to_end_stores_each_clip_once(real_data, tmp_path):
    prepare_benchmark("ucf101", real_data / "ucf101", tmp_path / "out", limit=6)
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
