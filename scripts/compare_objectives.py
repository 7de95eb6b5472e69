"""Trains the same encoders from the same seeds, on as many clips, under each loss, and compares their retrieval.

    python scripts/compare_objectives.py losses plain --flickr8k Flickr8k
    python scripts/compare_objectives.py losses batch --flickr8k Flickr8k --seeds 0 1 2 --jobs 2
    python scripts/compare_objectives.py --figures

A study is a list of runs. Runs on photographs with their own or with swapped captions start from random weights and
see all training photographs of Flickr8k. Runs on slide shows are initialised from a model that was trained with the
coarse objective on the first 2,000 training photographs; their shows consist of the others. Runs on the narrated corpus
start from random weights.

A run makes its corpus where it does not exist, pretrains, and is measured on the validation and the test split. Its
results file in model_cards/results/comparison holds its settings, and a run that has one is not repeated. Finally all
figures are drawn from the results files; scripts/update_cards.py fills the tables.
"""

import argparse
from pathlib import Path

from fgmm_tools.cli import at_least, make_parser, run_command
from fgmm_tools.paths import CARDS
from fgmm_tools.publishing.studies import SEEDS, STUDIES
from fgmm_tools.publishing.study_results import find_results


def parse_arguments() -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.add_argument("studies", nargs="*", help=f"what to run: {', '.join(STUDIES)}")
    parser.add_argument("--figures", action="store_true", help="run nothing, only draw the figures")
    parser.add_argument("--flickr8k", type=Path, help="folder of Flickr8k in its publishers' layout")
    parser.add_argument("--data", type=Path, default=Path("data/comparison"), help="folder for the corpora")
    parser.add_argument("--output_dir", type=Path, default=Path("outputs/comparison"), help="folder for the models")
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=[0], choices=SEEDS, metavar="N", help="seeds of each run, from 0 to 9"
    )
    parser.add_argument("--jobs", type=at_least(1), default=1, help="runs at a time; they share the CPU threads")
    parser.add_argument("--keep_models", action="store_true", help="keep the models after they are measured")
    args = parser.parse_args()
    if not args.studies and not args.figures:
        parser.error(f"name a study ({', '.join(STUDIES)}) or give --figures")
    if unknown := set(args.studies) - set(STUDIES):
        parser.error(f"there is no study {', '.join(sorted(unknown))}; there are {', '.join(STUDIES)}")
    args.runs = list(dict.fromkeys(run for name in args.studies for run in STUDIES[name].runs(args.seeds)))
    if any(run.noise is None for run in args.runs) and not (args.flickr8k and args.flickr8k.is_dir()):
        parser.error("--flickr8k must name the folder of Flickr8k in its publishers' layout")
    return args


def main(args: argparse.Namespace) -> None:
    results = CARDS / "results" / "comparison"
    done = find_results(results, args.runs)
    retired = [run for run in args.runs if run.is_retired]
    if retired:
        print(f"{len(retired)} runs have options that are no longer in the code; their results are only read.")
    if waiting := [run for run in args.runs if run not in done and run not in retired]:
        from fgmm_tools.publishing.study_runs import Folders, run_studies

        run_studies(waiting, Folders(args.flickr8k, args.data, args.output_dir, results), args.jobs, args.keep_models)
    from fgmm_tools.publishing.study_figures import draw_studies

    draw_studies(results, CARDS / "pictures")
    print(f"Drew figures from {len(list(results.glob('*.json')))} results files; next: scripts/update_cards.py.")


if __name__ == "__main__":
    run_command(parse_arguments, main)
