"""Decodes a bit of each of one's own files, so that damage is found before training, and checks their captions."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from PIL import Image

from processing_fgmm.corpora_fgmm import CAPTION_FIELDS, check_captions
from processing_fgmm.media_fgmm import MediaError, probe_media, read_frames, read_image, read_waveform

from ..benchmarks.layout import Item
from ..options import is_table
from ..problems import Problems
from ..processes import run_jobs
from .rows import column_of

# What is decoded: the first frame of a video, and of a sound this many seconds at this rate, Hz.
SECONDS, SAMPLING_RATE = 1.0, 16000
# Files that a worker process decodes before it answers.
FILES_PER_JOB = 16


@dataclass(frozen=True)
class MediaFacts:
    """What decoding told of a file.

    column: its media column.
    duration: seconds; infinite for an image, and where it is unknown.
    """

    column: str
    duration: float


def check_items(
    groups: dict[str, list[Item]],
    source: Path,
    captions_required: bool,
    num_proc: int,
    problems: Problems,
    engine: str = "processes",
) -> dict[str, list[Item]]:
    """The items of each group without files that cannot be decoded, in the columns of what they hold, with the captions
    that can be used.

    Args:
        groups: as a reader gives them.
        source: folder that paths in problems are relative to.
        captions_required: leave out items without captions.
        num_proc: worker processes.
        engine: that schedules them, see [`run_jobs`].
    """
    paths = dict.fromkeys(path for items in groups.values() for item in items for path in item.paths())
    facts = check_files(list(paths), num_proc, engine)
    checked = {}
    for group, items in groups.items():
        decoded = (keep_decodable(item, facts, source, problems) for item in items)
        usable = [keep_usable_captions(*pair, source, problems) for pair in decoded if pair]
        checked[group] = [item for item in usable if item.captions or not captions_required]
        for item in usable:
            if captions_required and not item.captions:
                problems.add(relative(item.paths()[0], source), "has no caption that can be used")
    return checked


def check_files(paths: list[Path], num_proc: int, engine: str = "processes") -> dict[Path, MediaFacts | str]:
    """What decoding tells of each file, or why it cannot be decoded, with a progress bar."""
    jobs = [paths[first : first + FILES_PER_JOB] for first in range(0, len(paths), FILES_PER_JOB)]
    sizes = [len(job) for job in jobs]
    answers = run_jobs(check_some, [(job,) for job in jobs], sizes, num_proc, "Checking", "file", engine)
    return dict(pair for answer in answers for pair in answer)


def check_some(paths: Iterable[Path]) -> list[tuple[Path, MediaFacts | str]]:
    """The task of one worker process."""
    torch.set_num_threads(1)  # a thread pool of the process that this one is forked from is not in it
    return [(path, check_file(path)) for path in paths]


def check_file(path: Path) -> MediaFacts | str:
    """What decoding the beginning of a file tells of it, or why it cannot be decoded, as the rest of a sentence."""
    name = str(path)
    try:
        if column_of(path) == "image" and not is_animation(path):
            read_image(path, name)
            return MediaFacts("image", math.inf)
        info = probe_media(path, name)
        duration = info.duration or math.inf
        if info.has_video:
            read_frames(path, 1, 0.0, 1e-3, size=32, name=name)
        else:
            read_waveform(path, SAMPLING_RATE, 0.0, min(duration, SECONDS), name)
        return MediaFacts("video" if info.has_video else "audio", duration)
    except MediaError as error:
        return str(error).removeprefix(f"{name} ").rstrip(".")


def is_animation(path: Path) -> bool:
    """Whether an image file is a GIF of several frames, which is a video."""
    if path.suffix.lower() != ".gif":
        return False
    try:
        with Image.open(path) as image:
            return getattr(image, "is_animated", False)
    except (OSError, ValueError, SyntaxError):  # no GIF that Pillow can read: decoding says why
        return False


def keep_decodable(
    item: Item, facts: dict[Path, MediaFacts | str], source: Path, problems: Problems
) -> tuple[Item, float] | None:
    """The item with the files that can be decoded, in the columns of what they hold, and its duration in seconds, that
    of its video or else its sound; None, where there is none of them."""
    files: dict[str, Path] = {}
    durations: dict[str, float] = {}
    for path in item.paths():
        fact = facts[path]
        if isinstance(fact, str):
            problems.add(relative(path, source), fact)
        elif fact.column in files:
            problems.add(relative(path, source), f"is a second {fact.column} of its name; rename one of them")
        else:
            files[fact.column], durations[fact.column] = path, fact.duration
    if not files:
        return None
    duration = durations.get("video", durations.get("audio", math.inf))
    return replace(item, path=tuple(files.values()), columns=tuple(files)), duration


def keep_usable_captions(item: Item, duration: float, source: Path, problems: Problems) -> Item:
    """The item with the captions that can be used within its duration (s), by the rule of [`check_captions`]."""
    if item.captions_from is None:
        return item
    checked = check_captions([dict(zip(CAPTION_FIELDS, caption, strict=True)) for caption in item.captions], duration)
    name = relative(item.captions_from, source)
    for _, problem in checked:
        if problem:
            problems.add(name, f"{problem} ({item.video_id})" if is_table(item.captions_from) else problem)
    usable = [caption for caption, _ in checked if caption]
    captions = tuple((" ".join(caption["text"].split()), caption["start"], caption["end"]) for caption in usable)
    return replace(item, captions=captions)


def relative(path: Path, source: Path) -> Path:
    """A path in problems: relative to the source where it is below it."""
    return path.relative_to(source) if path.is_relative_to(source) else path
