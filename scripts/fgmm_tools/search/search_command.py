"""What scripts/search_videos.py does, and fgmm-search, which an installation has."""

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import shorten

from ..cli import UserError, at_least, make_parser, run_command
from .settings import SearchSettings
from .times import format_time

DOCUMENTATION = "Finds moments in indexed videos, sounds and images by words, a sound, a picture or a clip."


def parse_arguments(documentation: str = DOCUMENTATION) -> argparse.Namespace:
    """Reads the command line.

    Args:
        documentation: what the help begins with.

    Raises:
        UserError: when not exactly one query is given.
    """
    parser = make_parser(documentation)
    parser.add_argument("text", nargs="?", help="what is seen, heard or said in the moment")
    parser.add_argument("--index", type=Path, required=True, help="folder of the index")
    parser.add_argument("--sound", type=Path, help="sound, or video with sound, that moments should sound like")
    parser.add_argument("--picture", type=Path, help="image that moments should look like")
    parser.add_argument("--clip", type=Path, help="video that moments should look and sound like")
    parser.add_argument("--start", type=float, default=0.0, help="where --clip or --sound begins, s")
    parser.add_argument("--end", type=float, help="where --clip or --sound ends, s; none: a window of the index later")
    parser.add_argument("--top", type=at_least(1), default=SearchSettings.top, help="moments at most")
    parser.add_argument(
        "--candidates", type=at_least(1), default=SearchSettings.candidates, help="windows ranked finely"
    )
    parser.add_argument("--in", dest="inside", help="folder or file that moments are in")
    parser.add_argument("--after", help="date, as 2026-05-31, at or after which files were changed last")
    parser.add_argument(
        "--spoken", type=float, default=SearchSettings.spoken, help="factor of the weight of subtitles; 0: without them"
    )
    parser.add_argument("--json", action="store_true", help="write the result as JSON on the screen")
    parser.add_argument("--html", type=Path, help="page with pictures to write")
    parser.add_argument("--export_clips", type=Path, help="folder into which moments are cut out as files")
    parser.add_argument("--edl", type=Path, help="edit list (CMX 3600) to write")
    parser.add_argument("--otio", type=Path, help="timeline (OpenTimelineIO) to write")
    args = parser.parse_args()
    given = [name for name in ("text", "sound", "picture", "clip") if getattr(args, name) is not None]
    if len(given) != 1:
        raise UserError(f"Give one of a text, --sound, --picture and --clip, not {' and '.join(given) or 'none'}.")
    return args


def main(args: argparse.Namespace) -> None:
    from ..records import claim_output

    for output in (args.html, args.edl, args.otio):
        if output is not None:
            claim_output(output)

    from accelerate import PartialState

    from .video_index import VideoIndex

    index = VideoIndex(args.index, PartialState().device)
    query = {kind: getattr(args, kind) for kind in ("text", "sound", "picture", "clip")}
    for kind in ("sound", "clip"):
        if query[kind] is not None:
            query[kind] = (query[kind], args.start, args.end)
    result = index.search(
        **query,
        top=args.top,
        inside=args.inside,
        after=args.after,
        spoken=args.spoken,
        candidates=args.candidates,
    )
    print(json.dumps(result.to_dict(), indent=2, ensure_ascii=False) if args.json else format_result(result))
    title = args.text or str(args.sound or args.picture or args.clip)
    for write in list_outputs(args, index, result, title):
        write()


def list_outputs(args: argparse.Namespace, index, result, title: str) -> Iterator[Callable[[], None]]:
    """What writes each file that was asked for, and says so on stderr.

    Args:
        index, result: the [`VideoIndex`] and its [`SearchResult`].
        title: what was searched for.
    """
    if args.edl is not None:
        from .timelines import write_edl

        yield lambda: report(write_edl(args.edl, title, result.moments), args.edl)
    if args.otio is not None:
        from .timelines import write_otio

        yield lambda: report(write_otio(args.otio, title, result.moments), args.otio)
    if args.export_clips is not None:
        from .clips import export_clips

        yield lambda: report(export_clips(args.export_clips, result.moments), args.export_clips)
    if args.html is not None:
        from .page import write_page

        yield lambda: report(write_page(args.html, index, result, title, args.text), args.html)


def report(problems: list[str], output: Path) -> None:
    """Says on stderr what was written, and what could not be."""
    for problem in problems:
        print(problem, file=sys.stderr)
    print(f"Wrote {output}.", file=sys.stderr)


def format_result(result) -> str:
    """A [`SearchResult`] as lines for the screen."""
    lines = []
    if result.unknown_words:
        lines.append(f"The model does not know: {', '.join(result.unknown_words)}.")
    if not result.complete:
        lines.append("The index is not complete; run index_videos.py.")
    if result.nothing_matches:
        lines.append("Nothing matches." if not result.moments else "Nothing matches; the nearest are:")
    for number, moment in enumerate(result.moments, 1):
        times = f"{format_time(moment.start)} to {format_time(moment.end)}" if moment.end else "image"
        lines.append(f"{number:3}. {moment.score:6.2f}  {times:22} {printable(moment.path)}")
        if moment.spoken:
            lines.append(f"{'':14}“{shorten(moment.spoken, 100)}”")
        if moment.duplicates:
            lines.append(f"{'':14}and {len(moment.duplicates)} that show nearly the same")
    return "\n".join(lines)


def printable(text: str) -> str:
    """A text without what would move the cursor of a terminal."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)


def run() -> None:
    """The command fgmm-search."""
    run_command(parse_arguments, main)
