"""Time and memory of attended similarity, forward and backward: ours, the plain version, and the hard maximum.

    python scripts/benchmark_scoring.py --output model_cards/results/scoring_cpu.json
    python scripts/benchmark_scoring.py --batch_size 512 --variants tiled --repeats 1
    python scripts/benchmark_scoring.py --device cuda --dtype bfloat16 --batch_size 512 --dim 512

Each variant runs in a process of its own: first the fastest of some repeats, then the peak memory of one more forward
and backward pass beyond inputs and libraries. The rate counts the matrix products that a variant must make (3 for one
that keeps the cosines, 4 or 5 for one that recomputes them, 1 for a fused hard maximum, whose gradients only gather
rows); the limit is the rate of one plain product of the same size, measured in the same run.

On a GPU the fused hard maximum of two packages is measured too, where they are installed:

    pip install --no-deps late-interaction-kernels==0.4.5 flash-maxsim==0.3.0

They sum the result over the queries of an item, and multiply float32 inputs in float16 or TF32: only bfloat16 compares
like with like. Their backward passes may make more products than the one counted; their rate is a lower bound.
"""

import argparse
import dataclasses
import time
from pathlib import Path

from fgmm_tools.cli import at_least, make_parser, run_command

ON_CPU = ("plain", "compiled", "hard_maximum", "tiled")
ON_GPU = (*ON_CPU, "triton", "late_interaction_kernels", "flash_maxsim")


def parse_arguments() -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where it runs")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="of queries and keys")
    parser.add_argument("--batch_size", type=at_least(1), default=128, help="items of queries, and of keys")
    parser.add_argument("--num_phrases", type=at_least(1), default=16, help="queries of an item")
    parser.add_argument("--num_regions", type=at_least(1), default=196, help="keys of an item")
    parser.add_argument("--dim", type=at_least(1), default=256, help="dimensions of queries and keys")
    parser.add_argument("--repeats", type=at_least(1), default=5, help="passes, of which the fastest counts")
    parser.add_argument("--variants", nargs="+", choices=ON_GPU, default=[], help="else all that the device can run")
    parser.add_argument("--output", type=Path, help="results file (JSON)")
    return parser.parse_args()


def main(args: argparse.Namespace) -> None:
    from fgmm_tools.records import claim_output, describe_run, write_record
    from fgmm_tools.scoring_benchmark import BenchmarkSettings, find_versions, format_table, run_benchmark

    started = time.monotonic()
    if args.output:
        claim_output(args.output)
    names = [field.name for field in dataclasses.fields(BenchmarkSettings)]
    settings = BenchmarkSettings(**{name: getattr(args, name) for name in names})
    results = run_benchmark(settings, args.variants)
    print(format_table(results))
    if args.output:
        variants = [name for name in results if name != "product"]
        record = {
            "settings": {**dataclasses.asdict(settings), "variants": variants},
            "results": results,
            "versions": find_versions(),
            **describe_run(time.monotonic() - started),
        }
        write_record(args.output, record)
        print(f"Wrote {args.output}.")


if __name__ == "__main__":
    run_command(parse_arguments, main)
