"""Turns your own files, or a benchmark in its publishers' layout, into a corpus: Parquet shards with a dataset card.

    python scripts/prepare_dataset.py folder --source videos --output data/videos --test_share 0.1 --num_proc 8
    python scripts/prepare_dataset.py classes --source photos --output data/photos --group_pattern "^[^/]+/([^_]+)"
    python scripts/prepare_dataset.py classes --source birds.csv --output data/birds --columns path=file label=species
    python scripts/prepare_dataset.py ucf101 --source UCF101 --output data/ucf101
    python scripts/prepare_dataset.py flickr8k --source Flickr8k --output data/slides --slides 4 --chatter 2

folder: videos, sounds and images in a folder and below it, with captions beside them: NAME.srt, NAME.vtt, NAME.json
(of Whisper, or of transformers' pipeline), NAME.txt (a caption of the whole a line), also NAME.mp4.srt and NAME.en.srt.
Files of one name are one row. Or a table (CSV) with the columns path and caption, and maybe start, end (s).

classes: a folder a class, or a table with the columns path and label.

Of both, folders named train, validation (val, valid, dev) and test at the top are splits, as is the column split of a
table; else --test_share and --validation_share are taken out of the training split, so that no group is in two splits:
the column group of a table, or what --group_pattern finds in the path without its extension. Every file is decoded in
part. What cannot be used is left out, and stands in OUTPUT/problems.jsonl with its path and the reason.

Official splits and folds of benchmarks are configurations of the corpus, which share its rows: `load_dataset(FOLDER,
"split1")`. The same command continues a run that was stopped.

The files of the corpus are the same for any --num_proc, and with --engine ray (the extra `ray`): on this machine, or on
the cluster that RAY_ADDRESS names, whose machines must see --source and --output under the same absolute paths.

With --slides, photographs of the training split become slide shows whose captions describe one or two of the
photographs shown, and --chatter further ones. With --joined, the sound of neighbouring training clips is joined, with
the caption of one of them and --chatter further ones. With --swapped, a share of the training items get each other's
captions. The other splits stay as they are.
"""

import argparse
import re
from dataclasses import fields, replace
from pathlib import Path

from fgmm_tools.cli import UserError, at_least, make_parser, run_command, seed, share
from fgmm_tools.corpora.benchmarks import BENCHMARKS, MODULES
from fgmm_tools.corpora.options import SLIDE_SIZE, TABLE_COLUMNS, OwnFiles, RowSelection, TrainingNoise


def even_number(text: str) -> int:
    """A positive even number: H.264 halves the resolution of colours."""
    value = int(text)
    if value <= 0 or value % 2:
        raise argparse.ArgumentTypeError(f"{text} is not positive and even")
    return value


def pattern(text: str) -> str:
    """A regular expression."""
    try:
        re.compile(text)
    except re.error as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no regular expression: {error}") from error
    return text


def column(text: str) -> tuple[str, str]:
    """NAME=OWN: what is expected, and how a table calls it, empty where it has no such column."""
    name, equals, own = text.partition("=")
    if name not in TABLE_COLUMNS or not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=OWN, where NAME is one of {', '.join(TABLE_COLUMNS)}")
    return name, own


def parse_arguments() -> argparse.Namespace:
    parser = make_parser(__doc__, "\n".join(f"{purpose}: {', '.join(names)}" for purpose, names in BENCHMARKS.items()))
    parser.add_argument("name", choices=MODULES, metavar="NAME", help="what is read, one of those listed below")
    parser.add_argument(
        "--source", type=Path, required=True, help="folder in the publishers' layout; of your own files also a CSV file"
    )
    parser.add_argument("--output", type=Path, required=True, help="folder for the corpus")
    parser.add_argument("--limit", type=at_least(1), help="most rows of each split, or part that splits share")
    parser.add_argument("--skip", type=at_least(0), default=0, help="leave out the first rows of the training split")
    parser.add_argument("--num_proc", type=at_least(1), default=2, help="worker processes")
    parser.add_argument(
        "--engine", choices=("processes", "ray"), default="processes", help="what schedules them, see above"
    )
    parser.add_argument(
        "--captions",
        choices=("required", "optional"),
        help="of your own files, whether those without are left out; none: of folder they are, of classes not",
    )
    parser.add_argument("--language", help="of the captions, where a file has several, as in NAME.de.srt")
    parser.add_argument(
        "--columns",
        type=column,
        nargs="+",
        default=[],
        metavar="NAME=OWN",
        help="own names of a table's columns; NAME= says that its column NAME is something else",
    )
    parser.add_argument("--label_separator", help="of a table of classes, what parts several labels of a file")
    parser.add_argument(
        "--group_pattern", type=pattern, help="of your own files: regular expression for what stays in one split"
    )
    parser.add_argument("--test_share", type=share, default=0.0, help="of your own files, that are for testing")
    parser.add_argument(
        "--validation_share", type=share, default=0.0, help="of your own files, that are for validation"
    )
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
    parser.add_argument("--seed", type=seed, default=0, help="of shares, slide shows, joined clips and swaps")
    args = parser.parse_args()
    if args.slide_size and not args.slides:
        parser.error("--slide_size needs --slides")
    if args.chatter and not (args.slides or args.joined):
        parser.error("--chatter needs --slides or --joined")
    if args.test_share + args.validation_share >= 1:
        parser.error("--test_share and --validation_share leave nothing to train on")
    return args


def main(args: argparse.Namespace) -> None:
    from fgmm_tools.corpora.preparation import prepare

    selection = RowSelection(args.limit, args.skip)
    noise = TrainingNoise(args.slides, args.slide_size, args.joined, args.chatter, args.swapped, args.seed)
    own_files = OwnFiles(**{field.name: getattr(args, field.name) for field in fields(OwnFiles)})
    own_files = replace(own_files, columns=dict(args.columns))
    try:
        prepare(args.name, args.source, args.output, selection, noise, args.num_proc, own_files, args.engine)
    except OSError as error:
        raise UserError(f"Stopped by an error of the file system: {error}; the same command continues.") from error


if __name__ == "__main__":
    run_command(parse_arguments, main)
