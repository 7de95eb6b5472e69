"""The row groups of a corpus: how many rows each has, and reading any one of them.

The sizes of Parquet files' row groups are read from the files' footers alone, and cached beside the cache of
`datasets`. The rows of other corpora, such as folders of media files, are taken as row groups of equal size.
"""

import hashlib
import io
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from itertools import takewhile
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet as parquet
from datasets import Dataset, Features, config, load_dataset_builder
from datasets.packaged_modules.parquet.parquet import Parquet
from datasets.table import table_cast

from .corpora_fgmm import (
    CORPUS_COLUMNS,
    CorpusError,
    builder_arguments,
    corpus_errors,
    list_configs,
    load_corpus,
    load_rows,
)
from .stores_fgmm import open_file, with_retries

# Rows that are read together of a corpus that is not Parquet.
TABLE_GROUP_ROWS = 64
# Threads that read footers.
FOOTER_THREADS = 16
# Bytes from the end of a file that are read in one request, for most footers are shorter.
TAIL_BYTES = 65536
# Files that a message about a changed corpus names.
MAX_FILES_NAMED = 3


class RowGroupError(Exception):
    """A row group cannot be read.

    Attributes:
        place: what and where it is, for example "row group 2 of data/train-00000-of-00004.parquet".
        file: its path or address.
    """

    def __init__(self, place: str, file: str, cause: str):
        super().__init__(f"{place} cannot be read: {cause}")
        self.place = place
        self.file = file


class RowGroups(ABC):
    """Rows of a corpus, in groups that are read as one.

    Attributes:
        name: of the corpus, in messages.
        sizes: (groups,) int32, rows of each.
        group_bytes: mean size of a group, bytes.
        fingerprint: of all that is read.
    """

    name: str
    sizes: np.ndarray
    group_bytes: float
    fingerprint: str

    @property
    def num_rows(self) -> int:
        return int(self.sizes.sum(dtype=np.int64))

    def describe(self) -> dict:
        """What [`explain_change`] compares: number of rows and row groups, fingerprint, and files if they are known."""
        return {"rows": self.num_rows, "row_groups": len(self.sizes), "fingerprint": self.fingerprint, "files": {}}

    @abstractmethod
    def read_ids(self, group: int) -> list[str]:
        """The `video_id` of each row of a group, without its media.

        Raises:
            RowGroupError: when they cannot be read.
        """

    @abstractmethod
    def read(self, group: int) -> Callable[[int], dict]:
        """Reads a group.

        Returns:
            a function from the index of a row in the group to the row, with undecoded media.

        Raises:
            RowGroupError: when it cannot be read.
        """


class ParquetRows(RowGroups):
    """The row groups of Parquet files, here or at any address that `fsspec` opens.

    Args:
        name: of the corpus.
        files: paths or addresses.
        versions: what of each file changes when it does: its time of change, ETag or commit.
        features: of the corpus.

    Raises:
        CorpusError: when a file has no footer, or the files have no rows.
    """

    def __init__(self, name: str, files: list[str], versions: list, features: Features):
        self.name = name
        self.files = files
        self.folder = common_folder(files)
        self.features = Features({column: features[column] for column in CORPUS_COLUMNS if column in features})
        footers = load_footers(name, files, versions)
        self.file_bytes, self.footer_bytes = footers["file_bytes"], footers["footer_bytes"]
        self.first_groups, self.sizes, self.digests = footers["first_groups"], footers["sizes"], footers["digests"]
        if not self.num_rows:
            raise CorpusError(f"The corpus {name!r} has no rows; make it again.")
        self.group_bytes = int(self.file_bytes.sum()) / len(self.sizes)
        digest = hashlib.sha256("\n".join(map(self.short_name, files)).encode())
        for values in (self.file_bytes, self.digests, self.sizes):
            digest.update(values.tobytes())
        self.fingerprint = digest.hexdigest()

    def short_name(self, file: str) -> str:
        """A file's name within the folder that all files are in, which may be moved."""
        return file.removeprefix(self.folder)

    def describe(self) -> dict:
        names = map(self.short_name, self.files)
        values = zip(self.file_bytes.tolist(), map("{:016x}".format, self.digests.tolist()), strict=True)
        return {**super().describe(), "files": {name: list(value) for name, value in zip(names, values, strict=True)}}

    def read_ids(self, group: int) -> list[str]:
        return self.read_columns(group, ["video_id"])["video_id"].to_pylist()

    def read(self, group: int) -> Callable[[int], dict]:
        table = self.read_columns(group, list(self.features))
        table = table_cast(table.select(list(self.features)), self.features.arrow_schema)
        return lambda row: table.slice(row, 1).to_pylist()[0]

    def read_columns(self, group: int, columns: list[str]) -> pyarrow.Table:
        """Columns of a row group; no other bytes are read of its file but the footer.

        Raises:
            RowGroupError: when they cannot be read.
        """
        file = int(np.searchsorted(self.first_groups, group, side="right")) - 1
        path, group = self.files[file], group - int(self.first_groups[file])

        def read_group() -> pyarrow.Table:
            metadata = read_metadata(path, int(self.file_bytes[file]), int(self.footer_bytes[file]))
            with open_file(path) as stream:
                return parquet.ParquetFile(stream, metadata=metadata, pre_buffer=True).read_row_group(group, columns)

        place = f"Row group {group} of {self.short_name(path)}"
        try:
            return with_retries(read_group, place)
        except Exception as error:  # the libraries of stores have errors of their own
            raise RowGroupError(place, path, f"{type(error).__name__}: {' '.join(str(error).split())}") from error


