"""Flickr8k: photographs with five captions each."""

from pathlib import Path

from ..problems import Problems
from .layout import IMAGE, Benchmark, Item, MediaFolder, Reading, one_config, read_lines, require, whole_captions

LAYOUT = "Flickr8k is published as the folders Flicker8k_Dataset and Flickr8k_text"


def read(source: Path, problems: Problems) -> Reading:
    """Flicker8k_Dataset/*.jpg, Flickr8k_text/Flickr8k.token.txt and the official lists of images."""
    images = MediaFolder(require(source / "Flicker8k_Dataset", LAYOUT), IMAGE)
    texts: dict[str, list[str]] = {}
    for line in read_lines(require(source / "Flickr8k_text/Flickr8k.token.txt", LAYOUT)):
        name, _, text = line.partition("\t")
        if text:
            texts.setdefault(name.partition("#")[0], []).append(text)
        else:
            problems.add(line[:60], "is a caption line without text")
    splits = {}
    for split, part in (("train", "train"), ("validation", "dev"), ("test", "test")):
        splits[split] = []
        for name in read_lines(require(source / f"Flickr8k_text/Flickr_8k.{part}Images.txt", LAYOUT)):
            if name not in texts:
                problems.add(name, "has no caption")
            elif path := images.find(problems, name):
                splits[split].append(Item(Path(name).stem, path, whole_captions(texts[name])))
    return one_config(splits)


FLICKR8K = Benchmark(
    "flickr8k",
    "Flickr8k",
    "image",
    read,
    "8,000 photographs with five captions each (Hodosh, Young and Hockenmaier, 2013), in the official split. For "
    "research use; not to be redistributed.",
)
