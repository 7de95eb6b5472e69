"""Trains the same encoders from the same seeds, on as many clips, under each loss, and compares what they retrieve.

    python scripts/compare_objectives.py losses plain --flickr8k Flickr8k
    python scripts/compare_objectives.py losses batch --flickr8k Flickr8k --seeds 0 1 2 --jobs 2
    python scripts/compare_objectives.py --figures

A study is a list of runs. Runs on photographs with their own captions (or with swapped ones) begin with random weights
and see all of Flickr8k's training photographs. Runs on slide shows go on from a start that all share, a model trained
by the coarse objective on the first START_PHOTOS photographs; their shows are made of the others. Runs on the narrated
corpus begin with random weights.

Each run makes its corpus where it is not there yet, pretrains, and is measured on the validation and the test split;
its results file holds its settings, and a run that has one is not repeated. Then the figures are made anew from all
results files, and scripts/update_cards.py fills the tables.
"""

import argparse
from pathlib import Path

from fgmm_tools.cli import make_parser, run_command
from fgmm_tools.publishing.studies import SEEDS, STUDIES, find_results, results_folder


def parse_arguments() -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.add_argument("studies", nargs="*", help=f"studies to run: {', '.join(STUDIES)}")
    parser.add_argument("--figures", action="store_true", help="run nothing, draw the figures alone")
    parser.add_argument(
        "--flickr8k", help="folder of Flickr8k in its publishers' layout; only noise studies do without"
    )
    parser.add_argument("--data", type=Path, default=Path("data/comparison"), help="folder for the corpora")
    parser.add_argument("--output_dir", type=Path, default=Path("outputs/comparison"), help="folder for the models")
    parser.add_argument(
        "--seeds",
        type=int,
        nargs="+",
        default=[0],
        choices=SEEDS,
        metavar="N",
        help="each run once with each of these, 0 to 9",
    )
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time; they share the processor's threads")
    parser.add_argument("--keep_models", action="store_true", help="do not delete models that are measured")
    args = parser.parse_args()
    if not args.studies and not args.figures:
        parser.error(f"name a study ({', '.join(STUDIES)}) or give --figures")
    if unknown := set(args.studies) - set(STUDIES):
        parser.error(f"there is no study {', '.join(sorted(unknown))}; there are {', '.join(STUDIES)}")
    args.runs = list(dict.fromkeys(run for name in args.studies for run in STUDIES[name].runs(args.seeds)))
    if any(run.noise is None for run in args.runs) and not (args.flickr8k and Path(args.flickr8k).is_dir()):
        parser.error("--flickr8k must name the folder of Flickr8k in its publishers' layout")
    return args


def main(args: argparse.Namespace) -> None:
    from fgmm_tools.publishing.figures import draw_all
    from fgmm_tools.publishing.study_runs import run_all

    done = find_results(args.runs)
    if waiting := [run for run in args.runs if run not in done]:
        run_all(waiting, args)
    draw_all()
    print(
        f"Drew figures from {len(list(results_folder().glob('*.json')))} results files; next: scripts/update_cards.py."
    )


if __name__ == "__main__":
    run_command(parse_arguments, main)