class TableRows(RowGroups):
    """The rows of a table at hand, as groups of TABLE_GROUP_ROWS.

    Args:
        name: of the corpus.
        table: its rows; in memory, or mapped from the cache of `datasets`.
    """

    def __init__(self, name: str, table: Dataset):
        self.name = name
        self.table = table
        bounds = np.append(np.arange(0, len(table), TABLE_GROUP_ROWS), len(table))
        self.sizes = np.diff(bounds).astype(np.int32)
        self.group_bytes = table.data.nbytes / max(len(self.sizes), 1)
        digest = hashlib.sha256()
        for batch in table.select_columns(["video_id"]).with_format("arrow").iter(4096):
            digest.update("\n".join(batch["video_id"].to_pylist()).encode())
        self.fingerprint = digest.hexdigest()

    def read_ids(self, group: int) -> list[str]:
        first = group * TABLE_GROUP_ROWS
        return self.table.select_columns(["video_id"])[first : first + TABLE_GROUP_ROWS]["video_id"]

    def read(self, group: int) -> Callable[[int], dict]:
        return lambda row: self.table[group * TABLE_GROUP_ROWS + row]


class SelectedRows(RowGroups):
    """Some rows of other row groups.

    Args:
        rows: all of them.
        video_ids: those of the rows that are kept.
    """

    def __init__(self, rows: RowGroups, video_ids: Collection[str]):
        kept = [
            [row for row, video_id in enumerate(rows.read_ids(group)) if video_id in video_ids]
            for group in range(len(rows.sizes))
        ]
        self.rows = rows
        self.groups = [group for group, places in enumerate(kept) if places]
        self.kept = [kept[group] for group in self.groups]
        self.name, self.group_bytes = rows.name, rows.group_bytes
        self.sizes = np.array([len(places) for places in self.kept], np.int32)
        self.fingerprint = hashlib.sha256(f"{rows.fingerprint} {self.kept}".encode()).hexdigest()

    def read_ids(self, group: int) -> list[str]:
        names = self.rows.read_ids(self.groups[group])
        return [names[row] for row in self.kept[group]]

    def read(self, group: int) -> Callable[[int], dict]:
        read_row = self.rows.read(self.groups[group])
        return lambda row: read_row(self.kept[group][row])


def open_row_groups(path_or_name: str, split: str, config_name: str | None = None) -> RowGroups:
    """Opens the rows of a split of a corpus for reading in any order.

    Args, Raises: see [`load_corpus`]; a Parquet file that is cut short is a CorpusError, too.
    """
    corpus = load_corpus(path_or_name, split, config_name)
    config_name = config_name or list_configs(path_or_name)[0]
    with corpus_errors(path_or_name):
        path, name, data_files = builder_arguments(path_or_name, config_name)
        builder = load_dataset_builder(path, name, data_files=data_files)
        if not isinstance(builder, Parquet):
            return TableRows(path_or_name, load_rows(path_or_name, split, config_name))
        files = builder.config.data_files[split]
        return ParquetRows(path_or_name, list(files), files.origin_metadata, corpus.features)


