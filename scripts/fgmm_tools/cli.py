"""What all commands share: options with their help, errors as one sentence, exit codes.

A command is two functions, `parse_arguments` and `main`, and ends in `run_command(parse_arguments, main)`. Imports that
take long stand in `main`, so that `--help` answers at once; nothing heavy is imported here.
"""

import argparse
import atexit
import ctypes
import errno
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import TypeVar

Arguments = TypeVar("Arguments")

# Exit codes: of a mistake that the user can mend, as argparse's; of signals 128 + their number, as shells have it.
USER_ERROR, INTERRUPTED, TERMINATED = 2, 130, 143
# Seconds that a command has to end by itself after Ctrl-C.
PATIENCE = 1.5
# The largest seed of NumPy's random numbers.
MAX_SEED = 2**32 - 1
PR_SET_PDEATHSIG = 1  # of Linux' prctl
# What the system answers where the disk is full, and where a file cannot be written.
NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
UNWRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR)


class UserError(Exception):
    """A mistake that the user can mend: one sentence that names what is wrong and the remedy."""


class Terminated(BaseException):
    """A command has ended its work after SIGTERM: one sentence that says what is saved and how to continue."""


def run_command(parse_arguments: Callable[[], Arguments], main: Callable[[Arguments], None]) -> None:
    """Runs a command; the one place where an error or Ctrl-C becomes a sentence on stderr and an exit code.

    Args:
        parse_arguments: reads the command line; raises UserError, or exits as argparse does.
        main: does the work.

    Raises:
        SystemExit: with 2 after a UserError, CorpusError, MediaError or WorkerError, on a full disk, or where a file or
            the cache of the Hub's libraries may not be written, with 130 after Ctrl-C, and with 143 after Terminated.
    """
    interrupt = Interrupt()
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else whoever started us wants it ignored
        interrupt.install()
    try:
        main(parse_arguments())
    except BaseException as error:
        if interrupt.received:  # also where a library turned KeyboardInterrupt into an error of its own
            sys.stdout.flush()
            interrupt.say()
            sys.exit(INTERRUPTED)
        if isinstance(error, Terminated):
            leave(str(error) if is_first_process() else "", TERMINATED)
        if sentence := explain_cache(error):
            leave(sentence, USER_ERROR)
        if isinstance(error, UserError) or is_package_error(error):
            leave(str(error), USER_ERROR)
        if isinstance(error, OSError) and error.errno in NO_SPACE:
            where = f" to write {error.filename}" if error.filename else ""
            leave(f"There is no space left on the disk{where}; make room and run the command again.", USER_ERROR)
        if isinstance(error, OSError) and error.errno in UNWRITABLE and error.filename:
            leave(f"{error.filename} cannot be read or written: {error.strerror}.", USER_ERROR)
        raise


class Interrupt:
    """Handles SIGINT: raises KeyboardInterrupt, or ends the process at once where that would print a traceback.

    Python's handlers wait for C++ code to return, and what is unwound may wait for other processes: a thread ends the
    process after `PATIENCE` seconds in any case. A second SIGINT kills the process.
    """

    def __init__(self):
        self.received = False
        self.said = False
        self.process = os.getpid()

    def install(self) -> None:
        """Sets the handler, and starts the thread that the interpreter tells of signals even while C++ code runs."""
        signal.signal(signal.SIGINT, self)
        sys.unraisablehook = self.in_callback
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        os.register_at_fork(after_in_child=lambda: signal.set_wakeup_fd(-1))  # the signals of workers are their own
        threading.Thread(target=self.watch, args=(reader,), daemon=True).start()
        atexit.register(self.leave)  # the first of these functions is called last

    def watch(self, reader: int) -> None:
        """Waits for SIGINT, then ends the process if it has not ended by itself in time."""
        while signal.SIGINT not in os.read(reader, 4096):
            pass
        time.sleep(PATIENCE)
        self.stop_at_once()

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Handles the signal."""
        if os.getpid() != self.process:  # a forked worker: the parent has the same signal, and says so
            os._exit(0)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        self.received = True
        sys.excepthook = lambda *error: None  # threads of multiprocessing lose their workers now, and would print that
        if is_importing(frame):  # nothing is done yet, and C++ modules abort when Python raises as they initialise
            self.stop_at_once()
        raise KeyboardInterrupt

    def in_callback(self, unraisable) -> None:
        """Handles an exception in a destructor or callback, where Python prints KeyboardInterrupt and goes on."""
        if issubclass(unraisable.exc_type, KeyboardInterrupt):
            self.stop_at_once()
        sys.__unraisablehook__(unraisable)

    def say(self) -> None:
        """Says once, and in one of the processes that a launcher started, that the command was stopped."""
        if not self.said and is_first_process():
            os.write(sys.__stderr__.fileno(), b"Stopped.\n")
        self.said = True

    def leave(self) -> None:
        """Ends the process after Ctrl-C without taking all modules apart, which lasts for seconds."""
        if self.received and os.getpid() == self.process:
            os._exit(INTERRUPTED)

    def stop_at_once(self) -> None:
        """Ends the process as after Ctrl-C, without the interpreter's cleaning up."""
        self.say()
        os._exit(INTERRUPTED)


