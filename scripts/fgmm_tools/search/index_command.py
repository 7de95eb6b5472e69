"""What scripts/index_videos.py does, and fgmm-index, which an installation has."""

import argparse
import sys
from dataclasses import fields
from pathlib import Path

from ..cli import at_least, make_parser, run_command, share
from ..embedding.settings import PRECISIONS, EmbeddingSettings
from .settings import IndexSettings

DOCUMENTATION = "Indexes the videos, sounds and images in folders, so that fgmm-search finds moments in them."


def parse_arguments(documentation: str = DOCUMENTATION) -> argparse.Namespace:
    """Reads the command line.

    Args:
        documentation: what the help begins with.
    """
    parser = make_parser(documentation)
    parser.add_argument("--index", type=Path, required=True, help="folder of the index, new or old")
    parser.add_argument("--model", help="model folder or name on the Hub, needed for a new index")
    parser.add_argument("--videos", nargs="+", default=[], help="folders to index, beside those that the index has")
    parser.add_argument("--dataset", help="corpus to index, whose media are written into the index's folder")
    parser.add_argument("--dataset_config", help="which of its official splits or folds, where it has several")
    parser.add_argument("--split", default="train", help="split of the corpus")
    own = "of a new index"
    parser.add_argument("--window_seconds", type=float, help=f"length of a window {own}, s; none: the model's")
    parser.add_argument("--stride", type=share, help=f"from window to window {own}, share of its length; none: half")
    parser.add_argument("--num_regions", type=at_least(1), help=f"most regions of a window {own}; none: 32")
    parser.add_argument("--precision", choices=PRECISIONS, help=f"digits of regions {own}; none: int8")
    parser.add_argument("--batch_size", type=at_least(1), default=EmbeddingSettings.batch_size, help="windows at once")
    parser.add_argument("--num_workers", type=at_least(0), default=1, help="decoding processes")
    parser.add_argument("--watch", action="store_true", help="go on whenever something in the folders changes")
    return parser.parse_args()


def main(args: argparse.Namespace) -> None:
    from .files import check_folders
    from .folder import IndexFolder

    folder = IndexFolder(args.index)
    check_folders(args.videos)  # before the imports, which take seconds
    given = {field.name: getattr(args, field.name) for field in fields(IndexSettings)}
    given = {name: value for name, value in given.items() if value is not None}
    settings = IndexSettings(**given) if given else None

    from accelerate import PartialState

    from .indexing import Indexer

    with folder.locked():
        if args.dataset:
            args.videos.append(unpack(args, folder.media))
        options = {"batch_size": args.batch_size, "num_workers": args.num_workers, "device": PartialState().device}
        indexer = Indexer(folder, args.model, args.videos, settings, **options)
        manifest, report = indexer.update()
        print(summarize(manifest, report, folder.path))
        if args.watch:
            print("Watching for changes; Ctrl-C ends it.", flush=True)
            for manifest, report in indexer.watch():
                print(summarize(manifest, report, folder.path), flush=True)


def unpack(args: argparse.Namespace, media: Path) -> str:
    """Writes the media of the corpus below the folder `media`; returns the folder of its split."""
    from processing_fgmm.corpora_fgmm import load_corpus

    from .corpora import unpack_corpus

    folder = media / args.split
    folder.mkdir(parents=True, exist_ok=True)
    for problem in unpack_corpus(load_corpus(args.dataset, args.split, args.dataset_config), folder):
        print(problem, file=sys.stderr)
    return str(folder)


def summarize(manifest, report, folder: Path) -> str:
    """What an update did, as lines for the screen.

    Args:
        manifest, report: of [`Indexer.update`]. folder: of the index.
    """
    done = {
        "embedded": report.embedded,
        "copied": report.copied,
        "renamed": report.renamed,
        "forgotten": report.forgotten,
        "as they were": report.kept,
    }
    what = ", ".join(f"{number} {name}" for name, number in done.items() if number) or "nothing to do"
    lines = [f"Files: {what}, in {report.seconds:.1f} s."]
    if report.media_seconds:
        speed = report.media_seconds / report.seconds
        lines.append(f"{report.media_seconds / 3600:.2f} hours of media were embedded, {speed:.1f} x real time.")
    if report.damaged:
        lines.append(f"{report.damaged} of the files cannot be searched; {folder / 'problems.jsonl'} says why.")
    if report.changing:
        lines.append(f"{report.changing} files were written to while they were read; run the command again.")
    state = "complete" if manifest.complete else "not complete"
    lines.append(f"The index is {state}: {manifest.num_files} files, {manifest.num_windows} windows.")
    return "\n".join(lines)


def run() -> None:
    """The command fgmm-index."""
    run_command(parse_arguments, main)
