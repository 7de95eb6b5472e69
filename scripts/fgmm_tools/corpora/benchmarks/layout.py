"""What the reader of a benchmark returns, and the helpers that readers share.

A reader is a function (source, problems) -> Reading: `source` is the folder in the published layout, and what is left
out is added to `problems`. It raises [`UserError`] where the folder has another layout.
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
from ..mentions import Mention
from ..problems import Problems

# File name extensions: publishers, downloaders and converters differ.
# fmt: off
VIDEO = (
    ".mp4", ".avi", ".webm", ".mkv", ".mov", ".mpg", ".mpeg", ".m4v", ".flv", ".wmv", ".3gp", ".ts", ".mts",
    ".m2ts", ".ogv", ".vob", ".asf", ".mpe", ".m2v", ".f4v", ".3g2", ".qt", ".mxf", ".dv", ".divx",
)
IMAGE = (
    ".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".heic", ".heif", ".jfif", ".jp2",
    ".ppm", ".pgm",
)
AUDIO = (
    ".wav", ".flac", ".ogg", ".opus", ".mp3", ".m4a", ".aac", ".webm", ".oga", ".wma", ".aiff", ".aif", ".au",
    ".caf", ".m4b", ".mka", ".amr", ".ac3", ".mp2", ".wv", ".ape", ".weba",
)
# fmt: on

SPLITS = ("train", "validation", "test")

Caption = tuple[str, float | None, float | None]  # text, start and end (s); None: it describes the whole item


@dataclass(frozen=True)
class Item:
    """What one row of a corpus is made from.

    Args:
        video_id: the row's name, unique within its group.
        path: the media file; of a slide show its photographs in the order in which they are shown.
        captions: text, start and end of each.
        caption_slides: of a slide show, the slide that each caption describes, -1 for none.
        label: of a benchmark with classes, the index of the class, or of each class where there may be several.
        columns: of one's own files the media column of each path, until it is decoded by its extension.
        captions_from: of one's own files the file that the captions stand in, which are not checked yet.
        group: of one's own files what stays in one split: a speaker, a recording.
        mentions: of a benchmark of grounding, where and when the things are that the captions name.
    """

    video_id: str
    path: Path | tuple[Path, ...]
    captions: tuple[Caption, ...] = ()
    caption_slides: tuple[int, ...] | None = None
    label: int | tuple[int, ...] | None = None
    columns: tuple[str, ...] = ()
    captions_from: Path | None = None
    group: str | None = None
    mentions: tuple[Mention, ...] = ()

    def paths(self) -> tuple[Path, ...]:
        """Its media files."""
        return self.path if isinstance(self.path, tuple) else (self.path,)

    def num_bytes(self) -> int:
        """Size of its media files."""
        return sum(path.stat().st_size for path in self.paths())


@dataclass(frozen=True)
class Reading:
    """The rows of a benchmark, in groups whose items are in the same split of every configuration, so that official
    splits and folds share the stored media.

    Args:
        groups: items by the name of their group.
        configs: {configuration: {split: names of its groups}}.
        label: feature of the column `label`; None: the benchmark has no classes.
    """

    groups: dict[str, list[Item]]
    configs: dict[str, dict[str, list[str]]]
    label: ClassLabel | List | None = None


@dataclass(frozen=True)
class Benchmark:
    """How a benchmark is read, and what its dataset card says.

    Args:
        name: as in the registry.
        title: its name as written by its publishers.
        medium: the media column: `"video"`, `"image"` or `"audio"`; None: that of each file, of one's own.
        read: its reader, see the top of this file.
        text: the card's description.
        license_id: as the Hub names it.
        redistributable: whether the licence allows anybody to publish the media, for example as a Hub dataset.
    """

    name: str
    title: str
    medium: str | None
    read: Callable[..., Reading]
    text: str
    license_id: str = "other"
    redistributable: bool = False

    @property
    def is_own(self) -> bool:
        """Whether it is no benchmark, but one's own files: its reader takes [`OwnFiles`], and every file is decoded."""
        return self.medium is None


def one_config(splits: dict[str, list[Item]], label: ClassLabel | List | None = None) -> Reading:
    """The rows of a benchmark with one official split, given as {split: items}."""
    return Reading(splits, {"default": {split: [split] for split in splits}}, label)


