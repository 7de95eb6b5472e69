"""Grounding: which regions of a clip the phrases of a text attend to, and the boxes and seconds that this means."""

from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F

from .loss_fgmm import Attention
from .outputs_fgmm import FgmmRegionOutput
from .scoring_fgmm import Keys

# Regions with at least this share of the largest value of a map belong to a box or a span of time.
EXTENT_THRESHOLD = 0.5
# Steps between the cells of a map, in which the edges of boxes are found.
UPSAMPLING = 8
# Foreign texts that a text's similarities are compared with.
NUM_FOREIGN = 100

Box = tuple[float, float, float, float]
Span = tuple[float, float]


@dataclass
class GroundedPhrase:
    """A phrase of a text, and where and when a clip shows, or sounds like, it.

    Args:
        phrase: its words, as the text has them.
        weight: its share in the score of the text, 0 to 1.
        similarity: with the regions that it attends to, -1 to 1; with pooled embeddings the score of the text.
        confidence: the share of foreign phrases, random words in its place, whose similarity with the clip is lower, 0
            to 1: about a half for what the clip has nothing to do with. None where the tokenizer has too few words.
        attention: (t, h, w) over a video or (frequency, time) over a sound, on the CPU; sums to 1. Uniform where the
            objective compares pooled embeddings.
        cosines: of the phrase with each region, -1 to 1, of the same shape; 0 for padding.
        box: (x_min, y_min, x_max, y_max) in shares of the frame's width and height, 0 to 1; None for a sound.
        point: (x, y) likewise, that it points at, at the moment of the largest attention; None for a sound.
        seconds: from when to when; None where the clip has no times.
    """

    phrase: str
    weight: float
    similarity: float
    confidence: float | None
    attention: torch.Tensor
    cosines: torch.Tensor
    box: Box | None
    point: tuple[float, float] | None
    seconds: Span | None


@dataclass
class Grounding:
    """What [`~FgmmModel.ground`] finds.

    Args:
        score: of the text with the clip, -1 to 1: the sum over the phrases, and the text as a whole where it has a
            weight, of weight times similarity.
        confidence: of the score, as that of a phrase.
        phrases: in the order of the text.
        whole: the text as a whole, where the model's objective compares it with regions, too; else None.
        attention: of the text: the sum of the attention of phrases and whole, weighted.
        cosines: of the text likewise; with pooled embeddings those of its embedding.
        area: the part of the frame that the model was shown and attention covers, as a box; None for a sound.
        window: the seconds that the model was shown; None where the clip has no times.
        steps: the seconds of each step of the maps in time; None where the clip has no times.
    """

    score: float
    confidence: float | None
    phrases: list[GroundedPhrase]
    whole: GroundedPhrase | None
    attention: torch.Tensor
    cosines: torch.Tensor
    area: Box | None
    window: Span | None
    steps: list[Span] | None


@dataclass
class ClipRegions:
    """The regions of one clip, those of all its windows in the order of time.

    Args:
        keys: of the clip: regions (1, N, D), mask (1, N) and the normalised mean of the windows' embeddings (1, D).
        grid: (t, h, w) of a video, (frequency, time) of a sound; N is their product.
        steps: the seconds of each step in time; None where the clip has no times.
        area: see [`Grounding`].
    """

    keys: Keys
    grid: tuple[int, ...]
    steps: list[Span] | None
    area: Box | None

    @property
    def window(self) -> Span | None:
        """From when to when the clip was shown, seconds."""
        return (self.steps[0][0], self.steps[-1][1]) if self.steps else None

    def to_maps(self, values: torch.Tensor) -> torch.Tensor:
        """(P, N) values of regions to maps (P, t, h, w) or (P, frequency, time), on the CPU."""
        return values.float().cpu().unflatten(-1, self.grid)


