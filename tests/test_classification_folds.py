import numpy as np
import pyarrow.parquet as parquet
import pytest
from datasets import ClassLabel, List, Value
from helpers import CLASS_NAMES, write_labelled_corpus, write_sound

from fgmm_tools.classification import folds
from fgmm_tools.classification.settings import HELD_OUT
from fgmm_tools.cli import UserError
from processing_fgmm.corpora_fgmm import CorpusError, load_corpus
from processing_fgmm.orders_fgmm import ClipOrder

CONFIGS = {"default": {"train": ["a"]}}


@pytest.fixture(scope="module")
def rows(sounds) -> list[dict]:
    return parquet.read_table(sounds / "data" / "a.parquet").to_pylist()


def test_held_out_clips_are_of_the_training_split(rows, tmp_path):
    folder = str(write_labelled_corpus(tmp_path / "corpus", {"a": rows}, CONFIGS, label=ClassLabel(names=CLASS_NAMES)))
    classes = folds.read_classes(load_corpus(folder, "train"), folder)
    train, evaluated = folds.read_fold(folder, "default", HELD_OUT, classes, 0)
    assert train.labels and evaluated.labels and not set(train.labels) & set(evaluated.labels)
    assert {**train.labels, **evaluated.labels} == {row["video_id"]: row["label"] for row in rows}
    for part in (train, evaluated):
        assert {row["video_id"]: row["label"] for row in part.corpus} == part.labels


def test_official_splits(sounds):
    classes = folds.read_classes(load_corpus(str(sounds), "test", "fold1"), str(sounds))
    assert classes == folds.Classes(CLASS_NAMES, multi_label=False)
    train, evaluated = folds.read_fold(str(sounds), "fold1", "test", classes, 0)
    assert (len(train.labels), len(evaluated.labels)) == (30, 15)
    assert {name[0] for name in evaluated.labels} == {"1"} and {name[0] for name in train.labels} == {"2", "3"}


def test_a_split_that_does_not_exist_is_named(sounds):
    with pytest.raises(CorpusError, match="no split 'validation'"):
        folds.read_split(str(sounds), "validation", "fold1")


@pytest.mark.parametrize(
    "change,message",
    [
        (lambda rows: [rows[0], *rows], "twice"),
        (lambda rows: [{**rows[0], "label": None}, *rows[1:]], "no label"),
        (lambda rows: [row for row in rows if row["label"] == 1], "fewer than two classes"),
    ],
)
def test_corpora_without_usable_labels_are_named(rows, tmp_path, change, message):
    label = ClassLabel(names=CLASS_NAMES)
    folder = str(write_labelled_corpus(tmp_path / "corpus", {"a": change(rows)}, CONFIGS, label=label))
    classes = folds.read_classes(load_corpus(folder, "train"), folder)
    with pytest.raises(UserError, match=message):
        folds.read_fold(folder, "default", "train", classes, 0)


def test_labels_come_from_class_names(rows, tmp_path):
    plain = [{"video_id": "a", "audio": rows[0]["audio"]}]
    folder = str(write_labelled_corpus(tmp_path / "plain", {"a": plain}, CONFIGS))
    with pytest.raises(UserError, match="no column 'label'"):
        folds.read_classes(load_corpus(folder, "train"), folder)
    several = [{**plain[0], "label": [2, 0]}]
    label = List(ClassLabel(names=CLASS_NAMES))
    folder = str(write_labelled_corpus(tmp_path / "several", {"a": several}, CONFIGS, label=label))
    classes = folds.read_classes(load_corpus(folder, "train"), folder)
    assert classes.multi_label and classes.targets([[2, 0], []]).tolist() == [[1, 0, 1], [0, 0, 0]]
    assert classes.model_labels([[1]]).tolist() == [[0.0, 1.0, 0.0]]
    assert folds.Classes(CLASS_NAMES, multi_label=False).model_labels([2, 0]).tolist() == [2, 0]


def test_held_out_clips_are_of_no_group_that_is_trained_on(rows, tmp_path):
    rows = [{**row, "group": f"speaker-{place % 5}"} for place, row in enumerate(rows)]
    features = {"label": ClassLabel(names=CLASS_NAMES), "group": Value("string")}
    folder = str(write_labelled_corpus(tmp_path / "corpus", {"a": rows}, CONFIGS, **features))
    classes = folds.read_classes(load_corpus(folder, "train"), folder)
    train, held_out = folds.read_fold(folder, "default", HELD_OUT, classes, 0)
    groups = [{part.groups[name] for name in part.labels} for part in (train, held_out)]
    assert all(groups) and not groups[0] & groups[1] and set.union(*groups) == {row["group"] for row in rows}


def test_batches_of_rows_sorted_by_class_are_mixed(rows, tmp_path):
    rows = [{"video_id": str(place), "audio": rows[0]["audio"], "label": place // 100} for place in range(300)]
    folder = write_labelled_corpus(tmp_path / "corpus", {"a": rows}, CONFIGS, label=ClassLabel(names=CLASS_NAMES))
    split = folds.read_split(str(folder), "train", "default").keep(map(str, range(10, 300)))
    order, batches = ClipOrder([split.row_groups()], [1.0], 0, 4096), []
    state = order.start()
    while state.number < 290:
        draws, state = order.next_batch(state, 15)
        read = [order.corpora[0].read(draw.place.group)(draw.place.row) for draw in draws]
        assert all(split.labels[row["video_id"]] == row["label"] for row in read)
        batches.append([row["video_id"] for row in read])
    assert sorted(int(name) for names in batches for name in names) == list(range(10, 300))
    assert np.mean([len({split.labels[name] for name in names}) for names in batches]) > 2.8


def test_a_folder_of_media_files_has_row_groups(tmp_path):
    for label in CLASS_NAMES:
        folder = tmp_path / "sounds" / label
        folder.mkdir(parents=True)
        for number in range(10):
            write_sound(folder / f"{number}.wav", seconds=0.1)
    split = folds.read_split(str(tmp_path / "sounds"), "train", "default")
    rows = split.row_groups()
    assert [rows.read(0)(row)["video_id"] for row in range(30)] == rows.read_ids(0) == list(split.labels)


@pytest.mark.parametrize(
    "video_id,group",
    [
        ("v_PushUps_g07_c03", "v_PushUps_g07"),
        ("1-100032-A-0", "1-100032"),
        ("bed/00176480_nohash_1", "00176480"),
        ("kitchen-01", "kitchen-01"),
    ],
)
def test_recordings_are_read_from_names(video_id, group):
    assert folds.group_of(video_id) == group


@pytest.mark.parametrize("several", [False, True])
def test_no_recording_is_in_both_parts(several):
    generator = np.random.default_rng(0)
    groups = [f"g{number // 3}" for number in range(60)]
    targets = np.eye(2, dtype=int)[generator.integers(2, size=60)] + several
    for train, validation in folds.split_groups(targets, groups, 0):
        assert not {groups[i] for i in train} & {groups[i] for i in validation}
        assert len(train) + len(validation) == 60


def test_one_recording_cannot_be_split():
    with pytest.raises(ValueError, match="all of one recording"):
        folds.split_groups(np.eye(2, dtype=int), ["a", "a"], 0)
