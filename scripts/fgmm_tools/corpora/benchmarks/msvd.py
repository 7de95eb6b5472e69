"""MSVD: short web videos with about forty captions each."""

from pathlib import Path

from ..problems import Problems
from .layout import (
    VIDEO,
    Benchmark,
    Item,
    MediaFolder,
    Reading,
    one_config,
    read_lines,
    require,
    require_file,
    whole_captions,
)

LAYOUT = (
    "MSVD is published as the folder YouTubeClips and AllVideoDescriptions.txt, and its split as train_list.txt, "
    "val_list.txt and test_list.txt"
)


def read(source: Path, problems: Problems) -> Reading:
    """YouTubeClips/*.avi, AllVideoDescriptions.txt (`name caption` a line) and the lists of names."""
    videos = MediaFolder(require(source / "YouTubeClips", LAYOUT), VIDEO)
    texts: dict[str, list[str]] = {}
    for line in read_lines(require_file(source, LAYOUT, "AllVideoDescriptions.txt")):
        name, _, text = line.partition(" ")
        if not line.startswith("#"):
            texts.setdefault(name, []).append(text)
    splits = {}
    for split, part in (("train", "train"), ("validation", "val"), ("test", "test")):
        splits[split] = []
        for name in read_lines(require_file(source, LAYOUT, f"{part}_list.txt")):
            captions = whole_captions(texts.get(name, ()))
            if not captions:
                problems.add(name, "has no caption")
            elif path := videos.find(problems, name):
                splits[split].append(Item(name, path, captions))
    return one_config(splits)


MSVD = Benchmark(
    "msvd",
    "MSVD",
    "video",
    read,
    "1,970 web videos of about 10 s with about forty captions each (Chen and Dolan, 2011), split into 1,200, 100 and "
    "670. The videos are YouTube's and not to be redistributed.",
)
