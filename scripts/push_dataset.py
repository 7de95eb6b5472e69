"""Publishes a prepared corpus on the Hub as a dataset: Parquet shards, and a card with columns, sizes and licence.

    python scripts/push_dataset.py --dataset data/narrated --repo_id ORG/narrated
    python scripts/push_dataset.py --dataset data/ucf101 --repo_id ORG/ucf101-ids --private
    python scripts/push_dataset.py --dataset data/mine --repo_id ORG/mine --with_media
    python scripts/push_dataset.py --dataset data/narrated --record model_cards/results/corpora/narrated.json

A corpus whose media not everybody may redistribute, as of most benchmarks, is published as ids and times: its rows,
splits, times and labels, without media and without the texts of captions. --with_media publishes all of it, and says
that you have the right to. Everything goes in one commit; the same command continues a push that broke off.

The card is model_cards/NAME.md, NAME being that of the folder, where its record (--record) is of this very corpus; else
the README.md of the folder with columns, sizes and terms added; without one it is made.
"""

import argparse
from pathlib import Path

from fgmm_tools.cli import make_parser, run_command


def parse_arguments() -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.add_argument("--dataset", type=Path, required=True, help="folder of a prepared corpus")
    target = parser.add_mutually_exclusive_group(required=True)
    target.add_argument("--repo_id", help="ORG/NAME of the repository")
    target.add_argument(
        "--record", type=Path, help="publish nothing; write the record that its card is made from: a JSON"
    )
    parser.add_argument("--private", action="store_true", help="only ORG may see it")
    parser.add_argument(
        "--with_media", action="store_true", help="I have the right to redistribute the media and captions"
    )
    return parser.parse_args()


def main(args: argparse.Namespace) -> None:
    folder = args.dataset.resolve()
    if args.record:
        from fgmm_tools.publishing.dataset_card import describe_corpus
        from fgmm_tools.records import write_record

        record = describe_corpus(folder)
        args.record.parent.mkdir(parents=True, exist_ok=True)
        write_record(args.record, record)
        print(f"Wrote {args.record}.")
    else:
        from fgmm_tools.publishing.dataset_push import push

        print(f"Published: {push(folder, args.repo_id, args.private, args.with_media)}")


if __name__ == "__main__":
    run_command(parse_arguments, main)
