"""Fewer regions of a window, those merged that are most alike, and fewer digits of them."""

import math
from functools import lru_cache
from itertools import product

import numpy as np
import torch
import torch.nn.functional as F

# The largest value of int8 that is used, so that the range is symmetric.
INT8_MAX = 127
# Regions that are merged by likeness at most: it takes 3 ms of a core.
MAX_MERGED = 256


def pool_regions(regions: torch.Tensor, mask: torch.Tensor, grid: tuple[int, ...], num_regions: int) -> torch.Tensor:
    """The regions of one item, of which those that are most alike are merged until there are `num_regions`.

    What differs is kept, wherever and however small it is, and large even parts become few regions, where averages
    over a coarser grid mix what stands side by side. A feature map of more than MAX_MERGED regions is averaged over
    such a grid first, for merging takes the square of their number.

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
    if int(mask.sum()) > MAX_MERGED:
        return merge_regions(average_regions(regions, mask, grid, MAX_MERGED), num_regions)
    return merge_regions(regions[mask], num_regions)


def merge_regions(regions: torch.Tensor, number: int) -> torch.Tensor:
    """Merges the two regions with the highest cosine into their sum, again and again (hierarchical clustering by
    centroids; ToMe, Bolya et al., ICLR 2023, merges tokens of a transformer so).

    Args:
        regions: (n, D) L2-normalised, on the CPU.
        number: of the regions that are left.

    Returns:
        (number, D) L2-normalised, in the order of the first region of each; all n where they are no more.
    """
    sums = regions.numpy().copy()
    products = sums @ sums.T  # of the sums, from which their cosines follow without the D dimensions
    lengths = np.sqrt(products.diagonal())
    cosines = products / np.outer(lengths, lengths)
    np.fill_diagonal(cosines, -np.inf)
    present = np.ones(len(sums), bool)
    for _ in range(len(sums) - number):
        kept, gone = divmod(int(cosines.argmax()), len(sums))
        sums[kept] += sums[gone]
        products[kept] += products[gone]
        products[:, kept] += products[:, gone]
        lengths[kept] = np.sqrt(products[kept, kept])
        present[gone] = False
        row = np.where(present, products[kept] / (lengths * lengths[kept]), -np.inf)
        row[kept] = -np.inf
        cosines[kept] = cosines[:, kept] = row
        cosines[gone] = cosines[:, gone] = -np.inf
    return F.normalize(torch.from_numpy(sums[present]), dim=-1)


def average_regions(regions: torch.Tensor, mask: torch.Tensor, grid: tuple[int, ...], num_regions: int) -> torch.Tensor:
    """The regions of one item averaged within the cells of a grid of at most `num_regions`, and normalised again;
    arguments and result as of [`pool_regions`]."""
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
    return F.normalize(torch.tensor(values).float() * scale, dim=-1)
