"""Brings an index up to date with its folders: what is new or changed is embedded, what is gone is forgotten."""

import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from tqdm import tqdm

from ..cli import UserError
from ..corpora.problems import Problems
from ..embedding.settings import EmbeddingSettings
from ..embedding.windows import MODALITIES
from ..models import fingerprint_weights, load_model
from .catalog import Catalog, FileEntry
from .embedder import Chunk, Cut, EmbeddedFile, Embedder
from .files import Changes, MediaFile, check_folders, find_changes, has_changed, hash_file
from .fingerprints import check_fingerprint
from .folder import STATES_KEPT, IndexFolder, Manifest, read_manifest
from .parts import part_path, write_part
from .settings import PUBLISH_SECONDS, IndexSettings
from .states import make_state
from .subtitles import CaptionFileError, Cues, read_cues

# Files are waited for, so long after one was written to, before they are read, ms: while they are copied they change.
WATCH_PATIENCE = 2000


@dataclass
class Report:
    """What an update did.

    embedded, kept, copied, renamed, forgotten, damaged: files; copied ones had a content that was known.
    changing: files that were written to while they were read. windows: of all files.
    media_seconds: of what was embedded; seconds: that it took; both s.
    """

    embedded: int = 0
    kept: int = 0
    copied: int = 0
    renamed: int = 0
    forgotten: int = 0
    damaged: int = 0
    changing: int = 0
    windows: int = 0
    media_seconds: float = 0.0
    seconds: float = 0.0

    @property
    def has_changes(self) -> bool:
        return any((self.embedded, self.copied, self.renamed, self.forgotten, self.changing))