def several_configs(
    names: Iterable[str],
    members: Iterable[tuple[Item, tuple[str | None, ...]]],
    label: ClassLabel | List | None = None,
) -> Reading:
    """The rows of a benchmark with several official splits.

    Args:
        names: the configurations.
        members: each item with its split in every configuration, None where it is in none.
        label: feature of the column `label`.
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
    """The path, if it exists.

    Raises:
        UserError: naming it and the layout.
    """
    if not path.exists():
        raise UserError(f"{path} does not exist; {layout}.")
    return path


def find_file(source: Path, *names: str) -> Path | None:
    """The first of these files that exists in the source or directly below one of its folders."""
    for name in names:
        for path in (source / name, *sorted(source.glob(f"*/{name}"))):
            if path.exists():
                return path
    return None


def require_file(source: Path, layout: str, *names: str) -> Path:
    """As [`find_file`].

    Raises:
        UserError: naming the files and the layout, where there is none.
    """
    path = find_file(source, *names)
    if path is None:
        raise UserError(f"{source} has no {' or '.join(names)}; {layout}.")
    return path


@contextmanager
def parsing(path: Path, layout: str) -> Iterator[None]:
    """Turns any exception that a damaged file causes into a UserError that names the file."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        problem = " ".join(f"{type(error).__name__}: {error}".split())
        raise UserError(f"{path} cannot be read as published ({problem}); {layout}.") from error


@contextmanager
def reading_row(row: str, problems: Problems) -> Iterator[None]:
    """Notes a problem where the row that is read within the block is damaged, so that the others are still read.

    Args:
        row: its name in the problem.
    """
    try:
        yield
    except (LookupError, TypeError, ValueError, csv.Error) as error:
        problems.add(row, f"is not as published ({type(error).__name__}: {error})")


def read_csv(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file with a header."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def read_lines(path: Path) -> list[str]:
    """The lines of a text file that are not empty.

    Raises:
        UserError: when the file is not UTF-8.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not a text in UTF-8; download it again.") from error
    return [line.strip() for line in text.splitlines() if line.strip()]


def seconds(value: object) -> float:
    """A time in seconds; NaN where the value is no number."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return float("nan")


def find_files(
    folder: Path,
    suffixes: tuple[str, ...] | None = None,
    on_error: Callable[[OSError], None] | None = None,
) -> Iterator[Path]:
    """The files in a folder and below it, sorted; links are followed, each folder once.

    Hidden ones are left out, whose names begin with a dot: macOS keeps a `._clip.mp4` beside `clip.mp4`.

    Args:
        suffixes: extensions, in lower case, with the dot; None: any.
        on_error: is told of each folder that cannot be read.
    """
    entered = set()
    for parent, folders, names in os.walk(folder, followlinks=True, onerror=on_error):
        status = os.stat(parent)
        if (status.st_dev, status.st_ino) in entered:  # a link to a folder above
            folders.clear()
            continue
        entered.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if not name.startswith(".") and (suffixes is None or Path(name).suffix.lower() in suffixes):
                yield Path(parent, name)


class MediaFolder:
    """The media files in a folder and below it, by their names without extension.

    Args:
        folder: where they are.
        suffixes: extensions of media files, in lower case, with the dot.
    """

    def __init__(self, folder: Path, suffixes: tuple[str, ...]):
        self.folder = folder
        self.suffixes = suffixes
        self.paths: dict[str, Path] = {}
        for path in find_files(folder, suffixes):
            self.paths.setdefault(self.stem(path.name), path)

    def stem(self, name: str) -> str:
        """A file's name without its extension, or extensions (`x.mov.mp4`)."""
        while Path(name).suffix.lower() in self.suffixes:
            name = name[: -len(Path(name).suffix)]
        return name

    def find(self, problems: Problems, *names: str) -> Path | None:
        """The first of these files that exists, with any extension; None, and a problem noted, if none does."""
        for name in names:
            if self.stem(name) in self.paths:
                return self.paths[self.stem(name)]
        problems.add(names[0], f"is not in {self.folder.name}")
        return None


def segment_names(video: str, start: float, end: float) -> list[str]:
    """The file names that common downloaders give a segment of a YouTube video, from `start` to `end` seconds."""
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
    """Captions of the whole item; empty ones are left out."""
    return tuple((text.strip(), None, None) for text in texts if text and text.strip())


def timed_captions(name: str, rows: Iterable[tuple], problems: Problems) -> tuple[Caption, ...]:
    """Captions with times; a problem is noted for each that is empty or has no times with 0 <= start < end.

    Args:
        name: the item's name in the problems.
        rows: (text, start, end) as read from the list, seconds.
    """
    captions = []
    for text, start, end in rows:
        words = str(text or "").split()
        first, last = seconds(start), seconds(end)
        if not words:
            problems.add(name, f"has a caption without text at {start} s")
        elif not 0 <= first < last < float("inf"):
            problems.add(name, f"has a caption from {start} to {end} s")
        else:
            captions.append((" ".join(words), first, last))
    return tuple(captions)


def readable_class(name: str) -> str:
    """A class name as lower-case words: of `BabyCrawling`, `brush_hair` or `010 - Fire crackling`."""
    words = re.sub(r"^\d+ - ", "", name).replace("_", " ")
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", words).lower()
