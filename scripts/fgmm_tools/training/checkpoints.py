"""Checkpoints of a run, whole or not at all, and the model folder at its end."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object, load, set_seed
from safetensors import SafetensorError
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from processing_fgmm import FgmmProcessor
from processing_fgmm.orders_fgmm import StreamState

from ..cli import UserError
from ..records import describe_run, write_record
from .configuration import PretrainConfig
from .manifest import write_manifest
from .run_folder import Run, list_checkpoints
from .sharding import check_checkpoint, gather_model

# In the messages with which torch.save says that a write failed, for instance on a full disk.
TORCH_WRITERS = ("inline_container", "iostream")


@dataclass
class Progress:
    """How far a process has come in a run.

    step: optimiser steps taken. stream: the place of the next batch of clips, the same for all processes; None for the
    start. seconds, core_seconds: spent on the run so far, with what was before a resumption, by the clock and by this
    process's threads on processor cores. operations_per_step: floating-point operations of this process, 0 before the
    first step.
    """

    step: int = 0
    stream: StreamState | None = None
    seconds: float = 0.0
    core_seconds: float = 0.0
    operations_per_step: int = 0


def read_progress(checkpoint: Path) -> Progress:
    """How far the run had come when the checkpoint was written, by any number of processes."""
    saved = json.loads((checkpoint / "progress.json").read_text())
    positions = tuple(tuple(position) for position in saved["stream"]["positions"])
    return Progress(saved["step"], StreamState(saved["stream"]["number"], positions), **saved["cost"])


def load_checkpoint(
    checkpoint: Path, accelerator: Accelerator, optimizer: Optimizer, scheduler: LambdaLR, seed: int
) -> None:
    """Loads weights, optimiser and random states, without executing anything that a file may hold; the learning rate is
    that of the run's own schedule. Other processes than wrote it get random states of `seed` and the step.

    Raises:
        UserError: when a file cannot be loaded, or the run was sharded in another way.
    """
    check_checkpoint(accelerator, checkpoint)
    saved = json.loads((checkpoint / "progress.json").read_text())
    has_own = saved["processes"] == accelerator.num_processes
    try:
        if has_own:  # accelerate goes on without random states where they cannot be loaded
            load(checkpoint / f"random_states_{accelerator.process_index}.pkl")
        accelerator.load_state(str(checkpoint))
    except Exception as error:  # whatever torch, pickle and safetensors meet in damaged files
        raise UserError(
            f"{checkpoint} cannot be loaded ({type(error).__name__}: {' '.join(str(error).split())}); delete it to "
            "resume from the one before."
        ) from error
    if not has_own:
        set_seed(seed + saved["step"], device_specific=True)
    scheduler.last_epoch = saved["step"]
    for group, factor in zip(optimizer.param_groups, scheduler.lr_lambdas, strict=True):
        group["lr"] = group["initial_lr"] * factor(scheduler.last_epoch)


def save_checkpoint(accelerator: Accelerator, config: PretrainConfig, run: Run, progress: Progress) -> None:
    """Saves weights, optimiser, random states, progress and what run they are of.

    Raises:
        UserError: when it cannot be written; nothing of it is left then, and earlier checkpoints stay.
    """
    folder = run.folder / "checkpoints" / f"step-{progress.step:07d}"
    partial = folder.with_name(f"{folder.name}.partial")
    with all_or_nothing(accelerator, partial):
        accelerator.save_state(str(partial))
        if accelerator.is_main_process:
            cost = {name: getattr(progress, name) for name in ("seconds", "core_seconds", "operations_per_step")}
            stream, processes = asdict(progress.stream), accelerator.num_processes
            saved = {"step": progress.step, "stream": stream, "processes": processes, "cost": cost}
            write_record(partial / "progress.json", saved)
            write_record(partial / "run.json", run.identity)
    with all_or_nothing(accelerator, partial):  # now all processes have written their files
        if accelerator.is_main_process:
            write_manifest(partial)
    if accelerator.is_main_process:
        partial.rename(folder)
        for old in list_checkpoints(run.folder)[: -config.save_total_limit]:
            shutil.rmtree(old)
    accelerator.wait_for_everyone()


def save_model(
    accelerator: Accelerator,
    model: torch.nn.Module,
    processor: FgmmProcessor,
    config: PretrainConfig,
    run: Run,
    progress: Progress,
) -> None:
    """Saves what AutoModel and AutoProcessor load, and what the run took, as training.json.

    Args:
        accelerator, model: as trained; the main process saves.
        processor: of the model.
        config, run: what was trained.
        progress: of this process at the end.

    Raises:
        UserError: when it cannot be written; the folder is left as it was then.
    """
    partial = run.folder / "model.partial"
    whole = gather_model(accelerator, model)
    with all_or_nothing(accelerator, partial):
        if accelerator.is_main_process:
            whole.save_pretrained(partial)
            processor.save_pretrained(partial)
            write_record(partial / "training.json", describe_training(config, run, progress))
    if accelerator.is_main_process:
        for path in partial.iterdir():
            path.replace(run.folder / path.name)
        partial.rmdir()
    accelerator.wait_for_everyone()


@contextmanager
def all_or_nothing(accelerator: Accelerator, partial: Path) -> Iterator[None]:
    """A block in which all processes write into a folder, which is removed where one of them cannot.

    Raises:
        UserError: in all processes, when it cannot be written.
    """
    failure = None
    try:
        yield
    except (OSError, SafetensorError) as error:
        failure = str(error)
    except RuntimeError as error:
        if not any(name in str(error) for name in TORCH_WRITERS):
            raise
        failure = f"PyTorch's write failed: {str(error).splitlines()[0]}"
    failures = [failure for failure in gather_object([failure]) if failure]
    if failures:
        free = shutil.disk_usage(partial.parent).free / 1e6
        if accelerator.is_main_process:
            shutil.rmtree(partial, ignore_errors=True)
        accelerator.wait_for_everyone()
        raise UserError(
            f"{partial.with_suffix('')} could not be written ({failures[0]}; {free:.0f} MB are free); make room and "
            "continue by --resume_from latest."
        )


def describe_training(config: PretrainConfig, run: Run, progress: Progress) -> dict:
    """What a run has taken so far, with its command, commit and device, and which settings were changed on its way."""
    record = {
        "seed": config.seed,
        "clips_seen": progress.stream.number,
        **describe_run(progress.seconds),
        "core_seconds": round(progress.core_seconds, 1),
        "operations": progress.operations_per_step * progress.step,
    }
    return {**record, "changes": run.identity["changes"]} if run.identity["changes"] else record
