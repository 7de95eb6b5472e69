"""The media in folders: what is new, changed, renamed or gone since they were indexed."""

import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from ..cli import UserError
from ..corpora.benchmarks.layout import find_files
from ..corpora.own_files.rows import COLUMNS, why_unusable
from ..corpora.problems import Problems
from .catalog import FileEntry
from .subtitles import SUFFIXES, describe, find_beside


@dataclass(frozen=True)
class MediaFile:
    """A media file in an indexed folder.

    folder: absolute; name: the path below it, with slashes. kind: "video", "audio" or "image", by its extension.
    size: bytes; modified: ns since 1970. beside: its caption file, None without.
    """

    folder: str
    name: str
    kind: str
    size: int
    modified: int
    beside: Path | None

    @property
    def path(self) -> Path:
        return Path(self.folder, self.name)

    @property
    def subtitles(self) -> str:
        """Its caption file with size and time."""
        return describe(self.beside)


@dataclass
class Changes:
    """What differs between folders and a catalog.

    to_read: files that are new, or whose size or time differs, with their entries, None for new ones.
    recaptioned: files that are as they were but for their captions. gone: entries whose files are not there.
    num_kept: files that are as they were. problems: files that cannot be read at all.
    """

    to_read: list[tuple[MediaFile, FileEntry | None]] = field(default_factory=list)
    recaptioned: list[tuple[MediaFile, FileEntry]] = field(default_factory=list)
    gone: list[FileEntry] = field(default_factory=list)
    num_kept: int = 0
    problems: Problems = field(default_factory=Problems)


def check_folders(folders: Iterable[str]) -> list[str]:
    """Folders as absolute paths, without those below another of them.

    Raises:
        UserError: when one is not there: a drive that is not connected must not empty the index.
    """
    paths = sorted({Path(folder).absolute() for folder in folders})
    for path in paths:
        if not path.is_dir():
            what = "is no folder" if path.exists() else "is not there"
            raise UserError(f"The folder {path} {what}; connect its drive, or give other --videos.")
    return [str(path) for path in paths if not any(other in path.parents for other in paths)]


def find_media(folder: str, problems: Problems) -> list[MediaFile]:
    """The media in a folder and below it, sorted by name; hidden files are left out.

    Args:
        problems: files that cannot be read at all are added to it.
    """

    def add_folder(error: OSError) -> None:
        problems.add(Path(error.filename), f"cannot be read: {error.strerror}")

    found, captions = [], {}
    root = Path(folder)
    for path in find_files(root, (*COLUMNS, *SUFFIXES), add_folder):
        if path.suffix.lower() in COLUMNS:
            found.append(path)
        else:
            captions.setdefault(path.parent, []).append(path.name)
    files = []
    for path in found:
        if reason := why_unusable(path):
            problems.add(path, reason)
            continue
        status = path.stat()
        beside = find_beside(path, captions.get(path.parent, []))
        name = path.relative_to(root).as_posix()
        kind = COLUMNS[path.suffix.lower()]
        files.append(MediaFile(folder, name, kind, status.st_size, status.st_mtime_ns, beside))
    return files


def find_changes(folders: list[str], entries: list[FileEntry]) -> Changes:
    """What differs between folders and the entries of a catalog; entries of other folders are as they were."""
    changes = Changes()
    known = {(entry.folder, entry.name): entry for entry in entries}
    for folder in folders:
        for file in find_media(folder, changes.problems):
            entry = known.pop((folder, file.name), None)
            if entry is None or (entry.size, entry.modified) != (file.size, file.modified):
                changes.to_read.append((file, entry))
            elif entry.subtitles != file.subtitles:
                changes.recaptioned.append((file, entry))
            else:
                changes.num_kept += 1
    changes.gone = [entry for entry in known.values() if entry.folder in folders]
    return changes


def hash_file(path: Path) -> str:
    """The hash of a file's content (BLAKE2b, 128 bits)."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def has_changed(file: MediaFile) -> bool:
    """Whether a file is no longer as it was found, or gone."""
    try:
        status = os.stat(file.path)
    except OSError:
        return True
    return (status.st_size, status.st_mtime_ns) != (file.size, file.modified)