def stop_in_silence() -> None:
    """Makes Ctrl-C end this process without a word; its parent says it."""
    signal.signal(signal.SIGINT, lambda number, frame: os._exit(0))


def end_with_parent(number: int = signal.SIGKILL) -> None:
    """Has Linux send this process a signal when its parent ends, however that ends; a worker that waits for the next
    job, or a command that another one runs, would stay for ever."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, number)


def begin_worker() -> None:
    """The initialiser of a worker process: Ctrl-C ends it without a word, and it ends with its parent."""
    stop_in_silence()
    end_with_parent()


def ignore_termination(worker: int) -> None:
    """Lets a decoding process outlive SIGTERM, which schedulers send to a whole job; it ends with its parent.

    The `worker_init_fn` of a DataLoader.
    """
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def is_importing(frame: FrameType | None) -> bool:
    """Whether the frame runs within an import."""
    while frame:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            return True
        frame = frame.f_back
    return False


def is_package_error(error: BaseException) -> bool:
    """Whether it is one of processing_fgmm's errors that tell the user what to mend."""
    if not isinstance(error, Exception):
        return False
    from processing_fgmm.corpora_fgmm import CorpusError  # not at the top: they import torch
    from processing_fgmm.loaders_fgmm import WorkerError
    from processing_fgmm.media_fgmm import MediaError

    return isinstance(error, (CorpusError, MediaError, WorkerError))


def explain_cache(error: BaseException | None) -> str | None:
    """The sentence for an error that comes of the Hub's libraries not being able to write their cache; else None.

    They write there even to open a folder, and the cache is below the home folder unless told otherwise.
    """
    while error is not None:
        if isinstance(error, OSError) and isinstance(error.filename, str):
            from huggingface_hub.constants import HF_HOME  # not at the top: --help needs no such import

            cache, place = Path(HF_HOME).absolute(), Path(error.filename).absolute()
            not_made = cache.is_relative_to(place) and error.errno == errno.ENOENT
            if not_made or (error.errno in UNWRITABLE and (cache.is_relative_to(place) or place.is_relative_to(cache))):
                return (
                    f"The Hub's libraries cannot write to {place} ({error.strerror}); set the environment variable "
                    "HF_HOME to a folder that can be written."
                )
        error = error.__cause__ or error.__context__
    return None


def is_first_process() -> bool:
    """Whether this is the first of the processes that a launcher started on this machine, or the only one."""
    return os.environ.get("LOCAL_RANK", "0") == "0"


def leave(sentence: str, code: int) -> None:
    """Ends the process with a sentence on stderr, if any."""
    sys.stdout.flush()
    if sentence:
        print(sentence, file=sys.stderr)
    sys.exit(code)


def make_parser(documentation: str, epilog: str | None = None) -> argparse.ArgumentParser:
    """A parser whose help is the command's docstring, then every option with its meaning, type and default."""
    return argparse.ArgumentParser(
        description=documentation, epilog=epilog, formatter_class=HelpFormatter, allow_abbrev=False
    )


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Keeps the docstring's lines, and adds type and default to each option's help."""

    def _get_help_string(self, action: argparse.Action) -> str:
        if isinstance(action, argparse._HelpAction):
            return action.help
        required = action.required and action.nargs != argparse.ZERO_OR_MORE
        facts = ["required"] if required else []
        if action.nargs == 0:
            facts.append("a switch, off unless given")
        else:
            kind = "choice" if action.choices else getattr(action.type, "__name__", "str").lower()
            facts.append(f"type: {kind}" + (", one or several" if action.nargs in ("*", "+") else ""))
            if not required:
                facts.append(f"default: {format_default(action.default)}")
        return f"{action.help} ({', '.join(facts)})".replace("%", "%%")


def format_default(value) -> str:
    """A default as one would write it on the command line."""
    if value is None or value == []:
        return "none"
    return " ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def add_corpus_arguments(parser: argparse.ArgumentParser, split: str) -> None:
    """Adds `--dataset`, `--dataset_config` and `--split`, which most commands take."""
    parser.add_argument("--dataset", required=True, help="folder of Parquet shards or a dataset on the Hub")
    parser.add_argument("--dataset_config", help="which of its official splits or folds, where it has several")
    parser.add_argument("--split", default=split, help="split of the corpus")


def at_least(least: int) -> Callable[[str], int]:
    """A whole number that is not smaller, for argparse's `type=`."""

    def whole_number(text: str) -> int:
        if not text.lstrip("-").isdigit():
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number")
        if int(text) < least:
            raise argparse.ArgumentTypeError(f"{text} is less than {least}")
        return int(text)

    whole_number.__name__ = f"int from {least}"
    return whole_number


def seed(text: str) -> int:
    """A number that random numbers can be drawn from, for argparse's `type=`."""
    value = at_least(0)(text)
    if value > MAX_SEED:
        raise argparse.ArgumentTypeError(f"{text} is more than {MAX_SEED}")
    return value


seed.__name__ = "int from 0"


def share(text: str) -> float:
    """A number from 0 to 1, for argparse's `type=`."""
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return value


share.__name__ = "float from 0 to 1"
