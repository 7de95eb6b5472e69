"""Metrics of moment retrieval against plain loops, and by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fgmm_tools.retrieval.moments import MAP_THRESHOLDS, average_precision, measure_moments, temporal_iou

# Windows on a grid of 2 s, as QVHighlights has them: many are equal, touch, or share an edge.
WINDOW = st.tuples(st.integers(0, 8), st.integers(1, 5)).map(lambda pair: (2.0 * pair[0], 2.0 * (pair[0] + pair[1])))
QUERY = st.tuples(st.lists(WINDOW, max_size=13), st.lists(WINDOW, min_size=1, max_size=4))


def overlap(first, second) -> float:
    """Intersection over union of two windows, by counting the grid's steps."""
    cells = [{cell for cell in range(13) if window[0] <= 2 * cell < window[1]} for window in (first, second)]
    return len(cells[0] & cells[1]) / len(cells[0] | cells[1])


def area_under_precision(predicted, true, threshold) -> float:
    """Average precision step by step: at each recall that can be reached, the best precision from there on."""
    free, hits = list(range(len(true))), []
    for window in predicted:
        best = max(free, key=lambda place: (overlap(window, true[place]), place), default=None)
        hit = best is not None and overlap(window, true[best]) >= threshold
        hits.append(hit)
        if hit:
            free.remove(best)
    points = [(sum(hits[: rank + 1]) / len(true), sum(hits[: rank + 1]) / (rank + 1)) for rank in range(len(hits))]
    total = 0.0
    for number in range(1, len(true) + 1):
        reached = [precision for recall, precision in points if recall >= number / len(true) - 1e-9]
        total += max(reached, default=0.0) / len(true)
    return total


@settings(max_examples=80, deadline=None)
@given(st.lists(QUERY, min_size=1, max_size=4))
def test_metrics_are_those_of_plain_loops(queries):
    results = measure_moments([predicted for predicted, _ in queries], [true for _, true in queries])
    best = [
        max((overlap(predicted[0], window) for window in true), default=0.0) if predicted else 0.0
        for predicted, true in queries
    ]
    for threshold in (0.3, 0.5, 0.7):
        share = 100 * sum(value >= threshold for value in best) / len(best)
        assert results[f"R1@{threshold}"] == pytest.approx(share, abs=0.006)
    assert results["mIoU"] == pytest.approx(100 * sum(best) / len(best), abs=0.006)
    precisions = {
        threshold: 100 * np.mean([area_under_precision(predicted[:10], true, threshold) for predicted, true in queries])
        for threshold in MAP_THRESHOLDS
    }
    assert results["mAP@0.5"] == pytest.approx(precisions[0.5], abs=0.006)
    assert results["mAP@0.75"] == pytest.approx(precisions[0.75], abs=0.006)
    assert results["mAP"] == pytest.approx(np.mean(list(precisions.values())), abs=0.006)
    assert results["num_queries"] == len(queries)


def test_by_hand_with_several_true_windows():
    true = [(0.0, 10.0), (20.0, 30.0)]
    predicted = [(100.0, 110.0), (0.0, 10.0), (1.0, 10.0), (20.0, 28.0)]
    results = measure_moments([predicted], [true])
    assert results["R1@0.3"] == results["mIoU"] == 0.0  # the first is wrong, whatever the others are
    # Right are ranks 2 (IoU 1) and 4 (IoU 0.8); rank 3 meets a window that is taken. Precisions 1/2 and 2/4.
    assert results["mAP@0.5"] == results["mAP@0.75"] == 50.0
    # From 0.85 on rank 4 is wrong: 1/2 of one of two. Seven thresholds of 50, three of 25.
    assert results["mAP"] == pytest.approx((7 * 50 + 3 * 25) / 10)


def test_the_best_of_several_true_windows_counts_for_the_first():
    results = measure_moments([[(20.0, 26.0)]], [[(0.0, 10.0), (20.0, 30.0)]])
    assert (results["R1@0.5"], results["R1@0.7"], results["mIoU"]) == (100.0, 0.0, 60.0)


def test_one_true_window_as_in_charades_sta():
    predictions = [[(0.0, 7.0)], [(5.0, 10.0)], []]
    results = measure_moments(predictions, [[(0.0, 10.0)], [(0.0, 10.0)], [(0.0, 10.0)]])
    assert (results["R1@0.5"], results["R1@0.7"]) == (66.67, 33.33)
    assert results["mIoU"] == 40.0  # the query without a window counts


def test_only_ten_windows_count():
    wrong = [(100.0 + index, 101.0 + index) for index in range(10)]
    assert measure_moments([[*wrong, (0.0, 1.0)]], [[(0.0, 1.0)]])["mAP"] == 0.0
    assert measure_moments([[*wrong[1:], (0.0, 1.0)]], [[(0.0, 1.0)]])["mAP"] == 10.0


def test_a_window_can_be_found_once():
    ious = temporal_iou([(0, 10), (0, 10)], [(0, 10)])
    assert average_precision(ious, 0.5) == 1.0 and average_precision(np.vstack([0 * ious, ious]), 0.5) == 1 / 3


def test_windows_without_length_have_no_overlap():
    assert temporal_iou([(3, 3)], [(3, 3), (0, 5)]).tolist() == [[0.0, 0.0]]


@pytest.mark.parametrize("predictions,truths", [([], []), ([[]], []), ([[]], [[]])])
def test_what_cannot_be_measured_is_refused(predictions, truths):
    with pytest.raises(ValueError):
        measure_moments(predictions, truths)
