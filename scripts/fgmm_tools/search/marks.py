"""What can be told of a window's picture without a model: darkness, stillness, and a signature for near-duplicates."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

# Luma (Rec. 601) of frames in [0, 1]: 95 % of the pixels of a dark window are below this.
DARK_LUMA = 0.08
# Mean absolute difference between neighbouring frames of a still window, in [0, 1].
STILL_DIFFERENCE = 0.004
# Standard deviation of the luma of a picture that is too plain for a signature, in [0, 1].
PLAIN_DEVIATION = 0.02
# A signature has 64 bits; those of near-duplicates differ in so many at most.
MAX_DIFFERENT_BITS = 6
# Near-duplicates agree in all bits of one of these groups, for MAX_DIFFERENT_BITS fall into so many groups at most.
NUM_BANDS = MAX_DIFFERENT_BITS + 2
# Windows that are compared with each window, in the order of their signatures, where many agree in a group.
NUM_COMPARED = 8


@dataclass(frozen=True)
class Marks:
    """What a window's picture is like.

    dark: nearly nothing can be seen. still: nearly nothing moves. signature: 64 bits as a signed integer, alike for
    pictures that look alike; None for a picture that is plain or dark, or where there is none.
    """

    dark: bool = False
    still: bool = False
    signature: int | None = None


def mark_frames(frames: torch.Tensor) -> Marks:
    """The marks of a window.

    The signature is a difference hash (dHash) of the frames' mean: whether each of 8 x 9 cells of the picture is darker
    than its right neighbour.

    Args:
        frames: (T, 3, H, W) float in [0, 1]; T = 1 for an image, which is never still.
    """
    luma = (frames * frames.new_tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(1)
    dark = bool(luma.flatten().kthvalue(max(1, round(0.95 * luma.numel()))).values < DARK_LUMA)
    still = len(luma) > 1 and bool(luma.diff(dim=0).abs().mean() < STILL_DIFFERENCE)
    cells = F.interpolate(luma.mean(0)[None, None], size=(8, 9), mode="area")[0, 0]
    if dark or cells.std() < PLAIN_DEVIATION:
        return Marks(dark, still)
    bits = (cells[:, :-1] < cells[:, 1:]).flatten().numpy()
    return Marks(dark, still, int(np.packbits(bits).view(np.int64)[0]))


def find_similar(ids: np.ndarray, signatures: np.ndarray) -> np.ndarray:
    """Pairs of windows whose signatures are nearly equal; most of them, not all where very many are alike.

    Args:
        ids: (n,) int64, ascending.
        signatures: (n,) uint64.

    Returns:
        (pairs, 2) int64 ids, the smaller first, each pair once.
    """
    width = 64 // NUM_BANDS
    pairs = [np.zeros((0, 2), np.int64)]
    for band in range(NUM_BANDS):
        values = (signatures >> np.uint64(band * width)) & np.uint64(2**width - 1)
        # Within a group by the other bits, so that the most alike are neighbours.
        order = np.lexsort((signatures, values))
        for step in range(1, NUM_COMPARED + 1):
            first, second = order[:-step], order[step:]
            different = np.bitwise_count(signatures[first] ^ signatures[second])
            alike = (values[first] == values[second]) & (different <= MAX_DIFFERENT_BITS)
            pairs.append(np.sort(np.stack([ids[first[alike]], ids[second[alike]]], 1), axis=1))
    return np.unique(np.concatenate(pairs), axis=0)
