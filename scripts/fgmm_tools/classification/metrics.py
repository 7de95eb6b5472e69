"""The metrics of a classification, their mean over several runs, and the confusion matrix as a picture."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from sklearn.metrics import average_precision_score

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
    targets = classes.targets(list(labels.values()))
    metrics = multi_label_metrics if classes.multi_label else single_label_metrics
    if not classes.multi_label:  # an error, not a tie between all classes
        undecodable = [name not in windows for name in labels]
        scores[undecodable] -= targets[undecodable]
    return {
        **metrics(scores, targets, classes.names),
        "num_clips": len(labels),
        "num_undecodable": len(labels) - len(windows),
    }


def count_confusions(windows: dict[str, np.ndarray], labels: dict, classes: Classes) -> np.ndarray:
    """(true classes, predicted classes) numbers of decoded clips; a clip with equal highest scores of several classes
    is shared among them. Arguments as in [`compute_metrics`]."""
    scores = np.stack([scores.mean(0) for scores in windows.values()])
    predicted = scores == scores.max(1, keepdims=True)
    return classes.targets([labels[name] for name in windows]).T @ (predicted / predicted.sum(1, keepdims=True))


def single_label_metrics(scores: np.ndarray, targets: np.ndarray, names: list[str]) -> dict:
    """Percentages for clips of one class each. Classes of equal scores are in random order: a clip counts as the
    probability that its class is then among the first k, that is as chance where all scores are equal.

    Args:
        scores: (clips, classes).
        targets: (clips, classes) 1 for the class of the clip, else 0.
        names: of the classes.

    Returns:
        top1, top5 (of more than five classes), mean_class (mean over the classes' own top-1) and per_class, where a
        class without a clip has None; num_tied, the clips whose class shares the highest score with others.
    """
    classes = targets.argmax(1)
    right = np.take_along_axis(scores, classes[:, None], 1)
    higher, equal = (scores > right).sum(1), (scores == right).sum(1)  # the clip's own class is among the equal

    def hits(k: int) -> np.ndarray:
        """(clips,) the probability of each clip to be right, in percent."""
        return 100 * ((k - higher) / equal).clip(0, 1)

    present = np.unique(classes)
    of_classes = [hits(1)[classes == index].mean() for index in present]
    per_class = dict.fromkeys(names) | dict(zip([names[i] for i in present], of_classes, strict=True))
    metrics = {"top1": hits(1).mean(), "mean_class": np.mean(of_classes), "per_class": per_class}
    if len(names) > TOP_K:
        metrics[f"top{TOP_K}"] = hits(TOP_K).mean()
    return {**metrics, "num_tied": int(((higher == 0) & (equal > 1)).sum())}


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
