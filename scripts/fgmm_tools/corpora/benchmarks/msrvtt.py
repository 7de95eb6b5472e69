"""MSR-VTT: web videos of 10 to 30 s with twenty captions each."""

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
    parsing,
    read_csv,
    several_configs,
    whole_captions,
)

WHOLE_FILES = ("MSRVTT_data.json", "videodatainfo_2017.json")
PART_FILES = ("train_val_videodatainfo.json", "test_videodatainfo.json")
TEST_LISTS = ("MSRVTT_JSFUSION_test.csv", "msrvtt_test.csv")
TRAINING_LISTS = {"1k-A": "MSRVTT_train.9k.csv", "1k-A-7k": "MSRVTT_train.7k.csv"}
LAYOUT = (
    f"MSR-VTT is published as {' or '.join(WHOLE_FILES)} or {' and '.join(PART_FILES)}, and its 1k-A list as "
    f"{TEST_LISTS[0]}, with the videos in folders beside them"
)
SPLIT_NAMES = {"train": "train", "validate": "validation", "test": "test"}


def read(source: Path, problems: Problems) -> Reading:
    """A configuration for each official split that the folder has.

    `full`: the split in the JSON files. `1k-A`: 1,000 test videos with one given caption each, and the 9,000 others
    for training; `1k-A-7k`: the same test, and the training list of 7,000. A test video of 1k-A is stored a second
    time, as it has another caption there.
    """
    whole_file, test_list = find_file(source, *WHOLE_FILES), find_file(source, *TEST_LISTS)
    parts = [path for name in PART_FILES if (path := find_file(source, name))]
    data_files = [whole_file] if whole_file else parts
    if not data_files and not test_list:
        raise UserError(f"{source} has neither captions nor a list; {LAYOUT}.")
    splits, texts = read_data(data_files)
    videos = MediaFolder(source, VIDEO)

    training: dict[str, set[str]] = {}
    if test_list:
        lists = {config: find_file(source, name) for config, name in TRAINING_LISTS.items()}
        training = {config: read_list(path) for config, path in lists.items() if path}
        tested = {name for name, _ in read_test_list(test_list)}
        training = {"1k-A": set(splits) - tested} | training
    for name in sorted(set().union(*training.values()) - set(splits)):
        problems.add(name, "of a training list has no captions")

    members = []
    for name, split in splits.items():
        captions = whole_captions(texts.get(name, ()))
        if not captions:
            problems.add(name, "has no caption")
        elif path := videos.find(problems, name):
            trained_on = ("train" if name in names else None for names in training.values())
            members.append((Item(name, path, captions), (split, *trained_on)))
    for name, text in read_test_list(test_list) if test_list else ():
        captions = whole_captions([text])
        if not captions:
            problems.add(name, f"has no caption in {test_list.name}")
        elif path := videos.find(problems, name):
            members.append((Item(name, path, captions), (None, *("test" for _ in training))))
    return several_configs(("full", *training), members)


def read_data(paths: list[Path]) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Split and captions of each video."""
    splits: dict[str, str] = {}
    texts: dict[str, list[str]] = {}
    for path in paths:
        with parsing(path, LAYOUT):
            data = json.loads(path.read_text(encoding="utf-8"))
            splits |= {video["video_id"]: SPLIT_NAMES[video["split"]] for video in data["videos"]}
            for sentence in data["sentences"]:
                texts.setdefault(sentence["video_id"], []).append(sentence["caption"])
    return splits, texts


def read_list(path: Path | None) -> set[str]:
    """The videos of a training list; empty without a list."""
    if path is None:
        return set()
    with parsing(path, LAYOUT):
        return {row["video_id"] for row in read_csv(path)}


def read_test_list(path: Path) -> list[tuple[str, str]]:
    """(video, caption) of each row."""
    with parsing(path, LAYOUT):
        return [(row["video_id"], row["sentence"]) for row in read_csv(path)]


MSRVTT = Benchmark(
    "msrvtt",
    "MSR-VTT",
    "video",
    read,
    "10,000 web videos of 10 to 30 s with twenty captions each (Xu et al., 2016). Configuration `full`: the official "
    "split; `1k-A`: 1,000 test videos with one caption each (Yu et al., 2018) and 9,000 for training; `1k-A-7k`: the "
    "same with 7,000 for training. The videos are YouTube's, for research use, and not to be redistributed.",
)
