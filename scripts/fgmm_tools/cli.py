"""What every command does at its edges: arguments, errors in one sentence, exit codes.

Nothing heavy is imported here, so that `--help` answers at once: a command parses its arguments first and imports what
does the work in its `main`.
"""

import argparse
import sys
from collections.abc import Callable

# Of a mistake that the user can mend, and of Ctrl-C (128 + SIGINT).
USER_ERROR, INTERRUPTED = 2, 130


class UserError(Exception):
    """What the user can mend: one sentence that names the thing and the remedy."""


def run_command(parse_arguments: Callable[[], argparse.Namespace], main: Callable[[argparse.Namespace], None]) -> None:
    """Runs a command; the one place where errors become a sentence on stderr and an exit code.

    Args:
        parse_arguments: reads the command line; exits with 2 itself where it is wrong, as argparse does.
        main: does the work.
    """
    try:
        main(parse_arguments())
    except KeyboardInterrupt:
        leave("Stopped.", INTERRUPTED)
    except Exception as error:
        # The packages, which take seconds to import, are looked up only for what may be theirs.
        if not isinstance(error, UserError) and not isinstance(error, package_errors()):
            raise
        leave(str(error), USER_ERROR)


def package_errors() -> tuple[type[Exception], ...]:
    """The errors of the packages that tell the user what to mend."""
    from processing_fgmm.corpora_fgmm import CorpusError
    from processing_fgmm.media_fgmm import MediaError

    return CorpusError, MediaError


def leave(sentence: str, code: int) -> None:
    """Ends the process with a sentence on stderr."""
    sys.stdout.flush()
    print(sentence, file=sys.stderr)
    sys.exit(code)


def make_parser(documentation: str, epilog: str | None = None) -> argparse.ArgumentParser:
    """A parser whose help is the command's docstring, then every option with its type, default and meaning."""
    return argparse.ArgumentParser(description=documentation, epilog=epilog, formatter_class=HelpFormatter)


class HelpFormatter(argparse.RawDescriptionHelpFormatter, argparse.ArgumentDefaultsHelpFormatter):
    """Keeps the docstring's lines, and adds the default to each option's help."""


def add_corpus_arguments(parser: argparse.ArgumentParser, split: str) -> None:
    """`--dataset`, `--dataset_config` and `--split`, which most commands take."""
    parser.add_argument("--dataset", required=True, help="folder of Parquet shards or a dataset on the Hub")
    parser.add_argument("--dataset_config", help="which of its official splits or folds, where it has several")
    parser.add_argument("--split", default=split, help="of the corpus")


def at_least(least: int) -> Callable[[str], int]:
    """A whole number that is not smaller, for argparse's `type=`."""

    def whole_number(text: str) -> int:
        if not text.lstrip("-").isdigit():
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number")
        if int(text) < least:
            raise argparse.ArgumentTypeError(f"{text} is less than {least}")
        return int(text)

    return whole_number


def share(text: str) -> float:
    """A number from 0 to 1, for argparse's `type=`."""
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return value
