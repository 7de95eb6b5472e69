"""Flickr30k Entities: phrases of the captions of photographs, with boxes."""

import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from ..mentions import Box, Mention
from ..problems import Problems
from .layout import (
    IMAGE,
    Benchmark,
    Item,
    MediaFolder,
    Reading,
    one_config,
    read_lines,
    reading_row,
    require,
    require_file,
    whole_captions,
)

LAYOUT = (
    "Flickr30k Entities is published as the folders Annotations and Sentences with train.txt, val.txt and test.txt; "
    "the photographs of Flickr30k are in a folder beside them"
)
# [/EN#283585/people Two people]: the chain of mentions of one thing, its types, and the words.
PHRASE = re.compile(r"\[/EN#(\d+)/\S+ ([^\]]*)\]")


def read(source: Path, problems: Problems) -> Reading:
    """The lists of names, and of each photograph its five sentences and its boxes."""
    require(source / "Annotations", LAYOUT)
    require(source / "Sentences", LAYOUT)
    images, splits = MediaFolder(source, IMAGE), {}
    for split, part in (("train", "train"), ("validation", "val"), ("test", "test")):
        splits[split] = []
        for name in read_lines(require_file(source, LAYOUT, f"{part}.txt")):
            with reading_row(name, problems):
                if path := images.find(problems, name):
                    captions, mentions = read_sentences(source, name)
                    splits[split].append(Item(name, path, captions, mentions=mentions))
    return one_config(splits)


def read_sentences(source: Path, name: str) -> tuple[tuple, tuple[Mention, ...]]:
    """The captions of a photograph, and their phrases that have a box.

    Raises:
        ValueError: when a file is missing or damaged.
    """
    try:
        boxes = read_boxes(ElementTree.parse(source / "Annotations" / f"{name}.xml").getroot())
        lines = read_lines(source / "Sentences" / f"{name}.txt")
    except (OSError, ElementTree.ParseError, AttributeError) as error:
        raise ValueError(f"its sentences or boxes cannot be read: {error}") from error
    texts, mentions = [], []
    for caption, line in enumerate(lines):
        text, written = "", 0
        for match in PHRASE.finditer(line):
            text += line[written : match.start()]
            first, written = len(text), match.end()
            text += match[2]
            if match[1] in boxes:
                place = (first, len(text), "video", None, None, tuple(boxes[match[1]]))
                mentions.append(Mention(caption, match[2].lower(), *place))
        texts.append(text + line[written:])
    return whole_captions(texts), tuple(mentions)


def read_boxes(root: ElementTree.Element) -> dict[str, list[Box]]:
    """The boxes of each chain of mentions, in shares of the photograph's sides."""
    width, height = (float(root.find(f"size/{side}").text) for side in ("width", "height"))
    boxes: dict[str, list[Box]] = {}
    for thing in root.iter("object"):
        corners = thing.find("bndbox")
        if corners is None:  # not seen, or the whole scene
            continue
        pixels = [float(corners.find(edge).text) for edge in ("xmin", "ymin", "xmax", "ymax")]
        if box := Box.scaled(None, pixels, width, height):
            for chain in thing.iter("name"):
                boxes.setdefault(chain.text, []).append(box)
    return boxes


FLICKR30K_ENTITIES = Benchmark(
    "flickr30k_entities",
    "Flickr30k Entities",
    "image",
    read,
    "31,783 photographs with five captions each, of whose phrases 276,000 boxes tell where they are (Plummer et al., "
    "2015), in its own split: 1,000 each for validation and testing. For research use; not to be redistributed.",
)
