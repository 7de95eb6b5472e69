"""AudioCaps: sounds of 10 s out of YouTube videos, with captions."""

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
    reading_row,
    require_file,
    seconds,
    segment_names,
    whole_captions,
)

LAYOUT = "AudioCaps is published as train.csv, val.csv and test.csv, with the sounds in folders beside them"
SECONDS = 10


def read(source: Path, problems: Problems) -> Reading:
    """The lists (audiocap_id, youtube_id, start_time, caption), a row for each segment with all of its captions."""
    sounds = MediaFolder(source, AUDIO)
    splits = {}
    for split, part in (("train", "train"), ("validation", "val"), ("test", "test")):
        splits[split] = []
        path = require_file(source, LAYOUT, f"{part}.csv")
        texts: dict[tuple[str, float], list[str]] = {}
        with parsing(path, LAYOUT):
            rows = read_csv(path)
        for number, row in enumerate(rows, start=2):
            with reading_row(f"line {number} of {path.name}", problems):
                texts.setdefault((row["youtube_id"], seconds(row["start_time"])), []).append(row["caption"])
        for (video, start), captions in texts.items():
            names = segment_names(video, start, start + SECONDS)
            if not 0 <= start < float("inf"):
                problems.add(video, f"of {path.name} has no time to start at")
            elif not whole_captions(captions):
                problems.add(names[0], "has no caption")
            elif file := sounds.find(problems, *names):
                splits[split].append(Item(names[0], file, whole_captions(captions)))
    return one_config(splits)


AUDIOCAPS = Benchmark(
    "audiocaps",
    "AudioCaps",
    "audio",
    read,
    "Sounds of 10 s out of AudioSet, with one caption each for training and five for validation and testing (Kim et "
    "al., 2019). The sounds are YouTube's and not to be redistributed.",
)
