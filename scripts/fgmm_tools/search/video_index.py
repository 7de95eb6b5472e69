"""`VideoIndex`: opens the index of a folder and searches in it.

from fgmm_tools.search.video_index import VideoIndex

index = VideoIndex("index")
result = index.search("two eggs into a bowl", top=5)
for moment in result.moments:
    print(moment.path, moment.start, moment.end, moment.score)
"""

import datetime
import os
import threading
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from modeling_fgmm import FgmmModel
from processing_fgmm import FgmmProcessor

from ..cli import UserError
from ..models import load_model
from .calibration import Calibration, read_calibration
from .candidates import Windows
from .catalog import Catalog
from .fingerprints import check_fingerprint
from .folder import IndexFolder, Manifest, read_manifest
from .moments import Moment, find_moments
from .queries import Query, make_media_query, make_text_queries
from .settings import SearchSettings
from .vectors import Vectors

# How often a state is looked for anew that vanished while it was opened.
ATTEMPTS = 5


@dataclass(frozen=True)
class SearchResult:
    """What a search found.

    moments: the best first. nothing_matches: the best moment is no better than what queries that nothing fits reach on
    this index, so that the moments are the nearest, not an answer; a query by media is always answered.
    unknown_words: of the text, that the model does not know. complete: whether the index has all files of its folders.
    seconds: that the search took.
    """

    moments: list[Moment]
    nothing_matches: bool
    unknown_words: list[str]
    complete: bool
    seconds: float

    def to_dict(self) -> dict:
        """As JSON holds it."""
        return {
            "moments": [moment.to_dict() for moment in self.moments],
            "nothing_matches": self.nothing_matches,
            "unknown_words": self.unknown_words,
            "complete": self.complete,
            "seconds": round(self.seconds, 4),
        }


@dataclass(frozen=True)
class OpenState:
    """A state of an index, open for searching."""

    path: Path
    manifest: Manifest
    calibration: Calibration
    catalog: Catalog
    windows: Windows


