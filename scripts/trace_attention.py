"""Measures how much right and wrong region-phrase pairs weigh in the course of training, on clips with known noise.

    python scripts/trace_attention.py --model outputs/slides_fine --model outputs/slides_filip \
        --dataset data/comparison/slides4_chatter2 --split train --num_clips 256 \
        --output model_cards/pictures/attention_through_training.png \
        --results model_cards/results/attention_through_training.json
    python scripts/trace_attention.py --redraw --output attention.png \
        --results model_cards/results/attention_through_training.json

The clips are the first slide shows of a corpus made by scripts/prepare_dataset.py with --slides: of each caption it is
known which slide it describes, or that it is chatter, the caption of a photograph that is not shown. Of each checkpoint
of each model the weights are measured that its objective gives the regions, phrases and captions of each show:

- a phrase's attention over the regions, which sums to 1 (all on one region with filip; the same for every region with
  the objectives of pooled embeddings, coarse, mil_nce and siglip);
- a phrase's weight in its caption, which sums to 1 (with fine the caption as a whole is one more phrase);
- a caption's weight in its show, which sums to 1: its share of the numerator's gradient with fine and mil_nce; the same
  for every caption with coarse and siglip, and for every phrase with filip.

The weight of a region-phrase pair is the product of the three; those of a show sum to 1.
"""

import argparse
from pathlib import Path

from fgmm_tools.cli import at_least, make_parser, run_command


def parse_arguments() -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.add_argument("--model", action="append", default=[], help="model folder with its checkpoints; once for each")
    parser.add_argument("--dataset", help="folder of Parquet shards or a dataset on the Hub, with slide shows")
    parser.add_argument("--split", default="train", help="split of the corpus")
    parser.add_argument("--num_clips", type=at_least(1), default=256, help="slide shows, the first of the split")
    parser.add_argument("--redraw", action="store_true", help="measure nothing, draw the results file")
    parser.add_argument("--output", type=Path, required=True, help="PNG file for the figure")
    parser.add_argument(
        "--results", type=Path, required=True, help="JSON file for the results, or with --redraw of them"
    )
    args = parser.parse_args()
    if args.redraw:
        if not args.results.exists():
            parser.error(f"there is no results file {args.results} to draw")
    else:
        if not (args.model and args.dataset):
            parser.error("give --model and --dataset, or --redraw")
        if len({Path(folder).name for folder in args.model}) < len(args.model):
            parser.error("two model folders have the same name")
    return args


def main(args: argparse.Namespace) -> None:
    import json
    import time

    from fgmm_tools.publishing.attention_trace import draw, trace_models
    from fgmm_tools.records import describe_run

    if not args.redraw:
        started = time.monotonic()
        record = trace_models(args.model, args.dataset, args.split, args.num_clips)
        record |= describe_run(time.monotonic() - started)
        args.results.parent.mkdir(parents=True, exist_ok=True)
        args.results.write_text(json.dumps(record, indent=2, allow_nan=False) + "\n")
    draw(json.loads(args.results.read_text()), args.output)
    print(f"Drew {args.results} into {args.output}.")


if __name__ == "__main__":
    run_command(parse_arguments, main)
