"""The folder of a run: one process at a time trains in it, and all of its checkpoints are of one run."""

import json
import shutil
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml
from accelerate import Accelerator
from tqdm import tqdm

from ..cli import UserError
from ..locks import locked
from ..records import write_whole
from .configuration import PretrainConfig
from .corpora import TrainingCorpus
from .manifest import find_damage
from .processes import on_main_process
from .run_identity import check_same_run, identify_run, read_identity

# What may lie in a new run's folder: what shells and schedulers write there before it starts.
LOG_SUFFIXES = (".log", ".out", ".err", ".txt")
LOCK_NAME = "run.lock"


@dataclass(frozen=True)
class Run:
    """A run in its folder.

    folder: the model folder; checkpoints go below it.
    checkpoint: where it resumes; None for a new one.
    identity: what its checkpoints remember, see [`identify_run`].
    """

    folder: Path
    checkpoint: Path | None
    identity: dict


@contextmanager
def open_run(config: PretrainConfig, corpora: list[TrainingCorpus], accelerator: Accelerator) -> Iterator[Run]:
    """Holds the output folder for one run, and saves the settings there, as pretrain.yaml.

    Args:
        config: of the run, with nothing left open.
        corpora: that it trains on.
        accelerator: the main process looks for all.

    Raises:
        UserError: when the folder is in use or holds something else, or the run is not that of its checkpoint.
    """
    with ExitStack() as stack:
        yield on_main_process(accelerator, lambda: enter_folder(config, corpora, stack))


def enter_folder(config: PretrainConfig, corpora: list[TrainingCorpus], stack: ExitStack) -> Run:
    """Locks the folder until the stack is closed, checks it, and removes what an interrupted run left half done."""
    folder = Path(config.output_dir)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        stack.enter_context(locked(folder / LOCK_NAME))
    except OSError as error:
        raise UserError(f"The output_dir {config.output_dir!r} cannot be written: {error.strerror}.") from error
    checkpoint = find_checkpoint(config)
    check_folder(folder, checkpoint)
    identity, step = identify_run(config, corpora), 0
    if checkpoint:
        step = read_step(checkpoint)
        identity = check_same_run(read_identity(checkpoint), identity, checkpoint, step)
    else:
        for name in ("failed_clips.jsonl", "skipped_steps.jsonl"):
            (folder / name).unlink(missing_ok=True)
    for partial in [*folder.glob("*.partial"), *folder.glob("checkpoints/*.partial")]:
        shutil.rmtree(partial)
    for path in folder.glob("evaluations/step-*.json"):  # of weights that the interrupted run did not save
        if int(path.stem.removeprefix("step-")) > step:
            path.unlink()
    write_whole(folder / "pretrain.yaml", yaml.safe_dump(identity["settings"], sort_keys=False))
    return Run(folder, checkpoint, identity)


def find_checkpoint(config: PretrainConfig) -> Path | None:
    """The checkpoint to resume from; None to start anew. The latest is the last one that is not damaged; those after it
    are renamed to step-*.damaged.

    Raises:
        UserError: when it is not a whole checkpoint, or all are damaged.
    """
    if not config.resume_from:
        return None
    if config.resume_from == "latest":
        checkpoints = list_checkpoints(Path(config.output_dir))
        for checkpoint in reversed(checkpoints):
            if not (damage := find_damage(checkpoint)):
                return checkpoint
            tqdm.write(f"{checkpoint} is damaged: {damage}. It is left out.", file=sys.stderr)
            checkpoint.rename(checkpoint.with_suffix(".damaged"))
        if checkpoints:
            raise UserError(
                f"All checkpoints in {config.output_dir} are damaged; start anew in another output_dir, or without "
                "--resume_from after deleting this one."
            )
        return None
    checkpoint = Path(config.resume_from)
    if checkpoint.suffix == ".partial" or not (checkpoint / "progress.json").exists():
        raise UserError(f"{config.resume_from!r} is not a checkpoint: it has no progress.json, or is half written.")
    if damage := find_damage(checkpoint):
        raise UserError(f"{checkpoint} is damaged: {damage}; resume from the one before, as --resume_from latest does.")
    return checkpoint


def list_checkpoints(folder: Path) -> list[Path]:
    """Whole checkpoints of a run's folder, oldest first."""
    return sorted(path for path in folder.glob("checkpoints/step-*") if not path.suffix)


def read_step(checkpoint: Path) -> int:
    """The optimiser steps that had been taken when a checkpoint was written.

    Raises:
        UserError: when it is damaged.
    """
    try:
        return json.loads((checkpoint / "progress.json").read_text())["step"]
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{checkpoint} is damaged: its progress.json cannot be read; delete it.") from error


def check_folder(folder: Path, checkpoint: Path | None) -> None:
    """Checks that a run would not be mixed with something else.

    Args:
        folder: of the run.
        checkpoint: where it starts; None for a new one.

    Raises:
        UserError: when the folder holds another run, or later checkpoints of the same, a model, or other files.
    """
    own = list_checkpoints(folder)
    if own and checkpoint is None:
        raise UserError(
            f"{folder} holds a run with checkpoints, the last of step {read_step(own[-1])}; continue it by "
            "--resume_from latest, or give another output_dir or delete this one."
        )
    if own and checkpoint.resolve() != own[-1].resolve():
        raise UserError(
            f"{folder} holds a run with checkpoints up to step {read_step(own[-1])}, with which one from {checkpoint} "
            "would be mixed; continue that run by --resume_from latest, or give another output_dir."
        )
    if own:
        return
    if (folder / "config.json").exists():
        raise UserError(f"{folder} holds a model and no checkpoint; give another output_dir or delete this one.")
    others = [path.name for path in sorted(folder.iterdir()) if not is_expected(path)]
    if others and not (folder / "pretrain.yaml").exists():
        raise UserError(f"{folder} holds something else ({', '.join(others[:3])}); give a new or empty output_dir.")


def is_expected(path: Path) -> bool:
    """Whether a file may lie in a run's folder before the run starts."""
    return path.name == LOCK_NAME or path.name.startswith(".") or path.suffix in LOG_SUFFIXES
