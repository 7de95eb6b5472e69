"""What every reader of a benchmark gives, and what readers share.

A reader is a function (source, problems) -> Reading. It raises [`LayoutError`] where the folder is not in the published
layout, and adds a sentence to `problems` for each entry that it leaves out.
"""

import csv
import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from datasets import ClassLabel, List

from ...cli import UserError

# Endings of media files: publishers, downloaders and converters differ.
VIDEO = (".mp4", ".avi", ".webm", ".mkv", ".mov", ".mpg", ".mpeg", ".m4v", ".flv", ".wmv", ".3gp")
IMAGE = (".jpg", ".jpeg", ".png", ".webp")
AUDIO = (".wav", ".flac", ".ogg", ".opus", ".mp3", ".m4a", ".aac", ".webm")

SPLITS = ("train", "validation", "test")

Caption = tuple[str, float | None, float | None]


class LayoutError(UserError):
    """A source that is not in the published layout: one sentence that names what is missing."""


@dataclass(frozen=True)
class Item:
    """What a row is made of: its id, the media file (or the photographs of a slide show), and captions as
    (text, start, end) in seconds or None. Of a slide show also the slide that each caption tells of, -1 for none.
    Of a benchmark with classes the label: the index of its class, or of each of its classes."""

    video_id: str
    path: Path | tuple[Path, ...]
    captions: tuple[Caption, ...] = ()
    caption_slides: tuple[int, ...] | None = None
    label: int | tuple[int, ...] | None = None

    def paths(self) -> tuple[Path, ...]:
        """Its media files."""
        return self.path if isinstance(self.path, tuple) else (self.path,)

    def num_bytes(self) -> int:
        """Size of its media files."""
        return sum(path.stat().st_size for path in self.paths())


@dataclass(frozen=True)
class Reading:
    """The rows of a benchmark.

    Rows are stored in groups: those of a group are in the same split of every configuration, so that official splits
    or folds share what is stored.

    groups: the items of each group.
    configs: {configuration: {split: names of the groups that make it up}}.
    label: the feature of the column label, None for a benchmark without classes.
    """

    groups: dict[str, list[Item]]
    configs: dict[str, dict[str, list[str]]]
    label: ClassLabel | List | None = None


@dataclass(frozen=True)
class Benchmark:
    """How a benchmark is read, and what its card says.

    redistributable: whether its licence lets anybody pass on the media, as a Hub dataset for example.
    """

    name: str
    title: str
    medium: str
    read: Callable[[Path, list[str]], Reading]
    text: str
    license_id: str = "other"
    redistributable: bool = False


def one_config(splits: dict[str, list[Item]], label: ClassLabel | List | None = None) -> Reading:
    """The rows of a benchmark with a single official split."""
    return Reading(splits, {"default": {split: [split] for split in splits}}, label)


def several_configs(
    names: Iterable[str],
    members: Iterable[tuple[Item, tuple[str | None, ...]]],
    label: ClassLabel | List | None = None,
) -> Reading:
    """The rows of a benchmark with several official splits.

    Args:
        names: of the configurations.
        members: items, each with its split in every configuration, None where it is in none of its splits.
        label: the feature of the column label.
    """
    groups: dict[str, list[Item]] = {}
    splits_of: dict[str, tuple[str | None, ...]] = {}
    for item, splits in members:
        if any(splits):
            group = "-".join(split or "unused" for split in splits)
            groups.setdefault(group, []).append(item)
            splits_of[group] = splits
    configs = {
        name: {split: [group for group in groups if splits_of[group][place] == split] for split in SPLITS}
        for place, name in enumerate(names)
    }
    return Reading(groups, configs, label)


def require(path: Path, layout: str) -> Path:
    """The path, if it is there.

    Raises:
        LayoutError: naming it and the layout.
    """
    if not path.exists():
        raise LayoutError(f"{path} is not there; {layout}.")
    return path


def find_file(source: Path, *names: str) -> Path | None:
    """The first of these files that is in the source or in a folder directly within it."""
    for name in names:
        for path in (source / name, *sorted(source.glob(f"*/{name}"))):
            if path.exists():
                return path
    return None


def require_file(source: Path, layout: str, *names: str) -> Path:
    """The first of these files that is in the source or in a folder directly within it.

    Raises:
        LayoutError: naming them and the layout.
    """
    path = find_file(source, *names)
    if path is None:
        raise LayoutError(f"{source} has no {' or '.join(names)}; {layout}.")
    return path


