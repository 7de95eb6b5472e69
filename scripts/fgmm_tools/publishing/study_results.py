"""The results files of studies, and the table that a card shows of a study."""

import dataclasses
from pathlib import Path

from ..cli import UserError
from .results import mean_and_spread, read_json
from .studies import STUDIES, Run

COLUMNS = ("R@1", "R@5", "R@10")


def find_results(folder: Path, runs: list[Run]) -> dict[Run, dict]:
    """The results files that exist.

    Args:
        folder: where they are.
        runs: whose results are wanted.
    """
    paths = {run: folder / f"{run.name}.json" for run in runs}
    return {run: read_json(path) for run, path in paths.items() if path.exists()}


def group_by_settings(results: dict[Run, dict]) -> dict[Run, list[dict]]:
    """The records of runs that differ only in their seed, under that of seed 0."""
    groups: dict[Run, list[dict]] = {}
    for run, record in results.items():
        groups.setdefault(dataclasses.replace(run, seed=0), []).append(record)
    return groups


def text_to_item(metrics: dict[str, dict]) -> dict[str, float]:
    """The metrics of text queries over images or videos."""
    return metrics["text_to_image"] if "text_to_image" in metrics else metrics["text_to_video"]


def item_to_text(metrics: dict[str, dict]) -> dict[str, float]:
    """The metrics of image or video queries over texts."""
    return metrics["image_to_text"] if "image_to_text" in metrics else metrics["video_to_text"]


def make_study_table(folder: Path, name: str) -> str:
    """A study's results so far as Markdown: one line for each run, over its seeds.

    Args:
        folder: of its results files.
        name: of the study.

    Raises:
        UserError: when there is no such study.
    """
    if name not in STUDIES:
        raise UserError(f"A card needs the study {name!r}, but there are only {', '.join(STUDIES)}.")
    study = STUDIES[name]
    heads = ("run", *COLUMNS, "item to text R@10", "one vector R@10", "validation R@10", "seeds")
    lines = [f"| {' | '.join(heads)} |", "|---|" + "---:|" * (len(heads) - 1)]
    for run, records in group_by_settings(find_results(folder, study.runs())).items():
        columns = [[text_to_item(record["metrics"])[column] for record in records] for column in COLUMNS]
        columns.append([item_to_text(record["metrics"])["R@10"] for record in records])
        columns.append([text_to_item(record["metrics_of_pooled_vectors"])["R@10"] for record in records])
        validation = [record["metrics_on_validation"] for record in records if record["metrics_on_validation"]]
        columns.append([text_to_item(metrics)["R@10"] for metrics in validation])
        cells = " | ".join(mean_and_spread(values) if values else "" for values in columns)
        lines.append(f"| {study.describe(run)}{mark_retired(run, records[0])} | {cells} | {len(records)} |")
    return "\n".join(lines)


def mark_retired(run: Run, record: dict) -> str:
    """The commit that can still run a run with a retired option; empty for all others."""
    commit = record["training"]["commit"].removesuffix("-dirty")
    return f" (commit {commit})" if run.is_retired else ""
