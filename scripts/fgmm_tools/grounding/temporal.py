"""Grounding in time: whether a phrase's map finds the seconds in which a thing is seen or heard.

Clips are laid end to end, so that what a phrase names is in a small part of the whole.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from statistics import mean

import torch

from modeling_fgmm import FgmmModel
from modeling_fgmm.grounding_fgmm import Span
from processing_fgmm import FgmmProcessor

from .clips import LocatedClip
from .maps import encode_queries, join_clips, map_texts
from .metrics import SHARES, find_span, span_overlap

# How the cells of one moment are made into one value: which of them is better is chosen on training clips.
REDUCTIONS = {"mean": lambda values: values.mean(-1), "max": lambda values: values.amax(-1)}


@dataclass
class TimedThing:
    """What a text names in clips end to end.

    Args:
        values: (steps, cells) the map of the text, the largest value 1.
        steps: seconds of each.
        span: in which it is seen or heard, seconds.
    """

    values: torch.Tensor
    steps: list[Span]
    span: Span

    def over_time(self, reduction: str) -> torch.Tensor:
        """(steps,) values, the largest 1."""
        values = REDUCTIONS[reduction](self.values)
        return values / values.max().clamp(min=1e-9)


def list_timed(
    model: FgmmModel, processor: FgmmProcessor, clips: list[LocatedClip], modality: str, number: int
) -> Iterator[TimedThing]:
    """What the texts of clips name that no other clip of the same row of `number` clips names, too."""
    for first in range(0, len(clips) - number + 1, number):
        group = clips[first : first + number]
        joined = join_clips([clip.regions[modality] for clip in group])
        offset = 0.0
        for clip in group:
            window = clip.regions[modality].window
            others = set().union(*(other.names() for other in group if other is not clip))
            located = [
                entry
                for entry in clip.of(modality)
                if entry.mention.start is not None and entry.mention.name not in others
            ]
            if located:
                queries = encode_queries(model, processor, [entry.text for entry in located])
                for entry, values in zip(located, map_texts(model, queries, joined).maps, strict=True):
                    span = tuple(offset + time - window[0] for time in (entry.mention.start, entry.mention.end))
                    cells = values.T if modality == "audio" else values.flatten(1)
                    yield TimedThing(cells / cells.max().clamp(min=1e-9), joined.steps, span)
            offset += window[1] - window[0]


def choose_time_threshold(
    model: FgmmModel, processor: FgmmProcessor, clips: list[LocatedClip], modality: str, number: int
) -> tuple[str, float]:
    """How the cells of a moment are reduced, and the share of the largest value, whose spans overlap most with the true
    ones of training clips."""
    clips = [clip for clip in clips if clip.of(modality)]
    overlaps: dict[tuple[str, float], list[float]] = {
        (reduction, share): [] for reduction in REDUCTIONS for share in SHARES
    }
    for thing in list_timed(model, processor, clips, modality, number):
        for reduction, share in overlaps:
            found = find_span(thing.over_time(reduction), thing.steps, share)
            overlaps[reduction, share].append(span_overlap(found, thing.span))
    return max(overlaps, key=lambda choice: mean(overlaps[choice] or [0.0]))


def measure_time(
    model: FgmmModel,
    processor: FgmmProcessor,
    clips: list[LocatedClip],
    modality: str,
    number: int,
    threshold: tuple[str, float],
) -> dict[str, float]:
    """Pointing and overlap in time in `number` clips end to end.

    Returns:
        in percent `pointing`, of the moment with the largest value, and `iou`, the mean overlap of spans; those of a
        random moment, the middle and the whole, which is what uniform attention means; how the span is found, and the
        number of phrases.
    """
    reduction, share = threshold
    hits, overlaps = {"model": [], "chance": [], "centre": []}, {"model": [], "uniform": []}
    for thing in list_timed(model, processor, clips, modality, number):
        over_time = thing.over_time(reduction)
        start, end = thing.steps[int(over_time.argmax())]
        whole = (thing.steps[0][0], thing.steps[-1][1])
        for name, moment in (("model", (start + end) / 2), ("centre", sum(whole) / 2)):
            hits[name].append(thing.span[0] <= moment < thing.span[1])
        hits["chance"].append((thing.span[1] - thing.span[0]) / (whole[1] - whole[0]))
        overlaps["model"].append(span_overlap(find_span(over_time, thing.steps, share), thing.span))
        overlaps["uniform"].append(span_overlap(whole, thing.span))
    values = {f"pointing{'' if name == 'model' else '_' + name}": 100 * mean(found) for name, found in hits.items()}
    values |= {"iou": 100 * mean(overlaps["model"]), "iou_uniform": 100 * mean(overlaps["uniform"])}
    return {**values, "reduction": reduction, "threshold": share, "num_phrases": len(hits["model"])}
