"""The cost of trackers: the same training steps with and without them, block by block in turn."""

import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from itertools import cycle, islice
from pathlib import Path
from statistics import median, quantiles
from tempfile import TemporaryDirectory

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from tqdm import tqdm

from .checkpoints import Progress
from .checks import settle_config
from .configuration import PretrainConfig
from .corpora import open_corpora
from .cost import core_seconds
from .parameter_groups import make_parameter_groups
from .run_folder import Run
from .setup import make_batches, make_model, make_optimizer, make_processor
from .trackers import Tracking

# Batches that the steps go round in; pictures that are drawn after the first, whose time is that of imports.
NUM_BATCHES, NUM_PICTURES = 4, 3


class Trainer:
    """One of two models that are trained alike, with or without trackers.

    Args:
        accelerator: of both.
        model: not prepared.
        config: its `trackers` say whether there are any.
        processor, run: of the training.
    """

    def __init__(self, accelerator: Accelerator, model: torch.nn.Module, config: PretrainConfig, processor, run: Run):
        optimizer = make_optimizer(make_parameter_groups(model, config.learning_rate, config.weight_decay))
        self.accelerator, self.config = accelerator, config
        self.model, self.optimizer = accelerator.prepare(model, optimizer)
        self.tracking = Tracking(accelerator, self.model, config, processor, run)
        self.steps, self.seconds_of_tracking = 0, 0.0

    def train(self, batches: list[dict[str, torch.Tensor]]) -> None:
        """A step for each batch, and a report at their end."""
        for inputs in batches:
            with self.accelerator.autocast():
                outputs = self.model(**inputs, return_loss=True)
            self.accelerator.backward(outputs.loss)
            norm = self.accelerator.clip_grad_norm_(self.model.parameters(), self.config.max_grad_norm)
            self.spend(self.tracking.add_gradient_norm, norm)
            self.optimizer.step()
            self.optimizer.zero_grad()
            self.steps += 1
        module = self.accelerator.unwrap_model(self.model)
        encoded = {name: outputs[f"{name}_output"] for name in module.config.modalities}
        outputs.loss.item()  # waits for a GPU
        if values := self.spend(self.tracking.report, self.accelerator, module, encoded):
            self.spend(self.accelerator.log, values, self.steps)

    def spend(self, function: Callable, *arguments):
        """What a call returns, whose time counts as that of tracking."""
        started = time.perf_counter()
        result = function(*arguments)
        self.seconds_of_tracking += time.perf_counter() - started
        return result

    def draw(self) -> None:
        """Draws a picture, whatever the step."""
        self.tracking.draw(self.accelerator, self.model, self.config.picture_steps)


def measure_time(function: Callable, *arguments) -> tuple[float, float]:
    """Seconds by the clock, and of processor cores, that a call takes."""
    started = time.perf_counter(), core_seconds()
    function(*arguments)
    return time.perf_counter() - started[0], core_seconds() - started[1]


def measure_tracking(config: PretrainConfig, num_blocks: int) -> dict[str, float | bool | list[float]]:
    """Trains two models from the same weights on the same clips, one with the trackers of the configuration.

    Args:
        config: of a training; its trackers are measured, in blocks of `log_steps` steps.
        num_blocks: of each model; which of them is first changes from block to block.

    Returns:
        `step_seconds` without trackers; `ratio_of_step`, the median over the pairs of blocks of the time with trackers
        by that without, and `quartiles_of_ratio`; `ratio_of_core_seconds`, the same of core seconds; `picture_seconds`;
        `cost`, the share of the training's time that is spent in tracking and drawing; `same_weights`, whether both
        models have the same weights in the end.
    """
    with TemporaryDirectory() as folder:
        accelerator = Accelerator(mixed_precision=config.mixed_precision, log_with=config.trackers, project_dir=folder)
        corpora = open_corpora(config, accelerator)
        config = settle_config(config, accelerator)
        set_seed(config.seed)
        processor = make_processor(config, [corpus.stream for corpus in corpora])
        model, run = make_model(config, processor), Run(Path(folder), None, {})
        rows = [corpus.rows for corpus in corpora]
        loader = iter(make_batches(config, rows, processor, model.config.modalities, accelerator, Progress()))
        batches = [next(loader).inputs for _ in range(NUM_BATCHES)]
        plain_config = replace(config, trackers=[])
        plain = Trainer(accelerator, deepcopy(model), plain_config, processor, run)
        tracked = Trainer(accelerator, model, config, processor, run)
        times = {"plain": [], "tracked": []}
        for block in tqdm(range(-1, num_blocks), desc="Measuring", unit="block"):
            pair = [("plain", plain), ("tracked", tracked)]
            for name, trainer in reversed(pair) if block % 2 else pair:
                set_seed(config.seed + block + 1)  # of dropout
                taken = measure_time(trainer.train, list(islice(cycle(batches), config.log_steps)))
                if block >= 0:
                    times[name].append(taken)
                else:  # it warms up
                    trainer.seconds_of_tracking = 0.0
        pictures = [measure_time(tracked.draw)[0] for _ in range(1 + NUM_PICTURES)] if config.picture_steps else []
        accelerator.end_training()
    ratios, core_ratios = (
        [with_[kind] / without[kind] for with_, without in zip(times["tracked"], times["plain"], strict=True)]
        for kind in (0, 1)
    )
    step = median(seconds for seconds, _ in times["plain"]) / config.log_steps
    of_pictures = median(pictures[1:]) / config.picture_steps / step if pictures else 0.0
    first, second = (accelerator.unwrap_model(trainer.model).state_dict() for trainer in (plain, tracked))
    return {
        "step_seconds": step,
        "ratio_of_step": median(ratios),
        "quartiles_of_ratio": quantiles(ratios, n=4)[::2] if len(ratios) > 1 else [ratios[0]] * 2,
        "ratio_of_core_seconds": median(core_ratios),
        "picture_seconds": median(pictures[1:]) if pictures else 0.0,
        "cost": tracked.seconds_of_tracking / sum(seconds for seconds, _ in times["tracked"]) + of_pictures,
        "same_weights": all(torch.equal(first[name], second[name]) for name in first),
    }
