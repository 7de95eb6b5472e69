import io
import logging
import shutil
import time
import tracemalloc

import fsspec
import numpy as np
import pyarrow.parquet as parquet
import pytest
from datasets import config
from fsspec.implementations.memory import MemoryFileSystem
from helpers import write_shards, write_sound

from fgmm_tools.corpora.parquet_shards import corpus_features
from processing_fgmm import rowgroups_fgmm, stores_fgmm
from processing_fgmm.corpora_fgmm import CorpusError
from processing_fgmm.orders_fgmm import ClipOrder, StreamState
from processing_fgmm.rowgroups_fgmm import (
    ParquetRows,
    RowGroupError,
    SelectedRows,
    explain_change,
    load_footers,
    open_row_groups,
)
from processing_fgmm.streams_fgmm import NarratedClips, WindowReader

NUM_ROWS = 61


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty cache of `datasets`, and stores that are asked again at once."""
    monkeypatch.setattr(config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(stores_fgmm, "RETRY_SECONDS", (0, 0))
    rowgroups_fgmm.read_metadata.cache_clear()
    return tmp_path / "cache" / "fgmm_footers"


def make_rows() -> list[dict]:
    """Rows with pictures of 20 kB that nothing decodes."""
    generator = np.random.default_rng(0)
    images = [{"bytes": generator.bytes(20_000), "path": f"{index}.jpg"} for index in range(NUM_ROWS)]
    return [{"video_id": str(index), "image": image, "captions": []} for index, image in enumerate(images)]


@pytest.fixture
def folder(tmp_path):
    return write_shards(tmp_path / "corpus", make_rows(), 3)


def read_all(rows) -> list[dict]:
    return [read(row) for group, size in enumerate(rows.sizes) for read in [rows.read(group)] for row in range(size)]


def test_all_rows_are_read_as_they_were_written(folder):
    rows = open_row_groups(str(folder), "train")
    assert rows.sizes.tolist() == [4, 4, 4, 4, 4, 1, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4] and rows.num_rows == NUM_ROWS
    read = sorted(read_all(rows), key=lambda row: int(row["video_id"]))
    assert read == make_rows()
    assert [rows.read_ids(group)[0] for group in range(2)] == ["0", "12"]
    assert 20_000 * NUM_ROWS / 16 < rows.group_bytes < 21_000 * NUM_ROWS / 16


def test_footers_are_read_once(folder, cache, monkeypatch):
    first = open_row_groups(str(folder), "train")
    assert len(list(cache.iterdir())) == 1
    monkeypatch.setattr(rowgroups_fgmm, "read_footers", None)
    again = open_row_groups(str(folder), "train")
    assert again.fingerprint == first.fingerprint and read_all(again) == read_all(first)
    monkeypatch.undo()
    moved = open_row_groups(str(shutil.copytree(folder, folder.parent / "moved")), "train")
    assert moved.fingerprint == first.fingerprint and explain_change(first.describe(), moved.describe()) is None


def test_what_has_changed_is_said(folder, tmp_path):
    before = open_row_groups(str(folder), "train").describe()
    names = [f"train-{shard:05d}-of-00003.parquet" for shard in range(3)]
    changed = shutil.copytree(folder, tmp_path / "changed")
    (changed / "data" / names[0]).unlink()
    shutil.copy(folder / "data" / names[0], changed / "data" / names[1])
    shutil.copy(folder / "data" / names[2], changed / "data" / "train-00003-of-00003.parquet")
    change = explain_change(before, open_row_groups(str(changed), "train").describe())
    assert change == (
        "it had 61 rows in 16 row groups and has 61 in 16; train-00003-of-00003.parquet was added, "
        f"{names[0]} is gone, {names[1]} has changed"
    )


def test_a_shard_that_is_cut_short_is_named_before_anything_is_read(folder):
    path = folder / "data" / "train-00001-of-00003.parquet"
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(CorpusError, match=r"train-00001-of-00003.parquet.*(footer|magic)"):
        open_row_groups(str(folder), "train")


def test_files_without_rows_are_no_corpus(tmp_path):
    with pytest.raises(CorpusError, match="has no rows"):
        open_row_groups(str(write_shards(tmp_path, [], 1)), "train")


def test_a_shard_that_is_lost_or_cut_later_costs_its_row_groups_alone(folder):
    rows = open_row_groups(str(folder), "train")
    lost, cut = folder / "data" / "train-00000-of-00003.parquet", folder / "data" / "train-00002-of-00003.parquet"
    lost.unlink()
    data = cut.read_bytes()
    cut.write_bytes(data[: len(data) // 2])
    with pytest.raises(
        RowGroupError, match=r"Row group 3 of train-00000-of-00003.parquet cannot be read: FileNotFound"
    ):
        rows.read(3)
    assert rows.read(8)(0)["video_id"] == "25"
    with pytest.raises(RowGroupError, match=r"Row group 4 of train-00002-of-00003.parquet cannot be read"):
        rows.read(15)


class Store(MemoryFileSystem):
    """A remote store that counts the bytes that are read, and fails as often as it is told to."""

    protocol = "store"
    store, pseudo_dirs = {}, [""]
    num_bytes = failures = 0

    def _open(self, path, mode="rb", **options):
        file = super()._open(path, mode, **options)
        return CountingFile(file.getvalue()) if mode == "rb" else file


class CountingFile(io.BytesIO):
    def read(self, *arguments):
        if Store.failures:
            Store.failures -= 1
            raise ConnectionError("503 Service Unavailable")
        data = super().read(*arguments)
        Store.num_bytes += len(data)
        return data


@pytest.fixture
def remote(folder):
    """The row groups of the corpus in a store."""
    fsspec.register_implementation("store", Store, clobber=True)
    files = []
    for path in sorted((folder / "data").iterdir()):
        files.append(f"store://bucket/{path.name}")
        with fsspec.open(files[-1], "wb") as file:
            file.write(path.read_bytes())
    Store.num_bytes = Store.failures = 0
    return ParquetRows("remote", files, ["etag"] * 3, corpus_features("image"))


def test_a_store_that_fails_is_asked_again(remote, caplog):
    Store.failures = 2
    with caplog.at_level(logging.WARNING, "processing_fgmm.stores_fgmm"):
        assert remote.read(0)(0)["video_id"] == "0"
    assert "Row group 0 of train-00000-of-00003.parquet cannot be read (503 Service Unavailable)" in caplog.text
    Store.failures = 100
    with pytest.raises(RowGroupError, match="ConnectionError: 503 Service Unavailable"):
        remote.read(1)
    Store.failures = 0


@pytest.mark.parametrize("num_workers", [0, 1, 2, 3, 4])
def test_each_byte_is_read_once_by_one_worker(remote, num_workers):
    """At most 1.1 times the bytes of the files, though each worker reads the footers."""
    needed, seen = int(remote.file_bytes.sum()), []
    Store.num_bytes, num_workers = 0, max(1, num_workers)  # without workers the process reads all
    for worker in range(num_workers):
        rowgroups_fgmm.read_metadata.cache_clear()  # as in a process of its own
        clips, reader = NarratedClips([remote], None, batch_size=8), WindowReader(remote)
        state = clips.state
        while state.number < NUM_ROWS:
            draws, state = clips.order.next_batch(state, 8)
            own = [draw for draw in draws if clips.owner(draw, num_workers) == (0, worker)]
            seen += [reader.read(draw)["video_id"] for draw in own]
    assert sorted(seen, key=int) == [str(index) for index in range(NUM_ROWS)]
    assert 0.99 <= Store.num_bytes / needed <= 1.1


@pytest.mark.parametrize("position", [0, 13, 60])
def test_to_go_on_reads_less_than_two_row_groups(remote, position):
    Store.num_bytes = 0
    order = ClipOrder([remote], [1.0], 0, 8)
    draws, _ = order.next_batch(type(order.start())(position, ((0, position),)), 1)
    WindowReader(remote).read(draws[0])
    assert Store.num_bytes < 2 * remote.group_bytes


SHARD_ROWS = 240


@pytest.fixture
def endless(tmp_path, cache, monkeypatch):
    """A function that makes the plan of any number of shards, each a name of one of SHARD_ROWS rows in a store."""
    fsspec.register_implementation("store", Store, clobber=True)
    folder = write_shards(tmp_path / "one", (make_rows() * 4)[:SHARD_ROWS], 1, group_rows=16)
    [path] = (folder / "data").iterdir()
    monkeypatch.setattr(Store, "_open", lambda *arguments, **options: CountingFile(path.read_bytes()))
    footers = rowgroups_fgmm.read_footers("one", [str(path)])
    num_groups = len(footers["sizes"])

    def repeat(name: str, files: list[str]) -> dict:
        many = {key: np.repeat(footers[key], len(files)) for key in ("file_bytes", "footer_bytes", "digests")}
        sizes = np.tile(footers["sizes"], len(files))
        return {**many, "first_groups": num_groups * np.arange(len(files)), "sizes": sizes}

    monkeypatch.setattr(rowgroups_fgmm, "read_footers", repeat)

    def make(num_shards: int) -> ParquetRows:
        files = [f"store://bucket/train-{shard:07d}.parquet" for shard in range(num_shards)]
        return ParquetRows("endless", files, [None] * num_shards, corpus_features("image"))

    return make


@pytest.mark.parametrize("place", [10, 10_000_000])
def test_to_go_on_in_a_plan_of_millions_of_rows_takes_seconds_and_one_row_group(endless, cache, monkeypatch, place):
    """From nothing but the footers in the cache."""
    assert endless(42_000).num_rows == 42_000 * SHARD_ROWS and len(list(cache.iterdir())) == 1
    monkeypatch.setattr(rowgroups_fgmm, "read_footers", None)
    Store.num_bytes, started = 0, time.process_time()
    rows = endless(42_000)
    clips = NarratedClips([rows], None, batch_size=1, state=StreamState(place, ((0, place),)))
    [draw], _ = clips.order.next_batch(clips.state, 1)
    assert WindowReader(rows).read(draw)["image"]["bytes"]
    assert time.process_time() - started < 5 and rows.group_bytes / 2 < Store.num_bytes < 2 * rows.group_bytes


def test_a_plan_of_a_hundred_million_rows_takes_seconds_and_megabytes(endless, monkeypatch):
    """Shards of half a gigabyte in row groups of 64; of the processor, as tests share machines."""
    sizes = np.full(100_000_000 // 64, 64, np.int32)
    shards = len(sizes) // 32

    def make_footers(name, files):
        values = {"file_bytes": (500_000_000, np.int64), "footer_bytes": (20_000, np.int32), "digests": (7, np.uint64)}
        several = {key: np.full(len(files), value, dtype) for key, (value, dtype) in values.items()}
        return {**several, "first_groups": 32 * np.arange(len(files)), "sizes": sizes[: 32 * len(files)]}

    monkeypatch.setattr(rowgroups_fgmm, "read_footers", make_footers)
    tracemalloc.start()
    started = time.process_time()
    endless(shards)
    monkeypatch.setattr(rowgroups_fgmm, "read_footers", None)
    rows = endless(shards)
    order = ClipOrder([rows], [1.0], 0, 1024)
    order.next_batch(order.start(), 256)
    seconds, (_, peak) = time.process_time() - started, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert rows.num_rows > 99_990_000 and seconds < 10 and peak < 100e6


def test_large_footers_are_read_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(rowgroups_fgmm, "TAIL_BYTES", 16)
    folder = write_shards(tmp_path, make_rows(), 1)
    [file] = map(str, (folder / "data").iterdir())
    footers = load_footers("corpus", [file], [None])
    metadata = parquet.read_metadata(file)
    assert footers["sizes"].sum() == metadata.num_rows and len(footers["sizes"]) == metadata.num_row_groups
    assert footers["footer_bytes"] == [metadata.serialized_size + 8]


def test_some_rows_are_selected_without_reading_media(remote):
    Store.num_bytes = 0
    some = SelectedRows(remote, {"0", "3", "44", "60"})
    assert Store.num_bytes < 0.1 * int(remote.file_bytes.sum())
    assert some.num_rows == 4 and {row["video_id"] for row in read_all(some)} == {"0", "3", "44", "60"}
    assert [some.read_ids(group) for group in range(len(some.sizes))] == [["0", "3"], ["60"], ["44"]]


def test_a_folder_of_media_files_is_a_table(tmp_path):
    for number in range(70):
        write_sound(tmp_path / "sounds" / f"{number:02d}.wav", seconds=0.1) if number else (tmp_path / "sounds").mkdir()
    rows = open_row_groups(str(tmp_path / "sounds"), "train")
    assert rows.sizes.tolist() == [64, 5] and rows.read(1)(4)["video_id"] == "69.wav"
    assert rows.read_ids(1) == [rows.read(1)(row)["video_id"] for row in range(5)]
    before = rows.describe()
    (tmp_path / "sounds" / "01.wav").unlink()
    change = explain_change(before, open_row_groups(str(tmp_path / "sounds"), "train").describe())
    assert change == "it had 69 rows in 2 row groups and has 68 in 2"
