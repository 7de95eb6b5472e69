"""Reading results files: what kind of measurement they hold, and the values that cards show of them."""

import json
from pathlib import Path

from ..cli import UserError

# Metrics that cards show, and their names in the Hub's metadata, which follow those of evaluate.
METRIC_NAMES = {
    "R@1": "recall_at_1",
    "R@5": "recall_at_5",
    "R@10": "recall_at_10",
    "MedR": "median_rank",
    "top1": "accuracy",
    "mean_class": "mean_class_accuracy",
    "mAP": "mean_average_precision",
}


def read_json(path: Path):
    """The content of a JSON file.

    Raises:
        UserError: when it is damaged.
    """
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}); make it anew or remove it.") from error


def read_results(path: Path) -> dict:
    """One results file.

    Raises:
        UserError: when it does not exist or is damaged.
    """
    if not path.exists():
        raise UserError(f"A card needs {path}, which does not exist; run the command that writes it.")
    return read_json(path)


def is_retrieval(record: dict) -> bool:
    """Whether the metrics are those of retrieval, by direction, such as `text_to_video`; else of classification."""
    return all(isinstance(values, dict) and "R@1" in values for values in record["metrics"].values())


def is_random_init(record: dict) -> bool:
    """Whether random weights were measured: what stands beside a model's results and is not its own."""
    return "random weights" in record["protocol"]


def list_values(record: dict) -> list[tuple[str, str, float]]:
    """(task, metric, value rounded as in tables) of a results file; the task is a direction or `classification`."""
    groups = record["metrics"] if is_retrieval(record) else {"classification": record["metrics"]}
    return [
        (task, metric, round(values[metric], 1))
        for task, values in groups.items()
        for metric in METRIC_NAMES
        if metric in values
    ]


def mean_and_spread(values: list[float]) -> str:
    """The mean to one decimal, with half of the range where there are several values."""
    mean = sum(values) / len(values)
    return f"{mean:.1f}" if len(values) == 1 else f"{mean:.1f} ± {(max(values) - min(values)) / 2:.1f}"
