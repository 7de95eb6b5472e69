"""DiDeMo: personal videos, moments of which are described."""

import json
from collections import Counter
from functools import partial
from pathlib import Path

from ..problems import Problems
from .layout import (
    VIDEO,
    Benchmark,
    Item,
    MediaFolder,
    Reading,
    one_config,
    parsing,
    reading_row,
    require_file,
    timed_captions,
    whole_captions,
)

LAYOUT = (
    "DiDeMo is published as train_data.json, val_data.json and test_data.json, with the videos in folders beside them"
)
# Moments are runs of such segments within the first 30 s.
SEGMENT_SECONDS = 5


def read(source: Path, problems: Problems, moments: bool) -> Reading:
    """The lists of sentences of each split.

    Args:
        moments: each sentence is a caption with its time; else a video has one caption, all of its sentences, as in
            paragraph retrieval.
    """
    videos = MediaFolder(source, VIDEO)
    splits = {}
    for split, part in (("train", "train"), ("validation", "val"), ("test", "test")):
        splits[split] = []
        for name, rows in read_sentences(require_file(source, LAYOUT, f"{part}_data.json"), problems).items():
            if moments:
                captions = timed_captions(name, rows, problems)
            else:
                captions = whole_captions([" ".join(text for text, _, _ in rows)])
            if not captions:
                problems.add(name, "has no sentence that can be used")
            elif path := videos.find(problems, name):
                splits[split].append(Item(videos.stem(name), path, captions))
    return one_config(splits)


def read_sentences(path: Path, problems: Problems) -> dict[str, list[tuple]]:
    """(text, start, end) of each video's sentences; the time is what most of its annotators chose."""
    sentences: dict[str, list[tuple]] = {}
    with parsing(path, LAYOUT):
        entries = json.loads(path.read_text(encoding="utf-8"))
    for number, entry in enumerate(entries, start=1):
        with reading_row(f"entry {number} of {path.name}", problems):
            (first, last), _ = Counter(map(tuple, entry["times"])).most_common(1)[0]
            moment = (entry["description"].strip(), first * SEGMENT_SECONDS, (last + 1) * SEGMENT_SECONDS)
            sentences.setdefault(entry["video"], []).append(moment)
    return sentences


ABOUT = (
    "10,464 videos from Flickr, moments of whose first 30 s are described (Hendricks et al., 2017). {} The annotations "
    "are under BSD-2, each video under its owner's Creative Commons licence: not to be redistributed as a whole."
)
DIDEMO = Benchmark(
    "didemo",
    "DiDeMo",
    "video",
    partial(read, moments=False),
    ABOUT.format("A video's sentences are one caption, end to end, for paragraph retrieval."),
)
DIDEMO_MOMENTS = Benchmark(
    "didemo_moments",
    "DiDeMo moments",
    "video",
    partial(read, moments=True),
    ABOUT.format("Each sentence has its time, in steps of 5 s, as most of its annotators chose it."),
)
