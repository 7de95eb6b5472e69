r"""Serves a search over HTTP: moments as JSON, and the files in which they are.

    python scripts/serve_search.py --index index
    curl "http://127.0.0.1:8000/search?text=two+eggs+into+a+bowl&top=5"
    curl --data-binary @photo.jpg "http://127.0.0.1:8000/search/picture"

http://127.0.0.1:8000/openapi.json describes the interface, /docs shows it (with Swagger's scripts, from the net). It
listens on this machine alone; whoever can reach another --host sees the files of the index, for there are no passwords.
No other file is ever sent. The index may be brought up to date meanwhile: searches see its newest whole state.
"""

import argparse
from dataclasses import fields

from fgmm_tools.cli import at_least, make_parser, run_command
from fgmm_tools.search.serving_limits import ServingLimits


def parse_arguments() -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.add_argument("--index", required=True, help="folder that scripts/index_videos.py made")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=at_least(0), default=8000, help="to listen on; 0 takes a free one")
    parser.add_argument("--device", default="cpu", help="of the model, as torch names it")
    parser.add_argument("--max_upload", type=at_least(1), help="bytes of a query's sound, picture or clip")
    parser.add_argument("--timeout", type=float, help="seconds in which a file must arrive and a search be done")
    parser.add_argument("--max_searches", type=at_least(1), help="searches at work at once")
    parser.add_argument("--max_waiting", type=at_least(0), help="searches that wait, before others are turned away")
    parser.add_argument("--max_connections", type=at_least(1), help="open at once")
    parser.set_defaults(**{field.name: field.default for field in fields(ServingLimits)})
    return parser.parse_args()


def main(args: argparse.Namespace) -> None:
    limits = ServingLimits(**{field.name: getattr(args, field.name) for field in fields(ServingLimits)})

    from fgmm_tools.search.serving import serve
    from fgmm_tools.search.video_index import VideoIndex

    index = VideoIndex(args.index, args.device)
    serve(index, limits, args.host, args.port)


if __name__ == "__main__":
    run_command(parse_arguments, main)
