"""Figures of studies, made from their results files."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from ..paths import CARDS
from .studies import SEEDS, STUDIES, describe, find_direction, find_results, group_by_settings


def draw(name: str, path: Path) -> None:
    """A study's figure: R@10 from text on the test split, all seeds as dots, their mean as line or bar."""
    study = STUDIES[name]
    groups = group_by_settings(find_results(study.runs(SEEDS)))
    scores = {run: [find_direction(r["metrics"], "item")["R@10"] for r in rs] for run, rs in groups.items()}
    figure, axis = plt.subplots(figsize=(6, 3.6), layout="constrained")
    if study.x:
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
        axis.set_ylabel("R@10 from text, %")
        axis.legend(frameon=False)
    else:
        labels = [describe(run, study).replace(", ", "\n") for run in scores]
        figure.set_figheight(1.2 + 0.22 * sum(2 + label.count("\n") for label in labels))
        axis.barh(labels, [sum(values) / len(values) for values in scores.values()], color="#4477aa")
        for label, values in zip(labels, scores.values(), strict=True):
            axis.plot(values, [label] * len(values), ".", color="black")
        axis.invert_yaxis()
        axis.set_xlabel("R@10 from text, %")
        axis.set_title(study.title, fontsize=10)
    axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def draw_all() -> None:
    """The figures of all studies that have results."""
    folder = CARDS / "pictures"
    folder.mkdir(parents=True, exist_ok=True)
    for name, study in STUDIES.items():
        if find_results(study.runs(SEEDS)):
            draw(name, folder / f"comparison_{name}.png")
