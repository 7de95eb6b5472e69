"""AudioSet: sounds of 10 s out of YouTube videos, each of several classes."""

import csv
from collections.abc import Iterator
from pathlib import Path

from datasets import ClassLabel, List

from ..problems import Problems
from .layout import (
    AUDIO,
    Benchmark,
    Item,
    MediaFolder,
    Reading,
    find_file,
    parsing,
    read_csv,
    require_file,
    seconds,
    segment_names,
    several_configs,
)

LAYOUT = (
    "AudioSet is published as class_labels_indices.csv, balanced_train_segments.csv, eval_segments.csv and "
    "unbalanced_train_segments.csv (which may be left out), with the sounds in folders beside them"
)

COLUMNS = ("YTID", "start_seconds", "end_seconds", "positive_labels")


def read(source: Path, problems: Problems) -> Reading:
    """Configuration `balanced` trains on the balanced list, `full` on both; the evaluation list is for testing."""
    index = require_file(source, LAYOUT, "class_labels_indices.csv")
    with parsing(index, LAYOUT):
        rows = sorted(read_csv(index), key=lambda row: int(row["index"]))
        classes = {row["mid"]: place for place, row in enumerate(rows)}
        names = [row["display_name"] for row in rows]
    lists = [
        (require_file(source, LAYOUT, "balanced_train_segments.csv"), ("train", "train")),
        (require_file(source, LAYOUT, "eval_segments.csv"), ("test", "test")),
    ]
    unbalanced = find_file(source, "unbalanced_train_segments.csv")
    if unbalanced:
        lists.append((unbalanced, (None, "train")))
    configs = ("balanced", "full") if unbalanced else ("balanced",)
    sounds = MediaFolder(source, AUDIO)
    members = (
        (item, splits[: len(configs)])
        for path, splits in lists
        for item in read_segments(path, classes, sounds, problems)
    )
    return several_configs(configs, members, List(ClassLabel(names=names)))


def read_segments(path: Path, classes: dict[str, int], sounds: MediaFolder, problems: Problems) -> Iterator[Item]:
    """The rows of a list, its COLUMNS after lines of comment.

    Args:
        classes: index of each class id.
    """
    with parsing(path, LAYOUT), path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader((line for line in file if not line.startswith("#")), skipinitialspace=True))
    for row in rows:
        if len(row) != len(COLUMNS):
            problems.add(row, f"of {path.name} does not hold {', '.join(COLUMNS)}")
            continue
        video, start, end, labels = row
        first, last = seconds(start), seconds(end)
        unknown = [label for label in labels.split(",") if label not in classes]
        if not 0 <= first < last < float("inf"):
            problems.add(video, f"has the times {start} to {end}")
        elif unknown:
            problems.add(video, f"is of the class {unknown[0]!r}, which class_labels_indices.csv lacks")
        elif sound := sounds.find(problems, *segment_names(video, first, last)):
            yield Item(video, sound, label=tuple(classes[label] for label in labels.split(",")))


AUDIOSET = Benchmark(
    "audioset",
    "AudioSet",
    "audio",
    read,
    "Sounds of 10 s out of YouTube videos, each of one or more of 527 classes (Gemmeke et al., 2017). Configuration "
    "`balanced` trains on the balanced list, `full` on that and the unbalanced one. Labels CC BY 4.0; the sounds are "
    "YouTube's and not to be redistributed.",
)
