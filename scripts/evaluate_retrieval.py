r"""Retrieval between texts, videos (or images) and sounds of a prepared corpus.

    python scripts/evaluate_retrieval.py --model outputs/fgmm-tiny --dataset data/narrated --split test
    python scripts/evaluate_retrieval.py --model outputs/fgmm-tiny --dataset data/narrated \
        --score coarse_then_fine --num_windows 4 --output results.json
    python scripts/evaluate_retrieval.py --model outputs/fgmm-tiny --dataset data/youcook2 --each_caption
    accelerate launch --multi_gpu scripts/evaluate_retrieval.py --model outputs/fgmm-small --dataset data/msrvtt
    python scripts/evaluate_retrieval.py --model outputs/fgmm-tiny --dataset embeddings/narrated

All processes that accelerate launch starts encode, and the figures are the same for any number of them. --dataset may
be a folder of scripts/embed_corpus.py in place of the media.

Each caption of an item is a query of its own, or with --join_captions all of them are one. The scores are what the
model's objective trains (trained), of regions with phrases (fine), of one vector each (coarse), or coarse for all and
fine for the best of these (coarse_then_fine).

Clips without sound are among the items of text-audio and audio-video retrieval and count as errors, as queries and as
right answers (the convention of AVLnet); with --skip_silent they are left out of both. --random_init gives the floor.
"""

import argparse
from dataclasses import fields
from pathlib import Path

from fgmm_tools.cli import add_corpus_arguments, at_least, make_parser, run_command, seed
from fgmm_tools.retrieval.settings import SCORES, RetrievalSettings


def parse_arguments() -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.add_argument("--model", required=True, help="model folder or name on the Hub")
    add_corpus_arguments(parser, split="test")
    parser.add_argument("--score", choices=SCORES, help="what ranks the items")
    parser.add_argument("--rerank_k", type=at_least(1), help="how many coarse_then_fine scores finely")
    parser.add_argument("--random_init", action="store_true", help="the model's architecture with random weights")
    parser.add_argument("--seed", type=seed, default=0, help="of random weights")
    parser.add_argument(
        "--num_windows", type=at_least(1), help="windows of each item; none: the middle one, or all that are embedded"
    )
    parser.add_argument("--each_caption", action="store_true", help="each timed caption is an item, not each row")
    parser.add_argument("--join_captions", action="store_true", help="an item's captions are one query, not each")
    parser.add_argument("--skip_silent", action="store_true", help="clips without sound are left out, not errors")
    parser.add_argument("--batch_size", type=at_least(1), help="windows encoded at once")
    parser.add_argument("--num_workers", type=at_least(0), help="decoding processes")
    parser.add_argument("--output", type=Path, help="JSON file for the results")
    parser.set_defaults(**{field.name: field.default for field in fields(RetrievalSettings)})
    return parser.parse_args()


def main(args: argparse.Namespace) -> None:
    from fgmm_tools.records import claim_results, describe_run, read_training_record, write_record

    if args.output:
        claim_results(args.output)  # before the imports, which take seconds

    import time
    from collections import Counter

    from accelerate import Accelerator
    from accelerate.utils import InitProcessGroupKwargs

    from fgmm_tools.embedding.stored import open_embeddings
    from fgmm_tools.models import load_model, with_random_weights
    from fgmm_tools.retrieval.evaluation import describe_protocol, evaluate_retrieval, format_table
    from fgmm_tools.retrieval.settings import LONGEST_WAIT
    from processing_fgmm.corpora_fgmm import load_corpus

    accelerator = Accelerator(kwargs_handlers=[InitProcessGroupKwargs(timeout=LONGEST_WAIT)])
    started, seconds = time.monotonic(), Counter(encoding=0.0, coarse_scoring=0.0, fine_scoring=0.0)
    settings = RetrievalSettings(**{field.name: getattr(args, field.name) for field in fields(RetrievalSettings)})
    stored = open_embeddings(args.dataset, args.split, args.dataset_config)
    corpus = stored or load_corpus(args.dataset, args.split, args.dataset_config)
    model, processor = load_model(args.model)
    if args.random_init:
        model = with_random_weights(model, args.seed)
    if stored:
        stored.check_model(model, processor)
    share = {"rank": accelerator.process_index, "world_size": accelerator.num_processes}
    results = evaluate_retrieval(model.to(accelerator.device), processor, corpus, settings, seconds, **share)
    if results is None:
        return  # the first process measures and reports
    print(format_table(results))
    if args.output:
        training = None if args.random_init else read_training_record(args.model)
        with_sound = any("audio" in direction for direction in results)
        record = {
            "model": args.model,
            "dataset": args.dataset,
            "dataset_config": args.dataset_config,
            "split": args.split,
            "protocol": describe_protocol(settings, processor.clip_seconds, with_sound, args.random_init, stored),
            "metrics": results,
            "seed": args.seed if args.random_init else training and training["seed"],
            **describe_run(time.monotonic() - started),
            "seconds_of_stages": {stage: round(value, 3) for stage, value in seconds.items()},
            "training": training,
        }
        write_record(args.output, record)
        print(f"Wrote {args.output}.")


if __name__ == "__main__":
    run_command(parse_arguments, main)