def load_footers(name: str, files: list[str], versions: list) -> dict[str, np.ndarray]:
    """Sizes of Parquet files and of their row groups, from the cache or else from the files.

    Args:
        name: of the corpus.
        files, versions: see [`ParquetRows`].

    Returns:
        `file_bytes` (files,) int64; `footer_bytes` (files,) int32, with the length and mark after it; `digests`
        (files,) uint64, hashes of the footers; `first_groups` (files,) int64, index of each file's first row group;
        `sizes` (groups,) int32, rows of each.

    Raises:
        CorpusError: naming a file that cannot be read, or has no footer.
    """
    local = [os.stat(file) if "://" not in file and os.path.exists(file) else None for file in files]
    stamps = [
        (stat.st_size, stat.st_mtime_ns) if stat else version for stat, version in zip(local, versions, strict=True)
    ]
    key = hashlib.sha256(repr(list(zip(files, stamps, strict=True))).encode()).hexdigest()
    cached = Path(config.HF_DATASETS_CACHE, "fgmm_footers", f"{key}.npz")
    if cached.exists():
        with np.load(cached, allow_pickle=False) as arrays:
            return dict(arrays)
    footers = read_footers(name, files)
    cached.parent.mkdir(parents=True, exist_ok=True)
    partial = cached.with_suffix(f".{os.getpid()}.partial")
    with partial.open("wb") as stream:
        np.savez(stream, **footers)
    os.replace(partial, cached)
    return footers


def read_footers(name: str, files: list[str]) -> dict[str, np.ndarray]:
    """What [`load_footers`] gives, from the files."""

    def read_one(file: str) -> tuple[int, int, int, np.ndarray]:
        try:
            size, footer = with_retries(lambda: read_tail(file), file)
            metadata = parquet.read_metadata(io.BytesIO(footer))
        except Exception as error:  # the libraries of stores have errors of their own
            raise CorpusError(
                f"The file {file!r} of the corpus {name!r} cannot be read ({type(error).__name__}: "
                f"{' '.join(str(error).split())}); restore it, or delete it to go on without it."
            ) from error
        rows = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
        digest = int.from_bytes(hashlib.sha256(footer).digest()[:8], "little")
        return size, len(footer), digest, np.array(rows, np.int32)

    with ThreadPoolExecutor(FOOTER_THREADS) as pool:
        file_bytes, footer_bytes, digests, sizes = zip(*pool.map(read_one, files), strict=True)
    return {
        "file_bytes": np.array(file_bytes, np.int64),
        "footer_bytes": np.array(footer_bytes, np.int32),
        "digests": np.array(digests, np.uint64),
        "first_groups": np.cumsum([0, *map(len, sizes)])[:-1],
        "sizes": np.concatenate(sizes),
    }


def read_tail(file: str) -> tuple[int, bytes]:
    """The size of a Parquet file in bytes, and its footer with the length and mark after it.

    Raises:
        ArrowInvalid: when it has none.
    """
    with open_file(file) as stream:
        size = stream.seek(0, os.SEEK_END)
        stream.seek(max(0, size - TAIL_BYTES))
        tail = stream.read()
        length = int.from_bytes(tail[-8:-4], "little") + 8
        if tail[-4:] != b"PAR1" or length > size:
            raise pyarrow.ArrowInvalid("it has no Parquet footer, as if it were cut short")
        if length > len(tail):
            stream.seek(size - length)
            tail = stream.read()
    return size, tail[-length:]


@lru_cache(maxsize=256)
def read_metadata(file: str, file_bytes: int, footer_bytes: int) -> parquet.FileMetaData:
    """The footer of a Parquet file of known sizes, of which the last ones are kept."""
    with open_file(file) as stream:
        stream.seek(file_bytes - footer_bytes)
        return parquet.read_metadata(io.BytesIO(stream.read(footer_bytes)))


def common_folder(files: list[str]) -> str:
    """The longest path or address of a folder, with a slash at its end, that all files are in."""
    parts = zip(*(file.split("/")[:-1] for file in files), strict=False)
    return "".join(f"{part}/" for part, *_ in takewhile(lambda parts: len(set(parts)) == 1, parts))


def explain_change(old: dict, new: dict) -> str | None:
    """What differs between two descriptions of [`RowGroups.describe`], as a phrase; None where nothing does."""
    if old["fingerprint"] == new["fingerprint"]:
        return None
    before, now = old["files"], new["files"]
    changes = {
        "was added": [file for file in now if file not in before],
        "is gone": [file for file in before if file not in now],
        "has changed": [file for file in now if file in before and before[file] != now[file]],
    }
    named = [f"{file} {change}" for change, files in changes.items() for file in files]
    more = f" and {len(named) - MAX_FILES_NAMED} more" if len(named) > MAX_FILES_NAMED else ""
    counts = f"it had {old['rows']} rows in {old['row_groups']} row groups and has {new['rows']} in {new['row_groups']}"
    return "; ".join(filter(None, [counts, ", ".join(named[:MAX_FILES_NAMED]) + more]))


__all__ = [
    "ParquetRows",
    "RowGroupError",
    "RowGroups",
    "SelectedRows",
    "TableRows",
    "explain_change",
    "open_row_groups",
]
