"""Options, errors and exit codes of the commands; real processes for what only they show."""

import argparse
import errno
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time

import pytest
from helpers import ROOT, training_arguments

from fgmm_tools import cli
from processing_fgmm import MediaError
from processing_fgmm.corpora_fgmm import CorpusError

COMMANDS = sorted((ROOT / "scripts").glob("*.py"))
HEAVY = {
    "accelerate",
    "av",
    "datasets",
    "evaluate",
    "matplotlib",
    "numpy",
    "pandas",
    "sklearn",
    "torch",
    "transformers",
}
LAUNCH = [sys.executable, "-m", "accelerate.commands.launch", "--quiet", "--num_processes", "1", "--num_machines", "1"]
LAUNCH += ["--mixed_precision", "no", "--dynamo_backend", "no"]
# Runs a command as python does, and writes the names of all modules that it loaded on stderr.
WATCHED = """
import atexit, runpy, sys
sys.argv = sys.argv[1:]
atexit.register(lambda: print(*sys.modules, file=sys.stderr))
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def run(*command, cwd=None):
    return subprocess.run([sys.executable, *map(str, command)], capture_output=True, text=True, cwd=cwd)


@pytest.fixture(scope="module", params=COMMANDS, ids=lambda path: path.stem)
def help_of(request):
    """A command's answer to `--help` in another folder."""
    return run("-c", WATCHED, request.param, "--help", cwd="/")


def test_help_loads_nothing_heavy(help_of):
    loaded = set(help_of.stderr.split())
    assert help_of.returncode == 0 and "fgmm_tools.cli" in loaded
    assert not loaded & HEAVY and len(loaded) < 500


def test_help_gives_meaning_type_and_default_of_every_option(help_of):
    entries = re.findall(r"^  (--\w.*(?:\n {4,}\S.*)*)", help_of.stdout, re.MULTILINE)
    assert entries
    for entry in entries:
        text = " ".join(entry.split())
        meaning = re.sub(r"\[.*?\]|\{.*?\}|--\S+|\b[A-Z_]+\b", "", text.rpartition(" (")[0])
        assert len(meaning.split()) > 1, f"{text} has no meaning"
        assert re.search(r"\(required, type: |\(type: .*default: |\(a switch, off unless given\)$", text), text


def test_help_of_each_kind_of_option():
    parser = cli.make_parser("What it does.")
    parser.add_argument("names", nargs="*", help="all of them")
    parser.add_argument("--count", type=cli.at_least(2), default=5, help="how many, 100% exact")
    parser.add_argument("--shares", type=cli.share, nargs="+", default=[0.5, 1.0], help="parts")
    parser.add_argument("--kind", choices=("a", "b"), required=True, help="which")
    parser.add_argument("--quiet", action="store_true", help="say nothing")
    parser.add_argument("--hidden", help=argparse.SUPPRESS)
    text = " ".join(parser.format_help().split())
    assert "all of them (type: str, one or several, default: none)" in text
    assert "how many, 100% exact (type: int from 2, default: 5)" in text
    assert "parts (type: float from 0 to 1, one or several, default: 0.5 1.0)" in text
    assert "which (required, type: choice)" in text
    assert "say nothing (a switch, off unless given)" in text
    assert "hidden" not in text


def test_options_are_spelt_out(capsys):
    parser = cli.make_parser("What it does.")
    parser.add_argument("--count", help="how many")
    with pytest.raises(SystemExit):
        parser.parse_args(["--cou", "3"])
    assert "unrecognized arguments: --cou" in capsys.readouterr().err


@pytest.mark.parametrize("text,good", [("3", True), ("2", False), ("x", False), ("3.5", False), ("-3", False)])
def test_at_least(text, good):
    if good:
        assert cli.at_least(3)(text) == 3
    else:
        with pytest.raises(argparse.ArgumentTypeError, match=re.escape(text)):
            cli.at_least(3)(text)


@pytest.mark.parametrize("text,good", [("0", True), ("0.25", True), ("1", True), ("1.1", False), ("-0.1", False)])
def test_share(text, good):
    if good:
        assert cli.share(text) == float(text)
    else:
        with pytest.raises(argparse.ArgumentTypeError, match=re.escape(text)):
            cli.share(text)


@pytest.mark.parametrize("text,good", [("0", True), ("4294967295", True), ("4294967296", False), ("-1", False)])
def test_seed(text, good):
    if good:
        assert cli.seed(text) == int(text)
    else:
        with pytest.raises(argparse.ArgumentTypeError, match=re.escape(text)):
            cli.seed(text)


