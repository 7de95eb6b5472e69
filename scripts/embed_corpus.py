r"""Embeds a corpus once: pooled embeddings and regions of all its windows as Parquet shards, for evaluation and search.

    python scripts/embed_corpus.py --model outputs/fgmm-tiny --dataset data/narrated --output embeddings/narrated
    python scripts/embed_corpus.py --model org/fgmm-small --dataset data/msrvtt --output embeddings/msrvtt \
        --split test --num_windows 4 --num_processes 8
    python scripts/embed_corpus.py --model org/fgmm-small --dataset data/howto100m --output /shared/howto100m \
        --engine ray --num_processes 64

A file of the corpus becomes a file of the same name, in place when it is whole; the same command continues a run that
was stopped, and the files are the same for all numbers of processes. What cannot be decoded stands in
OUTPUT/problems.jsonl. A folder that holds embeddings of another model, corpus or settings is refused.

Without --num_windows an item is cut into as many windows as cover it; evaluate_retrieval.py and
evaluate_classification.py take OUTPUT as their --dataset, and measure what they measure on the media where
--num_windows is theirs and --num_regions no smaller than the model's regions.

--engine ray (the extra `ray`) schedules the shards with Ray Data: on this machine, or on the cluster that RAY_ADDRESS
names, whose machines must see the model, the corpus and OUTPUT under the same paths.
"""

import argparse
from dataclasses import fields
from pathlib import Path

from fgmm_tools.cli import at_least, make_parser, run_command
from fgmm_tools.embedding.settings import PRECISIONS, EmbeddingSettings


def parse_arguments() -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.add_argument("--model", required=True, help="model folder or name on the Hub")
    parser.add_argument("--dataset", required=True, help="folder of Parquet shards or a dataset on the Hub")
    parser.add_argument("--output", type=Path, required=True, help="folder for the embeddings")
    parser.add_argument("--dataset_config", help="one of its official splits or folds; none: all of them")
    parser.add_argument("--split", help="split of the corpus; none: all of them")
    parser.add_argument("--num_windows", type=at_least(1), help="windows of each item; none: as many as cover it")
    parser.add_argument("--num_regions", type=at_least(0), help="most regions of a window; 0: none are kept")
    parser.add_argument("--precision", choices=PRECISIONS, help="of the regions")
    parser.add_argument("--with_features", action="store_true", help="keep what linear probes take, too")
    parser.add_argument("--batch_size", type=at_least(1), help="windows encoded at once")
    parser.add_argument("--num_processes", type=at_least(1), default=2, help="shards that are embedded at a time")
    parser.add_argument("--engine", choices=("processes", "ray"), default="processes", help="what schedules them")
    parser.set_defaults(**{field.name: field.default for field in fields(EmbeddingSettings)})
    return parser.parse_args()


def main(args: argparse.Namespace) -> None:
    from fgmm_tools.embedding.corpus import embed_corpus

    settings = EmbeddingSettings(**{field.name: getattr(args, field.name) for field in fields(EmbeddingSettings)})
    manifest = embed_corpus(
        args.model,
        args.dataset,
        args.output,
        settings,
        config_name=args.dataset_config,
        split=args.split,
        num_processes=args.num_processes,
        engine=args.engine,
    )
    print(
        f"Wrote {args.output}: {manifest['windows']} windows of {manifest['items']} items; {manifest['problems']} "
        f"problems, which {args.output / 'problems.jsonl'} lists."
    )


if __name__ == "__main__":
    run_command(parse_arguments, main)
