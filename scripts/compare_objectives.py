"""Trains the same encoders from the same seeds, on as many clips, under each loss, and compares what they retrieve.

    python scripts/compare_objectives.py losses plain --flickr8k Flickr8k
    python scripts/compare_objectives.py losses batch --flickr8k Flickr8k --seeds 0 1 2 --jobs 2
    python scripts/compare_objectives.py --figures

A study is a list of runs. Runs on photographs with their own captions (or with swapped ones) begin with random weights
and see all of Flickr8k's training photographs. Runs on slide shows go on from a start that all share, a model trained
by the coarse objective on the first START_PHOTOS photographs; their shows are made of the others. Runs on the narrated
corpus begin with random weights.

Each run makes its corpus where it is not there yet, pretrains, and is measured on the validation and the test split;
its results file holds its settings, and a run that has one is not repeated. Then the figures are made anew from all
results files, and scripts/update_cards.py fills the tables.
"""

import argparse
import dataclasses
import itertools
import json
import math
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path

import matplotlib
import torch
from evaluate_retrieval import evaluate_retrieval, load_model, read_training_record
from records import describe_run, write_record
from tqdm import tqdm

from processing_fgmm.corpora_fgmm import CorpusError, load_corpus

matplotlib.use("Agg")
import matplotlib.pyplot as plt

ROOT = Path(__file__).parent.parent
CARDS = ROOT / "model_cards"
LOSSES = ("fine", "coarse", "mil_nce", "filip", "siglip")
# Photographs, from the first, that the start of the runs on slide shows has seen.
START_PHOTOS = 2000

# Seeds of runs; results of all of them are shown.
SEEDS = range(10)


