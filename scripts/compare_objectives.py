"""Trains the same encoders from the same seeds, on as many clips, under each loss, and compares what they retrieve.

    python scripts/compare_objectives.py losses --flickr8k Flickr8k
    python scripts/compare_objectives.py slides chatter swapped batch --flickr8k Flickr8k --seeds 0 1 2
    python scripts/compare_objectives.py --report

A study is a list of runs. Each run makes its corpus where it is not there yet, pretrains, and is measured on the
validation and the test split; its results file holds its settings, and a run that has one is not repeated. Then
model_cards/comparison.md and its figures are made anew from all results files.
"""

import argparse
import dataclasses
import itertools
import json
import os
import shlex
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import matplotlib
from tqdm import tqdm

matplotlib.use("Agg")
import matplotlib.pyplot as plt

ROOT = Path(__file__).parent.parent
CARDS = ROOT / "model_cards"
CONFIG = "scripts/configs/comparison.yaml"
LOSSES = ("fine", "coarse", "mil_nce", "filip", "siglip")
# Where one loss wants other settings than the configuration's; chosen on the validation split.
LOSS_OPTIONS: dict[str, dict] = {}


@dataclass(frozen=True)
class Run:
    """What a run is trained with. Two runs of the same settings are the same run.

    Args:
        loss: the objective.
        slides: photographs in a training item; 0: plain photographs.
        chatter: captions of others in a slide show.
        swapped: share of training items with others' captions.
        batch_size: clips in a contrast.
        clips_seen: training items in all.
        seed: of weights, order and crops.
        options: further fields of the training configuration.
    """

    loss: str
    slides: int = 4
    chatter: int = 2
    swapped: float = 0.0
    batch_size: int = 32
    clips_seen: int = 96_000
    seed: int = 0
    options: tuple[tuple[str, object], ...] = field(default=())

    @property
    def corpus(self) -> str:
        """The name of its corpus' folder."""
        name = f"slides{self.slides}_chatter{self.chatter}" if self.slides else "plain"
        return f"{name}_swapped{round(100 * self.swapped)}" if self.swapped else name

    @property
    def name(self) -> str:
        """Says all settings; the name of its results file."""
        options = "".join(f"-{key.rpartition('.')[2]}={value}" for key, value in self.options)
        return f"{self.corpus}-{self.loss}-batch{self.batch_size}-clips{self.clips_seen}-seed{self.seed}{options}"

    def settings(self) -> dict:
        """As they stand in the results file: what is not used is left out."""
        values = {**dataclasses.asdict(self), **dict(self.options), "steps": self.clips_seen // self.batch_size}
        return {name: value for name, value in values.items() if name not in ("options", "seed") and value}


@dataclass(frozen=True)
class Study:
    """Runs that are shown together: every combination of `varied`, a list of values a field of Run.

    x: the field on the horizontal axis of the figure (a line a loss); None: a bar a run.
    """

    title: str
    varied: dict[str, list]
    x: str | None = None

    def runs(self, seeds: list[int]) -> list[Run]:
        """One seed after the other, so that every run is there once before any is there twice."""
        combinations = itertools.product(*self.varied.values())
        settings = [dict(zip(self.varied, values, strict=True)) for values in combinations]
        return [Run(**values, seed=seed) for seed in seeds for values in settings]


def ablation(**options) -> tuple:
    """Options of the model's configuration in the form that Run takes."""
    return tuple((f"model.{name}", value) for name, value in options.items())


STUDIES = {
    "losses": Study("Slide shows of four photographs, two captions of others", {"loss": LOSSES}),
    "plain": Study("Photographs with their own captions", {"loss": LOSSES, "slides": [0], "chatter": [0]}),
    "batch": Study("Batch size", {"loss": LOSSES[:3], "batch_size": [16, 32, 64, 128, 256, 512]}, "batch_size"),
    "slides": Study("Photographs in a slide show", {"loss": LOSSES[:3], "slides": [1, 2, 4, 8]}, "slides"),
    "chatter": Study("Captions of others", {"loss": LOSSES[:3], "chatter": [0, 1, 2, 4]}, "chatter"),
    "swapped": Study(
        "Share of photographs with another one's captions",
        {"loss": LOSSES[:3], "slides": [0], "chatter": [0], "swapped": [0.0, 0.2, 0.4, 0.6]},
        "swapped",
    ),
    "ablation": Study(
        "Options of the fine objective",
        {
            "loss": ["fine"],
            "options": [
                (),
                ablation(sharpness_init_value=1.0, learnable_sharpness=False),
                ablation(sharpness_init_value=4.0, learnable_sharpness=False),
                ablation(sharpness_init_value=16.0, learnable_sharpness=False),
                ablation(sharpness_init_value=16.0),
                ablation(learnable_phrase_sharpness=False),
                ablation(phrase_sharpness_init_value=5.0),
                ablation(contrast_unit="phrase"),
                ablation(contrast_unit="phrase", contrast_bag=False),
                ablation(contrast_bag=False),
                ablation(posterior_weights=True),
                ablation(coarse_loss_weight=0.0),
                ablation(coarse_loss_weight=1.0),
                ablation(attention_direction="regions_to_text"),
                ablation(attention_direction="both"),
            ],
        },
    ),
}


def results_folder() -> Path:
    """Where the results files of all runs are."""
    return CARDS / "results" / "comparison"


def make_corpus(run: Run, source: str, folder: Path) -> None:
    """Makes the run's corpus where it is not there, whole or not at all."""
    if (folder / "README.md").exists():
        return
    options = ["--swapped", str(run.swapped)]
    if run.slides:
        options += ["--slides", str(run.slides), "--chatter", str(run.chatter)]
    execute(["scripts/prepare_dataset.py", "flickr8k", "--source", source, "--output", str(folder), *options], None)


def train_and_measure(run: Run, args: argparse.Namespace) -> None:
    """Pretrains one run, measures it and writes its results file; its model is deleted unless kept."""
    corpus, output = args.data / run.corpus, args.output_dir / run.name
    fields = {
        "dataset": corpus,
        "output_dir": output,
        "model.objective": run.loss,
        "num_captions": run.chatter + 2 if run.slides else 1,
        "video_processor.num_frames": max(1, run.slides),
        "batch_size": run.batch_size,
        "max_steps": run.clips_seen // run.batch_size,
        "seed": run.seed,
        **LOSS_OPTIONS.get(run.loss, {}),
        **dict(run.options),
    }
    threads = max(1, len(os.sched_getaffinity(0)) // args.jobs)
    command = ["scripts/pretrain.py", "--config", CONFIG, "--resume_from", "latest"]
    execute([*command, *(word for name, value in fields.items() for word in (f"--{name}", str(value)))], threads)
    records = {}
    for split in ("validation", "test"):
        path = output / f"{split}.json"
        evaluation = ["scripts/evaluate_retrieval.py", "--model", str(output), "--dataset", str(corpus)]
        execute([*evaluation, "--split", split, "--output", str(path)], threads)
        records[split] = json.loads(path.read_text())
    settings = {"dataset": "flickr8k", **run.settings()}
    record = {**records["test"], "validation": records["validation"]["metrics"], "settings": settings}
    results_folder().mkdir(parents=True, exist_ok=True)
    partial = results_folder() / f"{run.name}.json.partial"
    partial.write_text(json.dumps(record, indent=2) + "\n")
    partial.rename(results_folder() / f"{run.name}.json")
    if not args.keep_models:
        shutil.rmtree(output)


def execute(words: list[str], threads: int | None) -> None:
    """Runs one of our scripts from the project's root.

    Raises:
        RuntimeError: with the last lines that it wrote, when it fails.
    """
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    if threads:
        environment["OMP_NUM_THREADS"] = str(threads)
    answer = subprocess.run([sys.executable, *words], cwd=ROOT, env=environment, capture_output=True, text=True)
    if answer.returncode:
        tail = "\n".join((answer.stdout + answer.stderr).strip().splitlines()[-5:])
        raise RuntimeError(f"{shlex.join(words)} failed:\n{tail}")


def find_results(runs: list[Run]) -> dict[Run, dict]:
    """The results files that are there."""
    paths = {run: results_folder() / f"{run.name}.json" for run in runs}
    return {run: json.loads(path.read_text()) for run, path in paths.items() if path.exists()}


def describe(run: Run, study: Study) -> str:
    """What distinguishes a run within its study."""
    options = ", ".join(f"{name.rpartition('.')[2]}={value}" for name, value in run.options)
    parts = [f"{name} {getattr(run, name)}" for name in study.varied if name not in ("loss", "options")]
    return ", ".join([run.loss, *(parts if study.x else []), *([options] if options else [])])


def mean_and_spread(values: list[float]) -> str:
    """The mean, with half of the range of several."""
    mean = sum(values) / len(values)
    return f"{mean:.1f}" if len(values) == 1 else f"{mean:.1f} ± {(max(values) - min(values)) / 2:.1f}"


def group_by_settings(results: dict[Run, dict]) -> dict[Run, list[dict]]:
    """Runs that differ in nothing but the seed, under the first of them."""
    groups: dict[Run, list[dict]] = {}
    for run, record in results.items():
        groups.setdefault(dataclasses.replace(run, seed=0), []).append(record)
    return groups


def make_table(name: str) -> str:
    """A study's results so far as Markdown."""
    study = STUDIES[name]
    groups = group_by_settings(find_results(study.runs(list(range(10)))))
    lines = ["| run | R@1 | R@5 | R@10 | image to text R@10 | validation R@10 | seeds |", "|---|" + "---:|" * 6]
    for run, records in groups.items():
        text = [record["metrics"]["text_to_image"] for record in records]
        image = [record["metrics"]["image_to_text"]["R@10"] for record in records]
        validation = [record["validation"]["text_to_image"]["R@10"] for record in records]
        columns = [[values[column] for values in text] for column in ("R@1", "R@5", "R@10")]
        cells = " | ".join(mean_and_spread(values) for values in (*columns, image, validation))
        lines.append(f"| {describe(run, study)} | {cells} | {len(records)} |")
    return "\n".join(lines)


def draw(name: str, path: Path) -> None:
    """A study's figure: R@10 of text to image on the test split, all seeds as dots, their mean as line or bar."""
    study = STUDIES[name]
    groups = group_by_settings(find_results(study.runs(list(range(10)))))
    scores = {run: [r["metrics"]["text_to_image"]["R@10"] for r in records] for run, records in groups.items()}
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
        axis.set_ylabel("text to image R@10, %")
        axis.legend(frameon=False)
    else:
        labels = [describe(run, study) for run in scores]
        axis.barh(labels, [sum(values) / len(values) for values in scores.values()], color="#4477aa")
        for label, values in zip(labels, scores.values(), strict=True):
            axis.plot(values, [label] * len(values), ".", color="black")
        axis.invert_yaxis()
        axis.set_xlabel("text to image R@10, %")
        axis.set_title(study.title, fontsize=10)
    axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def write_report() -> None:
    """model_cards/comparison.md and the figures, from the results files."""
    text = "# Objectives compared\n\nMade by `python scripts/compare_objectives.py --report` from the files in "
    text += "`results/comparison`, each of which holds its command, seed, commit, machine and time.\n\n"
    text += "Every run trains the same encoders from random weights on Flickr8k's 6,000 training photographs; the "
    text += "official 1,000 test photographs and 5,000 captions judge. Settings were chosen on the validation split.\n"
    for name, study in STUDIES.items():
        if find_results(study.runs(list(range(10)))):
            picture = CARDS / "pictures" / f"comparison_{name}.png"
            picture.parent.mkdir(parents=True, exist_ok=True)
            draw(name, picture)
            text += f"\n## {study.title}\n\n![{study.title}](pictures/{picture.name})\n\n{make_table(name)}\n"
    (CARDS / "comparison.md").write_text(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("studies", nargs="*", help=f"what to run: {', '.join(STUDIES)}")
    parser.add_argument("--report", action="store_true", help="run nothing, make tables and figures")
    parser.add_argument("--flickr8k", help="folder in the publishers' layout")
    parser.add_argument("--data", type=Path, default=Path("data/comparison"), help="folder for the corpora")
    parser.add_argument("--output_dir", type=Path, default=Path("outputs/comparison"), help="folder for the models")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="each run once for each of them")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time; they share the processor's threads")
    parser.add_argument("--keep_models", action="store_true", help="do not delete models that are measured")
    args = parser.parse_args()
    if not args.studies and not args.report:
        parser.error(f"name a study ({', '.join(STUDIES)}) or give --report")
    if unknown := set(args.studies) - set(STUDIES):
        parser.error(f"there is no study {', '.join(sorted(unknown))}; there are {', '.join(STUDIES)}")
    if args.studies and not (args.flickr8k and Path(args.flickr8k).is_dir()):
        parser.error("--flickr8k must name the folder of Flickr8k in its publishers' layout")
    runs = list(dict.fromkeys(run for name in args.studies for run in STUDIES[name].runs(args.seeds)))
    done = find_results(runs)
    for run in dict.fromkeys(dataclasses.replace(run, loss="fine", seed=0, options=()) for run in runs):
        make_corpus(run, args.flickr8k, args.data / run.corpus)
    with ThreadPoolExecutor(args.jobs) as pool:
        waiting = [pool.submit(train_and_measure, run, args) for run in runs if run not in done]
        try:
            for future in tqdm(waiting, desc="Training", unit="run"):
                future.result()
        except RuntimeError as error:
            pool.shutdown(cancel_futures=True)
            sys.exit(str(error))
    write_report()
    print(f"Wrote model_cards/comparison.md from {len(list(results_folder().glob('*.json')))} results files.")


if __name__ == "__main__":
    main()