class VideoIndex:
    """An index, open for searching; several threads may search in it at once.

    Each search sees the newest whole state, also while the folder is indexed.

    Args:
        folder: of the index.
        device: of the model, which is the one that the index was made with.

    Raises:
        UserError: when the folder holds no index, one of a newer version, or the model is no longer the same.
    """

    def __init__(self, folder: str | os.PathLike, device: str | torch.device = "cpu"):
        self.folder = IndexFolder(folder)
        self.device = torch.device(device)
        self.lock = threading.Lock()
        self.opened = self.open_state()

    @cached_property
    def loaded(self) -> tuple[FgmmModel, FgmmProcessor]:
        """The model and its processor; they are loaded by the first use.

        Raises:
            UserError: when the model is not there any more, or another one is in its place.
        """
        manifest = self.opened.manifest
        model, processor = load_model(manifest.model)
        check_fingerprint(model, processor, manifest.fingerprint, manifest.model, self.folder.path)
        return model.to(self.device), processor

    @property
    def model(self) -> FgmmModel:
        return self.loaded[0]

    @property
    def processor(self) -> FgmmProcessor:
        return self.loaded[1]

    @property
    def manifest(self) -> Manifest:
        """What the newest state says of itself."""
        return self.state().manifest

    def open_state(self) -> OpenState:
        """Opens the newest state."""
        for attempt in range(ATTEMPTS):
            path = self.folder.current()
            try:
                manifest, calibration = read_manifest(path), read_calibration(path / "calibration.json")
                catalog = Catalog(path / "catalog.sqlite", read_only=True)
                vectors = {name: Vectors.load(path / f"{name}.faiss", shared=True) for name in manifest.modalities}
                windows = Windows(catalog, vectors, self.folder.parts, calibration.background)
            except (FileNotFoundError, RuntimeError) as error:
                # Two newer states may have been made meanwhile, so that this one was removed.
                if attempt + 1 == ATTEMPTS or self.folder.current() == path:
                    raise UserError(
                        f"The index state {path} is damaged ({error}); run index_videos.py again."
                    ) from error
                continue
            return OpenState(path, manifest, calibration, catalog, windows)
        raise UserError(f"The index {self.folder.path} changes faster than it can be read; try again.")

    def state(self) -> OpenState:
        """The newest state, which is opened anew where there is one since the last call."""
        if self.folder.current() != self.opened.path:
            with self.lock:
                if self.folder.current() != self.opened.path:
                    self.opened = self.open_state()
        return self.opened

    def search(
        self,
        text: str | None = None,
        *,
        sound: str | os.PathLike | tuple | None = None,
        picture: str | os.PathLike | None = None,
        clip: str | os.PathLike | tuple | None = None,
        top: int = SearchSettings.top,
        inside: str | os.PathLike | None = None,
        after: str | datetime.date | None = None,
        spoken: float = SearchSettings.spoken,
        candidates: int = SearchSettings.candidates,
    ) -> SearchResult:
        """Finds the moments that fit a text, a sound, a picture or a clip; one of them is given.

        Args:
            text: a description of what is seen, heard or said.
            sound: path of a sound, or of a video with sound, or (path, start, end), s; without an end it is as long as
                a window of the index.
            picture: path of an image.
            clip: path of a video, or (path, start, end), likewise.
            top: moments at most.
            inside: a folder, or a file, that moments must be in: absolute, or as it is below an indexed folder.
            after: a date (ISO 8601, as 2026-05-31), before which files must not have been changed last.
            spoken: factor of the calibrated weight of words found in subtitles; 0 leaves subtitles out.
            candidates: windows that the model's own score is computed for.

        Raises:
            UserError: when not exactly one query is given, or it cannot be compared with this index.
            MediaError: when a file of the query cannot be decoded.
        """
        settings, started = SearchSettings(top, candidates, spoken), time.monotonic()
        query = self.make_query(self.state(), text, sound, picture, clip)
        for _ in range(ATTEMPTS):
            state = self.state()
            try:
                moments, nothing = self.find(state, query, select(state.catalog, inside, after), settings)
            except FileNotFoundError:  # of a part that newer states need no more
                if self.folder.current() == state.path:
                    raise UserError(f"The index {self.folder.path} lacks a part; run index_videos.py again.") from None
                continue
            seconds = time.monotonic() - started
            return SearchResult(moments, nothing, query.unknown_words, state.manifest.complete, seconds)
        raise UserError(f"The index {self.folder.path} changes faster than it can be read; try again.")

    def find(
        self, state: OpenState, query: Query, allowed: np.ndarray | None, settings: SearchSettings
    ) -> tuple[list[Moment], bool]:
        """The moments of a state that fit a query, and whether nothing matches; see [`SearchResult`]."""
        weight = settings.spoken * state.calibration.spoken_weight
        ranked = state.windows.rank(query, settings.candidates, weight, allowed)
        moments = find_moments(
            ranked, state.catalog, lambda entries: state.windows.score(query, entries, weight), settings.top
        )
        nothing = not moments or (query.text is not None and moments[0].score <= state.calibration.threshold)
        return moments, nothing

    def make_query(self, state: OpenState, text, sound, picture, clip) -> Query:
        """What is searched for; arguments and errors as of [`search`]."""
        given = {"text": text, "sound": sound, "picture": picture, "clip": clip}
        given = {name: value for name, value in given.items() if value is not None}
        if len(given) != 1:
            raise UserError(f"Give one of a text, a sound, a picture and a clip, not {' and '.join(given) or 'none'}.")
        kind, value = given.popitem()
        modalities = state.manifest.modalities
        if kind == "text":
            if not isinstance(value, str) or not value.strip():
                raise UserError("The text of a search must have a word.")
            if "text" not in self.model.config.modalities:
                raise UserError("The model of this index has no text encoder; give a sound, a picture or a clip.")
            return make_text_queries(self.model, self.processor, [value], modalities)[0]
        path, start, end = (*value, None, None)[:3] if isinstance(value, tuple) else (value, None, None)
        seconds = state.manifest.settings["window_seconds"]
        if not Path(path).is_file():
            raise UserError(f"The {kind} {path} is not there; give the path of a file.")
        return make_media_query(self.model, self.processor, kind, path, modalities, seconds, start or 0.0, end)


def select(catalog: Catalog, inside: str | os.PathLike | None, after: str | datetime.date | None) -> np.ndarray | None:
    """Ids of the windows that a search may find, ascending; None: all.

    Raises:
        UserError: when no file is there, or the date is none.
    """
    if inside is None and after is None:
        return None
    since = None
    if after is not None:
        try:
            date = datetime.datetime.fromisoformat(str(after))
        except ValueError as error:
            raise UserError(f"{str(after)!r} is no date; write it as 2026-05-31.") from error
        since = min(int(date.timestamp() * 1e9), 2**63 - 1)  # the largest number of SQLite
    below = None if inside is None else os.fspath(inside)
    if below is not None and Path(below).exists():
        below = str(Path(below).absolute())
    allowed = np.sort(catalog.select_windows(below, since))
    if inside is not None and not len(allowed) and not len(catalog.select_windows(below, None)):
        raise UserError(f"The index has no file in {below}; give a folder or file of those that were indexed.")
    return allowed
