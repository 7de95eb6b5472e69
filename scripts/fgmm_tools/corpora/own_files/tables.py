"""A table of one's own files, CSV: which file has which label or captions, split and group."""

import csv
import io
import os
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path, PurePath

from ...cli import UserError
from ..benchmarks.layout import SPLITS, Item
from ..captions import CaptionFileError, decode_text
from ..options import TABLE_COLUMNS
from ..problems import Problems
from .rows import column_of, why_unusable
from .splits import split_named

DELIMITERS = ",;\t|"


@dataclass(frozen=True)
class TableRow:
    """A row of a table.

    line: its number in the file, from 1.
    values: by the names of TABLE_COLUMNS; empty where the table lacks the column.
    """

    line: int
    values: dict[str, str]

    def __getitem__(self, column: str) -> str:
        return self.values[column]


@dataclass(frozen=True)
class ListedFile:
    """A file of a table.

    item: its id is its path without extension, or with it where that is also another's.
    rows: that name it.
    split: that they name; None where the table names none.
    """

    item: Item
    rows: list[TableRow]
    split: str | None = None

    def captions(self) -> tuple[tuple, ...]:
        """(text, start, end) of each row with a text, as they stand in the table; None for a time that it has not."""
        return tuple((row["caption"], row["start"] or None, row["end"] or None) for row in self.rows if row["caption"])


def read_table(path: Path, own_names: dict[str, str], required: tuple[str, ...]) -> list[TableRow]:
    """The rows of a CSV file with a header; the delimiter is the one of `,`, `;`, tabulator and `|` that it has most.

    Args:
        path: of the file.
        own_names: {name of TABLE_COLUMNS: the table's own name of it}; an empty name: the table has no such column.
        required: the columns that it must have.

    Raises:
        UserError: when it is no such file or lacks a column.
    """
    try:
        text = decode_text(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from error
    except CaptionFileError as error:
        raise UserError(f"{path} {error}.") from error
    header = text.partition("\n")[0]
    reader = csv.DictReader(io.StringIO(text), delimiter=max(DELIMITERS, key=header.count))
    names = {column: own_names.get(column, column) for column in TABLE_COLUMNS}
    rows = []
    try:
        found = list(reader.fieldnames or [])
        for values in reader:
            known = {column: (values.get(name) or "").strip() for column, name in names.items()}
            rows.append(TableRow(reader.line_num, known))
    except csv.Error as error:
        raise UserError(f"{path} is no table in CSV ({error}, line {reader.line_num}).") from error
    for column, name in names.items():
        if name not in found and (column in required or own_names.get(column)):
            raise UserError(
                f"{path} has no column {name!r} but {', '.join(found) or 'none'}; --columns {column}=NAME says which "
                f"of them is the {column}."
            )
    return rows


def list_files(table: Path, rows: list[TableRow], problems: Problems) -> list[ListedFile]:
    """The files of a table; their paths are relative to its folder.

    Raises:
        UserError: when none of the files is there.
    """
    rows_of: dict[Path, list[TableRow]] = {}
    for row in rows:
        path = table.parent / row["path"].replace("\\", "/")
        if not row["path"]:
            problems.add(table.name, f"has no path in line {row.line}")
        elif path not in rows_of and not (path.exists() or path.is_symlink()):
            problems.add(row["path"], f"is not there (line {row.line} of {table.name})")
        elif path not in rows_of and (reason := why_unusable(path)):
            problems.add(row["path"], reason)
        else:
            rows_of.setdefault(path, []).append(row)
    if not rows_of:
        first = f"; the first of {len(problems)} problems: {next(iter(problems))}" if len(problems) else ""
        raise UserError(
            f"{table} names no file that can be read, where paths are relative to {table.parent.resolve()}{first}."
        )
    names = {path: PurePath(os.path.relpath(path, table.parent)) for path in rows_of}
    number = Counter(name.with_suffix("") for name in names.values())
    listed = []
    for path, its_rows in rows_of.items():
        short = names[path].with_suffix("")
        name = short if number[short] == 1 else names[path]
        group = its_rows[0]["group"] or None
        item = Item(name.as_posix(), (path,), columns=(column_of(path) or "video",), group=group)
        listed.append(ListedFile(item, its_rows))
    return find_splits(listed, problems)


def find_splits(listed: list[ListedFile], problems: Problems) -> list[ListedFile]:
    """The files with their splits, where the table names any; those without are left out then."""
    if not any(row["split"] for file in listed for row in file.rows):
        return listed
    kept = []
    for file in listed:
        words = sorted({row["split"] for row in file.rows})
        split = split_named(words[0])
        if len(words) > 1:
            problems.add(file.rows[0]["path"], f"is in the splits {' and '.join(map(repr, words))}")
        elif split is None:
            problems.add(file.rows[0]["path"], f"has the split {words[0]!r}, which is none of {', '.join(SPLITS)}")
        else:
            kept.append(replace(file, split=split))
    return kept
