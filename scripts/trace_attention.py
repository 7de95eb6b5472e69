"""Follows through training how much right and wrong region-phrase pairs weigh, on clips whose noise is known.

    python scripts/trace_attention.py --model outputs/slides_fine --model outputs/slides_filip \
        --dataset data/comparison/slides4_chatter2 --split train --num_clips 256 \
        --output model_cards/pictures/attention_through_training.png \
        --results model_cards/results/attention_through_training.json
    python scripts/trace_attention.py --redraw --output attention.png \
        --results model_cards/results/attention_through_training.json

The clips are the first slide shows of a corpus that scripts/prepare_dataset.py made with --slides: of each of their
captions it is known which slide it tells of, or that it is chatter about a photograph that is not shown. Each
checkpoint of each model weighs the regions, the phrases and all captions of each show against each other:

- a phrase's attention over the regions, softmax of γ·S (the best region alone where the objective takes the maximum,
  every region alike where it compares pooled vectors);
- a phrase's weight in its caption, softmax of δ·s and its gate (all alike where the objective has neither); in the fine
  objective the caption as a whole counts as one more phrase, of weight whole_caption_weight;
- a caption's weight in its show, softmax of the logit scale times the score that the objective trains. That is its
  share of the numerator's gradient where captions share one (mil_nce, fine with contrast_bag); the others take all
  captions of a clip alike (coarse, siglip) or as one text (filip), and for them it is only what their scores say.

The weight of a pair is the product of the three; the pairs of a show sum to 1.
"""

import argparse
from pathlib import Path

from fgmm_tools.cli import make_parser, run_command


def parse_arguments() -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.add_argument("--model", action="append", default=[], help="model folder with its checkpoints; once for each")
    parser.add_argument("--dataset", help="folder of Parquet shards or a dataset on the Hub, with slide shows")
    parser.add_argument("--split", default="train", help="split of the corpus")
    parser.add_argument("--num_clips", type=int, default=256, help="slide shows, the first of the split")
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
