"""Measures what one training clip of a configuration costs, from which model_cards/scale.md works out large runs.

    python scripts/benchmark_scale.py --config scripts/configs/fgmm-small.yaml --videos clips/*.mp4 \\
        --output model_cards/results/scale.json

The pictures of the videos are written into one file of the length, size and bit rate of those in HowTo100M. Windows of
it are decoded and made model inputs on one thread, and the core seconds of that are counted; the floating-point
operations of a training step are counted on two clips, and do not depend on the machine.
"""

import argparse
from pathlib import Path

from fgmm_tools.cli import at_least, make_parser, run_command


def parse_arguments() -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.add_argument("--config", required=True, help="training configuration")
    parser.add_argument("--videos", nargs="+", required=True, help="files of video, for their pictures")
    parser.add_argument("--num_clips", type=at_least(1), default=100, help="windows that are decoded")
    parser.add_argument("--output", type=Path, required=True, help="results file (JSON)")
    return parser.parse_args()


def main(args: argparse.Namespace) -> None:
    import time

    import torch

    from fgmm_tools.paths import check_exists
    from fgmm_tools.publishing.clip_cost import describe_video, measure_clip
    from fgmm_tools.records import claim_output, describe_run, write_record
    from fgmm_tools.training.configuration import parse_config

    claim_output(args.output)
    config = parse_config(["--config", args.config])
    for path in args.videos:
        check_exists(Path(path), "give files of video")
    torch.set_num_threads(1)
    started = time.monotonic()
    metrics = measure_clip(config, args.videos, args.num_clips)
    record = {
        "model": Path(args.config).stem,
        "dataset": "a video as those of HowTo100M",
        "protocol": f"{args.num_clips} windows at random places of {describe_video()}",
        "metrics": metrics,
        **describe_run(time.monotonic() - started),
    }
    write_record(args.output, record)
    for name, value in metrics.items():
        print(f"{name}: {value:,.6g}")


if __name__ == "__main__":
    run_command(parse_arguments, main)
