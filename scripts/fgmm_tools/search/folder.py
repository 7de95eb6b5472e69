"""The folder of an index: its version, its lock, and its states, of which searches see one that is whole.

current.json         the version of the layout, and the name of the state that searches see
catalog.sqlite       files, windows and subtitles at this moment; only indexing reads and writes it
media/               the files of a corpus, where one was indexed (see `corpora`)
parts/               embeddings and regions, a file for each content (see `parts`)
states/NAME/         a state: manifest.json, a copy of the catalog, FAISS indexes, calibration.json
problems.jsonl       the files that cannot be searched, and why
index.lock           held by the process that indexes
"""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from ..cli import UserError
from ..locks import locked
from ..records import write_whole

# Of the layout; it grows whenever an older program could not read it.
VERSION = 1
POINTER = "current.json"
MANIFEST = "manifest.json"
# States that are kept: the present one, and the one before, which a search may just be reading.
STATES_KEPT = 2


@dataclass(frozen=True)
class Manifest:
    """What a state of an index says of itself.

    model: the name or folder that it was given as; fingerprint: of its weights and settings by
        [`fingerprint_weights`].
    modalities: of the windows, "video", "audio" or both; dimensions: D of their pooled embeddings.
    settings: of [`IndexSettings`], with the window's length settled, s.
    folders: that are indexed, as absolute paths.
    complete: whether every file of the folders was indexed or is listed as damaged, and all counts agree.
    num_files, num_windows, num_damaged, num_pending: files with windows, their windows, files that cannot be decoded,
        and files that were found and not yet indexed.
    date: when the state was made, ISO 8601.
    """

    model: str
    fingerprint: str
    modalities: list[str]
    dimensions: int
    settings: dict
    folders: list[str]
    complete: bool
    num_files: int
    num_windows: int
    num_damaged: int
    num_pending: int
    date: str


class IndexFolder:
    """The folder of an index.

    Args:
        path: of the folder; it need not exist.

    Raises:
        UserError: when it holds something else, or an index of a newer version.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = Path(path)
        self.catalog = self.path / "catalog.sqlite"
        self.parts = self.path / "parts"
        self.states = self.path / "states"
        self.media = self.path / "media"
        if self.path.exists() and not self.path.is_dir():
            raise UserError(f"The index {self.path} is a file; give a folder.")
        self.read_pointer()
        is_index = (self.path / POINTER).exists() or self.catalog.exists()
        others = [name for name in self.list_names() if name not in ("index.lock", "media", "parts", "states")]
        if not is_index and others:
            raise UserError(
                f"{self.path} holds something else than an index ({', '.join(others[:3])}); give a new or empty folder."
            )

    def list_names(self) -> list[str]:
        return sorted(entry.name for entry in self.path.iterdir()) if self.path.exists() else []

    def read_pointer(self) -> str | None:
        """The name of the state that searches see; None where there is none yet.

        Raises:
            UserError: for an index of a newer version, or a damaged file.
        """
        path = self.path / POINTER
        try:
            pointer = json.loads(path.read_text())
            version, state = pointer["version"], pointer["state"]
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path} is damaged; delete it and run index_videos.py again.") from error
        if version > VERSION:
            raise UserError(
                f"The index {self.path} has version {version}, and this program reads versions up to {VERSION}; "
                "install a newer fgmm, or make another index."
            )
        return state

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Makes the folder and holds its lock.

        Raises:
            UserError: when another process holds it, or the folder cannot be written.
        """
        try:
            self.parts.mkdir(parents=True, exist_ok=True)
            self.states.mkdir(exist_ok=True)
        except OSError as error:
            raise UserError(f"The index {self.path} cannot be written: {error.strerror}.") from error
        with locked(self.path / "index.lock"):
            yield

    def current(self) -> Path:
        """The folder of the state that searches see.

        Raises:
            UserError: when there is none.
        """
        state = self.read_pointer()
        if state is None:
            raise UserError(
                f"{self.path} holds no index that can be searched; python scripts/index_videos.py --model MODEL "
                f"--videos FOLDER --index {self.path} makes one."
            )
        return self.states / state

    def begin_state(self) -> Path:
        """A new folder for the next state, without what an interrupted process left there."""
        for leftover in self.states.glob("*.partial"):
            shutil.rmtree(leftover)
        numbers = [int(path.name) for path in self.states.iterdir() if path.name.isdigit()]
        state = self.states / f"{max(numbers, default=0) + 1:06d}.partial"
        state.mkdir()
        return state

    def publish(self, state: Path) -> None:
        """Makes a state of [`begin_state`] the one that searches see, and removes those that none reads any more."""
        final = state.with_suffix("")
        state.rename(final)
        write_whole(self.path / POINTER, json.dumps({"version": VERSION, "state": final.name}) + "\n")
        for old in sorted(path for path in self.states.iterdir() if path.name.isdigit())[:-STATES_KEPT]:
            shutil.rmtree(old)


def write_manifest(state: Path, manifest: Manifest) -> None:
    """Writes the manifest of a state."""
    write_whole(state / MANIFEST, json.dumps(asdict(manifest), indent=2) + "\n")


def read_manifest(state: Path) -> Manifest:
    """The manifest of a state.

    Raises:
        UserError: when it is damaged.
    """
    try:
        return Manifest(**json.loads((state / MANIFEST).read_text()))
    except FileNotFoundError:
        raise
    except (ValueError, TypeError) as error:
        raise UserError(f"{state / MANIFEST} is damaged; run index_videos.py again.") from error
