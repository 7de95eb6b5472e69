"""Clotho: sounds of 15 to 30 s with five captions each."""

from pathlib import Path

from ..problems import Problems
from .layout import (
    AUDIO,
    Benchmark,
    Item,
    MediaFolder,
    Reading,
    one_config,
    parsing,
    read_csv,
    require,
    require_file,
    whole_captions,
)

LAYOUT = "Clotho is published as clotho_captions_PART.csv and a folder PART, for development, validation and evaluation"


def read(source: Path, problems: Problems) -> Reading:
    """Each part's folder of sounds and its list (file_name, caption_1 to caption_5)."""
    splits = {}
    for split, part in (("train", "development"), ("validation", "validation"), ("test", "evaluation")):
        splits[split] = []
        path = require_file(source, LAYOUT, f"clotho_captions_{part}.csv")
        sounds = MediaFolder(require(source / part, LAYOUT), AUDIO)
        with parsing(path, LAYOUT):
            for row in read_csv(path):
                captions = whole_captions(row[f"caption_{number}"] for number in range(1, 6))
                if not captions:
                    problems.add(row["file_name"], "has no caption")
                elif file := sounds.find(problems, row["file_name"]):
                    splits[split].append(Item(sounds.stem(row["file_name"]), file, captions))
    return one_config(splits)


CLOTHO = Benchmark(
    "clotho",
    "Clotho",
    "audio",
    read,
    "Sounds of 15 to 30 s from Freesound with five captions each (Drossos, Lipping and Virtanen, 2020); version 2 has "
    "3,839 for training, 1,045 each for validation and testing. Each sound is under its owner's Creative Commons "
    "licence and the captions are for non-commercial use: not to be redistributed as a whole.",
)
