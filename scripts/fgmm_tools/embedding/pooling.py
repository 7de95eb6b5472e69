"""Fewer regions of a window: averages over the cells of a coarser grid, and what is kept of their digits."""

import math
from functools import lru_cache
from itertools import product

import numpy as np
import torch
import torch.nn.functional as F

# The largest value of int8 that is used, so that the range is symmetric.
INT8_MAX = 127


def pool_regions(regions: torch.Tensor, mask: torch.Tensor, grid: tuple[int, ...], num_regions: int) -> torch.Tensor:
    """The regions of one item, averaged within the cells of a grid of at most `num_regions`, and normalised again.

    Neighbouring regions of a feature map see overlapping parts of the input and are alike, so that their average stays
    near each of them, and a cell still has a place: grounding can say where and when it is. Merging by similarity (as
    ToMe does) or clustering would lose that. The average is deterministic and costs one pass.

    Args:
        regions: (N, D) L2-normalised.
        mask: (N,) False for padding, which stands at the end of each axis of the grid and is left out.
        grid: (t, h, w) or (frequency, time), whose product is N.
        num_regions: most regions that are returned (R).

    Returns:
        (n, D) L2-normalised, n at most R: all of them where there are no more; none for an item without any.
    """
    if int(mask.sum()) <= num_regions:
        return regions[mask]
    extent = mask.view(grid)
    for axis in range(len(grid)):
        used = extent.movedim(axis, 0).flatten(1).any(1)
        extent = extent.narrow(axis, 0, int(used.nonzero().max()) + 1)
    sizes = tuple(extent.shape)
    inside = tuple(slice(size) for size in sizes)
    values = torch.where(extent.unsqueeze(-1), regions.view(*grid, -1)[inside], 0)  # padding is never added
    target = choose_grid(sizes, num_regions)
    pool = F.adaptive_avg_pool3d if len(grid) == 3 else F.adaptive_avg_pool2d
    pooled = pool(values.movedim(-1, 0).unsqueeze(0), target)[0].flatten(1).T
    present = pool(extent.to(values.dtype)[None, None], target).flatten() > 0
    return F.normalize(pooled[present], dim=-1)


@lru_cache
def choose_grid(sizes: tuple[int, ...], most: int) -> tuple[int, ...]:
    """The grid with at most `most` cells into which one of `sizes` is pooled: it has most cells, and of several such
    grids the one whose cells are nearest to cubes."""
    candidates = product(*(range(1, min(size, most) + 1) for size in sizes))
    fitting = [target for target in candidates if math.prod(target) <= most]
    return min(fitting, key=lambda target: (-math.prod(target), max(s / t for s, t in zip(sizes, target, strict=True))))


def compress(regions: torch.Tensor, precision: str) -> tuple[np.ndarray, float]:
    """Regions (n, D) with fewer digits: (n, D) float16 or int8, and the factor that gives the values back, 1 for
    float16."""
    if precision == "float16":
        return regions.half().numpy(), 1.0
    scale = float(regions.abs().max()) / INT8_MAX if len(regions) else 1.0
    return (regions / scale).round().to(torch.int8).numpy(), scale


def decompress(values: np.ndarray, scale: float) -> torch.Tensor:
    """What [`compress`] was given, (n, D) float32, L2-normalised again."""
    return F.normalize(torch.from_numpy(values).float() * scale, dim=-1)
