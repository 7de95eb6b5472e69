"""HowTo100M: narrated instructional videos with captions from speech recognition."""

from collections.abc import Iterator
from pathlib import Path

import ijson
from tqdm import tqdm

from ...cli import UserError
from ..problems import Problems
from .layout import (
    VIDEO,
    Benchmark,
    Item,
    MediaFolder,
    Reading,
    find_file,
    one_config,
    parsing,
    read_csv,
    reading_row,
    timed_captions,
)

CAPTION_FILES = ("raw_caption_superclean.json", "raw_caption.json", "caption.json")
OTHER_LISTS = ("HowTo100M_v1", "task_ids")
LAYOUT = (
    f"HowTo100M is published as {' or '.join(CAPTION_FILES)}, or as a folder of a CSV file (start, end, text) a video, "
    "with the videos in folders beside them"
)


def read(source: Path, problems: Problems) -> Reading:
    """The videos that exist, with their captions; all are for training."""
    videos = MediaFolder(source, VIDEO)
    path = find_file(source, *CAPTION_FILES)
    captions = read_json_captions(path, problems) if path else read_csv_captions(source, problems)
    items, without = [], dict(videos.paths)
    for name, rows in tqdm(captions, desc="Reading captions", unit="video", leave=False):
        without.pop(name, None)
        video = videos.find(problems, name)
        if video:
            timed = timed_captions(name, rows, problems)
            if timed:
                items.append(Item(name, video, timed))
            else:
                problems.add(name, "has no caption that can be used")
    for name in without:
        problems.add(name, "has no captions")
    return one_config({"train": items})


def read_json_captions(path: Path, problems: Problems) -> Iterator[tuple[str, list[tuple]]]:
    """(video, its (text, start, end) in seconds), one video at a time: the file has gigabytes."""
    with parsing(path, LAYOUT), path.open("rb") as file:
        for name, captions in ijson.kvitems(file, "", use_float=True):
            rows = []
            with reading_row(name, problems):
                rows = list(zip(captions["text"], captions["start"], captions["end"], strict=True))
            yield name, rows


def read_csv_captions(source: Path, problems: Problems) -> Iterator[tuple[str, list[tuple]]]:
    """As [`read_json_captions`], from one CSV file a video."""
    files = {name: path for name, path in MediaFolder(source, (".csv",)).paths.items() if name not in OTHER_LISTS}
    if not files:
        raise UserError(f"{source} has no captions; {LAYOUT}.")
    for name, path in files.items():
        rows = []
        with reading_row(path.name, problems):
            rows = [(row["text"], row["start"], row["end"]) for row in read_csv(path)]
        yield name, rows


HOWTO100M = Benchmark(
    "howto100m",
    "HowTo100M",
    "video",
    read,
    "Narrated instructional videos with captions from speech recognition (Miech et al., 2019), for pretraining. The "
    "videos are YouTube's and not to be redistributed.",
)
