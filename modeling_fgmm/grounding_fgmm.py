"""What the attention of a text over a clip means: the words of each phrase, its box in the frame, its seconds."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from .loss_fgmm import Attention

# Regions with at least this share of the largest attention belong to a box or a span of time.
EXTENT_THRESHOLD = 0.5


@dataclass
class GroundedPhrase:
    """A phrase of a text, and where and when a clip shows, or sounds like, it.

    Args:
        phrase: its words, as the text has them.
        weight: its share in the score of the text, 0 to 1.
        similarity: with the regions that it attends to, -1 to 1.
        attention: (t, h, w) over a video or (frequency, time) over a sound, on the CPU; sums to 1.
        box: (x_min, y_min, x_max, y_max) in shares of the frame's width and height, 0 to 1; None for a sound.
        seconds: from when to when; None where the clip has no times.
    """

    phrase: str
    weight: float
    similarity: float
    attention: torch.Tensor
    box: tuple[float, float, float, float] | None
    seconds: tuple[float, float] | None


@dataclass
class Grounding:
    """What [`~FgmmModel.ground`] finds.

    Args:
        score: of the text with the clip, -1 to 1: the sum over the phrases, and the text as a whole where it has a
            weight, of weight times similarity.
        phrases: in the order of the text.
        whole: the text as a whole, where the model's objective compares it with regions, too; else None.
        area: the part of the frame that the model was shown and attention covers, as a box; None for a sound.
        window: the seconds that the model was shown; None where the clip has no times.
    """

    score: float
    phrases: list[GroundedPhrase]
    whole: GroundedPhrase | None
    area: tuple[float, float, float, float] | None
    window: tuple[float, float] | None


def ground_phrases(
    attention: Attention,
    names: list[str],
    maps: torch.Tensor,
    area: tuple[float, float, float, float] | None,
    window: tuple[float, float] | None,
) -> Grounding:
    """Boxes and seconds of the phrases of one text in one clip.

    Args:
        attention: of one query of one caption with one key.
        names: the words of the M phrases, and then the whole text.
        maps: (P, t, h, w) or (P, frequency, time) attention of each phrase over the regions of the clip.
        area, window: see [`Grounding`].
    """
    weights, similarity = attention.phrases[0, 0].tolist(), attention.similarity[0, 0].tolist()
    phrases = [
        GroundedPhrase(name, weight, value, of_phrase, *locate(of_phrase, area, window))
        for name, weight, value, of_phrase in zip(names, weights, similarity, maps, strict=False)
    ]
    score = sum(weight * value for weight, value in zip(weights, similarity, strict=True))
    whole = phrases[attention.num_phrases] if len(phrases) > attention.num_phrases else None
    return Grounding(score, phrases[: attention.num_phrases], whole, area, window)


def locate(
    attention: torch.Tensor,
    area: tuple[float, float, float, float] | None,
    window: tuple[float, float] | None,
) -> tuple[tuple[float, float, float, float] | None, tuple[float, float] | None]:
    """The box and the seconds that a map of attention means.

    In time this is the longest stretch around the moment of the largest attention that keeps half of it; in space the
    same around the largest attention within that stretch.

    Args:
        attention: (t, h, w) of a video or (frequency, time) of a sound.
        area, window: see [`Grounding`]; without an area there is no box, without a window there are no seconds.
    """
    over_time = attention.sum(0) if area is None else attention.sum((1, 2))
    _, first, _, last = find_extent(over_time.unsqueeze(0))
    box = seconds = None
    if window is not None:
        step = (window[1] - window[0]) / len(over_time)
        seconds = (window[0] + first * step, window[0] + last * step)
    if area is not None:
        height, width = attention.shape[1:]
        top, left, bottom, right = find_extent(attention[first:last].sum(0))
        x, y = area[0], area[1]
        column, row = (area[2] - x) / width, (area[3] - y) / height
        box = (x + left * column, y + top * row, x + right * column, y + bottom * row)
    return box, seconds


def find_extent(attention: torch.Tensor) -> tuple[int, int, int, int]:
    """The cells around the largest that keep `EXTENT_THRESHOLD` of it and hang together, diagonals included.

    Args:
        attention: (h, w), not negative.

    Returns:
        First row, first column, one past the last row, one past the last column.
    """
    kept = attention >= EXTENT_THRESHOLD * attention.max()
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


__all__ = ["GroundedPhrase", "Grounding"]
