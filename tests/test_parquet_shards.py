import pyarrow.parquet as parquet
import pytest

from fgmm_tools.corpora import parquet_shards
from fgmm_tools.corpora.parquet_shards import corpus_features, make_shards, write_shard
from processing_fgmm.corpora_fgmm import load_corpus


def make_rows(items):
    if "boom" in items:
        raise RuntimeError("boom")
    return [{"video_id": item, "video": {"bytes": b"x", "path": None}, "captions": []} for item in items]


def test_shards_are_whole_or_absent(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet_shards, "ROWS_PER_SHARD", 2)
    (tmp_path / "data").mkdir()
    with pytest.raises(RuntimeError, match="boom"):
        make_shards(tmp_path, "train", ["a", "b", "c", "boom"], make_rows, corpus_features("video"), 1)
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == ["train-00000-of-00002.parquet"]
    before = (tmp_path / "data" / "train-00000-of-00002.parquet").stat().st_mtime_ns
    make_shards(tmp_path, "train", ["a", "b", "c", "d"], make_rows, corpus_features("video"), 1)
    assert [row["video_id"] for row in load_corpus(str(tmp_path), "train")] == ["a", "b", "c", "d"]
    assert (tmp_path / "data" / "train-00000-of-00002.parquet").stat().st_mtime_ns == before


def test_row_groups_are_smaller_where_media_are_large(tmp_path, monkeypatch):
    rows = [{"video_id": str(i), "video": {"bytes": bytes(1000), "path": None}, "captions": []} for i in range(10)]
    write_shard(tmp_path / "one.parquet", rows, corpus_features("video"))
    monkeypatch.setattr(parquet_shards, "BYTES_PER_GROUP", 3500)
    write_shard(tmp_path / "several.parquet", rows, corpus_features("video"))
    groups = [parquet.read_metadata(tmp_path / name).num_row_groups for name in ("one.parquet", "several.parquet")]
    assert groups == [1, 4]
