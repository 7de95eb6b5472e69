"""Grounding in space: whether maps point at things, and cover them."""

from collections.abc import Iterator
from dataclasses import dataclass
from statistics import mean

import torch

from modeling_fgmm import ClipRegions, FgmmModel
from modeling_fgmm.grounding_fgmm import Box, find_point
from processing_fgmm import FgmmProcessor

from .clips import LocatedClip, LocatedText
from .maps import encode_queries, map_texts, step_at
from .metrics import (
    SHARES,
    is_inside,
    overlap,
    overlap_curve,
    raster_boxes,
    raster_map,
)

WHOLE: Box = (0.0, 0.0, 1.0, 1.0)
CENTRE = (0.5, 0.5)


@dataclass
class SeenThing:
    """What a text names, in the frames in which its place is known.

    Args:
        values: (steps, h, w) the map of the text in the steps that hold these frames, the largest value 1.
        area: the part of the frame that the map covers.
        frames: of each of them its step in `values`, and the boxes.
    """

    values: torch.Tensor
    area: Box
    frames: list[tuple[int, list[Box]]]


def list_seen(model: FgmmModel, processor: FgmmProcessor, clips: list[LocatedClip]) -> Iterator[SeenThing]:
    """All that the texts of clips name and whose boxes are known."""
    for clip in clips:
        located = [entry for entry in clip.of("video") if entry.mention.boxes]
        if located:
            queries = encode_queries(model, processor, [entry.text for entry in located])
            maps = map_texts(model, queries, clip.regions["video"]).maps
            for entry, values in zip(located, maps, strict=True):
                yield cut_map(entry, values, clip.regions["video"])


def cut_map(located: LocatedText, values: torch.Tensor, regions: ClipRegions) -> SeenThing:
    """A map (t, h, w) in the steps of the frames with boxes alone, as is the custom: where, and not when, is asked."""
    boxes: dict[int, dict[float | None, list[Box]]] = {}
    for box in located.mention.boxes:
        boxes.setdefault(step_at(regions.steps, box.time), {}).setdefault(box.time, []).append(box.corners)
    kept = sorted(boxes)
    values = values[kept]
    largest = values.max()
    frames = [(place, corners) for place, step in enumerate(kept) for corners in boxes[step].values()]
    return SeenThing(values / largest if largest > 0 else values, regions.area, frames)


def choose_space_threshold(model: FgmmModel, processor: FgmmProcessor, clips: list[LocatedClip]) -> dict[str, float]:
    """The share of a map's largest value, and the side of a box at the centre in shares of the frame's, whose overlaps
    with the boxes of training clips are the largest: under "model" and "centre"."""
    overlaps: dict[str, dict[float, list]] = {name: {share: [] for share in SHARES} for name in ("model", "centre")}
    for thing in list_seen(model, processor, clips):
        raster = raster_map(thing.values, thing.area)
        for step, boxes in thing.frames:
            truth = raster_boxes(boxes)
            extents = torch.stack([raster[step] >= share for share in SHARES])
            centres = torch.stack([raster_boxes([centred(share)]) for share in SHARES])
            for name, found in (("model", overlap(extents, truth)), ("centre", overlap(centres, truth))):
                for share, value in zip(SHARES, found.tolist(), strict=True):
                    overlaps[name][share].append(value)
    return {name: max(SHARES, key=lambda share: mean(values[share] or [0.0])) for name, values in overlaps.items()}


def centred(side: float) -> Box:
    """A box at the frame's centre."""
    return 0.5 - side / 2, 0.5 - side / 2, 0.5 + side / 2, 0.5 + side / 2


def measure_space(
    model: FgmmModel, processor: FgmmProcessor, clips: list[LocatedClip], threshold: dict[str, float] | None
) -> dict[str, float]:
    """Pointing accuracy and overlap of maps with boxes, over all frames with boxes.

    Args:
        threshold: from [`choose_space_threshold`]; None: the upper half of each map (VGG-SS).

    Returns:
        in percent `pointing` and `iou` (the mean), `iou@0.5` (the share of at least 0.5) and `iou_auc`; the same of a
        random point, the frame's centre and the whole frame, which is what uniform attention means; `threshold`, and
        the numbers of phrases and frames.
    """
    hits, overlaps, number = {"model": [], "chance": [], "centre": []}, {"model": [], "centre": [], "uniform": []}, 0
    whole = raster_boxes([WHOLE])
    middle = raster_boxes([centred(threshold["centre"])]) if threshold else whole
    for thing in list_seen(model, processor, clips):
        number += 1
        points = [find_point(values, thing.area) for values in thing.values]
        raster = raster_map(thing.values, thing.area)
        least = threshold["model"] if threshold else raster.flatten(1).median(1).values[:, None, None]
        extents = raster >= least
        for step, boxes in thing.frames:
            truth = raster_boxes(boxes)
            hits["model"].append(is_inside(points[step], boxes))
            hits["chance"].append(truth.float().mean().item())
            hits["centre"].append(is_inside(CENTRE, boxes))
            for name, extent in (("model", extents[step]), ("centre", middle), ("uniform", whole)):
                overlaps[name].append(overlap(extent, truth).item())
    values = {f"pointing{suffix(name)}": 100 * mean(found) for name, found in hits.items()}
    for name, found in overlaps.items():
        values[f"iou{suffix(name)}"] = 100 * mean(found)
    reached = [value >= 0.5 for value in overlaps["model"]]
    values |= {"iou@0.5": 100 * mean(reached), "iou_auc": 100 * overlap_curve(overlaps["model"])}
    if threshold:
        values |= {"threshold": threshold["model"], "centre_side": threshold["centre"]}
    return {**values, "num_phrases": number, "num_frames": len(hits["model"])}


def suffix(name: str) -> str:
    """Of the key of a value: none for the model's."""
    return "" if name == "model" else f"_{name}"
