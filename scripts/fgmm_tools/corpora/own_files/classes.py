"""`prepare_dataset.py classes`: one's own videos, sounds or images with classes, in a folder a class or in a table."""

from dataclasses import replace
from pathlib import Path

from datasets import ClassLabel, List

from ...cli import UserError
from ..benchmarks.layout import Benchmark, Item, Reading, one_config
from ..options import OwnFiles
from ..problems import Problems
from .rows import find_items
from .splits import divide, splits_of_folders
from .tables import list_files, read_table

# Items with the names of their classes, and the split of each.
Labelled = tuple[list[Item], list[tuple[str, ...]], list[str | None]]


def read(source: Path, problems: Problems, options: OwnFiles) -> Reading:
    """CLASS/**/NAME.jpg or SPLIT/CLASS/**/NAME.jpg, or a table (CSV) with the columns path and label, and maybe split,
    group, caption, start and end.

    Raises:
        UserError: when it holds no media, fewer than two classes, or not what the options ask for.
    """
    read_labelled = read_listed if source.is_file() else read_class_folders
    items, labels, splits = read_labelled(source, problems, options)
    names = sort_names({name for label in labels for name in label})
    if len(names) < 2:
        found = f"only the class {names[0]!r}" if names else "no class"
        raise UserError(
            f"{source} has {found}; --source is a folder that holds one folder a class, or splits that do, or a table "
            "(CSV) of paths and labels."
        )
    several = options.label_separator is not None
    place_of = {name: place for place, name in enumerate(names)}
    for index, label in enumerate(labels):
        places = tuple(place_of[name] for name in label)
        items[index] = replace(items[index], label=places if several else places[0])
    divided = divide(items, splits, options)
    print_unlearnt(divided, names)
    feature = ClassLabel(names=names)
    return one_config(divided, List(feature) if several else feature)


def read_class_folders(source: Path, problems: Problems, options: OwnFiles) -> Labelled:
    """The media in folders of classes, whose names are those of the folders; captions beside them are optional."""
    found = find_items(source, options.captions == "required", options.language, problems)
    found, named = splits_of_folders(found, problems)
    items, labels, splits = [], [], []
    for item, split in zip(found, named, strict=True):
        folders = item.video_id.split("/")[:-1]
        if split is not None:
            folders = folders[1:]
        if not folders:
            problems.add(item.paths()[0].relative_to(source), "is in no folder of a class")
            continue
        items.append(item)
        labels.append((folders[0],))
        splits.append(split)
    return items, labels, splits


def read_listed(source: Path, problems: Problems, options: OwnFiles) -> Labelled:
    """The media that a table lists."""
    required = ("path", "label", "caption") if options.captions == "required" else ("path", "label")
    items, labels, splits = [], [], []
    for file in list_files(source, read_table(source, options.columns, required), problems):
        path, separator = file.rows[0]["path"], options.label_separator
        entries = [row["label"] for row in file.rows]
        words = [word.strip() for entry in entries for word in (entry.split(separator) if separator else [entry])]
        label = tuple(dict.fromkeys(word for word in words if word))
        if not label:
            problems.add(path, f"has no label (line {file.rows[0].line} of {source.name})")
        elif len(label) > 1 and not separator:
            problems.add(path, f"has the labels {' and '.join(map(repr, label))}, but --label_separator is not given")
        else:
            items.append(replace(file.item, captions=file.captions(), captions_from=source))
            labels.append(label)
            splits.append(file.split)
    return items, labels, splits


def sort_names(names: set[str]) -> list[str]:
    """Names of classes in their order: numbers by their value, else by their letters."""
    return sorted(names, key=int if all(name.isdecimal() for name in names) else None)


def print_unlearnt(divided: dict[str, list[Item]], names: list[str]) -> None:
    """Says which classes are evaluated, but have no training item."""
    places = {
        split: {place for item in items for place in (item.label if isinstance(item.label, tuple) else (item.label,))}
        for split, items in divided.items()
    }
    unlearnt = sorted(set().union(*places.values()) - places.get("train", set()))
    if unlearnt and "train" in divided:
        print(f"No training item is of {', '.join(repr(names[place]) for place in unlearnt)}.")


CLASSES = Benchmark(
    "classes",
    "videos, sounds or images of your own in classes",
    None,
    read,
    "Files of the person who made this corpus, with the classes that they gave them. Whether they may be passed on is "
    "for their owner to say.",
)
