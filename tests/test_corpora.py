import math
import re
import shutil
from pathlib import Path

import pytest
import yaml
from datasets import Dataset, Features, List, Value, Video, config
from helpers import ROOT, make_caption, write_sound
from hypothesis import given
from hypothesis import strategies as st

from fgmm_tools.corpora.parquet_shards import corpus_features, write_shard
from processing_fgmm.clips_fgmm import row_duration
from processing_fgmm.corpora_fgmm import (
    CorpusError,
    check_captions,
    check_times,
    list_configs,
    load_corpus,
    load_rows,
    usable_captions,
)

GUIDE = ROOT / "model_cards" / "training.md"
FILE = {"bytes": b"x", "path": "clip.mp4"}


def write_rows(path, captions=(), names=("a", "b")):
    """A shard of one row for each name; its media are never decoded."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [{"video_id": name, "video": FILE, "captions": list(captions)} for name in names]
    write_shard(path, rows, corpus_features("video"))


@pytest.fixture
def folder(tmp_path):
    """A corpus of two rows, `a` and `b`, in one split, `train`."""
    write_rows(tmp_path / "corpus" / "data" / "train-00000-of-00001.parquet", [make_caption("stir", 0.0, 1.0)])
    return tmp_path / "corpus"


def test_rows_are_streamed_with_undecoded_media(folder):
    rows = list(load_corpus(str(folder), "train"))
    assert [row["video_id"] for row in rows] == ["a", "b"] and rows[0]["video"] == FILE
    assert rows[0]["captions"] == [make_caption("stir", 0.0, 1.0)]


@pytest.mark.parametrize("name", ["my [1] corpus", "[ab]", "a*c?", "[[x]", "plain"])
def test_a_folder_may_have_any_name(tmp_path, name):
    """datasets takes characters such as [ in a path for a pattern; `ab` is what some of them would match."""
    write_rows(tmp_path / "a" / "data" / "train-00000-of-00001.parquet", names=("wrong",))
    folder = tmp_path / "up [2]" / name
    write_rows(folder / "data" / "train-00000-of-00001.parquet", names=("a", "b"))
    write_rows(folder / "data" / "test-00000-of-00001.parquet", names=("c",))
    assert list_configs(str(folder)) == ["default"]
    assert [row["video_id"] for row in load_corpus(str(folder), "train")] == ["a", "b"]
    assert [row["video_id"] for row in load_corpus(str(folder), "test")] == ["c"]
    with pytest.raises(CorpusError, match="has no split 'dev', only train, test"):
        load_corpus(str(folder), "dev")


def test_a_folder_of_any_name_has_the_configurations_of_its_card(tmp_path, monkeypatch):
    folder = tmp_path / "my[1]"
    for number in (1, 2):
        write_rows(folder / "data" / f"part{number}-00000.parquet", names=(f"part{number}",))
    files = [{"split": "train", "path": ["data/part1-*", "data/part2-00000.parquet"]}]
    swapped = [{"split": "train", "path": "data/part2-*"}, {"split": "test", "path": "data/part1-*"}]
    configs = [
        {"config_name": "all", "data_files": files},
        {"config_name": "split1", "data_files": swapped, "default": True},
    ]
    (folder / "README.md").write_text(f"---\n{yaml.safe_dump({'configs': configs})}---\n")
    monkeypatch.chdir(tmp_path)
    for path in (str(folder), "my[1]", "./my[1]/"):
        assert list_configs(path) == ["split1", "all"]
        assert [row["video_id"] for row in load_corpus(path, "train", "all")] == ["part1", "part2"]
        assert [row["video_id"] for row in load_corpus(path, "test")] == ["part1"]  # of the default
        with pytest.raises(CorpusError, match="no configuration 'split2', only all, split1"):
            load_corpus(path, "train", "split2")


def test_media_stay_undecoded_where_the_columns_would_decode_them(tmp_path):
    features = Features(video_id=Value("string"), video=Video())
    write_shard(tmp_path / "train-00000-of-00001.parquet", [{"video_id": "a", "video": FILE}], features)
    assert next(iter(load_corpus(str(tmp_path), "train")))["video"] == FILE


def test_any_row_is_at_hand_and_never_that_of_another_corpus_of_the_name(tmp_path, monkeypatch):
    monkeypatch.setattr(config, "HF_DATASETS_CACHE", tmp_path / "cache")
    for place, names in (("first", "ab"), ("second", "cde"), ("first", "fg")):
        write_rows(tmp_path / place / "corpus" / "train-00000-of-00001.parquet", [], names)
        rows = load_rows(str(tmp_path / place / "corpus"), "train", "default")
        assert rows["video_id"] == list(names) and rows[1]["video"] == FILE


@pytest.mark.parametrize(("column", "suffix"), [("image", ".jpg"), ("audio", ".wav"), ("video", ".mp4")])
def test_a_folder_of_media_files_is_a_corpus(tmp_path, media, column, suffix):
    """As imagefolder, audiofolder or videofolder of `datasets`: classes and splits are folders."""
    for name in ("train/cat/a", "train/dog/a", "test/cat/b"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(media[suffix], tmp_path / f"{name}{suffix}")
    corpus = load_corpus(str(tmp_path), "train")
    assert corpus.features["label"].names == ["cat", "dog"]
    rows = list(corpus)
    assert [row["video_id"] for row in rows] == [f"train/cat/a{suffix}", f"train/dog/a{suffix}"]
    assert [row["label"] for row in rows] == [0, 1]
    assert rows[0][column] == {"bytes": None, "path": str(tmp_path / f"train/cat/a{suffix}")}
    assert row_duration(rows[0]) == (0 if column == "image" else pytest.approx(0.3, abs=0.3))
    assert [row["video_id"] for row in load_corpus(str(tmp_path), "test")] == [f"test/cat/b{suffix}"]
    named = load_rows(str(tmp_path), "train", "default")
    assert named["video_id"] == [row["video_id"] for row in rows] and named[0] == rows[0]


@pytest.mark.parametrize(("name", "text"), [("text", '"a dog, barking"'), ("caption", "a dog")])
def test_texts_of_a_folder_of_media_files_are_captions(tmp_path, media, name, text):
    shutil.copy(media[".wav"], tmp_path / "a.wav")
    (tmp_path / "metadata.csv").write_text(f"file_name,{name},kind\na.wav,{text},x\n")
    [row] = load_corpus(str(tmp_path), "train")
    assert row["captions"] == [make_caption(text.strip('"'))] and (row["video_id"], row["kind"]) == ("a.wav", "x")
    (tmp_path / "metadata.csv").unlink()
    (tmp_path / "metadata.jsonl").write_text(f'{{"file_name": "a.wav", "{name}": ["a dog", "barks"], "label": 3}}\n')
    [row] = load_corpus(str(tmp_path), "train")
    assert row["captions"] == [make_caption("a dog"), make_caption("barks")] and row["label"] == 3


def test_the_recipe_of_the_guide_makes_a_corpus(tmp_path, monkeypatch):
    [recipe] = [
        block for block in re.findall("```python\n(.*?)```", GUIDE.read_text(), re.DOTALL) if "pyarrow" in block
    ]
    monkeypatch.chdir(tmp_path)
    write_sound(Path("kitchen-01.m4a"))
    exec(recipe, {})
    [row] = load_corpus("data/kitchen", "train")
    assert row["video_id"] == "kitchen-01" and row["captions"] == [make_caption("crack two eggs into a bowl", 3.2, 5.0)]
    assert row_duration(row) == pytest.approx(1.0, abs=0.1)


def write_columns(folder, columns, features):
    (folder / "data").mkdir(parents=True)
    Dataset.from_dict(columns, features=features).to_parquet(folder / "data" / "train-00000-of-00001.parquet")
    return str(folder)


def test_schema_errors_name_the_field(tmp_path):
    video, text = Video(decode=False), Value("string")
    media = [{"bytes": b"x", "path": None}]
    no_id = write_columns(tmp_path / "a", {"name": ["x"], "video": media}, Features(name=text, video=video))
    no_media = write_columns(tmp_path / "b", {"video_id": ["x"], "film": ["y"]}, Features(video_id=text, film=text))
    no_end = write_columns(
        tmp_path / "c",
        {"video_id": ["x"], "video": media, "captions": [[{"text": "a", "start": 0.0}]]},
        Features(video_id=text, video=video, captions=List({"text": text, "start": Value("float64")})),
    )
    for path, message in (
        (no_id, "no column 'video_id'; its columns are name, video"),
        (no_media, "'video', 'image', 'audio'; its columns are video_id, film"),
        (no_end, "lacks the field 'end'"),
    ):
        with pytest.raises(CorpusError, match=message):
            load_corpus(path, "train")


def test_missing_corpus_and_split_are_named(folder, tmp_path):
    with pytest.raises(CorpusError, match="nowhere"):
        load_corpus(str(tmp_path / "nowhere"), "train")
    with pytest.raises(CorpusError, match=r"'dev'.*only train"):
        load_corpus(str(folder), "dev")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CorpusError, match="empty' holds neither Parquet files nor media files"):
        load_corpus(str(tmp_path / "empty"), "train")


def test_configurations_are_official_splits(tmp_path):
    card = {"configs": []}
    for name in ("split1", "split2"):
        write_rows(tmp_path / "data" / name / "test-00000-of-00001.parquet", names=[name])
        card["configs"].append({"config_name": name, "data_files": [{"split": "test", "path": f"data/{name}/test-*"}]})

    def first(config_name):
        return next(iter(load_corpus(str(tmp_path), "test", config_name)))["video_id"]

    (tmp_path / "README.md").write_text(f"---\n{yaml.safe_dump(card)}---\n")
    assert list_configs(str(tmp_path)) == ["split1", "split2"]
    assert (first("split1"), first("split2"), first(None)) == ("split1", "split2", "split1")
    card["configs"][1]["default"] = True
    (tmp_path / "README.md").write_text(f"---\n{yaml.safe_dump(card)}---\n")
    assert first(None) == "split2"
    with pytest.raises(CorpusError, match=r"no configuration 'split3', only split1, split2"):
        load_corpus(str(tmp_path), "test", "split3")


CAPTION = {"text": "a ball", "start": 0.0, "end": 1.0}


@pytest.mark.parametrize(
    "changes,message",
    [
        ({"video": 7}, "The column 'video' of .* holds int64, not string or binary"),
        ({"video_id": 7}, "The column 'video_id' of .* holds int64, not string"),
        ({"captions": [{**CAPTION, "text": 7}]}, "The field 'text' of the captions of .* holds int64, not string"),
    ],
)
def test_columns_of_wrong_types_are_named(tmp_path, changes, message):
    row = {"video_id": "a", "video": b"x", "captions": [CAPTION], **changes}
    Dataset.from_list([row]).to_parquet(tmp_path / "data" / "train-00000-of-00001.parquet")
    with pytest.raises(CorpusError, match=message):
        load_corpus(str(tmp_path), "train")


def test_an_incomplete_corpus_is_refused(folder):
    (folder / "corpus.json").write_text("{}")
    with pytest.raises(CorpusError, match="corpus' is incomplete; run the command that makes it again"):
        load_corpus(str(folder), "train")
    (folder / "README.md").write_text("done")
    assert len(list(load_corpus(str(folder), "train"))) == 2


def test_captions_without_times_are_named(folder, tmp_path):
    check_times(load_corpus(str(folder), "train"))
    for name, captions, message in (
        ("none", [], "No caption of the corpus could be an item"),
        (
            "some",
            [make_caption("a", 0.0, 1.0), make_caption("b")],
            "'b' of clip-0 has no start and end",
        ),
    ):
        write_rows(tmp_path / name / "train-00000-of-00001.parquet", captions, ["clip-0"])
        with pytest.raises(CorpusError, match=message):
            check_times(load_corpus(str(tmp_path / name), "train"))


@pytest.mark.parametrize(
    ("caption", "used", "problem"),
    [
        (("stir", 1.0, 2.0), (1.0, 2.0), None),
        (("stir", None, None), (None, None), None),
        (("stir", math.nan, math.nan), (None, None), None),
        (("7", 1, 2), (1.0, 2.0), None),
        (("stir", "1.5", 2.0), (1.5, 2.0), None),
        ((None, 1.0, 2.0), None, "has no word"),
        ((["stir"], 1.0, 2.0), None, "has no word"),
        ((" - ", 1.0, 2.0), None, "has no word"),
        (("st\ud83d", 1.0, 2.0), None, "has half of a surrogate pair"),
        (("stir", 1.0, None), (1.0, 8.0), "has no end: it ends at 8 s"),
        (("stir", 1.0, math.nan), (1.0, 8.0), "has no end: it ends at 8 s"),
        (("stir", None, 2.0), None, "has no start"),
        (("stir", "soon", 2.0), None, "has a time that is no number"),
        (("stir", 10**400, 2.0), None, "has a time that is no number"),
        (("stir", 2.0, 1.0), None, "does not end after its start"),
        (("stir", 2.0, 2.0), None, "does not end after its start"),
        (("stir", math.inf, math.inf), None, "begins after the clip of 8 s"),
        (("stir", -2.0, -1.0), None, "ends before the clip begins"),
        (("stir", -2.0, 1.0), (0.0, 1.0), "begins before the clip: it is cut"),
        (("stir", 8.0, 9.0), None, "begins after the clip of 8 s"),
        (("stir", 7.0, 8.9), (7.0, 8.0), None),
        (("stir", 7.0, 9.1), (7.0, 8.0), "outlasts the clip of 8 s: it is cut"),
        (("stir", 7.0, math.inf), (7.0, 8.0), None),
        (("stir", -math.inf, 1.0), (0.0, 1.0), "begins before the clip: it is cut"),
    ],
)
def test_captions_are_repaired_or_left_out_by_one_rule(caption, used, problem):
    [(usable, found)] = check_captions([make_caption(*caption)], 8.0)
    assert usable == (None if used is None else make_caption(caption[0], *used))
    if problem is None:
        assert found is None
    else:
        assert f", which {problem}" in found and found.endswith(": left out") == (used is None)


def test_a_missing_end_is_the_next_start():
    captions = [
        make_caption("a", 1.0),
        make_caption("b", 1.0),
        make_caption("c", "x", 4.0),
        make_caption("d", 3.0, 4.0),
    ]
    used = [caption and (caption["start"], caption["end"]) for caption, _ in check_captions(captions)]
    assert used == [(1.0, 3.0), (1.0, 3.0), None, (3.0, 4.0)]
    assert check_captions([make_caption("a", 1.0)])[0][0]["end"] == math.inf  # the clip's, which is unknown here


def test_what_is_wrong_with_captions_is_named_by_row():
    captions = [make_caption("stir", 3.0, 2.0), None, {**make_caption("fold", 1.0, 2.0), "slide": 3}]
    problems = []
    assert usable_captions({"video_id": "clip-7", "captions": captions}, 8.0, problems) == [
        {"text": "fold", "start": 1.0, "end": 2.0, "slide": 3}
    ]
    assert problems == [
        "clip-7 has the caption 'stir' from 3.0 to 2.0 s, which does not end after its start: left out.",
        "clip-7 has the caption None, which has no word: left out.",
    ]
    assert usable_captions({"video_id": "clip-8", "captions": None}) == usable_captions({"video_id": "clip-9"}) == []


times = st.one_of(st.none(), st.floats(), st.integers(-3, 9), st.sampled_from(["", "1.5", "soon", [], True]))
texts = st.sampled_from([None, "stir", "", "…", "7", "\udc80 a", 7])
any_captions = st.lists(
    st.one_of(st.none(), st.fixed_dictionaries({"text": texts, "start": times, "end": times})), max_size=4
)


@given(any_captions, st.one_of(st.just(math.inf), st.floats(0.01, 100)))
def test_whatever_captions_hold_what_is_used_is_sound(captions, duration):
    checked = check_captions(captions, duration)
    assert len(checked) == len(captions)
    for usable, problem in checked:
        if usable is None:
            assert problem.endswith(": left out")
        elif usable["start"] is None:
            assert usable["end"] is None
        else:
            assert 0 <= usable["start"] < usable["end"] <= duration and usable["start"] < math.inf
        if usable:
            assert usable["text"].encode() and any(letter.isalnum() for letter in usable["text"])
    again = check_captions([usable for usable, _ in checked if usable], duration)
    assert again == [(usable, None) for usable, _ in checked if usable]
