"""COCO captions and Flickr30k, in the split of Karpathy and Fei-Fei, on which results are published."""

import json
from functools import partial
from pathlib import Path

from ..problems import Problems
from .layout import (
    IMAGE,
    SPLITS,
    Benchmark,
    Item,
    MediaFolder,
    Reading,
    one_config,
    parsing,
    reading_row,
    require_file,
    whole_captions,
)

# `restval`: the photographs of COCO's validation part that are in neither of the smaller splits.
SPLIT_NAMES = {"train": "train", "restval": "train", "val": "validation", "test": "test"}

# Captions of an image in validation and test: some images of COCO have more, which published results leave out.
EVALUATED_CAPTIONS = 5


def read(source: Path, problems: Problems, annotations: str) -> Reading:
    """The annotations' JSON file and folders of photographs.

    Args:
        annotations: the file's name.
    """
    layout = f"the Karpathy split is published as {annotations}; the photographs are in folders beside it"
    path = require_file(source, layout, annotations)
    images = MediaFolder(source, IMAGE)
    splits: dict[str, list[Item]] = {split: [] for split in SPLITS}
    with parsing(path, layout):
        listed = json.loads(path.read_text(encoding="utf-8"))["images"]
    for number, image in enumerate(listed, start=1):
        with reading_row(f"image {number} of {path.name}", problems):
            split = SPLIT_NAMES[image["split"]]
            sentences = image["sentences"] if split == "train" else image["sentences"][:EVALUATED_CAPTIONS]
            captions = whole_captions(sentence["raw"] for sentence in sentences)
            if not captions:
                problems.add(image["filename"], "has no caption")
            elif file := images.find(problems, image["filename"]):
                splits[split].append(Item(file.stem, file, captions))
    return one_config(splits)


COCO = Benchmark(
    "coco",
    "COCO captions",
    "image",
    partial(read, annotations="dataset_coco.json"),
    "123,287 photographs with five captions or more each (Lin et al., 2014; Chen et al., 2015), in the split of "
    "Karpathy and Fei-Fei (2015): 5,000 each for validation and testing, all others for training. Captions CC BY 4.0; "
    "the photographs are under their owners' Flickr terms and not to be redistributed.",
)
FLICKR30K = Benchmark(
    "flickr30k",
    "Flickr30k",
    "image",
    partial(read, annotations="dataset_flickr30k.json"),
    "31,014 photographs with five captions each (Young et al., 2014), in the split of Karpathy and Fei-Fei (2015): "
    "1,014 for validation, 1,000 for testing. For research use; not to be redistributed.",
)
