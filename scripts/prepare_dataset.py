"""Turns a benchmark in its publishers' layout into a corpus: Parquet shards with a dataset card.

python scripts/prepare_dataset.py ucf101 --source UCF101 --output data/ucf101
python scripts/prepare_dataset.py folder --source videos --output data/videos --num_proc 8
python scripts/prepare_dataset.py flickr8k --source Flickr8k --output data/slides --slides 4 --chatter 2

Official splits or folds are configurations of the corpus, which share the rows: `load_dataset(FOLDER, "split1")`.
What is missing or damaged is left out, named and counted. A run that was stopped goes on where it was.

With --slides the training split of a corpus of photographs becomes slide shows whose captions tell of one or two of
the photographs shown, and --chatter captions of others. With --swapped a share of the training items have each other's
captions. The other splits stay as they are.
"""

import argparse
from pathlib import Path

from fgmm_tools.cli import UserError, at_least, make_parser, run_command, share
from fgmm_tools.corpora.names import CLASSIFICATION, PRETRAINING, RETRIEVAL

# Height and width of a slide where --slide_size is not given, pixels.
SLIDE_SIZE = 112


def even_number(text: str) -> int:
    """A positive even number: H.264 halves the resolution of colours."""
    value = int(text)
    if value <= 0 or value % 2:
        raise argparse.ArgumentTypeError(f"{text} is not positive and even")
    return value


def list_benchmarks() -> str:
    """The names, for --help."""
    kinds = {"retrieval": RETRIEVAL, "classification": CLASSIFICATION, "pretraining": PRETRAINING}
    return "\n".join(f"{kind}: {', '.join(names)}" for kind, names in kinds.items())


def parse_arguments() -> argparse.Namespace:
    parser = make_parser(__doc__, list_benchmarks())
    parser.add_argument(
        "name", choices=(*RETRIEVAL, *CLASSIFICATION, *PRETRAINING), metavar="NAME", help="a benchmark, see below"
    )
    parser.add_argument("--source", type=Path, required=True, help="folder in the publishers' layout")
    parser.add_argument("--output", type=Path, required=True, help="folder for the corpus")
    parser.add_argument(
        "--limit", type=at_least(1), help="most rows of each split, or of each shared part of splits; none: all"
    )
    parser.add_argument(
        "--skip", type=at_least(0), default=0, help="rows of the training split to leave out, the first"
    )
    parser.add_argument("--num_proc", type=at_least(1), default=2, help="shards written at a time")
    parser.add_argument("--slides", type=at_least(1), help="photographs of a slide show; none: no slide shows")
    parser.add_argument(
        "--slide_size", type=even_number, help=f"height and width of a slide, pixels; none: {SLIDE_SIZE}"
    )
    parser.add_argument("--chatter", type=at_least(0), default=0, help="captions of others in each slide show")
    parser.add_argument("--swapped", type=share, default=0.0, help="share of training items with others' captions")
    parser.add_argument("--seed", type=int, default=0, help="of slide shows and swaps")
    args = parser.parse_args()
    if (args.chatter or args.slide_size) and not args.slides:
        parser.error("--chatter and --slide_size need --slides")
    return args


def main(args: argparse.Namespace) -> None:
    from fgmm_tools.corpora.preparation import Noise, Rows, prepare

    noise = Noise(args.slides, args.slide_size, args.chatter, args.swapped, args.seed)
    try:
        prepare(args.name, args.source, args.output, Rows(args.limit, args.skip), args.num_proc, noise)
    except OSError as error:
        raise UserError(f"Stopped by an error of the file system: {error}; the same command goes on where it was.")


if __name__ == "__main__":
    run_command(parse_arguments, main)
