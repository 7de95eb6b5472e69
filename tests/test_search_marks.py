import numpy as np
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from fgmm_tools.search.marks import MAX_DIFFERENT_BITS, find_similar, mark_frames


def picture(seed, size=48):
    """A smooth random picture, (3, size, size) in [0, 1]."""
    coarse = torch.rand(1, 3, 6, 6, generator=torch.Generator().manual_seed(seed))
    return F.interpolate(coarse, size=(size, size), mode="bilinear")[0]


def test_darkness_and_stillness():
    moving = torch.stack([picture(seed) for seed in range(4)])
    marks = mark_frames(moving)
    assert not marks.dark and not marks.still and marks.signature is not None
    still = mark_frames(picture(0).expand(4, -1, -1, -1))
    assert still.still and not still.dark
    dark = mark_frames(moving * 0.05)
    assert dark.dark and dark.signature is None  # near-black pictures are not near-duplicates of each other
    assert not mark_frames(picture(0)[None]).still  # an image does not move


def test_a_plain_picture_has_no_signature():
    assert mark_frames(torch.full((2, 3, 32, 32), 0.6)).signature is None


def test_signatures_of_like_pictures_are_alike():
    def bits(frames):
        return np.uint64(np.int64(mark_frames(frames).signature))

    original = picture(3)[None].expand(4, -1, -1, -1)
    noisy = (original * 0.9 + 0.03 * torch.randn(original.shape)).clamp(0, 1)
    smaller = F.interpolate(original, size=(30, 30), mode="area")
    for copy in (noisy, smaller):
        assert np.bitwise_count(bits(original) ^ bits(copy)) <= MAX_DIFFERENT_BITS
    others = [np.bitwise_count(bits(original) ^ bits(picture(seed)[None])) for seed in range(10, 20)]
    assert min(others) > MAX_DIFFERENT_BITS


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 40))
def test_pairs_equal_those_of_all_comparisons(seed, number):
    """Where no group of bits has more members than are compared."""
    generator = np.random.default_rng(seed)
    signatures = generator.integers(0, 2**64, number, np.uint64)
    for place in range(number // 2):  # half of them near another
        flipped = generator.choice(64, generator.integers(0, 9), replace=False)
        signatures[-1 - place] = signatures[place] ^ np.bitwise_or.reduce(
            np.uint64(1) << flipped.astype(np.uint64), initial=np.uint64(0)
        )
    ids = np.sort(generator.choice(1000, number, replace=False))
    expected = {
        (int(ids[first]), int(ids[second]))
        for first in range(number)
        for second in range(first + 1, number)
        if np.bitwise_count(signatures[first] ^ signatures[second]) <= MAX_DIFFERENT_BITS
    }
    assert set(map(tuple, find_similar(ids, signatures).tolist())) == expected