@pytest.fixture
def restored_signals(monkeypatch):
    """What run_command changes for the rest of the process."""
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    handler = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, handler)


def fail(error):
    raise error


@pytest.mark.parametrize("kind", [cli.UserError, CorpusError, MediaError])
def test_errors_for_the_user_are_a_sentence_and_code_2(capsys, restored_signals, kind):
    with pytest.raises(SystemExit) as caught:
        cli.run_command(lambda: kind("The corpus is damaged."), fail)
    assert caught.value.code == 2 and capsys.readouterr().err == "The corpus is damaged.\n"


@pytest.mark.parametrize("error", [ZeroDivisionError(), SystemExit(7)])
def test_other_errors_stay_what_they_are(restored_signals, error):
    with pytest.raises(type(error)) as caught:
        cli.run_command(lambda: error, fail)
    assert caught.value is error


def test_a_command_that_fails_ends_in_a_sentence_and_code_2(tmp_path):
    words = training_arguments(tmp_path / "nowhere", tmp_path / "out", learning_rat=1)
    answer = run(ROOT / "scripts/pretrain.py", *words)
    sentence = "There is no field 'learning_rat'; did you mean 'learning_rate'.\n"
    assert (answer.returncode, answer.stderr) == (2, sentence)
    answer = run(*LAUNCH[1:], ROOT / "scripts/pretrain.py", *words)
    assert (answer.returncode, answer.stderr) == (1, sentence)  # the launcher knows no other code


def test_commands_run_in_any_folder(tmp_path):
    words = ["--output", "corpus", "--num_train", "2", "--num_test", "1", "--num_proc", "1"]
    run(ROOT / "scripts/make_narrated_corpus.py", *words, cwd=tmp_path).check_returncode()
    answer = run(ROOT / "scripts/train_tokenizer.py", "--dataset", "corpus", "--output", "tokenizer", cwd=tmp_path)
    assert answer.returncode == 0 and (tmp_path / "tokenizer" / "tokenizer.json").exists(), answer.stderr


def press_ctrl_c(command: list[str], marker: str, delay: float = 0.0, timeout: float = 120) -> tuple[int, str]:
    """Runs a command on a terminal of its own and presses Ctrl-C there, which signals all of its processes.

    Args:
        command: its words.
        marker: what it writes before the key is pressed.
        delay: between the two, s.
        timeout: after which it is killed, s.

    Returns:
        its exit code, and what it wrote after the key.
    """
    pid, terminal = pty.fork()
    if pid == 0:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # which tests that run in the background may ignore
        os.execv(command[0], command)
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))  # else progress bars are not shown
    written, pressed, deadline = b"", None, time.monotonic() + timeout
    while time.monotonic() < deadline:
        if select.select([terminal], [], [], 0.02)[0]:
            try:
                written += os.read(terminal, 65536)
            except OSError:  # how Linux says that the last process has left the terminal
                break
        if pressed is None and marker.encode() in written:
            time.sleep(delay)
            pressed = len(written)
            os.write(terminal, b"\x03")
    else:
        os.killpg(pid, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert pressed is not None, written.decode(errors="replace")
    return code, written[pressed:].decode(errors="replace").replace("^C", "").replace("\r\n", "\n")


COMMAND = """
import hashlib, sys, time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from fgmm_tools.cli import run_command, stop_in_silence

class Lost:
    def __del__(self):
        wait()

def wait():
    print("READY", flush=True)
    while True:
        time.sleep(0.01)

def main(place):
    if place == "import":
        print("READY", flush=True)
        import torch, transformers, modeling_fgmm, processing_fgmm
    if place == "destructor":
        Lost()
    if place == "compiled":
        print("READY", flush=True)
        hashlib.pbkdf2_hmac("sha256", b"word", b"salt", 2**31 - 1)  # for minutes, without Python's handlers
    if place == "unwound":
        try:
            wait()
        finally:
            time.sleep(60)
    if place == "converted":
        try:
            wait()
        except BaseException as error:
            raise RuntimeError("an error of some library's own") from error
    if place in ("fork", "spawn"):
        with ProcessPoolExecutor(2, get_context(place), stop_in_silence if place == "spawn" else None) as pool:
            list(pool.map(str, range(4)))
            wait()
    wait()

if __name__ == "__main__":
    run_command(lambda: sys.argv[1], main)
"""


@pytest.fixture
def command(tmp_path):
    """A command that waits for Ctrl-C in the place that it is told."""
    (tmp_path / "command.py").write_text(COMMAND)
    return str(tmp_path / "command.py")


@pytest.mark.parametrize("place", ["home", "home/.cache/huggingface", "home/.cache/huggingface/datasets/parquet"])
def test_a_cache_that_cannot_be_written_names_hf_home(tmp_path, monkeypatch, place):
    monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(tmp_path / "home/.cache/huggingface"))

    def explain(number, path):
        error = cli.UserError("The corpus could not be opened.")
        error.__cause__ = OSError(number, "No writing", str(path))
        return cli.explain_cache(error)

    for number in (errno.EROFS, errno.EACCES):
        assert explain(number, tmp_path / place).startswith(
            f"The Hub's libraries cannot write to {tmp_path / place} (No writing); set the environment variable HF_HOME"
        )
    assert explain(errno.EISDIR, tmp_path / place) is None and explain(errno.EROFS, tmp_path / "home/other") is None
    assert cli.explain_cache(cli.UserError("else")) is None


