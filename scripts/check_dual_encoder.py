"""Checks that a dual encoder is taken whole exactly: its embeddings and logits are compared with transformers'.

    python scripts/check_dual_encoder.py openai/clip-vit-base-patch32 --images photo.jpg other.png
    python scripts/check_dual_encoder.py laion/clap-htsat-unfused --audio bark.wav --text "a dog barks" "rain"

Loads the published weights twice, by FgmmModel.from_dual_encoder and by transformers' class, and the processors, and
prints the largest absolute differences in float32 on the given files; transformers encodes each of them alone, fgmm all
together. A difference above 1e-5 is an error (code 2). Of sounds longer than ten seconds CLAP's own processor takes
parts at random, so give shorter ones.
"""

import argparse
from pathlib import Path

from fgmm_tools.cli import UserError, make_parser, run_command

TEXTS = ["a photo of a dog", "Two people sit at a table.", "the sound of rain"]


def parse_arguments() -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.add_argument("model", help="dual encoder of transformers, a folder or name on the Hub")
    parser.add_argument("--images", nargs="+", type=Path, default=[], help="image files")
    parser.add_argument("--audio", nargs="+", type=Path, default=[], help="files with sound")
    parser.add_argument("--text", nargs="+", default=TEXTS, help="texts that they are compared with")
    args = parser.parse_args()
    if not args.images and not args.audio:
        parser.error("give --images or --audio, files that the models are compared on")
    return args


def main(args: argparse.Namespace) -> None:
    from fgmm_tools.dual_encoder_check import TOLERANCE, compare_with_transformers

    differences = compare_with_transformers(args.model, args.images, args.audio, args.text)
    for kind, values in differences.items():
        for name, value in values.items():
            print(f"{kind:8}{name:12}{value:.2e}")
    worst = max(value for values in differences.values() for value in values.values())
    if not worst <= TOLERANCE:  # in this form NaN is refused, too
        raise UserError(f"{args.model!r} differs from transformers by {worst:.2e}, more than {TOLERANCE:g}.")
    print(f"Equal to transformers within {TOLERANCE:g}.")


if __name__ == "__main__":
    run_command(parse_arguments, main)
