"""The metrics of a classification, their mean over several runs, and the confusion matrix as a picture."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from sklearn.metrics import average_precision_score, confusion_matrix

from .folds import Classes

TOP_K = 5
# With more classes than this, counts in the cells and names on the axes of a confusion matrix cannot be read.
MAX_CLASSES_WRITTEN = 30


def compute_metrics(windows: dict[str, np.ndarray], labels: dict, classes: Classes) -> dict:
    """The metrics of one run, num_clips and, among these, num_undecodable.

    Args:
        windows: (windows, classes) scores of each clip that was decoded, by video_id; a clip's score is their mean.
        labels: of all evaluated clips; those that were not decoded get the lowest score for every class.

    Returns:
        see [`multi_label_metrics`], or else [`single_label_metrics`].
    """
    lowest = np.full((1, len(classes.names)), min(scores.min() for scores in windows.values()) - 1)
    scores = np.stack([windows.get(name, lowest).mean(0) for name in labels])
    metrics = multi_label_metrics if classes.multi_label else single_label_metrics
    return {
        **metrics(scores, classes.targets(list(labels.values())), classes.names),
        "num_clips": len(labels),
        "num_undecodable": len(labels) - len(windows),
    }


def count_confusions(windows: dict[str, np.ndarray], labels: dict, classes: Classes) -> np.ndarray:
    """(true classes, predicted classes) numbers of decoded clips; arguments as in [`compute_metrics`]."""
    predicted = [scores.mean(0).argmax() for scores in windows.values()]
    return confusion_matrix([labels[name] for name in windows], predicted, labels=range(len(classes.names)))


def single_label_metrics(scores: np.ndarray, targets: np.ndarray, names: list[str]) -> dict:
    """Percentages for clips of one class each. A tie counts against the right class, so that equal scores are an error.

    Args:
        scores: (clips, classes).
        targets: (clips, classes) 1 for the class of the clip, else 0.
        names: of the classes.

    Returns:
        top1, top5 (of more than five classes), mean_class (mean over the classes' own top-1) and per_class; a class
        without a clip has None.
    """
    classes = targets.argmax(1)
    right = np.take_along_axis(scores, classes[:, None], 1)
    ranks = (scores >= right).sum(1)
    hits = [100 * (ranks[classes == index] == 1).mean() for index in np.unique(classes)]
    per_class = dict.fromkeys(names) | dict(zip([names[i] for i in np.unique(classes)], hits, strict=True))
    metrics = {"top1": 100 * (ranks == 1).mean(), "mean_class": np.mean(hits), "per_class": per_class}
    if len(names) > TOP_K:
        metrics[f"top{TOP_K}"] = 100 * (ranks <= TOP_K).mean()
    return metrics


def multi_label_metrics(scores: np.ndarray, targets: np.ndarray, names: list[str]) -> dict:
    """mAP and per_class, each class' average precision, in percent, for clips of any number of classes; arguments as in
    [`single_label_metrics`]."""
    values = average_precisions(targets, scores)
    per_class = {name: None if np.isnan(value) else value for name, value in zip(names, values, strict=True)}
    return {"mAP": np.nanmean(values), "per_class": per_class}


def average_precisions(targets: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """(classes,) average precision in percent, NaN for a class without a clip; both arguments (clips, classes)."""
    return np.array(
        [
            100 * average_precision_score(targets[:, index], scores[:, index]) if targets[:, index].any() else np.nan
            for index in range(targets.shape[1])
        ]
    )


def summarize_runs(runs: list[dict]) -> tuple[dict, dict]:
    """The mean of every metric over the runs, and the sample standard deviation of the percentages over all classes.

    The deviation is None for a single run. Of a class' own percentages those that are None do not count.
    """
    means, spread = {}, {}
    for name in runs[0]:
        values = [run[name] for run in runs]
        if isinstance(values[0], dict):
            means[name] = {key: mean_of_known([value[key] for value in values]) for key in values[0]}
            continue
        means[name] = float(np.mean(values))
        if not name.startswith("num_"):
            spread[name] = float(np.std(values, ddof=1)) if len(runs) > 1 else None
    return means, spread


def mean_of_known(values: list[float | None]) -> float | None:
    """The mean of the values that are not None; None where all are."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def draw_confusion_matrix(path: Path, counts: np.ndarray, names: list[str]) -> None:
    """Draws which share of each true class' clips is predicted as which class.

    Args:
        path: of the picture.
        counts: (true classes, predicted classes) clips.
        names: of the classes.
    """
    shares = 100 * counts / np.maximum(counts.sum(1, keepdims=True), 1)
    written = len(names) <= MAX_CLASSES_WRITTEN
    side = max(4.0, 0.55 * len(names)) if written else 10.0
    figure, axes = plt.subplots(figsize=(side + 2, side + 1), layout="constrained")
    picture = axes.imshow(shares, cmap="Blues", vmin=0, vmax=100)
    axes.set(xlabel="predicted class", ylabel="true class")
    if written:
        axes.set_xticks(range(len(names)), names, rotation=45, ha="right")
        axes.set_yticks(range(len(names)), names)
        for (row, column), share in np.ndenumerate(shares):
            if counts[row, column]:
                axes.text(column, row, f"{share:.0f}", ha="center", va="center", color="w" if share > 50 else "k")
    figure.colorbar(picture, label="% of the true class' clips", shrink=0.8)
    figure.savefig(path, dpi=120)
    plt.close(figure)
