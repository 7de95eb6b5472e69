"""Turns a benchmark in its publishers' layout into a corpus: Parquet shards with a dataset card.

    python scripts/prepare_dataset.py ucf101 --source UCF101 --output data/ucf101
    python scripts/prepare_dataset.py folder --source videos --output data/videos --num_proc 8
    python scripts/prepare_dataset.py flickr8k --source Flickr8k --output data/slides --slides 4 --chatter 2

Official splits and folds are configurations of the corpus, which share its rows: `load_dataset(FOLDER, "split1")`.
Missing and damaged entries are left out, counted, and the first of them named. The same command continues a run that
was stopped.

With --slides, photographs of the training split become slide shows whose captions describe one or two of the
photographs shown, and --chatter further ones. With --joined, the sound of neighbouring training clips is joined, with
the caption of one of them and --chatter further ones. With --swapped, a share of the training items get each other's
captions. The other splits stay as they are.
"""

import argparse
from pathlib import Path

from fgmm_tools.cli import UserError, at_least, make_parser, run_command, share
from fgmm_tools.corpora.benchmarks import BENCHMARKS, MODULES
from fgmm_tools.corpora.options import SLIDE_SIZE, RowSelection, TrainingNoise


def even_number(text: str) -> int:
    """A positive even number: H.264 halves the resolution of colours."""
    value = int(text)
    if value <= 0 or value % 2:
        raise argparse.ArgumentTypeError(f"{text} is not positive and even")
    return value


def parse_arguments() -> argparse.Namespace:
    parser = make_parser(__doc__, "\n".join(f"{purpose}: {', '.join(names)}" for purpose, names in BENCHMARKS.items()))
    parser.add_argument("name", choices=MODULES, metavar="NAME", help="the benchmark, one of those listed below")
    parser.add_argument("--source", type=Path, required=True, help="folder in the publishers' layout")
    parser.add_argument("--output", type=Path, required=True, help="folder for the corpus")
    parser.add_argument("--limit", type=at_least(1), help="most rows of each split, or part that splits share")
    parser.add_argument("--skip", type=at_least(0), default=0, help="leave out the first rows of the training split")
    parser.add_argument("--num_proc", type=at_least(1), default=2, help="shards written at a time")
    parser.add_argument("--slides", type=at_least(1), help="photographs in a slide show; none: no slide shows")
    parser.add_argument(
        "--slide_size", type=even_number, help=f"height and width of a slide, pixels; none: {SLIDE_SIZE}"
    )
    parser.add_argument(
        "--joined", type=at_least(2), help="neighbouring clips whose sound is joined; none: single clips"
    )
    parser.add_argument(
        "--chatter", type=at_least(0), default=0, help="captions of others in each slide show or joined clip"
    )
    parser.add_argument("--swapped", type=share, default=0.0, help="share of training items with others' captions")
    parser.add_argument("--seed", type=int, default=0, help="of slide shows, joined clips and swaps")
    args = parser.parse_args()
    if args.slide_size and not args.slides:
        parser.error("--slide_size needs --slides")
    if args.chatter and not (args.slides or args.joined):
        parser.error("--chatter needs --slides or --joined")
    return args


def main(args: argparse.Namespace) -> None:
    from fgmm_tools.corpora.preparation import prepare

    selection = RowSelection(args.limit, args.skip)
    noise = TrainingNoise(args.slides, args.slide_size, args.joined, args.chatter, args.swapped, args.seed)
    try:
        prepare(args.name, args.source, args.output, selection, noise, args.num_proc)
    except OSError as error:
        raise UserError(f"Stopped by an error of the file system: {error}; the same command continues.") from error


if __name__ == "__main__":
    run_command(parse_arguments, main)
