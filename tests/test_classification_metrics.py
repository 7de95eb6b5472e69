import numpy as np
import pytest
from PIL import Image

from fgmm_tools.classification import metrics
from fgmm_tools.classification.folds import Classes


def test_top_k_and_class_accuracy_by_hand():
    scores = np.array([[3, 2, 1, 0, 0, 0.0], [1, 2, 3, 0, 0, 0], [1, 1, 1, 1, 1, 1], [9, 8, 7, 6, 5, 4]])
    targets = np.eye(6, dtype=int)[[0, 0, 1, 5]]
    result = metrics.single_label_metrics(scores, targets, list("abcdef"))
    assert result["top1"] == 25  # equal scores are an error
    assert result["top5"] == 50  # the third has all classes before its own, and so has the fourth
    assert result["per_class"] == {"a": 50, "b": 0, "c": None, "d": None, "e": None, "f": 0}
    assert result["mean_class"] == pytest.approx(50 / 3)


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
