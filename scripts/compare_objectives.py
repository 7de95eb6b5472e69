"""Trains the same encoders from the same seeds, on as many clips, under each loss, and compares their retrieval.

    python scripts/compare_objectives.py rates noise --sources DATA
    python scripts/compare_objectives.py batch --sources DATA --seeds 0 1 2 --jobs 2
    python scripts/compare_objectives.py noise --sources DATA --corpora narrated50 slides4_chatter2

A study is a list of runs about one claim: `noise`, `batch`, `compute`, `size` and `downstream` compare losses,
`options` the parts of the fine objective, and `rates` chooses the learning rate of each loss on the validation split,
for all the others. DATA holds the benchmarks in their publishers' layouts, in folders of their names: flickr8k, grid,
exercises; for `downstream` also ucf101, esc10, birds and gmdcsa. Runs on slide shows and exercises are initialised
from a model that was trained on photographs with the coarse objective; all others start from random weights.

A run makes its corpus where it does not exist, pretrains, and is measured on the validation and the test split. Its
results file in model_cards/results/comparison holds its settings, and a run that has one is not repeated.
scripts/update_cards.py fills the tables from them.
"""

import argparse
from pathlib import Path

from fgmm_tools.cli import at_least, make_parser, run_command
from fgmm_tools.paths import CARDS
from fgmm_tools.publishing.studies import SEEDS, STUDIES
from fgmm_tools.publishing.study_corpora import CORPORA
from fgmm_tools.publishing.study_results import read_runs


def parse_arguments() -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.add_argument("studies", nargs="+", help=f"what to run: {', '.join(STUDIES)}")
    parser.add_argument(
        "--sources", type=Path, required=True, help="folder of the benchmarks in their publishers' layouts"
    )
    parser.add_argument("--data", type=Path, default=Path("data/comparison"), help="folder for the corpora")
    parser.add_argument("--output_dir", type=Path, default=Path("outputs/comparison"), help="folder for the models")
    parser.add_argument(
        "--seeds", type=int, nargs="+", choices=SEEDS, metavar="N", help="of each run, 0 to 9; none: those of the study"
    )
    parser.add_argument(
        "--corpora", nargs="+", choices=CORPORA, metavar="NAME", help="of the runs; none: all of the study"
    )
    parser.add_argument("--jobs", type=at_least(1), default=1, help="runs at a time; they share the CPU threads")
    parser.add_argument("--keep_models", action="store_true", help="keep the models after they are measured")
    args = parser.parse_args()
    if unknown := set(args.studies) - set(STUDIES):
        parser.error(f"there is no study {', '.join(sorted(unknown))}; there are {', '.join(STUDIES)}")
    if not args.sources.is_dir():
        parser.error("--sources must name the folder of the benchmarks in their publishers' layouts")
    return args


def main(args: argparse.Namespace) -> None:
    results = CARDS / "results" / "comparison"
    for name in args.studies:
        study = STUDIES[name]
        for seed in args.seeds or study.seeds:
            # What the runs of a seed found may call for more of it, and settles what the next seed runs.
            while waiting := study.waiting_runs(seed, read_runs(results), args.corpora):
                from fgmm_tools.publishing.study_runs import Folders, run_studies

                folders = Folders(args.sources, args.data, args.output_dir, results)
                run_studies(waiting, folders, args.jobs, args.keep_models)
    print(f"There are {len(list(results.glob('*.json')))} results files; next: scripts/update_cards.py.")


if __name__ == "__main__":
    run_command(parse_arguments, main)
