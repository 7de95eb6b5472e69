import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from fgmm_tools.embedding import pooling
from fgmm_tools.embedding.pooling import (
    average_regions,
    choose_grid,
    compress,
    decompress,
    merge_regions,
    pool_regions,
)


def random_regions(number, dimension=8):
    return F.normalize(torch.randn(number, dimension, generator=torch.Generator().manual_seed(number)), dim=-1)


@pytest.mark.parametrize(
    "sizes,most,expected",
    [
        ((4, 7, 7), 32, (2, 4, 4)),
        ((8, 14, 14), 32, (2, 4, 4)),
        ((1, 7, 7), 32, (1, 5, 6)),
        ((4, 40), 32, (2, 16)),
        ((3, 2), 6, (3, 2)),
        ((5, 9, 9), 1, (1, 1, 1)),
    ],
)
def test_grids_have_most_cells_and_even_ones(sizes, most, expected):
    assert choose_grid(sizes, most) == expected


@settings(max_examples=80, deadline=None)
@given(st.lists(st.integers(1, 7), min_size=2, max_size=3), st.integers(1, 40))
def test_cells_are_normalised_averages(sizes, most):
    number = math.prod(sizes)
    regions, mask = random_regions(number), torch.ones(number, dtype=torch.bool)
    pooled = average_regions(regions, mask, tuple(sizes), most)
    target = choose_grid(tuple(sizes), most)
    assert len(pooled) == math.prod(target) <= most
    grid = regions.view(*sizes, -1)
    for place, cell in enumerate(torch.cartesian_prod(*map(torch.arange, target)).tolist()):
        inside = tuple(
            slice(index * size // cells, -(-(index + 1) * size // cells))
            for index, size, cells in zip(cell, sizes, target, strict=True)
        )
        expected = F.normalize(grid[inside].reshape(-1, 8).mean(0), dim=0)
        assert torch.allclose(pooled[place], expected, atol=1e-5)


def merge_plainly(regions: torch.Tensor, number: int) -> torch.Tensor:
    """By the definition: all cosines anew for each merge."""
    sums = list(regions.double())
    while len(sums) > number:
        unit = F.normalize(torch.stack(sums), dim=-1)
        pairs = [(float(unit[i] @ unit[j]), -i, -j) for i in range(len(sums)) for j in range(i + 1, len(sums))]
        _, first, second = max(pairs)
        sums[-first] = sums[-first] + sums.pop(-second)
    return F.normalize(torch.stack(sums), dim=-1).float()


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 14), st.integers(1, 14))
def test_the_most_alike_are_merged(number, left):
    regions = random_regions(number)
    merged = merge_regions(regions, left)
    assert len(merged) == min(number, left)
    assert torch.allclose(merged, merge_plainly(regions, left), atol=1e-5)


def test_what_differs_is_kept():
    """Of many regions of the background and one of a thing, the thing is left as it is."""
    generator = torch.Generator().manual_seed(0)
    background, thing = torch.eye(8)[0], torch.eye(8)[1]
    regions = F.normalize(background + 0.05 * torch.randn(48, 8, generator=generator), dim=-1)
    regions[17] = thing
    pooled = pool_regions(regions, torch.ones(48, dtype=torch.bool), (3, 4, 4), 2)
    assert torch.allclose(pooled[1], thing, atol=1e-6) and pooled[0] @ background > 0.99


@pytest.mark.parametrize("number", [24, 500])
def test_padding_changes_nothing(number, monkeypatch):
    """Of feature maps that are merged at once, and of larger ones."""
    monkeypatch.setattr(pooling, "MAX_MERGED", 100)
    width = number // 4
    grid = torch.zeros(4, width + 3, dtype=torch.bool)
    grid[:, :width] = True
    regions = torch.full((grid.numel(), 8), math.nan)
    regions[grid.flatten()] = random_regions(number)
    pooled = pool_regions(regions, grid.flatten(), (4, width + 3), 8)
    alone = pool_regions(random_regions(number), torch.ones(number, dtype=torch.bool), (4, width), 8)
    assert torch.equal(pooled, alone) and len(pooled) == 8
    assert len(pool_regions(regions, torch.zeros(grid.numel(), dtype=torch.bool), (4, width + 3), 8)) == 0
    assert torch.equal(pool_regions(regions, grid.flatten(), (4, width + 3), number), random_regions(number))


@pytest.mark.parametrize("precision,error", [("float16", 1e-3), ("int8", 1e-2)])
def test_few_digits_are_enough(precision, error):
    regions = random_regions(32, 64)
    values, scale = compress(regions, precision)
    assert values.dtype == precision and (precision == "int8") == (scale != 1)
    assert torch.allclose(decompress(values, scale), regions, atol=error)
    assert len(decompress(*compress(regions[:0], precision))) == 0
