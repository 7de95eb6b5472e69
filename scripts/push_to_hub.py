"""Publishes a trained model on the Hub: weights, code, processor, card with pictures, and the results files.

    python scripts/push_to_hub.py --model outputs/fgmm-tiny --repo_id ORG/fgmm-tiny
    python scripts/push_to_hub.py --model outputs/fgmm-tiny --repo_id ORG/fgmm-tiny --private --dataset ORG/narrated

The card is model_cards/NAME.md, NAME being that of the model's folder, if its results are of this very training run;
else model_cards/templates/model.md, filled from the results files in the model's folder (those that --output of the
evaluation scripts wrote there). Everything goes in one commit; a push that broke off is repeated by the same command.
"""

import argparse
from pathlib import Path

from fgmm_tools.cli import make_parser, run_command


def parse_arguments() -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.add_argument("--model", type=Path, required=True, help="folder that scripts/pretrain.py wrote")
    parser.add_argument("--repo_id", required=True, help="where it is published, ORG/NAME")
    parser.add_argument("--private", action="store_true", help="only ORG may see it")
    parser.add_argument(
        "--dataset",
        nargs="*",
        default=[],
        help="Hub ids of its corpora; ORG/narrated for data/narrated",
    )
    parser.add_argument(
        "--license", help="of the weights, as the Hub names it; none: apache-2.0, where no others' weights are in them"
    )
    return parser.parse_args()


def main(args: argparse.Namespace) -> None:
    from fgmm_tools.publishing.model_push import push

    print(f"Published: {push(args.model, args.repo_id, args.private, args.dataset, args.license)}")


if __name__ == "__main__":
    run_command(parse_arguments, main)
