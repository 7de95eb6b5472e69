"""Moment retrieval as QVHighlights and Charades-STA report it: ranked windows of a video against those that a text
describes.

R1@0.5 and R1@0.7 are the shares of queries whose first window has at least that intersection over union (IoU) with a
true window, the best of several (Lei, Berg and Bansal, NeurIPS 2021); mIoU is the mean of that IoU (Gao et al., ICCV
2017, report such recalls for Charades-STA). mAP is the mean over queries of the interpolated average precision over the
first ten windows (ActivityNet's), at an IoU of 0.5, of 0.75, and averaged over 0.5, 0.55, ..., 0.95.
"""

from collections.abc import Sequence

import numpy as np

# IoU thresholds over which mAP is averaged, and those of the recall of the first window.
MAP_THRESHOLDS = tuple(round(0.5 + 0.05 * step, 2) for step in range(10))
RECALL_THRESHOLDS = (0.3, 0.5, 0.7)
# Windows of a query that count, as QVHighlights' own evaluation has it.
MAX_PREDICTIONS = 10


def temporal_iou(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Intersection over union of all pairs of windows, from 0 to 1.

    Args:
        first: (P, 2) start and end, s.
        second: (G, 2) likewise.

    Returns:
        (P, G) float64; 0 for two windows without length.
    """
    first, second = as_windows(first), as_windows(second)
    starts = np.maximum(first[:, None, 0], second[None, :, 0])
    ends = np.minimum(first[:, None, 1], second[None, :, 1])
    intersection = (ends - starts).clip(min=0)
    union = (first[:, 1] - first[:, 0])[:, None] + (second[:, 1] - second[:, 0])[None] - intersection
    return np.divide(intersection, union, out=np.zeros_like(intersection), where=union > 0)


def as_windows(windows: np.ndarray | Sequence) -> np.ndarray:
    """Windows as (P, 2) float64, also where there are none."""
    return np.asarray(windows, dtype=np.float64).reshape(-1, 2)


def average_precision(ious: np.ndarray, threshold: float) -> float:
    """Interpolated average precision of one query's ranked windows, from 0 to 1.

    From the first rank down, a window is right where the IoU with a true window that no earlier one has taken is at
    least the threshold; it takes the one with the highest. Each precision is the highest at its recall or beyond.

    Args:
        ious: (P, G) of the windows in the order of their ranks with the true ones, G at least 1.
        threshold: of the IoU.
    """
    taken = np.zeros(ious.shape[1], dtype=bool)
    right = np.zeros(len(ious), dtype=bool)
    for rank, row in enumerate(ious):
        # Of equals the last one is taken, as in the evaluations of ActivityNet and QVHighlights.
        for place in row.argsort(kind="stable")[::-1]:
            if row[place] >= threshold and not taken[place]:
                taken[place] = right[rank] = True
                break
    found = right.cumsum()
    precision = found / np.arange(1, len(found) + 1)
    interpolated = np.maximum.accumulate(precision[::-1])[::-1]
    return float(interpolated[right].sum() / ious.shape[1])


def measure_moments(predictions: Sequence, truths: Sequence) -> dict[str, float]:
    """The metrics of moment retrieval, in percent, over Q queries.

    Args:
        predictions: of each query the windows that were found, (P, 2) start and end in seconds, the best first; those
            after the tenth do not count. A query without any counts as an error.
        truths: of each query the windows that it describes, (G, 2), at least one.

    Returns:
        R1@0.3, R1@0.5, R1@0.7, mIoU, mAP@0.5, mAP@0.75, mAP, and num_queries.

    Raises:
        ValueError: when the two are not of the same number of queries, there is none, or one describes no window.
    """
    if len(predictions) != len(truths) or not len(truths):
        raise ValueError(f"There are {len(predictions)} lists of windows for {len(truths)} queries.")
    first_ious, precisions = [], []
    for predicted, true in zip(predictions, truths, strict=True):
        ious = temporal_iou(as_windows(predicted)[:MAX_PREDICTIONS], true)
        if not ious.shape[1]:
            raise ValueError("A query describes no window; leave it out.")
        first_ious.append(ious[0].max() if len(ious) else 0.0)
        precisions.append([average_precision(ious, threshold) for threshold in MAP_THRESHOLDS])
    first_ious, mean_precisions = np.array(first_ious), np.mean(precisions, axis=0)
    results = {f"R1@{threshold:g}": (first_ious >= threshold).mean() for threshold in RECALL_THRESHOLDS}
    results["mIoU"] = first_ious.mean()
    results |= {f"mAP@{threshold:g}": mean_precisions[MAP_THRESHOLDS.index(threshold)] for threshold in (0.5, 0.75)}
    results["mAP"] = mean_precisions.mean()
    return {name: round(100 * float(value), 2) for name, value in results.items()} | {"num_queries": len(truths)}
