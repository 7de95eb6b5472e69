"""YouCook2: long cooking videos, each step with a sentence and its times."""

import json
from pathlib import Path

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

ANNOTATIONS = "youcookii_annotations_trainval.json"
VALIDATION_LIST = "validation_youcook.csv"
LAYOUT = (
    f"YouCook2 is published as {ANNOTATIONS} or, by MIL-NCE, {VALIDATION_LIST}, with the videos in folders beside it"
)
SPLIT_NAMES = {"training": "train", "validation": "validation"}

Steps = dict[str, list[tuple]]  # (text, start, end) of each video


def read(source: Path, problems: Problems) -> Reading:
    """Videos with their steps as timed captions.

    Where the folder has MIL-NCE's list as well, validation is that list: the 3,350 clips that papers report on.
    """
    annotations, validation_list = find_file(source, ANNOTATIONS), find_file(source, VALIDATION_LIST)
    if not annotations and not validation_list:
        raise UserError(f"{source} has no annotations; {LAYOUT}.")
    steps: dict[str, Steps] = {"train": {}, "validation": {}}
    if annotations:
        steps = read_annotations(annotations, problems)
    if validation_list:
        steps["validation"] = read_validation_list(validation_list)
    videos = MediaFolder(source, VIDEO)
    return one_config({split: make_items(videos, part, problems) for split, part in steps.items()})


def read_annotations(path: Path, problems: Problems) -> dict[str, Steps]:
    """The steps of each split."""
    steps: dict[str, Steps] = {"train": {}, "validation": {}}
    with parsing(path, LAYOUT):
        videos = json.loads(path.read_text(encoding="utf-8"))["database"]
    for name, video in videos.items():
        with reading_row(name, problems):
            steps[SPLIT_NAMES[video["subset"]]][name] = [
                (step["sentence"], step["segment"][0], step["segment"][-1]) for step in video["annotations"]
            ]
    return steps


def read_validation_list(path: Path) -> Steps:
    """The steps in MIL-NCE's list."""
    steps: Steps = {}
    with parsing(path, LAYOUT):
        for row in read_csv(path):
            steps.setdefault(row["video_id"], []).append((row["text"], row["start"], row["end"]))
    return steps


def make_items(videos: MediaFolder, steps: Steps, problems: Problems) -> list[Item]:
    """One row for each video that exists."""
    items = []
    for name, rows in steps.items():
        captions = timed_captions(name, rows, problems)
        if not captions:
            problems.add(name, "has no step that can be used")
        elif path := videos.find(problems, name):
            items.append(Item(name, path, captions))
    return items


YOUCOOK2 = Benchmark(
    "youcook2",
    "YouCook2",
    "video",
    read,
    "2,000 cooking videos of 89 recipes, each step with a sentence and its times (Zhou, Xu and Corso, 2018). The field "
    "reports on the split `validation`, as the test sentences are not public. The videos are YouTube's and not to be "
    "redistributed.",
)
