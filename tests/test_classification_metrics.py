import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fgmm_tools.classification import metrics
from fgmm_tools.classification.folds import Classes


def test_top_k_and_class_accuracy_by_hand():
    scores = np.array([[3, 2, 1, 0, 0, 0.0], [1, 2, 3, 0, 0, 0], [1, 1, 1, 1, 1, 1], [9, 8, 7, 6, 5, 4]])
    targets = np.eye(6, dtype=int)[[0, 0, 1, 5]]
    result = metrics.single_label_metrics(scores, targets, list("abcdef"))
    # The first is right, the second wrong at first and right within five; of the third all scores are equal, so that
    # it counts as chance; the fourth is always wrong.
    assert result["top1"] == pytest.approx(100 * (1 + 1 / 6) / 4)
    assert result["top5"] == pytest.approx(100 * (2 + 5 / 6) / 4)
    third = pytest.approx(100 / 6)
    assert result["per_class"] == {"a": 50, "b": third, "c": None, "d": None, "e": None, "f": 0}
    assert result["mean_class"] == pytest.approx((50 + 100 / 6) / 3) and result["num_tied"] == 1


@given(st.integers(1, 8), st.integers(2, 9), st.integers(1, 4), st.integers(0, 2**16))
@settings(max_examples=40, deadline=None)
def test_ties_count_as_the_mean_over_random_orders(clips, classes, levels, seed):
    generator = np.random.default_rng(seed)
    scores = generator.integers(0, levels, (clips, classes)).astype(float)  # of one level all are equal
    labels = generator.integers(0, classes, clips)
    found = metrics.single_label_metrics(scores, np.eye(classes, dtype=int)[labels], [str(i) for i in range(classes)])
    order = np.lexsort((generator.random((2000, clips, classes)), np.broadcast_to(-scores, (2000, clips, classes))))
    places = (order == labels[:, None]).argmax(-1)
    assert found["top1"] == pytest.approx(100 * (places < 1).mean(), abs=6)
    if classes > 5:
        assert found["top5"] == pytest.approx(100 * (places < 5).mean(), abs=6)
    best = scores == scores.max(1, keepdims=True)
    assert found["num_tied"] == sum(row[label] and row.sum() > 1 for row, label in zip(best, labels, strict=True))


def test_average_precision_by_hand():
    scores = np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.6, 0.4]])
    targets = np.array([[1, 0], [0, 0], [1, 0], [0, 0]])
    result = metrics.multi_label_metrics(scores, targets, ["a", "b"])
    assert result["mAP"] == pytest.approx(100 * (1 + 2 / 3) / 2) and result["per_class"]["b"] is None


def test_windows_are_averaged_and_confusions_counted():
    classes = Classes(["a", "b"], False)
    scores = {"x": np.array([[1.0, 0.0], [0.0, 2.0]]), "y": np.array([[1.0, 0.0]])}
    labels = {"x": 1, "y": 1, "z": 0}
    result = metrics.compute_metrics(scores, labels, classes)
    assert result["per_class"] == {"a": 0, "b": 50} and result["num_undecodable"] == 1
    assert metrics.count_confusions(scores, labels, classes).tolist() == [[0, 0], [1, 1]]


def test_a_tie_is_shared_among_its_classes_but_a_clip_that_is_not_decoded_is_an_error():
    classes = Classes(["a", "b", "c"], False)
    scores, labels = {"x": np.array([[2.0, 2.0, 1.0]]), "y": np.array([[0.0, 0.0, 0.0]])}, {"x": 1, "y": 2, "z": 2}
    result = metrics.compute_metrics(scores, labels, classes)
    assert result["per_class"] == {"a": None, "b": 50, "c": pytest.approx(100 / 6)}
    assert (result["num_tied"], result["num_undecodable"]) == (2, 1)
    assert np.allclose(metrics.count_confusions(scores, labels, classes), [[0, 0, 0], [0.5, 0.5, 0], [1 / 3] * 3])


def test_undecodable_clips_come_last():
    scores = {"x": np.array([[0.2, 0.0]]), "y": np.array([[0.1, 0.9]])}
    labels = {"x": [0], "y": [1], "z": [0, 1]}
    result = metrics.compute_metrics(scores, labels, Classes(["a", "b"], True))
    assert result["per_class"] == {name: pytest.approx(100 * (1 + 2 / 3) / 2) for name in "ab"}


def test_mean_and_spread_of_runs():
    runs = [
        {"top1": 50.0, "per_class": {"a": 0.0, "b": None}, "num_clips": 4},
        {"top1": 70.0, "per_class": {"a": 50.0, "b": None}, "num_clips": 6},
    ]
    means, spread = metrics.summarize_runs(runs)
    assert means == {"top1": 60.0, "per_class": {"a": 25.0, "b": None}, "num_clips": 5.0}
    assert spread == {"top1": pytest.approx(200**0.5)}
    assert metrics.summarize_runs(runs[:1])[1] == {"top1": None}


def test_the_confusion_matrix_is_drawn(tmp_path):
    names = ["small dog", "loud car", "red ball"]
    for number, counts in enumerate((np.eye(3, dtype=int), np.ones((3, 3), int))):
        metrics.draw_confusion_matrix(tmp_path / f"{number}.png", counts, names)
    pictures = [np.asarray(Image.open(path).convert("RGB")).astype(int) for path in sorted(tmp_path.iterdir())]
    assert all(picture.shape[0] > 300 and picture.std() > 20 for picture in pictures)
    assert (pictures[0] != pictures[1]).any()
