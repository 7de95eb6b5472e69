"""Results files: what is recorded beside every measured number (command, commit, device, time), and how it is saved."""

import datetime
import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from .cli import UserError

# What a results file of an evaluation has, among others.
RESULT_KEYS = {"model", "dataset", "split", "protocol", "metrics"}
# In the checkout.
RESULTS_FOLDER = "model_cards/results"


def describe_run(seconds: float) -> dict:
    """The running script's command, commit, device and date, with the time that it took in seconds."""
    script = Path(sys.argv[0])
    launcher = "accelerate launch" if "ACCELERATE_DYNAMO_BACKEND" in os.environ else "python"
    return {
        "command": f"{launcher} {shlex.join([f'{script.parent.name}/{script.name}', *sys.argv[1:]])}",
        "commit": current_commit(),
        "device": describe_device(),
        "seconds": round(seconds, 1),
        "date": datetime.date.today().isoformat(),
    }


def describe_device() -> str:
    """The name of the GPU, else of the processor with the number of threads that torch uses."""
    import torch  # not at the top: publishing a corpus writes a record and needs no torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"{read_processor_name()}, {torch.get_num_threads()} threads"


def read_processor_name() -> str:
    """The processor's name where Linux gives it, else its architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def current_commit() -> str | None:
    """The commit of the checkout, with "-dirty" where files differ from it that are no results files (those do not
    change what is measured, and are written run by run); None where the code is no git checkout."""
    commit = ask_git("describe", "--always", "--exclude=*")
    changed = ["status", "--porcelain", "--untracked-files=no", "--", ":(top)", f":(top,exclude){RESULTS_FOLDER}"]
    return f"{commit}-dirty" if commit and ask_git(*changed) else commit or None


def ask_git(*words: str) -> str:
    """What git answers about the checkout; nothing where it knows none."""
    answer = subprocess.run(["git", *words], cwd=Path(__file__).parent, capture_output=True, text=True)
    return answer.stdout.strip()


def claim_output(path: Path) -> None:
    """Makes the folder of a results file or picture, before the work whose result it will hold.

    Raises:
        UserError: when the file cannot be written there.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"The folder of --output {path} cannot be made ({error.strerror}); give another.") from error
    if path.is_dir():
        raise UserError(f"--output {path} is a folder; give the name of a file.")
    if not os.access(path.parent, os.W_OK):
        raise UserError(f"--output {path} cannot be written, for its folder allows no writing; give another.")


def claim_results(path: Path, *drawn: str) -> None:
    """Makes the folder of a results file, before the evaluation, and checks that nothing else is overwritten.

    Args:
        path: of the results file.
        drawn: endings of the pictures that are drawn with it.

    Raises:
        UserError: when the file cannot be written there, or one that is no results file is there.
    """
    claim_output(path)
    if path.exists():
        if not is_results_file(path):
            raise UserError(f"--output {path} exists and is no results file of an evaluation; give another name.")
        return
    for picture in map(path.with_suffix, drawn):
        if picture.exists():
            raise UserError(f"{picture}, which is drawn beside --output {path}, exists already; give another name.")


def is_results_file(path: Path) -> bool:
    """Whether an evaluation wrote a file."""
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and content.keys() >= RESULT_KEYS


def write_record(path: Path, record: dict) -> None:
    """Writes a results file, whole or not at all."""
    write_whole(path, json.dumps(record, indent=2) + "\n")


def write_whole(path: Path, text: str) -> None:
    """Writes a file, whole or not at all."""
    with whole_file(path) as partial:
        partial.write_text(text)


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A block that writes a file whole or not at all: it gets a path with the same ending beside it to write to, which
    is renamed at the end, or removed after an error."""
    partial = path.with_name(f"{path.stem}.partial{path.suffix}")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def whole_files(folder: Path) -> Iterator[Path]:
    """As [`whole_file`], for a block that writes several files into a folder, which may exist and hold others."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f"{folder.name}.partial.", dir=folder.parent) as partial:
        yield Path(partial)
        folder.mkdir(exist_ok=True)
        for path in Path(partial).iterdir():
            path.replace(folder / path.name)


def read_training_record(model: str) -> dict | None:
    """The training.json that scripts/pretrain.py wrote beside a model (a folder or a name on the Hub); None without."""
    from transformers.utils import cached_file  # not at the top: it imports torch

    path = cached_file(model, "training.json", _raise_exceptions_for_missing_entries=False)
    return json.loads(Path(path).read_text()) if path else None