def join_windows(outputs: list[FgmmRegionOutput], windows: list[Span] | None, area: Box | None) -> ClipRegions:
    """Puts the windows of one clip together, without the padding at the end of sounds.

    Args:
        outputs: of the windows of a clip, several in each.
        windows: seconds of each; None where the clip has no times.
        area: of a video the part of the frame that the windows show; None for a sound.

    Raises:
        ValueError: for a sound without any region.
    """
    maps, masks = [], []  # of each window (time, ..., D) and (time, ...)
    for output in outputs:
        for regions, mask in zip(output.regions, output.region_mask, strict=True):
            regions, mask = regions.unflatten(0, output.grid), mask.view(output.grid)
            if area is None:  # an encoder that takes sounds of one length has padding at their end
                length = int(mask.any(0).sum())
                regions, mask = regions[:, :length].transpose(0, 1), mask[:, :length].T
            maps.append(regions)
            masks.append(mask)
    lengths = [len(mask) for mask in masks]
    regions, mask = torch.cat(maps), torch.cat(masks)
    if not len(mask):
        raise ValueError("The audio has no sound in which a text could be grounded.")
    if area is None:
        regions, mask = regions.transpose(0, 1), mask.T
    embeds = F.normalize(torch.cat([output.pooler_output for output in outputs]).sum(0, keepdim=True), dim=-1)
    steps = windows and [
        step for window, length in zip(windows, lengths, strict=True) for step in split_span(*window, length)
    ]
    keys = Keys(regions.reshape(1, -1, regions.shape[-1]), mask.reshape(1, -1), embeds)
    return ClipRegions(keys, tuple(mask.shape), steps, area)


def split_span(start: float, end: float, number: int) -> list[Span]:
    """The parts of equal length of a span, seconds."""
    edges = [start + index * (end - start) / number for index in range(number + 1)] if number else []
    return list(pairwise(edges))


def ground_phrases(
    attention: Attention, names: list[str], clip: ClipRegions, pooled: bool, foreign: Attention | None = None
) -> Grounding:
    """Maps, boxes and seconds of the phrases of one text in one clip.

    Args:
        attention: of one query of one caption with the clip.
        names: the words of the M phrases, and then the whole text.
        clip: its regions.
        pooled: whether the objective compares pooled embeddings.
        foreign: of F queries with the clip, whose phrases stand in the places of the text's; None without.
    """
    keys, compared = clip.keys, attention.queries
    weights, similarity = attention.phrases[0, 0].float().cpu(), attention.similarity[0, 0].float().cpu()
    cosines = compared.phrases[0].float() @ keys.regions[0].float().T
    maps, cosine_maps = clip.to_maps(attention.regions[0, 0]), clip.to_maps(cosines * keys.mask[0])
    of_text = compared.embeds[0, :1].float() @ keys.regions[0].float().T * keys.mask[0]
    confidences = [None] * len(weights)
    score, confidence = (weights * similarity).sum(), None
    if foreign is not None:
        foreign_similarity, foreign_weights = (
            foreign.similarity[:, 0].float().cpu(),
            foreign.phrases[:, 0].float().cpu(),
        )
        confidences = (foreign_similarity < similarity).float().mean(0).tolist()
        confidence = ((foreign_similarity * foreign_weights).sum(1) < score).float().mean().item()
    phrases = []
    for place, name in zip(range(len(weights)), names, strict=False):
        values = weights[place].item(), similarity[place].item(), confidences[place]
        box, seconds = locate(maps[place], clip.area, clip.steps)
        moment = maps[place][int(maps[place].flatten(1).amax(1).argmax())] if clip.area else None
        point = find_point(moment, clip.area) if clip.area else None
        phrases.append(GroundedPhrase(name, *values, maps[place], cosine_maps[place], box, point, seconds))
    return Grounding(
        score=score.item(),
        confidence=confidence,
        phrases=phrases[: attention.num_phrases],
        whole=phrases[attention.num_phrases] if len(phrases) > attention.num_phrases else None,
        attention=torch.tensordot(weights, maps, dims=1),
        cosines=clip.to_maps(of_text)[0] if pooled else torch.tensordot(weights, cosine_maps, dims=1),
        area=clip.area,
        window=clip.window,
        steps=clip.steps,
    )


