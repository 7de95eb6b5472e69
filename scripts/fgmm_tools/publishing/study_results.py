"""The results files of studies, and the tables that cards show of them."""

import json
from pathlib import Path

from ..cli import UserError
from .results import mean_and_spread, read_json
from .studies import STUDIES, Run

COLUMNS = ("R@1", "R@5", "R@10")
# Settings that follow from others, or stand in a column of their own.
NOT_SHOWN = ("loss", "steps")


def read_runs(folder: Path) -> dict[Run, dict]:
    """The results files of all runs."""
    records = (read_json(path) for path in sorted(folder.glob("*-seed*.json")))
    return {make_run(record): record for record in records}


def make_run(record: dict) -> Run:
    """The run that a results file is of."""
    run = record["run"]
    return Run(**{**run, "options": tuple((name, value) for name, value in run["options"])})


def make_study_table(folder: Path, name: str) -> str:
    """A study's results so far as Markdown.

    Args:
        folder: of the results files of runs.
        name: of the study.

    Raises:
        UserError: when there is no such study.
    """
    if name not in STUDIES:
        raise UserError(f"A card needs the study {name!r}, but there are only {', '.join(STUDIES)}.")
    results, study = read_runs(folder), STUDIES[name]
    return make_runs_table([results[run] for run in study.runs(study.seeds, results) if run in results])


def make_earlier_table(folder: Path) -> str:
    """All results files of a folder as Markdown, with the commits that can run them."""
    return make_runs_table([read_json(path) for path in sorted(folder.glob("*-seed*.json"))], with_commit=True)


def make_runs_table(records: list[dict], with_commit: bool = False) -> str:
    """One line for each setting, over its seeds.

    Args:
        records: results files of runs.
        with_commit: name the commit that trained the first of a line.
    """
    heads = ["loss", "settings", *COLUMNS, "item to text R@10", "one vector R@10", "validation R@10", "seeds"]
    heads += ["commit"] if with_commit else []
    lines = [f"| {' | '.join(heads)} |", "|---|---|" + "---:|" * (len(heads) - 2)]
    groups: dict[str, list[dict]] = {}
    for record in records:
        groups.setdefault(json.dumps(record["settings"]), []).append(record)
    for group in groups.values():
        settings = group[0]["settings"]
        shown = ", ".join(f"{name} {value}" for name, value in settings.items() if name not in NOT_SHOWN)
        columns = [[from_text(record["metrics"])[column] for record in group] for column in COLUMNS]
        columns.append([to_text(record["metrics"])["R@10"] for record in group])
        columns.append([from_text(record["metrics_of_pooled_vectors"])["R@10"] for record in group])
        validation = [record["metrics_on_validation"] for record in group if record["metrics_on_validation"]]
        columns.append([from_text(metrics)["R@10"] for metrics in validation])
        cells = [mean_and_spread(values) if values else "" for values in columns]
        cells += [str(len(group))]
        cells += [group[0]["training"]["commit"].removesuffix("-dirty")] if with_commit else []
        lines.append(f"| {settings['loss']} | {shown} | {' | '.join(cells)} |")
    return "\n".join(lines)


def from_text(metrics: dict[str, dict]) -> dict[str, float]:
    """The metrics of text queries over videos, images or, where there are none, sounds."""
    return next(values for direction, values in metrics.items() if direction.startswith("text_to_"))


def to_text(metrics: dict[str, dict]) -> dict[str, float]:
    """The metrics of video, image or, where there are none, sound queries over texts."""
    return next(values for direction, values in metrics.items() if direction.endswith("_to_text"))
