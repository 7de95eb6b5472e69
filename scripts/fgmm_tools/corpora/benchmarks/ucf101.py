"""UCF101: short clips of 101 actions."""

from pathlib import Path

from datasets import ClassLabel

from ..problems import Problems
from .layout import (
    VIDEO,
    Benchmark,
    Item,
    MediaFolder,
    Reading,
    parsing,
    read_lines,
    readable_class,
    require,
    several_configs,
)

LAYOUT = "UCF101 is published as the folders UCF-101 (of a folder a class) and ucfTrainTestlist"
NUM_SPLITS = 3


def read(source: Path, problems: Problems) -> Reading:
    """UCF-101/CLASS/*.avi, and in ucfTrainTestlist classInd.txt, trainlist0N.txt and testlist0N.txt."""
    lists = require(source / "ucfTrainTestlist", LAYOUT)
    videos = MediaFolder(require(source / "UCF-101", LAYOUT), VIDEO)
    index = require(lists / "classInd.txt", LAYOUT)
    with parsing(index, LAYOUT):
        classes = [line.split()[1] for line in read_lines(index)]
    splits_of: dict[str, list[str | None]] = {}
    for place in range(NUM_SPLITS):
        for split in ("train", "test"):
            for line in read_lines(require(lists / f"{split}list{place + 1:02d}.txt", LAYOUT)):
                splits_of.setdefault(line.split()[0], [None] * NUM_SPLITS)[place] = split

    # The lists write HandStandPushups, the files HandstandPushups.
    spelled = {name.lower(): name for name in videos.paths}
    members = []
    for file, splits in splits_of.items():
        class_name, _, name = file.rpartition("/")
        name = videos.stem(name)
        if class_name not in classes:
            problems.add(file, f"is of a class that {index.name} lacks")
        elif path := videos.find(problems, spelled.get(name.lower(), name)):
            members.append((Item(name, path, label=classes.index(class_name)), tuple(splits)))
    names = [readable_class(name) for name in classes]
    return several_configs((f"split{place + 1}" for place in range(NUM_SPLITS)), members, ClassLabel(names=names))


UCF101 = Benchmark(
    "ucf101",
    "UCF101",
    "video",
    read,
    "13,320 clips of 101 actions (Soomro, Zamir and Shah, 2012) in three official splits, a configuration each. The "
    "clips are YouTube's, for research use, and not to be redistributed.",
)
