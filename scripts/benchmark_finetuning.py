"""Time and memory of a step of fine-tuning CLIP by scripts/configs/finetune.yaml, and whether the loss falls.

    python scripts/benchmark_finetuning.py --dataset data/flickr8k-slides --output outputs/finetuning.json
    python scripts/benchmark_finetuning.py --dataset data/flickr8k-slides --model tiny --steps 60 --variants everything

The weights are random, ViT-B/32 or two small layers, for time and memory do not depend on them; so nothing is
downloaded. Each variant is a run of scripts/pretrain.py in a process of its own; the time is the median of the steps
after the first, decoding included, the memory the largest resident memory of the process (on a GPU that of the CPU).
"""

import argparse
import dataclasses
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from fgmm_tools.cli import at_least, make_parser, run_command

MODELS = ("vit-b-32", "tiny")
VARIANTS = ("adapters", "projections", "everything")


def parse_arguments() -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.add_argument("--dataset", required=True, help="corpus of videos with captions")
    parser.add_argument("--model", choices=MODELS, default=MODELS[0], help="architecture of CLIP")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=VARIANTS, help="what is trained")
    parser.add_argument("--num_frames", type=at_least(1), default=8, help="frames of a clip")
    parser.add_argument("--batch_size", type=at_least(2), default=32, help="clips of a step")
    parser.add_argument(
        "--steps", type=at_least(1), default=3, help="of each variant; the first of several is not timed"
    )
    parser.add_argument("--output", type=Path, help="results file (JSON)")
    return parser.parse_args()


def main(args: argparse.Namespace) -> None:
    from fgmm_tools.finetuning_benchmark import (
        FinetuningSettings,
        check_installed,
        format_table,
        measure,
        save_random_clip,
    )
    from fgmm_tools.records import claim_output, describe_run, write_record

    started = time.monotonic()
    check_installed()
    if args.output:
        claim_output(args.output)
    names = [field.name for field in dataclasses.fields(FinetuningSettings)]
    settings = FinetuningSettings(**{name: getattr(args, name) for name in names})
    results = {}
    with TemporaryDirectory(prefix="finetuning-") as folder:
        start = save_random_clip(settings, Path(folder, "start"))
        for variant in args.variants:
            results[variant] = measure(settings, variant, start, Path(folder, variant))
            if args.output:  # after each, which may take an hour
                record = {"settings": dataclasses.asdict(settings), "results": results}
                write_record(args.output, {**record, **describe_run(time.monotonic() - started)})
    print(format_table(results))


if __name__ == "__main__":
    run_command(parse_arguments, main)