@dataclass(frozen=True)
class Run:
    """What a run is trained with. Two runs of the same settings are the same run.

    Args:
        loss: the objective.
        slides: photographs in a training item; 0: plain photographs, or the narrated corpus.
        chatter: captions of others in a slide show.
        swapped: share of training items with others' captions.
        noise: share of captions of the narrated corpus that say nothing about their clip; None: Flickr8k.
        batch_size: clips in a contrast.
        clips_seen: training items in all.
        seed: of weights, order and crops.
        options: further fields of the training configuration.
    """

    loss: str
    slides: int = 4
    chatter: int = 2
    swapped: float = 0.0
    noise: float | None = None
    batch_size: int = 32
    clips_seen: int = 32_000
    seed: int = 0
    options: tuple[tuple[str, object], ...] = field(default=())

    @property
    def corpus(self) -> str:
        """The name of its corpus' folder."""
        if self.noise is not None:
            return f"narrated_noise{round(100 * self.noise)}"
        name = f"slides{self.slides}_chatter{self.chatter}" if self.slides else "plain"
        return f"{name}_swapped{round(100 * self.swapped)}" if self.swapped else name

    @property
    def config(self) -> str:
        """The training configuration that the run's fields are set in."""
        kind = "narrated" if self.noise is not None else "slides" if self.slides else "plain"
        return f"scripts/configs/comparison_{kind}.yaml"

    @property
    def name(self) -> str:
        """Says all settings; the name of its results file."""
        options = "".join(f"-{key.rpartition('.')[2]}={value}" for key, value in self.options)
        return f"{self.corpus}-{self.loss}-batch{self.batch_size}-clips{self.clips_seen}-seed{self.seed}{options}"

    def settings(self) -> dict:
        """As they stand in the results file: what is not used is left out."""
        values = {**dataclasses.asdict(self), "steps": self.clips_seen // self.batch_size}
        unused = {"slides": 0, "chatter": 0, "swapped": 0.0, "noise": None}
        used = {name: value for name, value in values.items() if name not in unused or value != unused[name]}
        return {name: value for name, value in used.items() if name not in ("options", "seed")} | dict(self.options)

    def fields(self, corpus: Path, output: Path, start: Path) -> dict[str, object]:
        """What is set in its training configuration; the learning rate grows with the root of the batch."""
        steps = self.clips_seen // self.batch_size
        slides = {
            "init_from": start,
            "num_captions": self.chatter + 2,
            "video_processor.num_frames": self.slides,
            "learning_rate": round(4e-4 * math.sqrt(self.batch_size / 32), 7),
            "warmup_steps": steps // 10,
        }
        return {
            "dataset": corpus,
            "output_dir": output,
            "model.objective": self.loss,
            "batch_size": self.batch_size,
            "max_steps": steps,
            "seed": self.seed,
            **(slides if self.slides else {}),
            **dict(self.options),
        }


# The start of the runs on slide shows.
START = Run("coarse", slides=0, chatter=0, batch_size=128, clips_seen=96_000)


@dataclass(frozen=True)
class Study:
    """Runs that are shown together: every combination of `varied`, a list of values a field of Run.

    x: the field on the horizontal axis of the figure (a line a loss); None: a bar a run.
    """

    title: str
    varied: dict[str, list]
    x: str | None = None

    def runs(self, seeds: Iterable[int]) -> list[Run]:
        """One seed after the other, so that every run is there once before any is there twice."""
        combinations = itertools.product(*self.varied.values())
        settings = [dict(zip(self.varied, values, strict=True)) for values in combinations]
        return [Run(**values, seed=seed) for seed in seeds for values in settings]


def ablation(**options) -> tuple:
    """Options of the model's configuration in the form that Run takes."""
    return tuple((f"model.{name}", value) for name, value in options.items())


SLIDES = {"slides": [4], "chatter": [2]}
PLAIN = {"slides": [0], "chatter": [0], "batch_size": [128], "clips_seen": [96_000]}
NARRATED = {"slides": [0], "chatter": [0], "batch_size": [64], "clips_seen": [12_800]}

STUDIES = {
    "losses": Study("Slide shows of four photographs, two captions of others", {"loss": LOSSES, **SLIDES}),
    "clean": Study(
        "The same photographs one by one, without captions of others",
        {"loss": LOSSES[:3], **SLIDES, "slides": [1], "chatter": [0]},
    ),
    "plain": Study("Photographs with their own captions", {"loss": LOSSES, **PLAIN}),
    "batch": Study(
        "Batch size", {"loss": LOSSES[:3], **SLIDES, "batch_size": [16, 32, 64, 128, 256, 512]}, "batch_size"
    ),
    "swapped": Study(
        "Share of photographs with another one's captions",
        {"loss": LOSSES[:3], **PLAIN, "swapped": [0.0, 0.2, 0.4, 0.6]},
        "swapped",
    ),
    "robust": Study(
        "Generalised cross entropy where 40 % of the photographs have another one's captions",
        {"loss": LOSSES[:3], **PLAIN, "swapped": [0.0, 0.4], "options": [(), ablation(robustness=0.3)]},
    ),
    "slides": Study("Photographs in a slide show", {"loss": LOSSES[:3], **SLIDES, "slides": [1, 2, 4, 8]}, "slides"),
    "chatter": Study("Captions of others", {"loss": LOSSES[:3], **SLIDES, "chatter": [0, 1, 2, 4]}, "chatter"),
    "noise": Study(
        "Narrated corpus: share of captions that say nothing about their clip",
        {"loss": LOSSES[:3], **NARRATED, "noise": [0.0, 0.5, 0.8]},
        "noise",
    ),
    "rates": Study(
        "Learning rate, beside 4e-4",
        {"loss": LOSSES, **SLIDES, "options": [(), (("learning_rate", 2e-4),), (("learning_rate", 8e-4),)]},
    ),
    "ablation": Study(
        "Options of the fine objective",
        {
            "loss": ["fine"],
            **SLIDES,
            "options": [
                (),
                ablation(phrase_gates=False, whole_caption_weight=0.0, sharpness_init_value=4.0),
                ablation(phrase_gates=False),
                ablation(whole_caption_weight=0.0),
                ablation(whole_caption_weight=1.0),
                ablation(contrast_bag=False),
                ablation(sharpness_init_value=1.0, learnable_sharpness=False),
                ablation(sharpness_init_value=16.0, learnable_sharpness=False),
                ablation(coarse_loss_weight=0.0),
                ablation(coarse_loss_weight=1.0),
                ablation(attention_direction="both"),
                ablation(posterior_weights=True),
                ablation(contrast_unit="phrase"),
                ablation(sharpness_init_value=16.0),
                ablation(phrase_sharpness_init_value=5.0),
                ablation(learnable_phrase_sharpness=False),
                ablation(attention_direction="regions_to_text"),
                ablation(contrast_unit="phrase", contrast_bag=False),
            ],
        },
    ),
}


def results_folder() -> Path:
    """Where the results files of all runs are."""
    return CARDS / "results" / "comparison"


def make_corpus(run: Run, args: argparse.Namespace) -> None:
    """Makes the run's corpus where it is not there, whole or not at all."""
    output = args.data / run.corpus
    if (output / "README.md").exists():
        return
    if run.noise is not None:
        sizes = ["--num_train", "3000", "--num_test", "500"]
        execute(["scripts/make_narrated_corpus.py", "--output", str(output), *sizes, "--noise", str(run.noise)])
        return
    options = ["--swapped", str(run.swapped)]
    if run.slides:
        # Slides of 64 pixels: more than the models see, and half of the time that 112 pixels take to decode.
        slides = ["--slides", str(run.slides), "--slide_size", "64", "--chatter", str(run.chatter)]
        options += [*slides, "--skip", str(START_PHOTOS)]
    execute(["scripts/prepare_dataset.py", "flickr8k", "--source", args.flickr8k, "--output", str(output), *options])


def make_start(model: Path, args: argparse.Namespace) -> None:
    """Trains the model that all runs on slide shows go on from.

    Its tokenizer knows the words of all training captions, so that no later run meets new ones.
    """
    make_corpus(START, args)
    tokenizer, corpus = args.output_dir / "start_tokenizer", args.data / "start"
    words = ["--dataset", str(args.data / START.corpus), "--output", str(tokenizer), "--min_frequency", "3"]
    execute(["scripts/train_tokenizer.py", *words])
    options = ["--source", args.flickr8k, "--output", str(corpus), "--limit", str(START_PHOTOS)]
    execute(["scripts/prepare_dataset.py", "flickr8k", *options])
    fields = {**START.fields(corpus, model, model), "tokenizer": tokenizer}
    train(START.config, fields, len(os.sched_getaffinity(0)))


def train(config: str, fields: dict[str, object], threads: int) -> None:
    """Pretrains; goes on from the last checkpoint where it was interrupted."""
    command = ["scripts/pretrain.py", "--config", config, "--resume_from", "latest"]
    execute([*command, *(word for name, value in fields.items() for word in (f"--{name}", str(value)))], threads)


def train_and_measure(run: Run, config: str, fields: dict[str, object], threads: int) -> dict:
    """Pretrains one run and measures it, in a process of its own; gives its record."""
    train(config, fields, threads)
    started = time.monotonic()
    torch.set_num_threads(threads)
    model, processor = load_model(str(fields["output_dir"]))
    splits = ("test",) if run.noise is not None else ("validation", "test")  # the narrated corpus has no validation
    corpora = {split: load_corpus(str(fields["dataset"]), split) for split in splits}
    metrics = {
        (split, score): evaluate_retrieval(model, processor, corpus, score, num_workers=0)
        for split, corpus in corpora.items()
        for score in ("trained", "coarse")
    }
    return {
        "model": run.name,
        "dataset": run.corpus if run.noise is not None else "flickr8k",
        "split": "test",
        "protocol": f"retrieval, trained score, the middle {processor.clip_seconds:g} s of each item",
        "metrics": metrics["test", "trained"],
        "metrics_of_pooled_vectors": metrics["test", "coarse"],
        "metrics_on_validation": metrics.get(("validation", "trained")),
        "seed": run.seed,
        **describe_run(time.monotonic() - started, launcher="python"),
        "settings": run.settings(),
        "training": read_training_record(str(fields["output_dir"])),
    }


def run_all(runs: list[Run], args: argparse.Namespace) -> None:
    """Makes what the runs need, then trains and measures them, some at a time; models are deleted unless kept."""
    results_folder().mkdir(parents=True, exist_ok=True)
    threads = max(1, len(os.sched_getaffinity(0)) // args.jobs)
    for run in tqdm({run.corpus: run for run in runs}.values(), desc="Making corpora", unit="corpus"):
        make_corpus(run, args)
    start = args.output_dir / "start"
    if any(run.slides for run in runs) and not (start / "model.safetensors").exists():
        make_start(start, args)
    futures = {}
    with ProcessPoolExecutor(args.jobs, mp_context=get_context("spawn")) as pool:
        for run in runs:
            fields = run.fields(args.data / run.corpus, args.output_dir / run.name, start)
            futures[pool.submit(train_and_measure, run, run.config, fields, threads)] = run
        failures = []
        for future in tqdm(as_completed(futures), total=len(futures), desc="Training", unit="run"):
            run = futures[future]
            try:
                write_record(results_folder() / f"{run.name}.json", future.result())
            except (RuntimeError, CorpusError) as error:
                failures.append(f"{run.name}: {error}")
                tqdm.write(failures[-1])
                continue
            if not args.keep_models:
                shutil.rmtree(args.output_dir / run.name)
    if failures:
        raise RuntimeError(f"{len(failures)} of {len(runs)} runs failed; the first: {failures[0]}")


def execute(words: list[str], threads: int | None = None) -> None:
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
    varied = [name for name, values in study.varied.items() if len(values) > 1 and name not in ("loss", "options")]
    parts = [f"{name.replace('_', ' ')} {getattr(run, name)}" for name in varied]
    return ", ".join([run.loss, *parts, *([options] if options else [])])


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


def find_direction(metrics: dict[str, dict], towards: str) -> dict[str, float]:
    """Metrics from a text to an image or video (`towards` "item"), or back (`towards` "text")."""
    names = {"item": ("text_to_image", "text_to_video"), "text": ("image_to_text", "video_to_text")}[towards]
    return next(metrics[name] for name in names if name in metrics)


def make_table(name: str) -> str:
    """A study's results so far as Markdown."""
    study = STUDIES[name]
    groups = group_by_settings(find_results(study.runs(SEEDS)))
    heads = ("run", "R@1", "R@5", "R@10", "item to text R@10", "one vector R@10", "validation R@10", "seeds")
    lines = [f"| {' | '.join(heads)} |", "|---|" + "---:|" * (len(heads) - 1)]
    for run, records in groups.items():
        text = [find_direction(record["metrics"], "item") for record in records]
        columns = [[values[column] for values in text] for column in ("R@1", "R@5", "R@10")]
        columns.append([find_direction(record["metrics"], "text")["R@10"] for record in records])
        columns.append([find_direction(record["metrics_of_pooled_vectors"], "item")["R@10"] for record in records])
        validation = [record["metrics_on_validation"] for record in records if record["metrics_on_validation"]]
        columns.append([find_direction(metrics, "item")["R@10"] for metrics in validation])
        cells = " | ".join(mean_and_spread(values) if values else "" for values in columns)
        lines.append(f"| {describe(run, study)} | {cells} | {len(records)} |")
    return "\n".join(lines)


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("studies", nargs="*", help=f"what to run: {', '.join(STUDIES)}")
    parser.add_argument("--figures", action="store_true", help="run nothing, draw the figures")
    parser.add_argument("--flickr8k", help="folder in the publishers' layout")
    parser.add_argument("--data", type=Path, default=Path("data/comparison"), help="folder for the corpora")
    parser.add_argument("--output_dir", type=Path, default=Path("outputs/comparison"), help="folder for the models")
    parser.add_argument(
        "--seeds",
        type=int,
        nargs="+",
        default=[0],
        choices=SEEDS,
        metavar="N",
        help="each run once for each of them, 0 to 9",
    )
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time; they share the processor's threads")
    parser.add_argument("--keep_models", action="store_true", help="do not delete models that are measured")
    args = parser.parse_args()
    if not args.studies and not args.figures:
        parser.error(f"name a study ({', '.join(STUDIES)}) or give --figures")
    if unknown := set(args.studies) - set(STUDIES):
        parser.error(f"there is no study {', '.join(sorted(unknown))}; there are {', '.join(STUDIES)}")
    runs = list(dict.fromkeys(run for name in args.studies for run in STUDIES[name].runs(args.seeds)))
    if any(run.noise is None for run in runs) and not (args.flickr8k and Path(args.flickr8k).is_dir()):
        parser.error("--flickr8k must name the folder of Flickr8k in its publishers' layout")
    done = find_results(runs)
    if waiting := [run for run in runs if run not in done]:
        try:
            run_all(waiting, args)
        except RuntimeError as error:
            sys.exit(str(error))
    draw_all()
    print(
        f"Drew figures from {len(list(results_folder().glob('*.json')))} results files; next: scripts/update_cards.py."
    )


if __name__ == "__main__":
    main()
