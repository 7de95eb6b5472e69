"""The folder of a run: one process at a time trains in it, and all of its checkpoints are of one run."""

import errno
import fcntl
import json
import os
import shutil
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TextIO

import yaml
from accelerate import Accelerator
from tqdm import tqdm

from ..cli import UserError
from ..records import write_whole
from .configuration import PretrainConfig
from .corpora import TrainingCorpus
from .manifest import find_damage
from .processes import on_main_process
from .run_identity import check_same_run, identify_run, read_identity

# What may lie in a new run's folder: what shells and schedulers write there before it starts.
LOG_SUFFIXES = (".log", ".out", ".err", ".txt")
LOCK_NAME = "run.lock"
# What drives answer that have no locks.
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


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


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds a lock file that says which process trains.

    The lock is the kernel's, also on network drives: it ends with the process, however that ends, and its worker
    processes do not inherit it. Where a drive has no locks, the process that the file names is looked for.

    Raises:
        UserError: when another process holds it.
        OSError: when the file cannot be written.
    """
    while True:
        file = path.open("a+")
        if not try_lock(file, path):
            file.close()
            raise UserError(describe_holder(path))
        if path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()):
            break  # else its holder has just removed it
        file.close()
    try:
        file.truncate(0)
        json.dump({"process": os.getpid(), "host": socket.gethostname(), "since": f"{datetime.now():%F %T}"}, file)
        file.flush()
        yield
    finally:
        path.unlink(missing_ok=True)
        file.close()


def try_lock(file: TextIO, path: Path) -> bool:
    """Locks an open lock file; False where another process holds it."""
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in NO_LOCKS:
            return not may_be_held(path)
        if error.errno in (errno.EACCES, errno.EAGAIN):
            return False
        raise
    return True


def read_holder(path: Path) -> dict | None:
    """What a lock file says; None where it says nothing."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None


def may_be_held(path: Path) -> bool:
    """Whether the process that a lock file names may still run; one on another host may."""
    holder = read_holder(path)
    if holder is None or holder["host"] != socket.gethostname():
        return holder is not None
    try:
        os.kill(holder["process"], 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # of another user
        pass
    return holder["process"] != os.getpid()


def describe_holder(path: Path) -> str:
    """Says who trains in a folder."""
    holder = read_holder(path)
    who = "{process} on {host}, since {since}".format(**holder) if holder else "unknown"
    return (
        f"Another run is training in {path.parent} (process {who}); wait for its end, or give another output_dir. "
        f"If that process is gone, delete {path}."
    )
