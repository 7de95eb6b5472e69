"""Checkpoints of a run, whole or not at all, and the model folder at its end."""

import dataclasses
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
import yaml
from accelerate import Accelerator
from accelerate.utils import gather_object

from processing_fgmm import FgmmProcessor

from ..cli import UserError
from ..records import describe_run
from .configuration import PretrainConfig


@dataclass
class Progress:
    """How far a process has come in a run.

    step: optimiser steps taken. epoch, position: the next batch of this process's stream of clips. seconds,
    core_seconds: spent on the run so far, with what was before a resumption, by the clock and by this process's threads
    on processor cores. operations_per_step: floating-point operations of this process, 0 before the first step.
    """

    step: int = 0
    epoch: int = 0
    position: int = 0
    seconds: float = 0.0
    core_seconds: float = 0.0
    operations_per_step: int = 0


def find_checkpoint(config: PretrainConfig) -> Path | None:
    """The checkpoint to resume from; None to start anew.

    Raises:
        UserError: when it is not a whole checkpoint.
    """
    if not config.resume_from:
        return None
    if config.resume_from == "latest":
        checkpoints = list_checkpoints(config)
        return checkpoints[-1] if checkpoints else None
    if not (Path(config.resume_from) / "progress.json").exists():
        raise UserError(f"{config.resume_from!r} is not a checkpoint: it has no progress.json.")
    return Path(config.resume_from)


def list_checkpoints(config: PretrainConfig) -> list[Path]:
    """Whole checkpoints, oldest first."""
    folders = (Path(config.output_dir) / "checkpoints").glob("step-*")
    return sorted(folder for folder in folders if not folder.name.endswith(".partial"))


def read_progress(checkpoint: Path, accelerator: Accelerator) -> Progress:
    """How far this process had come when the checkpoint was written.

    Raises:
        UserError: when another number of processes wrote it.
    """
    saved = json.loads((checkpoint / "progress.json").read_text())
    if len(saved["streams"]) != accelerator.num_processes:
        raise UserError(f"{checkpoint} was written by {len(saved['streams'])} processes; start as many.")
    return Progress(saved["step"], *saved["streams"][accelerator.process_index], **saved["cost"])


def save_checkpoint(accelerator: Accelerator, config: PretrainConfig, progress: Progress) -> None:
    """Saves weights, optimiser, schedule, random states and each process's progress; whole or not at all."""
    streams = gather_object([[progress.epoch, progress.position]])
    folder = Path(config.output_dir) / "checkpoints" / f"step-{progress.step:07d}"
    partial = folder.with_name(folder.name + ".partial")
    accelerator.save_state(str(partial))
    if accelerator.is_main_process:
        cost = {name: getattr(progress, name) for name in ("seconds", "core_seconds", "operations_per_step")}
        saved = {"step": progress.step, "streams": streams, "cost": cost}
        (partial / "progress.json").write_text(json.dumps(saved))
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
        for old in list_checkpoints(config)[: -config.save_total_limit]:
            shutil.rmtree(old)
    accelerator.wait_for_everyone()


def global_batch_size(config: PretrainConfig, accelerator: Accelerator) -> int:
    """Clips that stand in one contrast, of all processes."""
    return config.batch_size * config.gradient_accumulation_steps * accelerator.num_processes


def save_model(
    accelerator: Accelerator,
    model: torch.nn.Module,
    processor: FgmmProcessor,
    config: PretrainConfig,
    progress: Progress,
) -> None:
    """Saves what AutoModel and AutoProcessor load, the run's configuration, and what it took.

    Args:
        accelerator, model: as trained; the main process saves.
        processor: of the model.
        config: of the run, saved as pretrain.yaml.
        progress: of this process at the end; its cost stands in training.json.
    """
    if accelerator.is_main_process:
        accelerator.unwrap_model(model).save_pretrained(config.output_dir)
        processor.save_pretrained(config.output_dir)
        text = yaml.safe_dump(dataclasses.asdict(config), sort_keys=False)
        (Path(config.output_dir) / "pretrain.yaml").write_text(text)
        clips_seen = config.max_steps * global_batch_size(config, accelerator)
        cost = {
            "core_seconds": round(progress.core_seconds, 1),
            "operations": progress.operations_per_step * config.max_steps,
        }
        record = {"seed": config.seed, "clips_seen": clips_seen, **describe_run(progress.seconds), **cost}
        (Path(config.output_dir) / "training.json").write_text(json.dumps(record, indent=2) + "\n")
    accelerator.wait_for_everyone()
