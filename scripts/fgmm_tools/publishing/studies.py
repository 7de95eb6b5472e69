"""Studies: which runs are compared. A run trains the same encoders from the same seed on as many clips, under one loss.

Without heavy imports, so that the command's `--help`, which lists the studies, need not wait for them.
"""

import dataclasses
import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

LOSSES = ("fine", "coarse", "mil_nce", "filip", "siglip")
MAIN_LOSSES = LOSSES[:3]
# The model from which runs on slide shows are initialised has seen the first so many training photographs.
START_PHOTOS = 2000
# Seeds that a run may have; the tables show those that were run.
SEEDS = range(10)
# Options of the model that lost and are no longer in the code (`robustness` is now called `gce_q`). Results with them
# are still shown, beside the commit that can run them.
RETIRED_OPTIONS = ("attention_direction", "contrast_bag", "contrast_unit", "posterior_weights", "robustness")


@dataclass(frozen=True)
class Run:
    """The settings of a run. Two runs of the same settings are the same run.

    Args:
        loss: the objective.
        slides: photographs in a training item; 0: plain photographs, or the narrated corpus.
        chatter: captions of others in a slide show.
        swapped: share of training items with others' captions.
        noise: share of captions of the narrated corpus that do not describe their clip; None: Flickr8k.
        batch_size: clips in a batch.
        clips_seen: training items in all.
        seed: of weights, order and crops.
        options: further fields of the training configuration, as (name, value).
    """

    loss: str
    slides: int = 4
    chatter: int = 2
    swapped: float = 0.0
    noise: float | None = None
    batch_size: int = 32
    clips_seen: int = 32_000
    seed: int = 0
    options: tuple[tuple[str, object], ...] = ()

    @property
    def corpus(self) -> str:
        """The name of the folder of its corpus."""
        if self.noise is not None:
            return f"narrated_noise{round(100 * self.noise)}"
        name = f"slides{self.slides}_chatter{self.chatter}" if self.slides else "plain"
        return f"{name}_swapped{round(100 * self.swapped)}" if self.swapped else name

    @property
    def config(self) -> str:
        """The training configuration in which the run's fields are set."""
        kind = "narrated" if self.noise is not None else "slides" if self.slides else "plain"
        return f"scripts/configs/comparison_{kind}.yaml"

    @property
    def name(self) -> str:
        """All settings; the name of its results file."""
        options = "".join(f"-{key.rpartition('.')[2]}={value}" for key, value in self.options)
        return f"{self.corpus}-{self.loss}-batch{self.batch_size}-clips{self.clips_seen}-seed{self.seed}{options}"

    @property
    def steps(self) -> int:
        """Optimiser steps."""
        return self.clips_seen // self.batch_size

    @property
    def is_retired(self) -> bool:
        """Whether an option of it is no longer in the code, so that its results can only be read."""
        return any(name.rpartition(".")[2] in RETIRED_OPTIONS for name, _ in self.options)

    def settings(self) -> dict:
        """The settings as in the results file, without those that are not used."""
        values = {**dataclasses.asdict(self), "steps": self.steps}
        unused = {"slides": 0, "chatter": 0, "swapped": 0.0, "noise": None}
        used = {name: value for name, value in values.items() if name not in unused or value != unused[name]}
        return {name: value for name, value in used.items() if name not in ("options", "seed")} | dict(self.options)

    def training_fields(self, corpus: Path, output: Path, start: Path) -> dict[str, object]:
        """The fields that are set in its training configuration.

        Args:
            corpus: folder of its corpus.
            output: folder for its model.
            start: folder of the model from which runs on slide shows are initialised.
        """
        slides = {
            "init_from": start,
            "num_captions": self.chatter + 2,
            "video_processor.num_frames": self.slides,
            # Grows with the square root of the batch size.
            "learning_rate": round(4e-4 * math.sqrt(self.batch_size / 32), 7),
            "warmup_steps": self.steps // 10,
        }
        return {
            "dataset": corpus,
            "output_dir": output,
            "model.objective": self.loss,
            "batch_size": self.batch_size,
            "max_steps": self.steps,
            "seed": self.seed,
            **(slides if self.slides else {}),
            **dict(self.options),
        }


# The run whose model initialises the runs on slide shows.
START = Run("coarse", slides=0, chatter=0, batch_size=128, clips_seen=96_000)


