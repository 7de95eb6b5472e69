"""The catalog of an index, in SQLite: its files, their windows, and what is spoken in them (full-text search, FTS5)."""

import errno
import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

SCHEMA = """
CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE files (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    folder TEXT NOT NULL, name TEXT NOT NULL, kind TEXT NOT NULL,
    size INTEGER NOT NULL, modified INTEGER NOT NULL, hash TEXT NOT NULL,
    duration REAL, frame_rate REAL, subtitles TEXT NOT NULL, problem TEXT, damage TEXT,
    UNIQUE (folder, name)
);
CREATE INDEX files_by_hash ON files (hash);
CREATE TABLE windows (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    file INTEGER NOT NULL REFERENCES files ON DELETE CASCADE,
    place INTEGER NOT NULL, start REAL NOT NULL, end REAL NOT NULL,
    has_video INTEGER NOT NULL, has_audio INTEGER NOT NULL,
    dark INTEGER NOT NULL, still INTEGER NOT NULL, signature INTEGER, duplicates INTEGER
);
CREATE INDEX windows_by_file ON windows (file, place);
CREATE TABLE cues (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    file INTEGER NOT NULL REFERENCES files ON DELETE CASCADE,
    start REAL NOT NULL, end REAL NOT NULL, text TEXT NOT NULL
);
CREATE INDEX cues_by_file ON cues (file, start);
CREATE VIRTUAL TABLE spoken USING fts5(text, content='cues', content_rowid='id',
    tokenize='porter unicode61 remove_diacritics 2');
CREATE TRIGGER cue_added AFTER INSERT ON cues BEGIN
    INSERT INTO spoken (rowid, text) VALUES (new.id, new.text);
END;
CREATE TRIGGER cue_removed AFTER DELETE ON cues BEGIN
    INSERT INTO spoken (spoken, rowid, text) VALUES ('delete', old.id, old.text);
END;
"""
# SQLite takes this many parameters in one statement at least.
CHUNK = 900


@dataclass(frozen=True)
class FileEntry:
    """A file of an index.

    id: its number in the catalog. folder: the indexed folder, absolute; name: the path below it, with slashes.
    kind: "video", "audio" or "image". size: bytes; modified: ns since 1970; hash: of its content.
    duration: s, None for an image; frame_rate: Hz, None without a video.
    subtitles: which files its captions came from, with their sizes and times; see [`subtitles`].
    problem: why it has no windows; None where it has some. damage: what of it was left out; None for nothing.
    """

    id: int
    folder: str
    name: str
    kind: str
    size: int
    modified: int
    hash: str
    duration: float | None
    frame_rate: float | None
    subtitles: str
    problem: str | None
    damage: str | None

    @property
    def path(self) -> Path:
        return Path(self.folder, self.name)


@dataclass(frozen=True)
class WindowEntry:
    """A window of a file.

    id: its number in the catalog, which is its id in FAISS; file: that of its file; place: its row in the file's part.
    start, end: seconds. has_video, has_audio: which embeddings it has.
    dark, still: nothing can be seen, nothing moves. signature: of its picture, see [`marks`]; None without picture.
    duplicates: the id of the first window that shows nearly the same; None where none does.
    """

    id: int
    file: int
    place: int
    start: float
    end: float
    has_video: bool
    has_audio: bool
    dark: bool
    still: bool
    signature: int | None
    duplicates: int | None


@dataclass(frozen=True)
class Cue:
    """A caption: its file, when it is spoken (s), and its text."""

    file: int
    start: float
    end: float
    text: str


FILE_FIELDS = ", ".join(f"files.{name}" for name in FileEntry.__dataclass_fields__)
WINDOW_FIELDS = ", ".join(f"windows.{name}" for name in WindowEntry.__dataclass_fields__)


