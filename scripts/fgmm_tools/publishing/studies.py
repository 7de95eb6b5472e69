"""Studies: which runs are compared. A run trains the same encoders from the same seed on as many clips, under one loss.

Without heavy imports, so that the command's `--help`, which lists the studies, need not wait for them.
"""

import math
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace
from statistics import fmean

from .study_corpora import CORPORA, StudyCorpus

LOSSES = ("fine", "coarse", "mil_nce", "filip", "siglip")
BASELINES = LOSSES[1:]
MAIN_LOSSES = ("fine", "coarse", "mil_nce", "filip")
# Where runs multiply (batch sizes, lengths, model sizes) `coarse` is left out: it is level with `mil_nce`.
VARIED_LOSSES = ("fine", "mil_nce", "filip")
# Seeds that a run may have; tables show those that were run.
SEEDS = range(10)
# Learning rates that are tried for every loss, as factors of the corpus' own; and the furthest that are tried where the
# best is at an end of these.
RATES = (0.5, 1.0, 2.0)
LOWEST_RATE, HIGHEST_RATE = 1 / 8, 8.0
POSSIBLE_RATES = (1 / 8, 1 / 4, 1 / 2, 1.0, 2.0, 4.0, 8.0)
# Of the runs by which rates are chosen.
RATE_SEEDS = (0, 1)
# Where learning rates are chosen for the other corpora of their kind.
RATES_CHOSEN_ON = {
    **dict.fromkeys(("narrated0", "narrated80", "mixed"), "narrated50"),
    **dict.fromkeys(("slides1_chatter0", "slides4_chatter0", "slides4_chatter4"), "slides4_chatter2"),
}


@dataclass(frozen=True)
class Run:
    """The settings of a run. Two runs of the same settings are the same run.

    Args:
        corpus: a key of CORPORA.
        loss: the objective.
        batch_size, clips_seen: None: those of the corpus.
        rate: factor of the corpus' learning rate.
        seed: of weights, order and crops.
        options: further fields of the training configuration, as (name, value).
    """

    corpus: str
    loss: str
    batch_size: int | None = None
    clips_seen: int | None = None
    rate: float = 1.0
    seed: int = 0
    options: tuple[tuple[str, object], ...] = ()

    @property
    def trained_on(self) -> StudyCorpus:
        """The corpus."""
        return CORPORA[self.corpus]

    @property
    def batch(self) -> int:
        """Clips in a batch."""
        return self.batch_size or self.trained_on.batch_size

    @property
    def clips(self) -> int:
        """Training items in all."""
        return self.clips_seen or self.trained_on.clips_seen

    @property
    def steps(self) -> int:
        """Optimiser steps."""
        return self.clips // self.batch

    @property
    def learning_rate(self) -> float:
        """The corpus' own times `rate`, growing with the root of the batch size."""
        corpus = self.trained_on
        return round(corpus.learning_rate * self.rate * math.sqrt(self.batch / corpus.batch_size), 7)

    @property
    def name(self) -> str:
        """All settings; the name of its results file."""
        options = "".join(f"-{key.rpartition('.')[2]}={value}" for key, value in self.options)
        return (
            f"{self.corpus}-{self.loss}-batch{self.batch}-clips{self.clips}-rate{self.rate:g}-seed{self.seed}"
            f"{options}".replace(" ", "")
        )

    def settings(self) -> dict:
        """The settings as in the results file."""
        return {
            "corpus": self.corpus,
            "loss": self.loss,
            "batch_size": self.batch,
            "clips_seen": self.clips,
            "steps": self.steps,
            "learning_rate": self.learning_rate,
            **({"noise": self.trained_on.caption_noise} if self.trained_on.source == "narrated" else {}),
            **self.trained_on.noise.options(),
            **dict(self.options),
        }

    def training_fields(self) -> dict[str, object]:
        """The fields that are set in its training configuration, without its folders."""
        return {
            "model.objective": self.loss,
            "batch_size": self.batch,
            "max_steps": self.steps,
            "learning_rate": self.learning_rate,
            "warmup_steps": self.steps // 10,
            "seed": self.seed,
            **dict(self.trained_on.fields),
            **dict(self.options),
        }


