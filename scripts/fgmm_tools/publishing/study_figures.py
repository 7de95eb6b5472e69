"""Figures of studies, made from their results files."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from .studies import STUDIES, Run, Study
from .study_results import find_results, group_by_settings, text_to_item

# Recall@10 of each seed, percent, by run.
Scores = dict[Run, list[float]]


def draw_studies(results: Path, pictures: Path) -> None:
    """Draws a figure, comparison_STUDY.png, of every study that has results.

    Args:
        results: folder of the results files of runs.
        pictures: folder for the figures.
    """
    pictures.mkdir(parents=True, exist_ok=True)
    for name, study in STUDIES.items():
        if records := find_results(results, study.runs()):
            draw_study(study, records, pictures / f"comparison_{name}.png")


def draw_study(study: Study, records: dict[Run, dict], path: Path) -> None:
    """Draws R@10 of text queries on the test split: the mean over seeds as a line or bar, each seed as a dot."""
    scores = {
        run: [text_to_item(record["metrics"])["R@10"] for record in group]
        for run, group in group_by_settings(records).items()
    }
    size = (6.0, 3.6) if study.x else (7.7, 1.4 + 0.22 * len(scores))  # inches
    figure, axis = plt.subplots(figsize=size, layout="constrained")
    if study.x:
        draw_lines(axis, study, scores)
    else:
        draw_bars(axis, study, scores)
    axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def draw_lines(axis: Axes, study: Study, scores: Scores) -> None:
    """One line for each loss over the field `study.x`."""
    for loss in dict.fromkeys(run.loss for run in scores):
        points = sorted((getattr(run, study.x), values) for run, values in scores.items() if run.loss == loss)
        line = axis.plot([x for x, _ in points], [sum(v) / len(v) for _, v in points], marker="o", label=loss)[0]
        for x, values in points:
            axis.plot([x] * len(values), values, ".", color=line.get_color(), alpha=0.5)
    axis.set_xlabel(study.title)
    if study.x == "batch_size":
        axis.set_xscale("log", base=2)
    axis.set_xticks(study.varied[study.x], [str(value) for value in study.varied[study.x]])
    axis.set_ylim(bottom=0)
    axis.set_ylabel("R@10 of text queries, %")
    axis.legend(frameon=False)


def draw_bars(axis: Axes, study: Study, scores: Scores) -> None:
    """One bar for each run, its settings in one line beside it."""
    labels = [study.describe(run) for run in scores]
    axis.barh(labels, [sum(values) / len(values) for values in scores.values()], color="#4477aa")
    for label, values in zip(labels, scores.values(), strict=True):
        axis.plot(values, [label] * len(values), ".", color="black")
    axis.margins(y=0.02)
    axis.invert_yaxis()
    axis.tick_params(axis="y", labelsize=8)
    axis.set_xlabel("R@10 of text queries, %")
    axis.figure.suptitle(study.title, fontsize=10)
