"""Checkpoints of a run, whole or not at all, and the model folder at its end."""

import dataclasses
import json
import shutil
from pathlib import Path

import yaml
from accelerate import Accelerator
from accelerate.utils import gather_object

from processing_fgmm import FgmmProcessor

from ..cli import UserError
from ..records import describe_run
from .configuration import PretrainConfig


def find_checkpoint(config: PretrainConfig) -> Path | None:
    """The checkpoint to go on from, or None to begin anew.

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


def save_checkpoint(
    accelerator: Accelerator, config: PretrainConfig, step: int, epoch: int, position: int, seconds: float
) -> None:
    """Weights, optimiser, schedule, random states and each process's place in the data; whole or not at all."""
    streams = gather_object([[epoch, position]])
    folder = Path(config.output_dir) / "checkpoints" / f"step-{step:07d}"
    partial = folder.with_name(folder.name + ".partial")
    accelerator.save_state(str(partial))
    if accelerator.is_main_process:
        (partial / "progress.json").write_text(json.dumps({"step": step, "streams": streams, "seconds": seconds}))
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
        for old in list_checkpoints(config)[: -config.save_total_limit]:
            shutil.rmtree(old)
    accelerator.wait_for_everyone()


def global_batch_size(config: PretrainConfig, accelerator: Accelerator) -> int:
    """Clips that stand in one contrast."""
    return config.batch_size * config.gradient_accumulation_steps * accelerator.num_processes


def save_model(
    accelerator: Accelerator, model, processor: FgmmProcessor, config: PretrainConfig, seconds: float
) -> None:
    """The folder that AutoModel and AutoProcessor load, the configuration of the run, and what it took."""
    if accelerator.is_main_process:
        accelerator.unwrap_model(model).save_pretrained(config.output_dir)
        processor.save_pretrained(config.output_dir)
        text = yaml.safe_dump(dataclasses.asdict(config), sort_keys=False)
        (Path(config.output_dir) / "pretrain.yaml").write_text(text)
        clips_seen = config.max_steps * global_batch_size(config, accelerator)
        record = {"seed": config.seed, "clips_seen": clips_seen, **describe_run(seconds)}
        (Path(config.output_dir) / "training.json").write_text(json.dumps(record, indent=2) + "\n")
    accelerator.wait_for_everyone()
