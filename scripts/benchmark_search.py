r"""Measures search: how much it finds, how fast, and in how much memory.

    python scripts/benchmark_search.py --model outputs/fgmm-tiny --narrated data/narrated --work outputs/search \
        --flickr8k data/flickr8k --flickr8k_model outputs/flickr8k --data benchmarks \
        --output model_cards/results/search.json
    python scripts/benchmark_search.py --model outputs/mine --narrated data/narrated --work outputs/search \
        --parts moments --moments QVHighlights --output moments.json

The parts are `recall` (coarse, then fine for the best, against fine for all), `regions` (fewer of them, with fewer
digits), `latency` (a query among a million random vectors: an index' own, NumPy, LanceDB), `moments` (of videos that
are stitched from clips of the narrated corpus, UCF101 and GRID; of QVHighlights or Charades-STA with --moments),
`updating` (a hundredth more files) and `load` (many clients of scripts/serve_search.py). Each adds its metrics to the
results file when it is done; parts that are not named stay as they are in it.
"""

import argparse
from dataclasses import fields
from pathlib import Path

from fgmm_tools.cli import at_least, make_parser, run_command, seed
from fgmm_tools.search_benchmark.settings import MOMENT_LISTS, PARTS, BenchmarkSettings


def parse_arguments() -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.add_argument("--model", required=True, help="model folder or name on the Hub")
    parser.add_argument("--narrated", required=True, help="folder of the narrated corpus")
    parser.add_argument("--work", type=Path, required=True, help="folder for what is made on the way")
    parser.add_argument("--output", type=Path, required=True, help="results file (JSON), new or to be added to")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="what is measured")
    parser.add_argument("--flickr8k", help="prepared corpus, of a second measurement of recall and regions")
    parser.add_argument("--flickr8k_model", help="model for it, if another one")
    parser.add_argument(
        "--data", type=Path, help="folder with published ucf101 and grid, whose clips are stitched, too"
    )
    parser.add_argument("--moments", type=Path, help="published QVHighlights or Charades-STA, not stitched videos")
    parser.add_argument("--moment_list", choices=MOMENT_LISTS, help="which of the two it is")
    parser.add_argument("--candidates", type=at_least(1), help="windows of a query that are scored finely")
    parser.add_argument("--num_vectors", type=at_least(1000), help="random vectors")
    parser.add_argument("--dim", type=at_least(1), help="dimensions of random vectors")
    parser.add_argument("--num_queries", type=at_least(1), help="queries whose time is taken")
    parser.add_argument("--clips", type=at_least(1), help="of each corpus that are stitched, at most")
    parser.add_argument("--clips_a_video", type=at_least(2), help="in a stitched video")
    parser.add_argument("--num_files", type=at_least(1), help="of the index that a hundredth is added to")
    parser.add_argument("--clients", type=at_least(1), help="of a served search, at once")
    parser.add_argument("--num_workers", type=at_least(0), help="decoding processes")
    parser.add_argument("--seed", type=seed, help="of all that is random")
    parser.add_argument("--note", help="what a reader of the results should know, kept with each part")
    defaults = {field.name: field.default for field in fields(BenchmarkSettings)}
    parser.set_defaults(
        **{name: value for name, value in defaults.items() if name not in ("model", "narrated", "work")}
    )
    return parser.parse_args()


def main(args: argparse.Namespace) -> None:
    from fgmm_tools.records import claim_output
    from fgmm_tools.search_benchmark.record import run_parts

    claim_output(args.output)
    settings = BenchmarkSettings(**{field.name: getattr(args, field.name) for field in fields(BenchmarkSettings)})
    run_parts(args.parts, settings, args.output, args.note)


if __name__ == "__main__":
    run_command(parse_arguments, main)
