"""A page in the browser: give a video, a sound or a picture and a text, and see where and when its phrases are.

    python scripts/demo.py --model outputs/fgmm-tiny
    python scripts/demo.py --model org/fgmm-small --folder videos --port 8000
    python scripts/demo.py --index index

Files are uploaded, recorded, chosen among those of --folder, or found in the index of a folder that index_videos.py
made, with whose model they are then shown. Everything is computed on this machine, and nothing is sent elsewhere; only
this machine may open the page, unless --host says otherwise. Needs gradio: pip install ".[demo]".
"""

import argparse
from pathlib import Path

from fgmm_tools.cli import UserError, at_least, make_parser, run_command


def parse_arguments() -> argparse.Namespace:
    parser = make_parser(__doc__)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--model", help="model folder or name on the Hub")
    source.add_argument("--index", type=Path, help="index of a folder, which index_videos.py made; with its model")
    parser.add_argument("--folder", type=Path, help="folder of videos, sounds and pictures to choose from")
    parser.add_argument("--host", default="127.0.0.1", help="address that is listened on; 0.0.0.0: the network's, too")
    parser.add_argument("--port", type=at_least(1), default=7860, help="port that is listened on")
    return parser.parse_args()


def main(args: argparse.Namespace) -> None:
    if args.folder and not args.folder.is_dir():
        raise UserError(f"--folder {args.folder} is no folder; give one with videos, sounds or pictures.")
    try:
        from fgmm_tools.grounding.demo import Demo, serve
    except ModuleNotFoundError as error:
        raise UserError(f'The page needs {error.name}; install it with pip install ".[demo]".') from error
    if args.index:
        from fgmm_tools.search.video_index import VideoIndex

        index = VideoIndex(args.index)
        demo = Demo(index.model, index.processor, args.folder, index)
    else:
        from fgmm_tools.models import load_model

        demo = Demo(*load_model(args.model), args.folder)
    serve(demo, args.host, args.port)


if __name__ == "__main__":
    run_command(parse_arguments, main)
