"""Kinetics (400, 600 or 700): clips of 10 s out of YouTube videos, of one action each."""

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
    find_file,
    one_config,
    parsing,
    read_csv,
    segment_names,
)

COLUMNS = ("label", "youtube_id", "time_start", "time_end")
LISTS = {"train": ("train.csv",), "validation": ("val.csv", "validate.csv"), "test": ("test.csv",)}
LAYOUT = (
    "Kinetics is published as train.csv, val.csv (or validate.csv) and test.csv, with the clips in folders beside them"
)


def read(source: Path, problems: Problems) -> Reading:
    """The lists (label, youtube_id, time_start, time_end) that exist; the first of them defines the classes."""
    lists = {split: path for split, names in LISTS.items() if (path := find_file(source, *names))}
    if not lists:
        raise UserError(f"{source} has no list; {LAYOUT}.")
    rows = {}
    for split, path in lists.items():
        with parsing(path, LAYOUT):
            rows[split] = [[row.get(column) or "" for column in COLUMNS] for row in read_csv(path)]
    first = next(iter(lists))
    classes = sorted({label for label, *_ in rows[first]} - {""})
    index = {label: place for place, label in enumerate(classes)}
    videos = MediaFolder(source, VIDEO)
    splits: dict[str, list[Item]] = {split: [] for split in lists}
    for split, part in rows.items():
        for label, video, start, end in part:
            if label not in index:
                problems.add(video, f"is of the class {label!r}, which {lists[first].name} lacks")
            elif not (start.isdigit() and end.isdigit() and int(start) < int(end)):
                problems.add(video, f"has the times {start!r} to {end!r}")
            elif path := videos.find(problems, *segment_names(video, int(start), int(end))):
                splits[split].append(Item(videos.stem(path.name), path, label=index[label]))
    return one_config(splits, ClassLabel(names=classes))


KINETICS = Benchmark(
    "kinetics",
    "Kinetics",
    "video",
    read,
    "Clips of about 10 s of 400, 600 or 700 actions (Kay et al., 2017; Carreira et al., 2018 and 2019). Lists CC BY "
    "4.0; the clips are YouTube's and not to be redistributed.",
)
