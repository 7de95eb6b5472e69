"""Measures what trackers cost: the same training steps with and without them, in turn, in one run.

    python scripts/benchmark_monitoring.py --config scripts/configs/fgmm-tiny.yaml --dataset data/narrated \\
        --output model_cards/results/monitoring.json

Two models are trained from the same weights on the same clips, which are decoded before: one with trackers, which are
told every log_steps steps, one without. The ratio of their times needs an idle machine; the cost is the share of time
that is spent in what trackers are told, and that of a picture by picture_steps steps. That both models end with the
same weights is checked.
"""

import argparse
import time
from pathlib import Path

from fgmm_tools.cli import UserError, at_least, make_parser, run_command


def parse_arguments() -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.add_argument("--config", required=True, help="training configuration")
    parser.add_argument("--dataset", required=True, help="corpus, in place of that of the configuration")
    parser.add_argument("--trackers", nargs="+", default=["tensorboard"], help="accelerate's trackers")
    parser.add_argument("--blocks", type=at_least(1), default=10, help="of log_steps steps, with and without trackers")
    parser.add_argument("--batch_size", type=at_least(2), help="in place of that of the configuration")
    parser.add_argument("--log_steps", type=at_least(1), help="in place of that of the configuration")
    parser.add_argument("--output", type=Path, required=True, help="results file (JSON)")
    return parser.parse_args()


def main(args: argparse.Namespace) -> None:
    from fgmm_tools.records import claim_output, describe_run, write_record
    from fgmm_tools.training.checks import check_config
    from fgmm_tools.training.configuration import parse_config
    from fgmm_tools.training.tracking_benchmark import measure_tracking

    claim_output(args.output)
    fields = {"dataset": args.dataset, "output_dir": "unused", "trackers": f"[{', '.join(args.trackers)}]"}
    fields |= {name: value for name in ("batch_size", "log_steps") if (value := getattr(args, name))}
    words = [str(word) for name, value in fields.items() for word in (f"--{name}", value)]
    config = parse_config(["--config", args.config, *words])
    check_config(config)
    started = time.monotonic()
    metrics = measure_tracking(config, args.blocks)
    settings = {name: getattr(config, name) for name in ("trackers", "batch_size", "log_steps", "picture_steps")}
    record = {
        "model": Path(args.config).stem,
        "dataset": Path(args.dataset).name,
        "protocol": f"{args.blocks} blocks of {config.log_steps} steps with trackers, and as many without, in turn",
        "settings": settings,
        "metrics": metrics,
        **describe_run(time.monotonic() - started),
    }
    write_record(args.output, record)
    for name, value in metrics.items():
        print(f"{name}: {value}")
    if not metrics["same_weights"]:
        raise UserError(f"The weights with and without trackers differ; {args.output} has the times.")


if __name__ == "__main__":
    run_command(parse_arguments, main)
