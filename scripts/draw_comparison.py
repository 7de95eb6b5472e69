"""Draws what the studies of scripts/compare_objectives.py found, from their results files.

python scripts/draw_comparison.py
"""

import argparse
from pathlib import Path

from fgmm_tools.cli import make_parser, run_command
from fgmm_tools.paths import CARDS


def parse_arguments() -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.add_argument("--output", type=Path, default=CARDS / "pictures" / "comparison.png", help="the picture, a PNG")
    return parser.parse_args()


def main(args: argparse.Namespace) -> None:
    from fgmm_tools.publishing.claims_picture import draw_claims
    from fgmm_tools.publishing.study_results import read_runs

    draw_claims(read_runs(CARDS / "results" / "comparison"), args.output)
    print(f"Wrote {args.output}.")


if __name__ == "__main__":
    run_command(parse_arguments, main)