@dataclass(frozen=True)
class Study:
    """Runs that are shown together.

    Args:
        title: of its figure.
        varied: {field of Run: its values}; the study has every combination.
        x: the field on the horizontal axis of its figure, with a line for each loss; None: a bar for each run.
    """

    title: str
    varied: dict[str, list]
    x: str | None = None

    def runs(self, seeds: Iterable[int] = SEEDS) -> list[Run]:
        """All runs, ordered by seed, so that every run has its first seed before any has its second."""
        combinations = itertools.product(*self.varied.values())
        settings = [dict(zip(self.varied, values, strict=True)) for values in combinations]
        return [Run(**values, seed=seed) for seed in seeds for values in settings]

    def describe(self, run: Run) -> str:
        """What distinguishes a run within this study."""
        varied = [name for name, values in self.varied.items() if len(values) > 1 and name != "options"]
        parts = [run.loss if name == "loss" else f"{name.replace('_', ' ')} {getattr(run, name)}" for name in varied]
        parts += [f"{name.rpartition('.')[2]}={value}" for name, value in run.options]
        return ", ".join(parts) or "default"


def model_options(**options) -> tuple:
    """Fields of the model's configuration in the form that Run takes."""
    return tuple((f"model.{name}", value) for name, value in options.items())


# The fixed settings of most studies: on slide shows, on photographs with their own captions, on the narrated corpus.
SLIDES = {"slides": [4], "chatter": [2]}
PLAIN = {"slides": [0], "chatter": [0], "batch_size": [128], "clips_seen": [96_000]}
NARRATED = {"slides": [0], "chatter": [0], "batch_size": [64], "clips_seen": [12_800]}
STUDIES = {
    "losses": Study("Slide shows of four photographs, two captions of others", {"loss": LOSSES, **SLIDES}),
    "clean": Study(
        "The same photographs one by one, without captions of others",
        {"loss": MAIN_LOSSES, **SLIDES, "slides": [1], "chatter": [0]},
    ),
    "plain": Study("Photographs with their own captions", {"loss": LOSSES, **PLAIN}),
    "batch": Study(
        "Batch size", {"loss": MAIN_LOSSES, **SLIDES, "batch_size": [16, 32, 64, 128, 256, 512]}, "batch_size"
    ),
    "swapped": Study(
        "Share of photographs with another one's captions",
        {"loss": MAIN_LOSSES, **PLAIN, "swapped": [0.0, 0.2, 0.4, 0.6]},
        "swapped",
    ),
    "robust": Study(
        "Generalised cross entropy, with own captions and with 40 % of them swapped",
        {"loss": MAIN_LOSSES, **PLAIN, "swapped": [0.0, 0.4], "options": [(), model_options(robustness=0.3)]},
    ),
    "slides": Study("Photographs in a slide show", {"loss": MAIN_LOSSES, **SLIDES, "slides": [1, 2, 4, 8]}, "slides"),
    "chatter": Study("Captions of others", {"loss": MAIN_LOSSES, **SLIDES, "chatter": [0, 1, 2, 4]}, "chatter"),
    "noise": Study(
        "Narrated corpus: share of captions that do not describe their clip",
        {"loss": MAIN_LOSSES, **NARRATED, "noise": [0.0, 0.5, 0.8]},
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
                model_options(phrase_gates=False, whole_caption_weight=0.0, sharpness_init_value=4.0),
                model_options(phrase_gates=False),
                model_options(whole_caption_weight=0.0),
                model_options(whole_caption_weight=1.0),
                model_options(contrast_bag=False),
                model_options(sharpness_init_value=1.0, learnable_sharpness=False),
                model_options(sharpness_init_value=16.0, learnable_sharpness=False),
                model_options(coarse_loss_weight=0.0),
                model_options(coarse_loss_weight=1.0),
                model_options(attention_direction="both"),
                model_options(posterior_weights=True),
                model_options(contrast_unit="phrase"),
                model_options(sharpness_init_value=16.0),
                model_options(phrase_sharpness_init_value=5.0),
                model_options(learnable_phrase_sharpness=False),
                model_options(attention_direction="regions_to_text"),
                model_options(contrast_unit="phrase", contrast_bag=False),
            ],
        },
    ),
}
