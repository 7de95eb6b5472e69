"""Renders the narrated corpus: short clips in which several things show, move and sound, and are spoken of.

    python scripts/make_narrated_corpus.py --output data/narrated --num_train 3000 --num_test 500 --noise 0.5 --seed 0
    python scripts/make_narrated_corpus.py --output data/narrated --preview corpus.png

A clip shows three things on a patterned background. Shape gives a thing's timbre, size its pitch, motion its rhythm,
and two of the three can be heard. A caption speaks of some of what is there, in varied wording, up to LAG seconds early
or late. In training a share of captions, `--noise`, says nothing about its clip: half of those are chatter, half were
said of another clip. Test captions are all true.
"""

import argparse
from pathlib import Path

from fgmm_tools.cli import make_parser, run_command


def parse_arguments() -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.add_argument("--output", type=Path, required=True, help="folder for the corpus")
    parser.add_argument("--num_train", type=int, default=3000, help="training clips")
    parser.add_argument("--num_test", type=int, default=500, help="test clips")
    parser.add_argument("--noise", type=float, default=0.5, help="share of captions that say nothing about their clip")
    parser.add_argument("--seed", type=int, default=0, help="of what the clips show and say")
    parser.add_argument("--num_proc", type=int, default=2, help="shards rendered at a time")
    parser.add_argument("--preview", type=Path, help="PNG file; draw some clips into it, and render no corpus")
    args = parser.parse_args()
    if args.num_train < 1 or args.num_test < 1 or args.num_proc < 1:
        parser.error("--num_train, --num_test and --num_proc must be at least 1")
    if args.seed < 0:
        parser.error(f"--seed is 0 or more, not {args.seed}")
    if not 0 <= args.noise <= 1:
        parser.error(f"--noise is a share from 0 to 1, not {args.noise}")
    return args


def main(args: argparse.Namespace) -> None:
    from fgmm_tools.corpora.narrated import draw_preview, render_corpus

    if args.preview:
        draw_preview(args.preview, args.seed)
        return
    render_corpus(args.output, args.num_train, args.num_test, args.noise, args.seed, args.num_proc)
    print(f"{args.output} holds {args.num_train} training and {args.num_test} test clips.")


if __name__ == "__main__":
    run_command(parse_arguments, main)
