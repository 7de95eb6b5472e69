"""Renders the narrated corpus: short clips in which several things are visible, move and sound, with noisy captions.

    python scripts/make_narrated_corpus.py --output data/narrated --num_train 3000 --num_test 500 --noise 0.5 --seed 0
    python scripts/make_narrated_corpus.py --preview corpus.png

A clip shows three things on a patterned background. Shape gives a thing's timbre, size its pitch, motion its rhythm,
and two of the three can be heard. A caption describes a part of this in varied wording, and is up to 1.5 s early or
late. A share of the training captions, --noise, does not describe its clip: half of those are chatter, half describe
another clip. The other splits' captions are all true. The same command continues a run that was stopped.
"""

import argparse
from pathlib import Path

from fgmm_tools.cli import UserError, at_least, make_parser, run_command, seed, share


def parse_arguments() -> argparse.Namespace:
    parser = make_parser(__doc__)
    target = parser.add_mutually_exclusive_group(required=True)
    target.add_argument("--output", type=Path, help="folder for the corpus")
    target.add_argument("--preview", type=Path, help="only draw the first training clips with their captions: a PNG")
    parser.add_argument("--num_train", type=at_least(1), default=3000, help="training clips")
    parser.add_argument("--num_test", type=at_least(1), default=500, help="test clips")
    parser.add_argument("--num_validation", type=at_least(0), default=0, help="validation clips; 0: no such split")
    parser.add_argument(
        "--noise", type=share, default=0.5, help="share of training captions that do not describe their clip"
    )
    parser.add_argument("--seed", type=seed, default=0, help="of all clips")
    parser.add_argument("--num_proc", type=at_least(1), default=2, help="shards rendered at a time")
    return parser.parse_args()


def main(args: argparse.Namespace) -> None:
    from fgmm_tools.corpora.narrated import draw_preview, render_corpus

    if args.output:
        sizes = {"num_train": args.num_train, "num_test": args.num_test, "num_validation": args.num_validation}
        render_corpus(args.output, noise=args.noise, seed=args.seed, num_proc=args.num_proc, **sizes)
        print(f"{args.output} holds {args.num_train} training and {args.num_test} test clips.")
        return
    try:
        draw_preview(args.preview, args.seed, args.noise)
    except (OSError, ValueError) as error:
        raise UserError(f"--preview {args.preview} cannot be written: {error}; give another PNG file.") from error
    print(f"Wrote {args.preview}.")


if __name__ == "__main__":
    run_command(parse_arguments, main)
