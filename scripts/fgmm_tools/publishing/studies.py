"""Studies: the same encoders, seeds and clips under each loss; which runs there are, and what they found, as tables."""

import dataclasses
import itertools
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from ..paths import CARDS

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
        {"loss": LOSSES[:3], **PLAIN, "swapped": [0.0, 0.4], "options": [(), ablation(gce_q=0.3)]},
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
