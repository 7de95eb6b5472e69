"""Time and memory of attended similarity, forward and backward: ours, the plain version, and the hard maximum.

    python scripts/benchmark_scoring.py --output model_cards/results/scoring_cpu.json
    python scripts/benchmark_scoring.py --batch_size 512 --variants tiled --repeats 1
    python scripts/benchmark_scoring.py --device cuda --dtype bfloat16 --batch_size 512 --dim 512

Every variant runs in a process of its own, one after the other: first the best of some repeats, then the most memory
that one more forward and backward pass holds beyond inputs and libraries. The rate counts the products that a variant
must make (3 for one that keeps the cosines, 4 or 5 for one that makes them again, 1 for a fused hard maximum, whose
gradients only gather rows); the limit is the rate of one plain product of the same size, measured in the same run.

On a GPU the fused hard maximum of two packages is measured too, where they are installed:

    pip install --no-deps late-interaction-kernels==0.4.5 flash-maxsim==0.3.0

They sum the result over an item's queries, and multiply float32 inputs in float16 or TF32: only bfloat16 compares like
with like. Their backward passes may make more products than the one that is counted, so that their rate is the least.
"""

import argparse
from pathlib import Path

from fgmm_tools.cli import make_parser, run_command

ON_CPU = ("plain", "compiled", "hard_maximum", "tiled")
ON_GPU = (*ON_CPU, "triton", "late_interaction_kernels", "flash_maxsim")


def parse_arguments() -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where it is measured")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="of queries and keys")
    parser.add_argument("--batch_size", type=int, default=128, help="items of queries, and of keys (B)")
    parser.add_argument("--num_phrases", type=int, default=16, help="queries an item (M)")
    parser.add_argument("--num_regions", type=int, default=196, help="keys an item (N)")
    parser.add_argument("--dim", type=int, default=256, help="dimensions of a query (D)")
    parser.add_argument("--repeats", type=int, default=5, help="runs of each variant, of which the fastest counts")
    parser.add_argument("--variants", nargs="+", choices=ON_GPU, help="what is measured; none: all for the device")
    parser.add_argument("--output", type=Path, help="JSON file for the results; none: they are printed only")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    return parser.parse_args()


def main(args: argparse.Namespace) -> None:
    from fgmm_tools.scoring_benchmark import benchmark

    benchmark(args)


if __name__ == "__main__":
    run_command(parse_arguments, main)