@dataclass(frozen=True)
class Study:
    """Runs that prove or disprove one claim.

    Args:
        title: the claim's subject.
        list_runs: seed and the results so far (those with which settings are chosen) to the runs of that seed.
        seeds: that are run unless others are asked for.
    """

    title: str
    list_runs: Callable[[int, dict[Run, dict]], list[Run]]
    seeds: tuple[int, ...] = (0, 1, 2)

    def runs(self, seeds: Iterable[int], results: dict[Run, dict]) -> list[Run]:
        """All runs, ordered by seed, so that every run has its first seed before any has its second."""
        return list(dict.fromkeys(run for seed in seeds for run in self.list_runs(seed, results)))

    def waiting_runs(self, seed: int, results: dict[Run, dict], corpora: Collection[str] | None = None) -> list[Run]:
        """The runs of a seed that have no results, on some corpora or, with None, on all."""
        runs = [run for run in self.runs([seed], results) if run not in results]
        return [run for run in runs if corpora is None or run.corpus in corpora]


def best_rate(run: Run, results: dict[Run, dict]) -> Run:
    """The run with the learning rate that was best on the validation split, on average over the seeds of RATE_SEEDS.

    Rates are tried at the run's own corpus and batch size, else at the batch size of the corpus where those of its kind
    are chosen; 1 where none was tried. A seed counts once it has every rate that seed 0 has.
    """
    chosen_on = RATES_CHOSEN_ON.get(run.corpus, run.corpus)
    for like in (replace(run, clips_seen=None, options=(), seed=0, rate=1.0), Run(chosen_on, run.loss)):
        tried = {rate for rate in POSSIBLE_RATES if replace(like, rate=rate) in results}
        if len(tried) > 1:
            seeds = [
                seed for seed in RATE_SEEDS if all(replace(like, rate=rate, seed=seed) in results for rate in tried)
            ]
            return replace(
                run, rate=max(sorted(tried), key=lambda rate: mean_score(replace(like, rate=rate), seeds, results))
            )
    return run


def mean_score(run: Run, seeds: Iterable[int], results: dict[Run, dict]) -> float:
    """The result that counts on the validation split, the mean over seeds."""
    return fmean(validation_score(run, results[replace(run, seed=seed)]) for seed in seeds)


def list_rates_of(run: Run, results: dict[Run, dict]) -> list[Run]:
    """A run at RATES, and, once it has their results, at half or twice those for as long as the best is at an end."""
    rates = list(RATES)
    while True:
        runs = [replace(run, rate=rate) for rate in rates]
        if any(tried not in results for tried in runs):
            return runs
        best = max(runs, key=lambda tried: validation_score(tried, results[tried]))
        if best == runs[0] and rates[0] > LOWEST_RATE:
            rates.insert(0, rates[0] / 2)
        elif best == runs[-1] and rates[-1] < HIGHEST_RATE:
            rates.append(rates[-1] * 2)
        else:
            return runs


def validation_score(run: Run, record: dict) -> float:
    """The result that counts, on the validation split."""
    return record["metrics_on_validation"][run.trained_on.direction][run.trained_on.metric]


def test_score(run: Run, record: dict, metrics: str = "metrics") -> float:
    """The result that counts, on the test split.

    Args:
        metrics: `"metrics"`, or `"metrics_of_joined_captions"` of a corpus that has them.
    """
    return record[metrics][run.trained_on.direction][run.trained_on.metric]


def list_rates(seed: int, results: dict[Run, dict]) -> list[Run]:
    """The learning rates of the main losses; other seeds try those of seed 0."""
    chosen_on = ("narrated50", "slides4_chatter2", "grid", "grid_joined2_chatter1", "exercises", "photographs")
    runs = [Run(corpus, loss) for corpus in chosen_on for loss in MAIN_LOSSES]
    runs.append(Run("narrated50", "siglip"))
    return [replace(tried, seed=seed) for run in runs for tried in list_rates_of(run, results)]


def list_noise(seed: int, results: dict[Run, dict]) -> list[Run]:
    """Corpora from clean to noisy."""
    corpora = (
        *("narrated50", "narrated0", "narrated80"),
        *("slides4_chatter2", "slides4_chatter0", "slides4_chatter4", "slides1_chatter0"),
        *("grid", "grid_joined2_chatter1", "exercises", "photographs"),
    )
    runs = [Run(corpus, loss, seed=seed) for corpus in corpora for loss in MAIN_LOSSES]
    runs.append(Run("narrated50", "siglip", seed=seed))
    return [best_rate(run, results) for run in runs]


