"""VGG-SS: where in the middle frames of VGGSound's videos the things are that sound."""

import json
from pathlib import Path

from ..mentions import Box, Mention
from ..problems import Problems
from .layout import VIDEO, Benchmark, Item, MediaFolder, Reading, one_config, parsing, reading_row, require_file

ANNOTATIONS = "vggss.json"
LAYOUT = f"VGG-SS is published as {ANNOTATIONS}; the videos of VGGSound, of ten seconds each, are in a folder beside it"
# The second of the frame that the boxes are of.
MIDDLE = 5.0


def read(source: Path, problems: Problems) -> Reading:
    """Videos with their class as the caption, and the boxes of what sounds."""
    path = require_file(source, LAYOUT, ANNOTATIONS)
    with parsing(path, LAYOUT):
        listed = json.loads(path.read_text(encoding="utf-8"))
    videos, items = MediaFolder(source, VIDEO), []
    for number, entry in enumerate(listed, start=1):
        with reading_row(f"entry {number} of {path.name}", problems):
            name, text = entry["file"], entry["class"]
            boxes = tuple(filter(None, (Box.scaled(MIDDLE, box) for box in entry["bbox"])))
            if not boxes:
                problems.add(name, "has no box with an area")
            elif file := videos.find(problems, name):
                mention = Mention(0, text, 0, len(text), "video", None, None, boxes)
                items.append(Item(name, file, ((text, None, None),), mentions=(mention,)))
    return one_config({"test": items})


VGGSS = Benchmark(
    "vggss",
    "VGG-SS",
    "video",
    read,
    "5,158 videos of VGGSound in 220 classes, with boxes of what sounds in the middle frame (Chen et al., CVPR 2021). "
    "Measured with the class's name as the text and `--threshold median`. The videos are YouTube's and not to be "
    "redistributed.",
)