def locate(
    attention: torch.Tensor, area: Box | None, steps: list[Span] | None, threshold: float = EXTENT_THRESHOLD
) -> tuple[Box | None, Span | None]:
    """The box and the seconds that a map means.

    In time this is the longest stretch around the moment of the largest attention that keeps a share of it; in space
    the same around the largest attention within that stretch, interpolated between the centres of cells.

    Args:
        attention: (t, h, w) of a video or (frequency, time) of a sound, not negative.
        area, steps: see [`Grounding`]; without an area there is no box, without steps there are no seconds.
        threshold: that share.
    """
    over_time = attention.sum(0) if area is None else attention.sum((1, 2))
    _, first, _, last = find_extent(over_time.unsqueeze(0), threshold)
    box = seconds = None
    if steps:
        seconds = (steps[first][0], steps[last - 1][1])
    if area is not None:
        height, width = (UPSAMPLING * size for size in attention.shape[1:])
        pixels = upsample_attention(attention[first:last].sum(0), height, width)
        top, left, bottom, right = find_extent(pixels, threshold)
        x, y = area[0], area[1]
        column, row = (area[2] - x) / width, (area[3] - y) / height
        box = (x + left * column, y + top * row, x + right * column, y + bottom * row)
    return box, seconds


def find_point(attention: torch.Tensor, area: Box) -> tuple[float, float]:
    """What a map (h, w) points at: the centre of its largest cell, drawn towards the neighbours with large values.

    Args:
        attention: (h, w).
        area: the part of the frame that it covers, see [`Grounding`].

    Returns:
        x and y in shares of the frame's width and height.
    """
    height, width = attention.shape
    row, column = divmod(int(attention.argmax()), width)
    rows, columns = (slice(max(place - 1, 0), place + 2) for place in (row, column))
    # What all cells around have in common says nothing of where among them the thing is.
    weights = attention[rows, columns] - attention[rows, columns].min()
    y, x = row + 0.5, column + 0.5
    if weights.sum() > 0:
        weights = weights / weights.sum()
        y = (weights.sum(1) * (torch.arange(height)[rows] + 0.5)).sum().item()
        x = (weights.sum(0) * (torch.arange(width)[columns] + 0.5)).sum().item()
    return area[0] + x / width * (area[2] - area[0]), area[1] + y / height * (area[3] - area[1])


def find_extent(attention: torch.Tensor, threshold: float = EXTENT_THRESHOLD) -> tuple[int, int, int, int]:
    """The cells around the largest that keep a share of it and hang together, diagonals included.

    Args:
        attention: (h, w), not negative.
        threshold: that share.

    Returns:
        First row, first column, one past the last row, one past the last column.
    """
    kept = attention >= threshold * attention.max()
    component = torch.zeros_like(attention)
    component.view(-1)[attention.argmax()] = 1.0
    while True:
        grown = F.max_pool2d(component[None], 3, stride=1, padding=1)[0] * kept
        if torch.equal(grown, component):
            break
        component = grown
    rows, columns = component.any(1).nonzero(), component.any(0).nonzero()
    return int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1


def find_words(tokenizer, text: str, phrase_spans: torch.Tensor) -> list[str]:
    """The words of phrases, as the text has them.

    Args:
        tokenizer: the processor's, which is a fast one.
        text: one caption.
        phrase_spans: (M, 2) first token and one past the last of each phrase, without padding.
    """
    offsets = tokenizer(text, return_offsets_mapping=True)["offset_mapping"]
    words = []
    for first, last in phrase_spans.tolist():
        characters = [offset for offset in offsets[first:last] if offset[1] > offset[0]]  # special tokens have none
        words.append(text[characters[0][0] : characters[-1][1]] if characters else "")
    return words


def upsample_attention(attention: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Attention (h, w) at every pixel, interpolated between the centres of the grid's cells: (height, width)."""
    return F.interpolate(attention[None, None], size=(height, width), mode="bilinear", align_corners=False)[0, 0]


__all__ = ["ClipRegions", "GroundedPhrase", "Grounding"]
