"""What all commands share: options with their help, errors as one sentence, exit codes.

A command is two functions, `parse_arguments` and `main`, and ends in `run_command(parse_arguments, main)`. Imports that
take long stand in `main`, so that `--help` answers at once; nothing heavy is imported here.
"""

import argparse
import os
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import TypeVar

Arguments = TypeVar("Arguments")

# Exit codes: of a mistake that the user can mend, as argparse's; of Ctrl-C, 128 + SIGINT as shells have it.
USER_ERROR, INTERRUPTED = 2, 130


class UserError(Exception):
    """A mistake that the user can mend: one sentence that names what is wrong and the remedy."""


def run_command(parse_arguments: Callable[[], Arguments], main: Callable[[Arguments], None]) -> None:
    """Runs a command; the one place where an error or Ctrl-C becomes a sentence on stderr and an exit code.

    Args:
        parse_arguments: reads the command line; raises UserError, or exits as argparse does.
        main: does the work.

    Raises:
        SystemExit: with 2 after a UserError, CorpusError or MediaError, and with 130 after Ctrl-C.
    """
    interrupt = Interrupt()
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else whoever started us wants it ignored
        signal.signal(signal.SIGINT, interrupt)
        sys.unraisablehook = interrupt.in_callback
    try:
        main(parse_arguments())
    except BaseException as error:
        if interrupt.received:  # also where a library turned KeyboardInterrupt into an error of its own
            leave("Stopped.", INTERRUPTED)
        if isinstance(error, UserError) or is_package_error(error):
            leave(str(error), USER_ERROR)
        raise


class Interrupt:
    """Handles SIGINT: raises KeyboardInterrupt, or ends the process at once where that would print a traceback.

    A second SIGINT kills the process.
    """

    def __init__(self):
        self.received = False
        self.process = os.getpid()

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Handles the signal."""
        if os.getpid() != self.process:  # a forked worker: the parent has the same signal, and says so
            os._exit(0)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        self.received = True
        sys.excepthook = lambda *error: None  # threads of multiprocessing lose their workers now, and would print that
        if is_importing(frame):  # nothing is done yet, and C++ modules abort when Python raises as they initialise
            stop_at_once()
        raise KeyboardInterrupt

    def in_callback(self, unraisable) -> None:
        """Handles an exception in a destructor or callback, where Python prints KeyboardInterrupt and goes on."""
        if issubclass(unraisable.exc_type, KeyboardInterrupt):
            stop_at_once()
        sys.__unraisablehook__(unraisable)


def stop_at_once() -> None:
    """Ends the process as after Ctrl-C, without the interpreter's cleaning up."""
    os.write(sys.__stderr__.fileno(), b"Stopped.\n")
    os._exit(INTERRUPTED)


def stop_in_silence() -> None:
    """Makes Ctrl-C end this process without a word; the initializer of spawned workers, whose parent says it."""
    signal.signal(signal.SIGINT, lambda number, frame: os._exit(0))


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
    from processing_fgmm.media_fgmm import MediaError

    return isinstance(error, (CorpusError, MediaError))


def leave(sentence: str, code: int) -> None:
    """Ends the process with a sentence on stderr."""
    sys.stdout.flush()
    print(sentence, file=sys.stderr)
    sys.exit(code)


def make_parser(documentation: str, epilog: str | None = None) -> argparse.ArgumentParser:
    """A parser whose help is the command's docstring, then every option with its meaning, type and default."""
    return argparse.ArgumentParser(description=documentation, epilog=epilog, formatter_class=HelpFormatter)


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


def share(text: str) -> float:
    """A number from 0 to 1, for argparse's `type=`."""
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return value


share.__name__ = "float from 0 to 1"
