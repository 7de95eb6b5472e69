import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from fgmm_tools.embedding.pooling import choose_grid, compress, decompress, pool_regions


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
    pooled = pool_regions(regions, mask, tuple(sizes), most)
    assert 1 <= len(pooled) <= most
    if number <= most:
        assert torch.equal(pooled, regions)
        return
    target = choose_grid(tuple(sizes), most)
    assert len(pooled) == math.prod(target)
    grid = regions.view(*sizes, -1)
    for place, cell in enumerate(torch.cartesian_prod(*map(torch.arange, target)).tolist()):
        inside = tuple(
            slice(index * size // cells, -(-(index + 1) * size // cells))
            for index, size, cells in zip(cell, sizes, target, strict=True)
        )
        expected = F.normalize(grid[inside].reshape(-1, 8).mean(0), dim=0)
        assert torch.allclose(pooled[place], expected, atol=1e-5)


def test_padding_changes_nothing():
    grid = torch.zeros(4, 9, dtype=torch.bool)
    grid[:, :6] = True
    regions = torch.full((36, 8), math.nan)
    regions[grid.flatten()] = random_regions(24)
    pooled = pool_regions(regions, grid.flatten(), (4, 9), 8)
    alone = pool_regions(regions[grid.flatten()], torch.ones(24, dtype=torch.bool), (4, 6), 8)
    assert torch.equal(pooled, alone) and len(pooled) == 8
    assert len(pool_regions(regions, torch.zeros(36, dtype=torch.bool), (4, 9), 8)) == 0


@pytest.mark.parametrize("precision,error", [("float16", 1e-3), ("int8", 1e-2)])
def test_few_digits_are_enough(precision, error):
    regions = random_regions(32, 64)
    values, scale = compress(regions, precision)
    assert values.dtype == precision and (precision == "int8") == (scale != 1)
    assert torch.allclose(decompress(values, scale), regions, atol=error)
    assert len(decompress(*compress(regions[:0], precision))) == 0
