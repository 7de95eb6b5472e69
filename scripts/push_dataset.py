"""Publishes a prepared corpus on the Hub as a dataset: Parquet shards, and a card with columns, sizes and licence.

    python scripts/push_dataset.py --dataset data/narrated --repo_id ORG/narrated
    python scripts/push_dataset.py --dataset data/ucf101 --repo_id ORG/ucf101-ids --private
    python scripts/push_dataset.py --dataset data/mine --repo_id ORG/mine --with_media
    python scripts/push_dataset.py --dataset data/narrated --record model_cards/results/corpora/narrated.json

A corpus whose media may not be passed on by everybody, as of most benchmarks, goes as ids and times: its rows, splits,
times and labels without media and without the captions' texts. --with_media publishes all of it, and says that you have
the right to. Everything goes in one commit; a push that broke off is repeated by the same command and sends what lacks.

The card is model_cards/NAME.md, NAME being that of the corpus' folder, where its record (--record) is of this very
corpus; else the folder's README.md with columns, sizes and the terms.
"""

import argparse
from pathlib import Path

from fgmm_tools.cli import make_parser, run_command


def parse_arguments() -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.add_argument("--dataset", type=Path, required=True, help="folder of a prepared corpus")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--repo_id", help="where it is published, ORG/NAME")
    what.add_argument(
        "--record", type=Path, help="JSON file; write what the card is made from into it, and publish nothing"
    )
    parser.add_argument("--private", action="store_true", help="only ORG may see it")
    parser.add_argument(
        "--with_media", action="store_true", help="I have the right to pass on the media and captions of this corpus"
    )
    return parser.parse_args()


def main(args: argparse.Namespace) -> None:
    from fgmm_tools.publishing.dataset_card import describe_corpus
    from fgmm_tools.publishing.dataset_push import push
    from fgmm_tools.records import write_record

    folder = args.dataset.resolve()
    if args.record:
        write_record(args.record, describe_corpus(folder))
        print(f"Wrote {args.record}.")
    else:
        print(f"Published: {push(folder, args.repo_id, args.private, args.with_media)}")


if __name__ == "__main__":
    run_command(parse_arguments, main)