class Indexer:
    """Indexes folders; the folder of the index is locked by whoever makes one.

    Args:
        folder: of the index.
        model_name: name or folder of the model; None: that of the index.
        folders: to index beside those that the index has; these are looked through.
        settings: of a new index; of an old one None, or the same.
        batch_size: windows that are embedded at once. num_workers: decoding processes; 0 decodes in this one.
        device: of the model.

    Raises:
        UserError: when there is no model or folder, the model or the settings are others than those of the index.
    """

    def __init__(
        self,
        folder: IndexFolder,
        model_name: str | None,
        folders: list[str],
        settings: IndexSettings | None = None,
        batch_size: int = EmbeddingSettings.batch_size,
        num_workers: int = 1,
        device: torch.device | str = "cpu",
    ):
        self.folder = folder
        self.catalog = Catalog(folder.catalog)
        known = self.catalog.read_facts()
        self.folders = check_folders(folders or known.get("folders", []))
        if not self.folders:
            raise UserError("A new index needs --videos, the folders that it is of.")
        name = self.choose_model(model_name, known)
        model, self.processor = load_model(name)
        self.model = model.to(device)
        if not set(MODALITIES) & set(model.config.modalities):
            raise UserError(f"The model {name!r} has neither an encoder of video nor of audio; give another --model.")
        if known:
            check_fingerprint(self.model, self.processor, known["fingerprint"], name, folder.path)
        self.settings = self.choose_settings(settings, known)
        others = [path for path in known.get("folders", []) if path not in self.folders]
        self.catalog.write_facts(
            {
                "model": name,
                "fingerprint": known.get("fingerprint") or fingerprint_weights(self.model, self.processor),
                "settings": asdict(self.settings),
                "folders": sorted({*others, *self.folders}),
            }
        )
        cut = Cut.of(self.processor, self.settings.window_seconds, self.settings.stride)
        kept = EmbeddingSettings(
            num_regions=self.settings.num_regions, precision=self.settings.precision, batch_size=batch_size
        )
        self.embedder = Embedder(self.model, self.processor, cut, kept, num_workers)
        self.published = time.monotonic()

    def choose_model(self, given: str | None, known: dict) -> str:
        """The name of the model: as given, a folder as an absolute path; else that of the index."""
        if given is None and not known:
            raise UserError("A new index needs --model, a model folder or name on the Hub.")
        name = known["model"] if given is None else given
        return str(Path(name).absolute()) if Path(name).is_dir() else name

    def choose_settings(self, given: IndexSettings | None, known: dict) -> IndexSettings:
        """The settings of the index, with the length of windows settled.

        Raises:
            UserError: when others are given than those of the index.
        """
        settings = given or IndexSettings(**known.get("settings", {}))
        if settings.window_seconds is None:
            settings = replace(settings, window_seconds=float(self.processor.clip_seconds))
        if known and asdict(settings) != known["settings"]:
            differing = [name for name, value in asdict(settings).items() if value != known["settings"][name]]
            raise UserError(
                f"The index {self.folder.path} was made with other settings ({', '.join(differing)}); leave them out, "
                "or make another index."
            )
        return settings

    @property
    def modalities(self) -> list[str]:
        return [name for name in MODALITIES if name in self.model.config.modalities]

    def update(self) -> tuple[Manifest, Report]:
        """Takes in new and changed files, forgets those that are gone, and makes a whole state for searches.

        Returns:
            the manifest of the state, and what was done.
        """
        started, report = time.monotonic(), Report()
        changes = find_changes(self.folders, self.catalog.list_files())
        report.kept = changes.num_kept
        for file, entry in changes.recaptioned:
            self.catalog.change_file(entry.id, self.read_cues(file, entry.duration), subtitles=file.subtitles)
        to_embed = self.take_known(changes, report)
        self.catalog.forget_files([entry.id for entry in changes.gone])
        report.forgotten = len(changes.gone)
        self.embed(to_embed, report)
        manifest = self.publish_last(report)
        report.windows, report.damaged = manifest.num_windows, manifest.num_damaged + len(changes.problems)
        self.list_problems(changes.problems)
        report.seconds = time.monotonic() - started
        return manifest, report

    def take_known(self, changes: Changes, report: Report) -> list[MediaFile]:
        """Takes in the files whose content is known: touched, renamed or copied ones; the others are returned.

        Renamed files are taken from the changes' gone ones.
        """
        entries = [entry for entry in self.catalog.list_files() if entry.problem is None]
        sizes = {entry.size for entry in entries}
        by_hash: dict[str, list[FileEntry]] = {}
        for entry in entries:
            by_hash.setdefault(entry.hash, []).append(entry)
        unknown = []
        for file, entry in changes.to_read:
            same = by_hash.get(self.try_hash(file), []) if file.size in sizes else []
            if not same or has_changed(file):
                unknown.append(file)
                continue
            now = {"modified": file.modified, "subtitles": file.subtitles}
            gone = [other for other in changes.gone if other in same]
            if entry is not None and entry in same:
                self.catalog.change_file(entry.id, self.read_cues(file, entry.duration), **now)
                report.kept += 1
            elif gone:
                changes.gone.remove(gone[0])
                now |= {"folder": file.folder, "name": file.name}
                self.catalog.change_file(gone[0].id, self.read_cues(file, gone[0].duration), **now)
                report.renamed += 1
            else:
                source = same[0]
                content = {name: getattr(source, name) for name in ("kind", "hash", "duration", "frame_rate", "damage")}
                cues = self.read_cues(file, source.duration)
                self.catalog.copy_file(source.id, {**describe(file), **content, "problem": None}, cues)
                report.copied += 1
        return unknown

    def try_hash(self, file: MediaFile) -> str | None:
        """The hash of a file; None where it cannot be read."""
        try:
            return hash_file(file.path)
        except OSError:
            return None

    def read_cues(self, file: MediaFile, duration: float | None) -> Cues:
        """The captions of a file; none, and a line on the screen, where they cannot be read."""
        try:
            return read_cues(file.path, file.beside, duration)
        except CaptionFileError as error:
            tqdm.write(f"{file.beside} {error}; {file.name} is searched without it.", file=sys.stderr)
            return []

    def embed(self, files: list[MediaFile], report: Report) -> None:
        """Embeds files and takes each in as soon as it is whole."""
        if not files:
            return
        with Progress(files) as progress:
            for embedded in self.embedder.embed_files(files, progress.advance):
                progress.finish(embedded.file)
                self.take_in(files[embedded.file], embedded, report)
                if time.monotonic() - self.published > PUBLISH_SECONDS:
                    self.publish(num_pending=progress.num_left, settle=False)

    def take_in(self, file: MediaFile, embedded: EmbeddedFile, report: Report) -> None:
        """Writes what is kept of a file, unless it was written to meanwhile."""
        content = self.try_hash(file)
        if content is None or has_changed(file):
            report.changing += 1
            return
        entry = {
            **describe(file),
            "hash": content,
            "duration": embedded.duration,
            "frame_rate": embedded.frame_rate,
            "problem": embedded.problem,
            "damage": "; ".join(embedded.damage[:3]) or None,
        }
        if embedded.problem is None:
            write_part(part_path(self.folder.parts, content), embedded.windows)
            report.embedded += 1
            report.media_seconds += embedded.duration or 0.0
        windows = [
            {
                "place": place,
                "start": window.start or 0.0,
                "end": window.end or 0.0,
                "has_video": window.video is not None,
                "has_audio": window.audio is not None,
                **asdict(marks),
            }
            for place, (window, marks) in enumerate(zip(embedded.windows, embedded.marks, strict=True))
        ]
        cues = self.read_cues(file, embedded.duration) if embedded.problem is None else []
        self.catalog.add_file(entry, windows, cues)

    def publish(self, num_pending: int, settle: bool) -> Manifest:
        """Makes a state of what there is."""
        manifest = make_state(
            self.folder, self.catalog, self.model, self.processor, self.modalities, num_pending, settle
        )
        self.published = time.monotonic()
        return manifest

    def publish_last(self, report: Report) -> Manifest:
        """Makes the state of the whole, unless the present one is that already, and removes what none refers to."""
        state = self.folder.read_pointer()
        if state is not None and not report.changing:
            manifest = read_manifest(self.folder.states / state)
            if manifest.complete and self.read_catalog(state).revision == self.catalog.revision:
                return manifest
        manifest = self.publish(num_pending=report.changing, settle=True)
        self.remove_unused_parts()
        return manifest

    def read_catalog(self, state: str) -> Catalog:
        """The catalog of a state, by its name."""
        return Catalog(self.folder.states / state / "catalog.sqlite", read_only=True)

    def remove_unused_parts(self) -> None:
        """Removes the parts to which neither the catalog nor a kept state refers."""
        used = self.catalog.hashes()
        for state in sorted(self.folder.states.iterdir())[-STATES_KEPT:]:
            used |= self.read_catalog(state.name).hashes()
        for part in self.folder.parts.glob("*/*"):
            if part.name.partition(".")[0] not in used:
                part.unlink()

    def list_problems(self, problems: Problems) -> None:
        """Writes which files cannot be searched, or not in whole, and why."""
        for entry in self.catalog.list_files():
            if entry.problem or entry.damage:
                problems.add(entry.path, entry.problem or f"is used without a damaged part: {entry.damage}")
        problems.write(self.folder.path)

    def watch(self) -> Iterator[tuple[Manifest, Report]]:
        """Updates the index whenever something in its folders has changed; goes on until it is stopped.

        Raises:
            UserError: when watchfiles is not installed.
        """
        try:
            from watchfiles import watch
        except ImportError as error:
            raise UserError("--watch needs watchfiles; install fgmm[search].") from error
        own = str(self.folder.path.absolute())
        options = {"watch_filter": lambda change, path: not path.startswith(own), "debounce": WATCH_PATIENCE}
        for _ in watch(*self.folders, **options):
            manifest, report = self.update()
            if report.has_changes:
                yield manifest, report


