"""YouCook2-Interactions: steps of YouCook2's validation videos, with a box of what is done in each second."""

import json
import pickle
from pathlib import Path

from processing_fgmm.media_fgmm import MediaError, probe_media

from ..mentions import Box, Mention
from ..problems import Problems
from .layout import VIDEO, Benchmark, Item, MediaFolder, Reading, one_config, parsing, reading_row, require_file

BOXES, SEGMENTS, STEPS = (
    "final_dataset_annotations.pkl",
    "final_dataset_segments.pkl",
    "youcookii_annotations_trainval.json",
)
LAYOUT = (
    f"YouCook2-Interactions is published as {BOXES} and {SEGMENTS}, with {STEPS} of YouCook2 and the videos in folders "
    "beside them"
)
# Boxes are in pixels of frames that are at most this large.
WIDTH, HEIGHT = 640, 360


class PlainUnpickler(pickle.Unpickler):
    """Reads lists, dictionaries, tuples, numbers and strings, and refuses what would run code."""

    def find_class(self, module: str, name: str):
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which lists of boxes do not need")


def load_plain(path: Path) -> object:
    """What a pickle file of plain values holds."""
    with path.open("rb") as file:
        return PlainUnpickler(file).load()


def read(source: Path, problems: Problems) -> Reading:
    """The selected steps of each video as timed captions, each with the boxes of its seconds."""
    paths = [require_file(source, LAYOUT, name) for name in (BOXES, SEGMENTS, STEPS)]
    with parsing(paths[0], LAYOUT):
        boxes = load_plain(paths[0])
    with parsing(paths[1], LAYOUT):
        segments = [(str(video), float(start), float(end)) for video, start, end, *_ in load_plain(paths[1])]
    with parsing(paths[2], LAYOUT):
        steps = json.loads(paths[2].read_text(encoding="utf-8"))["database"]
    videos, items = MediaFolder(source, VIDEO), []
    for name in dict.fromkeys(video for video, _, _ in segments):
        with reading_row(name, problems):
            file = videos.find(problems, name)
            if not file:
                continue
            try:
                info = probe_media(file)
            except MediaError as error:
                problems.add(name, f"cannot be decoded: {error}")
                continue
            starts = {start for video, start, _ in segments if video == name}
            sizes = (min(info.width, WIDTH), min(info.height, HEIGHT))
            captions, mentions = make_steps(steps[name]["annotations"], starts, boxes[name], sizes)
            items.append(Item(name, file, captions, mentions=mentions))
    return one_config({"validation": items})


def make_steps(
    steps: list[dict], starts: set[float], boxes: dict[int, tuple], sizes: tuple[int, int]
) -> tuple[tuple, tuple[Mention, ...]]:
    """The selected steps of a video with their times, and a mention of each.

    Args:
        steps: of the video, from YouCook2.
        starts: of the selected ones, seconds.
        boxes: (x_min, y_min, x_max, y_max) by second, pixels.
        sizes: width and height of the frames that these are of, pixels.
    """
    captions, mentions = [], []
    for step in steps:
        start, end = (float(time) for time in step["segment"])
        if start not in starts:
            continue
        text = " ".join(step["sentence"].split())
        seconds = [second for second in range(int(start), int(end) + 1) if second in boxes]
        found = tuple(filter(None, (Box.scaled(float(second), boxes[second][:4], *sizes) for second in seconds)))
        mentions.append(Mention(len(captions), text, 0, len(text), "video", start, end, found))
        captions.append((text, start, end))
    return tuple(captions), tuple(mentions)


YOUCOOK2_INTERACTIONS = Benchmark(
    "youcook2_interactions",
    "YouCook2-Interactions",
    "video",
    read,
    "Steps of YouCook2's validation videos, with a box of the interaction that each describes in every second (Tan et "
    "al., NeurIPS 2021). The videos are YouTube's and not to be redistributed.",
)
