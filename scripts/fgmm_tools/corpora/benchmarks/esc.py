"""ESC-50 and its part ESC-10: environmental sounds of 5 s in five folds."""

import re
from pathlib import Path

from datasets import ClassLabel

from ...cli import UserError
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
    readable_class,
    reading_row,
    require,
    require_file,
)

LAYOUT_50 = "ESC-50 is published as the folder audio and meta/esc50.csv"
LAYOUT_10 = (
    f"ESC-10 is published as folders `001 - Dog bark` to `010 - Fire crackling`, or as a part of ESC-50; {LAYOUT_50}"
)
FOLDS = ("1", "2", "3", "4", "5")


def read_esc50(source: Path, problems: Problems) -> Reading:
    """audio/*.wav and meta/esc50.csv (filename, fold, target, category, esc10)."""
    return read_list(source, require_file(source, LAYOUT_50, "esc50.csv"), LAYOUT_50, problems)


def read_esc10(source: Path, problems: Problems) -> Reading:
    """The rows of ESC-50 that are marked esc10, or one folder a class of files named FOLD-CLIP-TAKE.ogg."""
    path = find_file(source, "esc50.csv")
    if path:
        return read_list(source, path, LAYOUT_10, problems, only_esc10=True)
    folders = sorted(folder for folder in source.iterdir() if folder.is_dir() and re.match(r"\d+ - ", folder.name))
    if not folders:
        raise UserError(f"{source} has no folder of a class; {LAYOUT_10}.")
    rows = [
        (name.partition("-")[0], label, name, path)
        for label, folder in enumerate(folders)
        for name, path in sorted(MediaFolder(folder, AUDIO).paths.items())
    ]
    return make_reading(rows, [readable_class(folder.name) for folder in folders], problems)


def read_list(source: Path, path: Path, layout: str, problems: Problems, only_esc10: bool = False) -> Reading:
    """The rows of meta/esc50.csv, classes in the order of their targets."""
    sounds = MediaFolder(require(source / "audio", layout), AUDIO)
    with parsing(path, layout):
        listed = read_csv(path)
    found: list[tuple[str, int, str, Path]] = []
    names: dict[int, str] = {}
    for number, row in enumerate(listed, start=2):
        with reading_row(f"line {number} of {path.name}", problems):
            if row["esc10"] != "True" and only_esc10:
                continue
            target = int(row["target"])
            names.setdefault(target, row["category"])
            if file := sounds.find(problems, row["filename"]):
                found.append((row["fold"], target, sounds.stem(row["filename"]), file))
    targets = sorted(names)
    rows = [(fold, targets.index(target), name, file) for fold, target, name, file in found]
    return make_reading(rows, [readable_class(names[target]) for target in targets], problems)


def make_reading(rows: list[tuple[str, int, str, Path]], classes: list[str], problems: Problems) -> Reading:
    """A group and a configuration for each fold; configuration `fold1` is tested on fold 1, and so on.

    Args:
        rows: (fold, label, name, file).
        classes: names of the classes.
    """
    groups: dict[str, list[Item]] = {f"fold{fold}": [] for fold in FOLDS}
    for fold, label, name, path in rows:
        if fold in FOLDS:
            groups[f"fold{fold}"].append(Item(name, path, label=label))
        else:
            problems.add(name, f"is of the fold {fold!r}, not {' or '.join(FOLDS)}")
    configs = {fold: {"train": [other for other in groups if other != fold], "test": [fold]} for fold in groups}
    return Reading(groups, configs, ClassLabel(names=classes))


ABOUT_FOLDS = "Configuration `fold1` is tested on fold 1 and trained on the other four, and so on."
ESC50 = Benchmark(
    "esc50",
    "ESC-50",
    "audio",
    read_esc50,
    f"2,000 environmental sounds of 5 s, 40 of each of 50 classes (Piczak, 2015). {ABOUT_FOLDS} The sounds are "
    "Freesound's; CC BY-NC 3.0, and whoever passes them on passes on the publisher's LICENSE, which credits each.",
    "cc-by-nc-3.0",
    redistributable=True,
)
ESC10 = Benchmark(
    "esc10",
    "ESC-10",
    "audio",
    read_esc10,
    f"400 environmental sounds of 5 s, 40 of each of 10 classes (Piczak, 2015). {ABOUT_FOLDS} The sounds are "
    "Freesound's; CC BY 3.0, and whoever passes them on passes on the publisher's credits of each.",
    "cc-by-3.0",
    redistributable=True,
)