@contextmanager
def parsing(path: Path, layout: str) -> Iterator[None]:
    """Whatever a damaged file gives becomes a [`LayoutError`] that names the file."""
    try:
        yield
    except LayoutError:
        raise
    except Exception as error:
        problem = " ".join(f"{type(error).__name__}: {error}".split())
        raise LayoutError(f"{path} cannot be read as published ({problem}); {layout}.") from error


@contextmanager
def reading_row(row: str, problems: list[str]) -> Iterator[None]:
    """Whatever a damaged row gives becomes a problem; the others are read on.

    Args:
        row: what it is called in the problem.
    """
    try:
        yield
    except (LookupError, TypeError, ValueError, csv.Error) as error:
        problems.append(f"{row} is not as published ({type(error).__name__}: {error})")


def read_csv(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file with a header."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def read_lines(path: Path) -> list[str]:
    """The lines of a text file that are not empty.

    Raises:
        LayoutError: when the file is not a text.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise LayoutError(f"{path} is not a text in UTF-8; get it again.") from error
    return [line.strip() for line in text.splitlines() if line.strip()]


def seconds(value: object) -> float:
    """A time, not a number (NaN) where it is none."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return float("nan")


def find_files(folder: Path, suffixes: tuple[str, ...]) -> Iterator[Path]:
    """The files with these endings in a folder and in those within it, in sorted order; links are followed."""
    for parent, folders, names in os.walk(folder, followlinks=True):
        folders.sort()
        yield from (Path(parent, name) for name in sorted(names) if Path(name).suffix.lower() in suffixes)


class MediaFolder:
    """The media files in a folder and in those within it, by their names without ending.

    Args:
        folder: where they are.
        suffixes: endings of the files that count.
    """

    def __init__(self, folder: Path, suffixes: tuple[str, ...]):
        self.folder = folder
        self.suffixes = suffixes
        self.paths: dict[str, Path] = {}
        for path in find_files(folder, suffixes):
            self.paths.setdefault(self.stem(path.name), path)

    def stem(self, name: str) -> str:
        """A file's name without its ending, or endings (`x.mov.mp4`)."""
        while Path(name).suffix.lower() in self.suffixes:
            name = name[: -len(Path(name).suffix)]
        return name

    def find(self, problems: list[str], *names: str) -> Path | None:
        """The first of these files that is there, whatever their endings; None, and a problem noted, if none is."""
        for name in names:
            if self.stem(name) in self.paths:
                return self.paths[self.stem(name)]
        problems.append(f"{names[0]} is not in {self.folder.name}")
        return None


def segment_names(video: str, start: float, end: float) -> list[str]:
    """What the usual downloaders call the file of a segment of a YouTube video, from `start` to `end` seconds."""
    return [
        f"{video}_{start:g}",
        f"{video}_{start:g}_{end:g}",
        f"{video}_{start:.3f}",
        f"{video}_{start:.3f}_{end:.3f}",
        f"{video}_{1000 * start:.0f}_{1000 * end:.0f}",
        f"{video}_{start:06.0f}_{end:06.0f}",
        video,
        f"Y{video}",
    ]


def whole_captions(texts: Iterable[str]) -> tuple[Caption, ...]:
    """Captions of the whole item; those without a word are left out."""
    return tuple((text.strip(), None, None) for text in texts if text and text.strip())


def timed_captions(name: str, rows: Iterable[tuple], problems: list[str]) -> tuple[Caption, ...]:
    """Captions with times; a problem is noted for each that has no word, or no times with 0 <= start < end.

    Args:
        name: of the item, for the problems.
        rows: (text, start, end) as they are read, seconds.
    """
    captions = []
    for text, start, end in rows:
        words = str(text or "").split()
        first, last = seconds(start), seconds(end)
        if not words:
            problems.append(f"{name} has a caption without text at {start} s")
        elif not 0 <= first < last < float("inf"):
            problems.append(f"{name} has a caption from {start} to {end} s")
        else:
            captions.append((" ".join(words), first, last))
    return tuple(captions)


def readable_class(name: str) -> str:
    """A class name as words: `BabyCrawling`, `brush_hair` and `010 - Fire crackling` are glued or numbered."""
    words = re.sub(r"^\d+ - ", "", name).replace("_", " ")
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", words).lower()
