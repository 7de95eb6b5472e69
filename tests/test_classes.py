import pytest
from helpers import prepare_benchmark, write_sound
from hypothesis import given
from hypothesis import strategies as st

from fgmm_tools.cli import UserError
from fgmm_tools.corpora.benchmarks.layout import Item
from fgmm_tools.corpora.options import OwnFiles
from fgmm_tools.corpora.own_files.splits import divide, group_of
from processing_fgmm.corpora_fgmm import load_corpus


@pytest.fixture
def prepare(tmp_path):
    """Makes the corpus of the folder `source`, or of a file in it: {split: {video_id: names of its classes}}."""

    def make(source="", **options):
        prepare_benchmark("classes", tmp_path / "source" / source, tmp_path / "out", own_files=OwnFiles(**options))
        splits = sorted({path.name.partition("-")[0] for path in (tmp_path / "out/data").iterdir()})
        return {split: read_labels(load_corpus(str(tmp_path / "out"), split)) for split in splits}

    return make


def read_labels(corpus):
    label = corpus.features["label"]
    classes = getattr(label, "feature", label)
    return {row["video_id"]: classes.int2str(row["label"]) for row in corpus}


def test_a_folder_is_a_class_whatever_is_in_it(prepare, put, tmp_path, capsys):
    put("dog/a.jpg")
    put("dog/puppies/a.jpg")
    put("dog/b.mp4")
    put("cat/a.jpg")
    write_sound(tmp_path / "source/cat/b.wav")
    put("cat/broken.jpg", "no picture")
    put("readme.jpg")
    labels = prepare()["train"]
    assert labels == {"dog/a": "dog", "dog/puppies/a": "dog", "dog/b": "dog", "cat/a": "cat", "cat/b": "cat"}
    printed = capsys.readouterr().out
    assert "readme.jpg is in no folder of a class" in printed and "cat/broken.jpg is not an image" in printed
    row = next(row for row in load_corpus(str(tmp_path / "out"), "train") if row["video_id"] == "cat/b")
    assert row["audio"]["bytes"] and row["image"] is None and row["video"] is None
    assert "Files of the person who made this corpus" in (tmp_path / "out/README.md").read_text()


def test_classes_may_be_in_folders_of_splits(prepare, put, capsys):
    for name in ("train/dog/a", "train/cat/a", "valid/dog/a", "test/cow/a"):
        put(f"{name}.jpg")
    assert prepare() == {
        "train": {"train/dog/a": "dog", "train/cat/a": "cat"},
        "validation": {"valid/dog/a": "dog"},
        "test": {"test/cow/a": "cow"},
    }
    assert "No training item is of 'cow'." in capsys.readouterr().out


def test_a_table_lists_labels_splits_and_groups(prepare, put, tmp_path):
    for name in ("media/a.jpg", "media/b.mp4", "media/c.wav", "d.jpg"):
        put(name)
    rows = [
        ["path", "label", "split", "group"],
        ["media/a.jpg", "10", "train", "x"],
        ["media\\b.mp4", "9", "Val", "y"],
        ["media/c.wav", "9", "train", ""],
        ["d.jpg", "", "train", ""],
        ["d.jpg", "11", "holdout", ""],
    ]
    put("list.csv", rows)
    assert prepare("list.csv") == {"train": {"media/a": "10", "media/c": "9"}, "validation": {"media/b": "9"}}
    corpus = load_corpus(str(tmp_path / "out"), "train")
    assert corpus.features["label"].names == ["9", "10"]
    assert {row["video_id"]: row["group"] for row in corpus} == {"media/a": "x", "media/c": None}


def test_a_file_may_have_several_labels_and_a_table_other_names(prepare, put, capsys):
    for name in "abc":
        put(f"{name}.jpg")
    put("list.tsv", "\ufefffile\ttags\tstart\na.jpg\tdog|big\t3\nb.jpg\tcat\t4\nc.jpg\t|\t5\n")
    options = {"columns": {"path": "file", "label": "tags", "start": ""}, "label_separator": "|"}
    labels = prepare("list.tsv", **options)
    assert labels == {"train": {"a": ["dog", "big"], "b": ["cat"]}}
    assert "Problem: c.jpg has no label (line 4 of list.tsv).\nProblems: 1, which" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("table", "options", "message"),
    [
        ("file;label\na.jpg;x\n", {}, r"list\.csv has no column 'path' but file, label; --columns path=NAME says"),
        ("path,label\na.jpg,x\n", {"columns": {"label": "kind"}}, "has no column 'kind' but path, label"),
        ("", {}, "has no column 'path' but none"),
        ("path,label\nnone.jpg,x\n", {}, r"names no file that can be read, where paths are relative to .*source"),
        ("path,label\na.jpg,x\n", {}, "has only the class 'x'"),
        ("path,label\na.jpg,\n", {}, "has no class; --source is a folder that holds one folder a class"),
        ("path,label\na.jpg,x\na.jpg,y\n", {}, "has no class"),
        ("path,label,split,group\na.jpg,x,train,g\nb.jpg,y,test,g\n", {}, "The group 'g' is in the splits"),
        ("path,label,group\na.jpg,x,g\nb.jpg,y,h\n", {"group_pattern": "."}, "leave out --group_pattern"),
        ("path,label\na.jpg,x\nb.jpg,y\n", {"language": "en"}, "--language does not apply to .*, which is a table"),
        (b"path,label\n\x81", {}, "is not text in UTF-8"),
    ],
)
def test_tables_that_cannot_be_read_are_explained(prepare, put, tmp_path, table, options, message):
    put("a.jpg")
    put("b.jpg")
    (tmp_path / "source/list.csv").write_bytes(table if isinstance(table, bytes) else table.encode())
    with pytest.raises(UserError, match=message):
        prepare("list.csv", **options)
    assert not (tmp_path / "out").exists()


@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 2)), min_size=8, max_size=60),
    st.sampled_from([0.1, 0.3]),
    st.sampled_from([0.0, 0.2]),
    st.integers(0, 3),
)
def test_shares_keep_groups_together(members, test_share, validation_share, seed):
    items = [Item(f"g{group}/{place}", (), label=label) for place, (group, label) in enumerate(members)]
    options = OwnFiles(group_pattern="^g[0-9]", test_share=test_share, validation_share=validation_share, seed=seed)
    try:
        splits = divide(items, [None] * len(items), options)
    except UserError as error:
        assert "cannot be divided" in str(error)
        assert len({group for group, _ in members}) <= 2
        return
    assert sorted(item.video_id for part in splits.values() for item in part) == sorted(i.video_id for i in items)
    groups = [{group_of(item) for item in part} for part in splits.values()]
    assert sum(map(len, groups)) == len(set().union(*groups))
    assert splits.keys() == {"train", "test"} | ({"validation"} if validation_share else set())
    assert divide(items[::-1], [None] * len(items), options).keys() == splits.keys()


def test_shares_have_like_numbers_of_each_class():
    items = [Item(str(place), (), label=place % 4) for place in range(400)]
    splits = divide(items, [None] * 400, OwnFiles(test_share=0.1, validation_share=0.2))
    for split, number in (("test", 10), ("validation", 20), ("train", 70)):
        counts = [sum(item.label == label for item in splits[split]) for label in range(4)]
        assert counts == pytest.approx([number] * 4, abs=1)
