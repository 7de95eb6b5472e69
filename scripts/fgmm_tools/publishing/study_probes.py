"""What frozen features of the models of studies are worth downstream: linear classifiers of sounds, actions, words."""

import csv
import os
from pathlib import Path

from ..classification.evaluation import evaluate_classification
from ..classification.settings import ClassificationSettings
from ..corpora.benchmarks.grid import split_of
from ..corpora.benchmarks.layout import VIDEO
from ..corpora.options import OwnFiles, RowSelection, TrainingNoise
from ..corpora.preparation import prepare
from .study_corpora import PROBES

# GRID's sentences are: command, colour, preposition, letter, digit, adverb.
DIGIT = 4


def make_probed_corpora(sources: Path, corpora: Path, num_proc: int) -> None:
    """Makes the corpora of the probes, but for those that models are trained on as well, unless they exist.

    Args:
        sources: the benchmarks in their publishers' layouts.
        corpora: folder for the corpora.
        num_proc: shards written at a time.
    """
    prepare("esc10", sources / "esc10", corpora / "esc10", RowSelection(), TrainingNoise(), num_proc)
    table = corpora / "grid_digits.csv"
    write_digits(sources / "grid", table)
    prepare("classes", table, corpora / "grid_digits", RowSelection(), TrainingNoise(), num_proc, OwnFiles())


def write_digits(grid: Path, table: Path) -> None:
    """A table of GRID's clips with the digit that is said in each, in the splits of the corpus grid.

    Args:
        grid: in its publishers' layout.
        table: CSV file to write; paths in it are relative to it.
    """
    rows = []
    for speaker in sorted(folder for folder in grid.glob("s[0-9]*") if folder.is_dir()):
        clips = sorted(path for path in speaker.iterdir() if path.suffix.lower() in VIDEO)
        for index, path in enumerate(clips):
            lines = (grid / "align" / speaker.name / f"{path.stem}.align").read_text().split("\n")
            words = [line.split()[2] for line in lines if line.strip()]
            words = [word for word in words if word not in ("sil", "sp")]
            rows.append((os.path.relpath(path, table.parent), words[DIGIT], split_of(index)))
    with table.open("w", newline="") as file:
        csv.writer(file).writerows([("path", "label", "split"), *rows])


def measure_probes(model: Path, corpora: Path, seed: int, random_init: bool) -> dict[str, dict[str, float]]:
    """Accuracies of linear classifiers on frozen features, in percent, by the names of PROBES.

    Args:
        model: folder of the model.
        corpora: folder of the corpora.
        seed: of the classifiers, and of random weights.
        random_init: measure the model's architecture with random weights.
    """
    measured = {}
    for name, probe in PROBES.items():
        settings = ClassificationSettings(
            "linear", modality=probe.modality, random_init=random_init, num_workers=0, seed=seed
        )
        configs = list(probe.configs) if probe.configs else None
        results = evaluate_classification(str(model), str(corpora / probe.corpus), settings, configs)
        means, _ = results.summarize()
        measured[name] = {metric: value for metric, value in means.items() if not isinstance(value, dict)}
    return measured