NOISY = ("narrated50", "slides4_chatter2", "grid_joined2_chatter1")
BATCH_SIZES = (16, 32, 64, 128, 256, 512)


def list_batches(seed: int, results: dict[Run, dict]) -> list[Run]:
    """Batch sizes, with as many clips seen; with seed 0 every learning rate, with others the best."""
    runs = [Run(corpus, loss, batch, seed=seed) for corpus in NOISY for batch in BATCH_SIZES for loss in VARIED_LOSSES]
    runs = [as_default(run) for run in runs]
    if seed == 0:
        return [tried for run in runs for tried in list_rates_of(run, results)]
    return [best_rate(run, results) for run in runs]


def list_lengths(seed: int, results: dict[Run, dict]) -> list[Run]:
    """From an eighth to four times the clips."""
    factors = {"fine": (1 / 8, 1 / 4, 1 / 2, 1, 2), "mil_nce": (1 / 2, 1, 2, 4), "filip": (1 / 2, 1, 2, 4)}
    runs = [
        as_default(Run(corpus, loss, clips_seen=round(CORPORA[corpus].clips_seen * factor), seed=seed))
        for corpus in NOISY
        for loss in VARIED_LOSSES
        for factor in factors[loss]
    ]
    return [best_rate(run, results) for run in runs]


# Widths and depths of the video encoder; 0.375 and [1, 1] are fgmm-tiny's.
SIZES = (
    *((0.25, "[1,1]"), (0.375, "[1,1]"), (0.5, "[1,1]"), (1.0, "[1,1]")),
    *((0.375, "[2,3]"), (0.375, "[2,5,2]")),
)


def list_sizes(seed: int, results: dict[Run, dict]) -> list[Run]:
    """Smaller and larger video encoders, on the narrated corpus."""
    sizes = [
        model_options(**{"video_config.width_multiplier": width, "video_config.depths": depths})
        for width, depths in SIZES
    ]
    runs = [Run("narrated50", loss, seed=seed, options=size) for size in sizes for loss in VARIED_LOSSES]
    return [best_rate(run, results) for run in runs]


def list_options(seed: int, results: dict[Run, dict]) -> list[Run]:
    """The fine objective without one of its parts, or with another setting."""
    options = (
        (),
        model_options(whole_captions=False),
        model_options(phrase_gates=False),
        model_options(coarse_loss_weight=0.0),
        model_options(coarse_loss_weight=1.0),
        model_options(sharpness_init_value=1.0, learnable_sharpness=False),
        model_options(sharpness_init_value=16.0),
        model_options(learnable_phrase_sharpness=False),
        model_options(gce_q=0.3),
    )
    corpora = ("narrated50", "slides4_chatter2", "grid")
    runs = [Run(corpus, "fine", seed=seed, options=option) for corpus in corpora for option in options]
    return [best_rate(run, results) for run in runs]


def list_downstream(seed: int, results: dict[Run, dict]) -> list[Run]:
    """All corpora at hand together, for what is measured downstream."""
    return [best_rate(Run("mixed", loss, seed=seed), results) for loss in MAIN_LOSSES]


def as_default(run: Run) -> Run:
    """The same run, named as those that leave its corpus' own batch size and length as they are."""
    corpus = run.trained_on
    return replace(
        run,
        batch_size=None if run.batch_size == corpus.batch_size else run.batch_size,
        clips_seen=None if run.clips_seen == corpus.clips_seen else run.clips_seen,
    )


def model_options(**options) -> tuple[tuple[str, object], ...]:
    """Fields of the model's configuration in the form that Run takes."""
    return tuple((f"model.{name}", value) for name, value in options.items())


STUDIES = {
    "rates": Study("Learning rates", list_rates, seeds=RATE_SEEDS),
    "noise": Study("Noise", list_noise),
    "batch": Study("Batch size", list_batches),
    "compute": Study("Compute", list_lengths),
    "size": Study("Model size", list_sizes),
    "downstream": Study("Downstream", list_downstream),
    "options": Study("Options of the fine objective", list_options),
}
