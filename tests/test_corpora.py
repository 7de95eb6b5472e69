import pytest
import yaml
from datasets import Dataset, Features, List, Value, Video
from helpers import make_caption

from fgmm_tools.corpora.parquet_shards import corpus_features, write_shard
from processing_fgmm.corpora_fgmm import CorpusError, check_times, list_configs, load_corpus

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
    with pytest.raises(CorpusError, match="empty' holds no Parquet files"):
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
        ("none", [], "In the corpus 'none' is no caption"),
        (
            "some",
            [make_caption("a", 0.0, 1.0), make_caption("b")],
            "'b' of clip-0 in the corpus 'some' has no start and end",
        ),
    ):
        write_rows(tmp_path / name / "train-00000-of-00001.parquet", captions, ["clip-0"])
        with pytest.raises(CorpusError, match=message):
            check_times(load_corpus(str(tmp_path / name), "train"))
