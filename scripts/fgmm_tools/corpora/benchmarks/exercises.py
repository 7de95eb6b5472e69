"""Gym exercises: two photographs, of the beginning and the end, and written steps."""

from pathlib import Path

from ..problems import Problems
from .layout import Benchmark, Item, Reading, one_config, parsing, read_csv, reading_row, require, whole_captions

LAYOUT = "the exercises are a table annotations.csv and a folder image beside it"
SPLITS = {"train": "train", "valid": "validation", "test": "test"}


def read(source: Path, problems: Problems) -> Reading:
    """annotations.csv with id, start_image, end_image, steps (parted by " | ") and split; each step is a caption."""
    table = require(source / "annotations.csv", LAYOUT)
    with parsing(table, LAYOUT):
        rows = read_csv(table)
    splits: dict[str, list[Item]] = {"train": [], "validation": [], "test": []}
    for row in rows:
        with reading_row(f"{row.get('id')} in {table.name}", problems):
            captions = whole_captions(row["steps"].split("|"))
            if not captions:
                problems.add(row["id"], "has no step")
                continue
            photographs = (source / row["start_image"], source / row["end_image"])
            splits[SPLITS[row["split"]]].append(Item(row["id"], photographs, captions))
    return one_config(splits)


EXERCISES = Benchmark(
    "exercises",
    "Exercises",
    "video",
    read,
    "Gym exercises: clips of two photographs, the beginning and the end, and written steps, many of which no "
    "photograph shows (free-exercise-db). To measure with, not to be redistributed.",
)