def describe(file: MediaFile) -> dict:
    """What the catalog has of a file that was only found."""
    names = ("folder", "name", "kind", "size", "modified", "subtitles")
    return {name: getattr(file, name) for name in names}


class Progress:
    """A progress bar over the bytes of files, with the time left, as they are decoded.

    Args:
        files: to index.
    """

    def __init__(self, files: list[MediaFile]):
        self.sizes = [max(file.size, 1) for file in files]
        self.shown = [0] * len(files)
        self.num_left = len(files)
        self.bar = tqdm(total=sum(self.sizes), desc="Indexing", unit="B", unit_scale=True)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *exception) -> None:
        self.bar.close()

    def advance(self, chunk: Chunk) -> None:
        """Shows how far a file is decoded."""
        if chunk.windows and chunk.duration:
            self.show(chunk.file, chunk.windows[-1].end / chunk.duration)

    def finish(self, file: int) -> None:
        """Shows that a file is done."""
        self.show(file, 1.0)
        self.num_left -= 1
        self.bar.set_postfix_str(f"{self.num_left} files left", refresh=False)

    def show(self, file: int, share: float) -> None:
        reached = int(self.sizes[file] * min(share, 1.0))
        self.bar.update(max(0, reached - self.shown[file]))
        self.shown[file] = max(reached, self.shown[file])
