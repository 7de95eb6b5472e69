"""Agreement of maps with boxes and spans of time: pointing, overlap in space, overlap in time."""

import math

import torch
import torch.nn.functional as F

from modeling_fgmm.grounding_fgmm import Box, Span, find_extent

# Side of the raster on which areas are counted, and the shares of a map's largest value that are tried as thresholds.
RASTER = 64
SHARES = [index / 20 for index in range(1, 20)]
# Overlaps at which the share of successes is taken, for the area under its curve.
OVERLAPS = [index / 20 for index in range(21)]


def is_inside(point: tuple[float, float], boxes: list[Box]) -> bool:
    """Whether a point is in any of some boxes, both in shares of the frame."""
    return any(box[0] <= point[0] <= box[2] and box[1] <= point[1] <= box[3] for box in boxes)


def raster_boxes(boxes: list[Box]) -> torch.Tensor:
    """Where any of some boxes is, on a raster over the frame: (RASTER, RASTER) bool. Each covers a cell at least."""
    raster = torch.zeros(RASTER, RASTER, dtype=torch.bool)
    for x_min, y_min, x_max, y_max in boxes:
        left, top = (min(max(round(RASTER * edge), 0), RASTER - 1) for edge in (x_min, y_min))
        right, bottom = (min(round(RASTER * edge), RASTER) for edge in (x_max, y_max))
        raster[top : max(bottom, top + 1), left : max(right, left + 1)] = True
    return raster


def raster_map(values: torch.Tensor, area: Box) -> torch.Tensor:
    """A map (t, h, w) on the raster over the frame, 0 outside of the area that it covers: (t, RASTER, RASTER)."""
    left, top, right, bottom = (round(RASTER * edge) for edge in area)
    size = (max(bottom - top, 1), max(right - left, 1))
    inner = F.interpolate(values.unsqueeze(1), size=size, mode="bilinear", align_corners=False)[:, 0]
    return F.pad(inner, (left, RASTER - left - size[1], top, RASTER - top - size[0]))


def overlap(extent: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Intersection over union of areas (..., RASTER, RASTER) bool: (...,), 0 to 1."""
    union = (extent | truth).sum((-2, -1))
    return (extent & truth).sum((-2, -1)) / union.clamp(min=1)


def overlap_curve(overlaps: list[float]) -> float:
    """The area under the share of overlaps that reach 0, 0.05, ... 1 (as VGG-SS has it), 0 to 1."""
    values = torch.tensor(overlaps)
    shares = torch.stack([(values >= least).float().mean() for least in OVERLAPS])
    return torch.trapezoid(shares, torch.tensor(OVERLAPS)).item()


def find_span(over_time: torch.Tensor, steps: list[Span], threshold: float) -> Span:
    """The longest stretch around the largest value (time,) that keeps a share of it, seconds."""
    _, first, _, last = find_extent(over_time.unsqueeze(0), threshold)
    return steps[first][0], steps[last - 1][1]


def span_overlap(found: Span, truth: Span) -> float:
    """Intersection over union of two spans of time, 0 to 1."""
    common = max(0.0, min(found[1], truth[1]) - max(found[0], truth[0]))
    union = max(found[1], truth[1]) - min(found[0], truth[0])
    return common / union if union > 0 else 0.0


def area_under_roc(positive: torch.Tensor, negative: torch.Tensor) -> float:
    """The probability that a positive value is above a negative one, ties counting half; NaN without either."""
    if not len(positive) or not len(negative):
        return math.nan
    difference = positive.unsqueeze(1) - negative
    return ((difference > 0).float().mean() + 0.5 * (difference == 0).float().mean()).item()
