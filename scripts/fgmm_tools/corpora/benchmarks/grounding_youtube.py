"""GroundingYouTube: untrimmed cooking videos, with a box for each second of a step."""

import json
from pathlib import Path

from processing_fgmm.media_fgmm import MediaError, probe_media

from ..mentions import Box, Mention
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
)

ANNOTATIONS = ("box_anno.json", "GoundingYouTubeBox.json")
LAYOUT = (
    f"GroundingYouTube is published as {ANNOTATIONS[0]} (or {ANNOTATIONS[1]}), with the publishers' copies of the "
    "videos in a folder beside it"
)

Second = tuple[int, list[float], str]


def read(source: Path, problems: Problems) -> Reading:
    """Videos with their steps: seconds that follow each other with the same step are one caption."""
    path = require_file(source, LAYOUT, *ANNOTATIONS)
    with parsing(path, LAYOUT):
        listed = json.loads(path.read_text(encoding="utf-8"))
    videos, items = MediaFolder(source, VIDEO), []
    for name, seconds in listed.items():
        with reading_row(name, problems):
            found = sorted(list_seconds(seconds))
            if not (file := videos.find(problems, name)):
                continue
            try:
                info = probe_media(file)
            except MediaError as error:
                problems.add(name, f"cannot be decoded: {error}")
                continue
            captions, mentions = make_steps(found, info.width, info.height)
            items.append(Item(name, file, captions, mentions=mentions))
    return one_config({"test": items})


def list_seconds(seconds: list | dict) -> list[Second]:
    """Second, box and step of each annotation, in either of the published forms."""
    if isinstance(seconds, dict):
        return [(int(second), entry["box"], entry["step"]) for second, entry in seconds.items()]
    return [(int(entry["second"]), entry["box"], entry["step_name"]) for entry in seconds]


def make_steps(seconds: list[Second], width: int, height: int) -> tuple[tuple, tuple[Mention, ...]]:
    """The captions with their times, and for each a mention with its boxes.

    Args:
        seconds: in their order; boxes are (x_min, y_min, x_max, y_max) in pixels of the video.
        width, height: of the video, pixels.
    """
    groups: list[list[Second]] = []
    for entry in seconds:
        follows = groups and groups[-1][-1][2] == entry[2] and entry[0] <= groups[-1][-1][0] + 1
        groups[-1].append(entry) if follows else groups.append([entry])
    captions, mentions = [], []
    for index, group in enumerate(groups):
        text = group[0][2].replace("_", " ")
        start, end = float(group[0][0]), group[-1][0] + 1.0
        boxes = tuple(filter(None, (Box.scaled(float(second), box, width, height) for second, box, _ in group)))
        captions.append((text, start, end))
        mentions.append(Mention(index, text, 0, len(text), "video", start, end, boxes))
    return tuple(captions), tuple(mentions)


GROUNDING_YOUTUBE = Benchmark(
    "grounding_youtube",
    "GroundingYouTube",
    "video",
    read,
    "250 untrimmed cooking videos of MiningYouTube, with the step and a box for each annotated second (Chen et al., "
    "CVPR 2024). Boxes are in pixels of the publishers' copies. The videos are YouTube's and not to be redistributed.",
)