class Catalog:
    """The catalog; each method that changes it is one transaction, so that a killed process leaves it whole.

    Args:
        path: of the file; it is made where it is absent.
        read_only: opens the catalog of a state, which nothing changes.
    """

    def __init__(self, path: Path, read_only: bool = False):
        self.path = path
        if read_only:
            uri = f"{path.absolute().as_uri()}?mode=ro&immutable=1"
            self.database = sqlite3.connect(uri, uri=True, check_same_thread=False)
            return
        self.database = sqlite3.connect(path, isolation_level=None)
        with self.errors():
            self.database.execute("PRAGMA foreign_keys = ON")
            self.database.execute("PRAGMA journal_mode = WAL")
            self.database.execute("PRAGMA synchronous = NORMAL")
            if not self.database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                self.database.executescript(f"BEGIN; {SCHEMA} COMMIT;")

    def close(self) -> None:
        self.database.close()

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Turns SQLite's error of a full disk into that of the system."""
        try:
            yield
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE):
                raise OSError(errno.ENOSPC, "No space left on device", str(self.path)) from error
            raise

    @property
    def revision(self) -> int:
        """A number that grows with each change of files and captions; a copy has that of its original."""
        return self.database.execute("PRAGMA user_version").fetchone()[0]

    @contextmanager
    def changes(self) -> Iterator[sqlite3.Connection]:
        """A transaction that makes a new revision."""
        with self.transaction() as database:
            yield database
            database.execute(f"PRAGMA user_version = {self.revision + 1}")

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All changes inside, or none."""
        with self.errors():
            self.database.execute("BEGIN IMMEDIATE")
            try:
                yield self.database
                self.database.execute("COMMIT")
            except BaseException:
                if self.database.in_transaction:
                    self.database.execute("ROLLBACK")
                raise

    # Facts: what the index was made with.

    def read_facts(self) -> dict:
        """All facts, by name."""
        return {name: json.loads(value) for name, value in self.database.execute("SELECT name, value FROM facts")}

    def write_facts(self, facts: dict) -> None:
        """Adds or replaces facts, whose values JSON can hold."""
        with self.transaction() as database:
            rows = [(name, json.dumps(value)) for name, value in facts.items()]
            database.executemany("INSERT OR REPLACE INTO facts VALUES (?, ?)", rows)

    # Files and windows.

    def list_files(self) -> list[FileEntry]:
        """All files, by folder and name."""
        query = f"SELECT {FILE_FIELDS} FROM files ORDER BY folder, name"
        return [FileEntry(*row) for row in self.database.execute(query)]

    def add_file(self, entry: dict, windows: Sequence[dict], cues: Sequence[tuple[float, float, str]]) -> int:
        """Adds a file with its windows and captions, in place of an entry of the same folder and name.

        Args:
            entry: the fields of [`FileEntry`] but `id`.
            windows: of each the fields of [`WindowEntry`] but `id`, `file` and `duplicates`.
            cues: (start, end, text) of each caption.

        Returns:
            the file's id.
        """
        with self.changes() as database:
            database.execute("DELETE FROM files WHERE folder = ? AND name = ?", (entry["folder"], entry["name"]))
            file = insert(database, "files", entry)
            for window in windows:
                insert(database, "windows", {"file": file, **window})
            self._add_cues(file, cues)
        return file

    def change_file(self, file: int, cues: Sequence[tuple[float, float, str]] | None = None, **changes) -> None:
        """Changes fields of a file and, unless they are None, its captions; its windows stay."""
        with self.changes() as database:
            columns = ", ".join(f"{name} = ?" for name in changes)
            database.execute(f"UPDATE files SET {columns} WHERE id = ?", (*changes.values(), file))
            if cues is not None:
                database.execute("DELETE FROM cues WHERE file = ?", (file,))
                self._add_cues(file, cues)

    def _add_cues(self, file: int, cues: Sequence[tuple[float, float, str]]) -> None:
        rows = [(file, *cue) for cue in cues]
        self.database.executemany("INSERT INTO cues (file, start, end, text) VALUES (?, ?, ?, ?)", rows)

    def copy_file(self, file: int, entry: dict, cues: Sequence[tuple[float, float, str]]) -> int:
        """Adds a file whose content is that of another one, with windows of its own; arguments as of [`add_file`]."""
        query = f"SELECT {WINDOW_FIELDS} FROM windows WHERE file = ? ORDER BY place"
        rows = self.database.execute(query, (file,)).fetchall()
        names = list(WindowEntry.__dataclass_fields__)
        windows = [dict(zip(names, row, strict=True)) for row in rows]
        own = [{name: window[name] for name in names if name not in ("id", "file", "duplicates")} for window in windows]
        return self.add_file(entry, own, cues)

    def forget_files(self, files: Iterable[int]) -> None:
        """Removes files with their windows and captions."""
        files = [(file,) for file in files]
        if files:
            with self.changes() as database:
                database.executemany("DELETE FROM files WHERE id = ?", files)

    def count(self) -> tuple[int, int, int]:
        """Files with windows, their windows, files without because of a problem."""
        query = "SELECT count(*) FILTER (WHERE problem IS NULL), count(*) FILTER (WHERE problem NOT NULL) FROM files"
        files, damaged = self.database.execute(query).fetchone()
        return files, self.database.execute("SELECT count(*) FROM windows").fetchone()[0], damaged

    def seconds_of_media(self) -> float:
        """Of all files with windows; images have none."""
        query = "SELECT coalesce(sum(duration), 0) FROM files WHERE problem IS NULL"
        return self.database.execute(query).fetchone()[0]

    def hashes(self) -> set[str]:
        """The contents of all files."""
        return {row[0] for row in self.database.execute("SELECT DISTINCT hash FROM files")}

    def count_windows_by_hash(self) -> dict[str, int]:
        """For each content that has windows the number of windows that one file of it has."""
        query = "SELECT DISTINCT files.hash, (SELECT count(*) FROM windows WHERE file = files.id) FROM files"
        return dict(self.database.execute(f"{query} WHERE problem IS NULL"))

    def window_ids(self, modality: str) -> np.ndarray:
        """(windows,) int64 ids of the windows that have a modality, ascending."""
        rows = self.database.execute(f"SELECT id FROM windows WHERE has_{modality} ORDER BY id")
        return np.fromiter((row[0] for row in rows), np.int64)

    def list_parts(self, modality: str) -> Iterator[tuple[str, list[int], list[int]]]:
        """For each file with windows of a modality: its hash, the ids of these windows, and their rows in its part."""
        query = "SELECT files.hash, windows.file, windows.id, windows.place FROM windows JOIN files "
        query += f"ON files.id = windows.file WHERE has_{modality} ORDER BY windows.file, windows.place"
        current, of_file = None, ("", [], [])
        for content, file, window, place in self.database.execute(query):
            if file != current:
                if current is not None:
                    yield of_file
                current, of_file = file, (content, [], [])
            of_file[1].append(window)
            of_file[2].append(place)
        if current is not None:
            yield of_file

    def get_files(self, files: Iterable[int]) -> dict[int, FileEntry]:
        """Files by their ids."""
        rows = self._select(f"SELECT {FILE_FIELDS} FROM files WHERE id", files)
        return {row[0]: FileEntry(*row) for row in rows}

    def get_windows(self, windows: Iterable[int]) -> dict[int, WindowEntry]:
        """Windows by their ids."""
        rows = self._select(f"SELECT {WINDOW_FIELDS} FROM windows WHERE id", windows)
        return {row[0]: make_window(row) for row in rows}

    def windows_of_file(self, file: int, start: float, end: float) -> list[WindowEntry]:
        """The windows of a file that share time with [start, end], s, in their order."""
        query = f"SELECT {WINDOW_FIELDS} FROM windows WHERE file = ? AND start < ? AND end > ? ORDER BY place"
        return [make_window(row) for row in self.database.execute(query, (file, end, start))]

    def neighbours(self, window: WindowEntry) -> list[WindowEntry]:
        """The windows just before and after one in its file."""
        query = f"SELECT {WINDOW_FIELDS} FROM windows WHERE file = ? AND place IN (?, ?)"
        rows = self.database.execute(query, (window.file, window.place - 1, window.place + 1))
        return [make_window(row) for row in rows]

    def select_windows(self, inside: str | None, after: int | None) -> np.ndarray:
        """(windows,) int64 ids of the windows of files below a folder, and modified at or after a time.

        Args:
            inside: an absolute path, or one below an indexed folder; None: all.
            after: ns since 1970; None: any.
        """
        clauses, values = ["1"], []
        if inside is not None:
            inside = inside.rstrip("/")
            path = "files.folder || '/' || files.name"
            clauses.append(
                f"({path} = ? OR substr({path}, 1, ?) = ? OR files.name = ? OR substr(files.name, 1, ?) = ?)"
            )
            below = inside + "/"
            values += [inside, len(below), below, inside, len(below), below]
        if after is not None:
            clauses.append("files.modified >= ?")
            values.append(after)
        query = f"SELECT windows.id FROM windows JOIN files ON files.id = windows.file WHERE {' AND '.join(clauses)}"
        return np.fromiter((row[0] for row in self.database.execute(query, values)), np.int64)

    def list_signatures(self) -> tuple[np.ndarray, np.ndarray]:
        """Ids (windows,) int64 of the windows with a signature, ascending, and the signatures, (windows,) uint64."""
        rows = self.database.execute(
            "SELECT id, signature FROM windows WHERE signature NOT NULL ORDER BY id"
        ).fetchall()
        table = np.array(rows, np.int64).reshape(-1, 2)
        return table[:, 0], table[:, 1].astype(np.uint64)

    def mark_duplicates(self, duplicates: dict[int, int]) -> None:
        """Sets which windows show nearly the same as an earlier one: {window: the first such window}."""
        with self.transaction() as database:
            database.execute("UPDATE windows SET duplicates = NULL WHERE duplicates NOT NULL")
            rows = [(first, window) for window, first in duplicates.items()]
            database.executemany("UPDATE windows SET duplicates = ? WHERE id = ?", rows)

    # Speech.

    def find_spoken(self, expression: str, limit: int) -> list[Cue]:
        """The captions that fit an expression of FTS5, the best first by BM25."""
        query = "SELECT file, start, end, cues.text FROM spoken JOIN cues ON cues.id = spoken.rowid "
        rows = self.database.execute(f"{query} WHERE spoken MATCH ? ORDER BY rank LIMIT ?", (expression, limit))
        return [Cue(*row) for row in rows]

    def cues_of_file(self, file: int, start: float, end: float) -> list[Cue]:
        """The captions of a file that share time with [start, end], s, in their order."""
        query = "SELECT file, start, end, text FROM cues WHERE file = ? AND start < ? AND end > ? ORDER BY start"
        return [Cue(*row) for row in self.database.execute(query, (file, end, start))]

    def cues_of_windows(self, windows: Sequence[WindowEntry], margin: float) -> list[list[tuple[int, int, float]]]:
        """For each window the captions within `margin` seconds of it: id, file and start (s) of each."""
        query = "SELECT id, file, start FROM cues WHERE file = ? AND start < ? AND end > ?"
        return [
            self.database.execute(query, (window.file, window.end + margin, window.start - margin)).fetchall()
            for window in windows
        ]

    def cues_with(self, word: str) -> np.ndarray:
        """(captions,) int64 ids of the captions with a word or another form of it, ascending."""
        rows = self.database.execute("SELECT rowid FROM spoken WHERE spoken MATCH ? ORDER BY rowid", (quote(word),))
        return np.fromiter((row[0] for row in rows), np.int64)

    def count_cues(self) -> int:
        """Captions of all files."""
        return self.database.execute("SELECT count(*) FROM cues").fetchone()[0]

    def sample_cues(self, number: int, seed: int) -> list[Cue]:
        """Captions at random, always the same ones of the same index."""
        ids = [row[0] for row in self.database.execute("SELECT id FROM cues ORDER BY id")]
        chosen = np.random.default_rng(seed).permutation(len(ids))[:number]
        rows = self._select("SELECT file, start, end, text FROM cues WHERE id", sorted(ids[place] for place in chosen))
        return [Cue(*row) for row in rows]

    def copy_to(self, path: Path) -> None:
        """Writes a whole copy, as it is now, into a new file."""
        with self.errors():
            self.database.execute("VACUUM INTO ?", (str(path),))

    def _select(self, query: str, ids: Iterable[int]) -> list[tuple]:
        """The rows of a query that ends before `IN (...)`, for any number of ids."""
        ids, rows = [int(number) for number in ids], []
        for first in range(0, len(ids), CHUNK):
            chunk = ids[first : first + CHUNK]
            rows += self.database.execute(f"{query} IN ({', '.join('?' * len(chunk))})", chunk).fetchall()
        return rows


def insert(database: sqlite3.Connection, table: str, values: dict) -> int:
    """Inserts a row, by column; its id."""
    places = ", ".join("?" * len(values))
    statement = f"INSERT INTO {table} ({', '.join(values)}) VALUES ({places})"
    return database.execute(statement, tuple(values.values())).lastrowid


def make_window(row: tuple) -> WindowEntry:
    """A row of WINDOW_FIELDS; SQLite has no type for truth values."""
    return WindowEntry(*row[:5], *map(bool, row[5:9]), *row[9:])


def quote(word: str) -> str:
    """A word as a string of FTS5, in which nothing is an operator."""
    return '"{}"'.format(word.replace('"', '""'))
