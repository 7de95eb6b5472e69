"""Measures where and when a model finds what phrases name: pointing, overlap with boxes and seconds, and refusal.

    python scripts/evaluate_grounding.py --model outputs/fgmm-tiny --dataset data/narrated --dataset_config grounding \\
        --output model_cards/results/grounding_fine.json
    python scripts/evaluate_grounding.py --model outputs/mine --dataset data/flickr30k_entities --output results.json
    python scripts/evaluate_grounding.py --model outputs/mine --dataset data/vggss --threshold median

The corpus has the column `mentions` (see fgmm_tools/corpora/mentions.py): the narrated corpus, and prepare_dataset.py's
youcook2_interactions, grounding_youtube, flickr30k_entities and vggss. The words of a mention are a text of their own.
An objective of phrases is measured by its attention, one of pooled embeddings by the similarity of its unpooled
regions. In space every frame with boxes counts: the map of its moment must point into a box, and cover it. In time
clips are laid end to end. Confidence must tell own phrases from foreign ones, silence and noise. Beside each value are
those of a random point, the centre, and uniform attention. Thresholds are chosen on the training split.
"""

import argparse
from dataclasses import fields
from pathlib import Path

from fgmm_tools.cli import add_corpus_arguments, at_least, make_parser, run_command, seed
from fgmm_tools.grounding.settings import THRESHOLDS, GroundingSettings


def parse_arguments() -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.add_argument("--model", required=True, help="model folder or name on the Hub")
    add_corpus_arguments(parser, split="test")
    parser.add_argument("--threshold", choices=THRESHOLDS, help="the extent of a map: chosen in training, or its half")
    parser.add_argument("--train_split", help="split on which thresholds are chosen")
    parser.add_argument("--num_joined", type=at_least(1), help="clips end to end for the measurement in time; 1: none")
    parser.add_argument("--num_negatives", type=at_least(0), help="clips with which foreign phrases are compared")
    parser.add_argument("--limit", type=at_least(1), help="clips of each split that are measured at most")
    parser.add_argument("--random_init", action="store_true", help="the model's architecture with random weights")
    parser.add_argument("--seed", type=seed, help="of foreign phrases and random weights")
    parser.add_argument("--output", type=Path, help="JSON file for the results")
    parser.set_defaults(**{field.name: field.default for field in fields(GroundingSettings)})
    return parser.parse_args()


def main(args: argparse.Namespace) -> None:
    from fgmm_tools.records import claim_results, describe_run, read_training_record, write_record

    if args.output:
        claim_results(args.output)  # before the imports, which take seconds

    import time

    from accelerate import PartialState

    from fgmm_tools.grounding.evaluation import describe_protocol, evaluate_grounding, format_table
    from fgmm_tools.models import load_model, with_random_weights

    state, started = PartialState(), time.monotonic()
    if not state.is_main_process:
        return  # the whole evaluation is one process' work
    settings = GroundingSettings(**{field.name: getattr(args, field.name) for field in fields(GroundingSettings)})
    model, processor = load_model(args.model)
    if args.random_init:
        model = with_random_weights(model, args.seed)
    results = evaluate_grounding(
        model.to(state.device), processor, args.dataset, args.split, args.dataset_config, settings
    )
    print(format_table(results))
    if args.output:
        training = None if args.random_init else read_training_record(args.model)
        record = {
            "model": args.model,
            "objective": model.config.objective,
            "dataset": args.dataset,
            "dataset_config": args.dataset_config,
            "split": args.split,
            "protocol": describe_protocol(settings, model.config.objective, args.random_init),
            "metrics": results,
            "seed": args.seed if args.random_init else training and training["seed"],
            **describe_run(time.monotonic() - started),
            "training": training,
        }
        write_record(args.output, record)
        print(f"Wrote {args.output}.")


if __name__ == "__main__":
    run_command(parse_arguments, main)
