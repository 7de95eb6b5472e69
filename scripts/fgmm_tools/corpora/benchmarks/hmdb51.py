"""HMDB51: short clips of 51 actions."""

from pathlib import Path

from datasets import ClassLabel

from ...cli import UserError
from ..problems import Problems
from .layout import (
    VIDEO,
    Benchmark,
    Item,
    MediaFolder,
    Reading,
    read_lines,
    readable_class,
    reading_row,
    several_configs,
)

LAYOUT = "HMDB51 is published as clips in a folder a class and the lists CLASS_test_split1.txt to CLASS_test_split3.txt"
NUM_SPLITS = 3
FLAGS = {"0": None, "1": "train", "2": "test"}


def read(source: Path, problems: Problems) -> Reading:
    """Clips in folders, and lists of `file flag`, beside them or in a folder of their own."""
    lists = sorted(path for folder in ("", "*/") for path in source.glob(f"{folder}*_test_split[1-{NUM_SPLITS}].txt"))
    if not lists:
        raise UserError(f"{source} has no list of a split; {LAYOUT}.")
    class_of: dict[str, str] = {}
    splits_of: dict[str, list[str | None]] = {}
    for path in lists:
        class_name, _, number = path.stem.rpartition("_test_split")
        for line in read_lines(path):
            with reading_row(f"{line!r} of {path.name}", problems):
                file, flag = line.split()
                split = FLAGS[flag]
                class_of[file] = class_name
                splits_of.setdefault(file, [None] * NUM_SPLITS)[int(number) - 1] = split

    videos = MediaFolder(source, VIDEO)
    classes = sorted(set(class_of.values()))
    members = []
    for file, splits in splits_of.items():
        if path := videos.find(problems, file):
            members.append((Item(videos.stem(file), path, label=classes.index(class_of[file])), tuple(splits)))
    names = [readable_class(name) for name in classes]
    return several_configs((f"split{place + 1}" for place in range(NUM_SPLITS)), members, ClassLabel(names=names))


HMDB51 = Benchmark(
    "hmdb51",
    "HMDB51",
    "video",
    read,
    "6,766 clips of 51 actions from films and the web (Kuehne et al., 2011) in three official splits, a configuration "
    "each; of each class, 70 clips are for training and 30 for testing, and others are in neither. For research use; "
    "not to be redistributed.",
)
