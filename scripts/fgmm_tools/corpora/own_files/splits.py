"""Splits of one's own files: as their folders or a table name them, or shares of the whole, by groups."""

import hashlib
import re
from collections import Counter
from dataclasses import replace

from ...cli import UserError
from ..benchmarks.layout import SPLITS, Item
from ..options import OwnFiles
from ..problems import Problems

# What folders and tables call the splits; the same words as in `datasets`.
WORDS = {
    "train": ("train", "training"),
    "validation": ("validation", "val", "valid", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}


def split_named(word: str) -> str | None:
    """The split that a folder or an entry of a table means; None where it means none."""
    return next((split for split, words in WORDS.items() if word.strip().lower() in words), None)


def splits_of_folders(items: list[Item], problems: Problems) -> tuple[list[Item], list[str | None]]:
    """The items, and the split of each by the first folder of its id: None for all where the folders are not those of
    splits.

    They are where there are two or more of splits, or no others; an item in none of them is then left out.
    """
    named = [split_named(item.video_id.partition("/")[0]) if "/" in item.video_id else None for item in items]
    if None in named and len({*named} - {None}) < 2:
        return items, [None] * len(items)
    for item, split in zip(items, named, strict=True):
        if split is None:
            problems.add(item.video_id, "is in no folder of a split, as others are")
    kept = [(item, split) for item, split in zip(items, named, strict=True) if split]
    return [item for item, _ in kept], [split for _, split in kept]


def divide(items: list[Item], named: list[str | None], options: OwnFiles) -> dict[str, list[Item]]:
    """The items of each split.

    Args:
        items: of all splits, with groups where the source names them.
        named: the split of each item, as its source names it; None for all: they are for training, but for the shares
            that the options ask for.

    Raises:
        UserError: when a group is in two splits, the group pattern fits no id, or the shares cannot be had.
    """
    if options.group_pattern:
        items = find_groups(items, options.group_pattern)
    splits = [split or "train" for split in named]
    shares = (("test", options.test_share), ("validation", options.validation_share))
    for place, (split, share) in enumerate(shares):
        if share and split in named:
            raise UserError(f"The source has a split {split!r} of its own; leave out --{split}_share.")
        if share:
            training = [item for item, other in zip(items, splits, strict=True) if other == "train"]
            to_leave = 1 + sum(later > 0 for _, later in shares[place + 1 :])
            chosen = choose_groups(training, share * len(items), split, to_leave, options.seed)
            splits = [
                split if other == "train" and group_of(item) in chosen else other
                for item, other in zip(items, splits, strict=True)
            ]
    check_groups(items, splits)
    divided = {split: [item for item, other in zip(items, splits, strict=True) if other == split] for split in SPLITS}
    return {split: part for split, part in divided.items() if part}


def find_groups(items: list[Item], pattern: str) -> list[Item]:
    """The items with the groups that a regular expression finds in their ids: its first group in parentheses, else all
    that it matches. An item whose id it does not fit is a group of its own; how many these are is printed.

    Raises:
        UserError: when it fits none, or the source names groups itself.
    """
    if any(item.group for item in items):
        raise UserError("The table has a column of groups; leave out --group_pattern.")
    matches = [re.search(pattern, item.video_id) for item in items]
    without = [item.video_id for item, match in zip(items, matches, strict=True) if not match]
    if len(without) == len(items):
        raise UserError(f"--group_pattern {pattern!r} is found in no id; the first id is {without[0]!r}.")
    if without:
        print(f"--group_pattern is not found in {len(without)} of {len(items)} ids, such as {without[0]!r}.")
    return [
        replace(item, group=match[1 if match.re.groups else 0]) if match else item
        for item, match in zip(items, matches, strict=True)
    ]


def group_of(item: Item) -> str:
    """The group of an item, else its id."""
    return item.video_id if item.group is None else item.group


def choose_groups(items: list[Item], target: float, split: str, to_leave: int, seed: int) -> set[str]:
    """Groups that together have about `target` items, and of each class about its share of them.

    Groups are gone through in an order that their names and the seed give, and one is taken where that brings the
    numbers of items of the classes nearer to their targets; at least one is taken.

    Args:
        items: to choose from.
        target: number of items.
        split: that they are for, in messages.
        to_leave: groups that must be left for training and for other splits.
        seed: another one gives another choice.

    Raises:
        UserError: when nothing would be left for training.
    """
    sizes: dict[str, Counter] = {}  # of each group its items of each class
    for item in items:
        classes = item.label if isinstance(item.label, tuple) else (item.label,)
        sizes.setdefault(group_of(item), Counter()).update(classes)
    totals = sum(sizes.values(), Counter())
    share = target / max(len(items), 1)
    lacking = {label: share * number for label, number in totals.items()}

    def growth(group: str) -> float:
        """By how much the squared distance from the targets grows when a group is taken."""
        return sum(number * (number - 2 * lacking[label]) for label, number in sizes[group].items())

    chosen: set[str] = set()
    for group in sorted(sizes, key=lambda group: hashlib.sha256(f"{seed}:{group}".encode()).digest()):
        if growth(group) < 0 and len(chosen) < len(sizes) - to_leave:
            chosen.add(group)
            for label, number in sizes[group].items():
                lacking[label] -= number
    if not chosen and sizes:
        chosen = {min(sizes, key=growth)}
    if len(sizes) - len(chosen) < to_leave:
        raise UserError(
            f"The {len(sizes)} groups cannot be divided so that --{split}_share leaves something to train on; lower "
            "it, or let --group_pattern find smaller groups."
        )
    return chosen


def check_groups(items: list[Item], splits: list[str]) -> None:
    """Checks that no group is in two splits.

    Raises:
        UserError: naming the first.
    """
    split_of: dict[str, str] = {}
    for item, split in zip(items, splits, strict=True):
        if item.group is not None and split_of.setdefault(item.group, split) != split:
            raise UserError(
                f"The group {item.group!r} is in the splits {split_of[item.group]!r} and {split!r}, so that what is "
                "learned of it would be measured; move its files to one of them, or leave out the groups."
            )
