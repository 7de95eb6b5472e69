import os
import signal
import subprocess
import sys
import time

import pyarrow.parquet as parquet
import pytest
from helpers import prepare_benchmark

from fgmm_tools.cli import UserError
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


def test_shards_are_smaller_where_media_are_large(put, tmp_path, media, monkeypatch):
    for index in range(6):
        put(f"{index}.mp4")
        put(f"{index}.srt", "1\n00:00:00,100 --> 00:00:00,400\nhi\n")
    monkeypatch.setattr(parquet_shards, "BYTES_PER_SHARD", 2 * media[".mp4"].stat().st_size)
    prepare_benchmark("folder", tmp_path / "source", tmp_path / "out")
    assert len(list((tmp_path / "out" / "data").iterdir())) == 3
    assert len(list(load_corpus(str(tmp_path / "out"), "train"))) == 6


def test_large_files_are_spread_over_shards(monkeypatch):
    monkeypatch.setattr(parquet_shards, "BYTES_PER_SHARD", 100)
    sizes = [90] * 4 + [1] * 396
    parts = parquet_shards.split_evenly(list(range(400)), sizes)
    assert [item for part in parts for item in part] == list(range(400))
    assert max(sum(sizes[item] for item in part) for part in parts) < 100 + 90 and len(parts) <= 8
    assert [len(part) for part in parquet_shards.split_evenly(list(range(512)), [0] * 512)] == [256, 256]
    assert all(parquet_shards.split_evenly([1, 2, 3], [1000, 1, 1000]))


def test_media_of_other_sizes_are_not_written_beside_the_former(put, tmp_path, monkeypatch):
    for index in range(2):
        put(f"{index}.mp4")
        put(f"{index}.srt", "1\n00:00:00,100 --> 00:00:00,400\nhi\n")
    prepare_benchmark("folder", tmp_path / "source", tmp_path / "out")
    (tmp_path / "out" / "README.md").unlink()  # as if the run had been stopped
    monkeypatch.setattr(parquet_shards, "BYTES_PER_SHARD", 10)
    with pytest.raises(UserError, match="media of other sizes"):
        prepare_benchmark("folder", tmp_path / "source", tmp_path / "out")


STOP_SCRIPT = """
import signal, sys, time
from pathlib import Path
from fgmm_tools.corpora import parquet_shards
from fgmm_tools.corpora.parquet_shards import corpus_features, make_shards, write_shard

def make_rows(items):
    time.sleep(0.2)
    return [{"video_id": str(item), "video": {"bytes": b"x", "path": None}, "captions": []} for item in items]

signal.signal(signal.SIGINT, signal.default_int_handler)  # which a process in the background may lack
parquet_shards.ROWS_PER_SHARD = 1
output = Path(sys.argv[1])
(output / "data").mkdir(parents=True)
parquet_shards.make_shards(output, "train", list(range(100)), make_rows, parquet_shards.corpus_features("video"), 1)
"""


def test_an_interrupted_run_stops_at_once(tmp_path):
    command = [sys.executable, "-c", STOP_SCRIPT, str(tmp_path / "out")]
    run = subprocess.Popen(command, stderr=subprocess.PIPE, start_new_session=True)
    until = time.monotonic() + 60
    while not list((tmp_path / "out").glob("data/*.parquet")) and time.monotonic() < until:
        time.sleep(0.05)
    os.killpg(run.pid, signal.SIGINT)
    run.communicate(timeout=60)
    assert 1 <= len(list((tmp_path / "out" / "data").glob("*.parquet"))) < 50
