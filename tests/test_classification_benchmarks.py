"""Readers for classification: slices of the real lists where they are at hand, else small files in the layout."""

import csv
import shutil

import pytest
from datasets import ClassLabel, List
from helpers import prepare, read, sizes, touch, write_esc50

from fgmm_tools.corpora.benchmarks.layout import LayoutError
from processing_fgmm.corpora_fgmm import list_configs, load_corpus


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