def test_a_command_says_that_the_home_cannot_be_written(narrated):
    words = ["scripts/push_dataset.py", "--dataset", str(narrated), "--record", "/dev/null"]
    environment = {"PATH": os.environ["PATH"], "HOME": "/proc/home"}
    answer = subprocess.run([sys.executable, *words], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert answer.returncode == 2 and "cannot write to /proc/home (" in answer.stderr and "HF_HOME" in answer.stderr


@pytest.mark.parametrize("place", ["main", "destructor", "converted", "compiled", "unwound", "fork", "spawn"])
def test_ctrl_c_is_a_sentence_and_code_130(command, place):
    """Also where the command would go on for a minute, in compiled code or as it is unwound."""
    code, written = press_ctrl_c([sys.executable, command, place], "READY", 0.1, timeout=30)
    assert (code, written.strip()) == (130, "Stopped.")


def test_a_full_disk_is_a_sentence_and_code_2(capsys, restored_signals):
    error = OSError(errno.ENOSPC, "No space left on device", "/disk/model.safetensors")
    with pytest.raises(SystemExit) as caught:
        cli.run_command(lambda: error, fail)
    sentence = (
        "There is no space left on the disk to write /disk/model.safetensors; make room and run the command again.\n"
    )
    assert caught.value.code == 2 and capsys.readouterr().err == sentence


def test_a_file_that_may_not_be_written_is_a_sentence_and_code_2(capsys, restored_signals):
    with pytest.raises(SystemExit) as caught:
        cli.run_command(lambda: PermissionError(errno.EACCES, "Permission denied", "/locked/tokenizer.json"), fail)
    sentence = "/locked/tokenizer.json cannot be read or written: Permission denied.\n"
    assert caught.value.code == 2 and capsys.readouterr().err == sentence


@pytest.mark.parametrize("rank,sentence", [("0", "Stopped by SIGTERM.\n"), ("1", "")])
def test_sigterm_is_a_sentence_of_one_process_and_code_143(capsys, restored_signals, monkeypatch, rank, sentence):
    monkeypatch.setenv("LOCAL_RANK", rank)
    with pytest.raises(SystemExit) as caught:
        cli.run_command(lambda: cli.Terminated("Stopped by SIGTERM."), fail)
    assert caught.value.code == 143 and capsys.readouterr().err == sentence


@pytest.mark.parametrize("delay", [0.0, 0.4, 0.8])
def test_ctrl_c_while_modules_are_imported(command, delay):
    code, written = press_ctrl_c([sys.executable, command, "import"], "READY", delay)
    assert (code, written.strip()) == (130, "Stopped.")


def test_ctrl_c_under_the_launcher(command):
    """The sentence is ours; the launcher has the same signal and adds its own traceback, which ends in its code."""
    _, written = press_ctrl_c([*LAUNCH, command, "main"], "READY", 0.1)
    assert written.count("Stopped.\n") == 1 and "command.py" not in written and "fgmm_tools" not in written


def test_a_signal_that_was_ignored_stays_ignored(command):
    """As that of Ctrl-C is by what shells run in the background."""
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        process = subprocess.Popen([sys.executable, command, "main"], stdout=subprocess.PIPE)
        assert process.stdout.readline() == b"READY\n"
    finally:
        signal.signal(signal.SIGINT, handler)
    process.send_signal(signal.SIGINT)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.5)
    process.kill()
    process.wait()


def test_ctrl_c_in_training_with_workers(narrated, tmp_path):
    words = training_arguments(narrated, tmp_path, max_steps=10_000, num_workers=2)
    code, written = press_ctrl_c([sys.executable, str(ROOT / "scripts/pretrain.py"), *words], "loss=")
    assert code == 130 and "Stopped.\n" in written and "Traceback" not in written and "Error" not in written
