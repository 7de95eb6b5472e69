"""Draws what phrases mean in clips: over frames and spectrograms the attention of each phrase of a caption.

    python scripts/draw_grounding.py --model outputs/fgmm-tiny --dataset data/narrated --output attention.png

A row is a clip with the caption that fits it best, a panel one of the phrases that contribute most to the caption's
scores: over the frame at the moment that it attends to most, or over the spectrogram, whichever it contributes more
to. What it does not attend to is faded; a box, or two lines, mark what has at least half of the most attention.
"""

import argparse
from pathlib import Path

from fgmm_tools.cli import add_corpus_arguments, at_least, make_parser, run_command


def parse_arguments() -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.add_argument("--model", required=True, help="model folder or name on the Hub")
    add_corpus_arguments(parser, split="test")
    parser.add_argument("--num_clips", type=at_least(1), default=4, help="clips that are drawn, the first of the split")
    parser.add_argument("--output", type=Path, required=True, help="PNG file for the picture")
    args = parser.parse_args()
    if args.output.suffix != ".png":
        parser.error("--output is a PNG file, with the ending .png")
    return args


def main(args: argparse.Namespace) -> None:
    from fgmm_tools.publishing.grounding_picture import draw_clips

    number = draw_clips(args.model, args.dataset, args.split, args.dataset_config, args.num_clips, args.output)
    print(f"Drew {number} clips into {args.output}.")


if __name__ == "__main__":
    run_command(parse_arguments, main)
