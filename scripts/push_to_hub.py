"""Publishes a trained model on the Hub: weights, code, processor, card with pictures, and results files.

    python scripts/push_to_hub.py --model outputs/fgmm-tiny --repo_id ORG/fgmm-tiny
    python scripts/push_to_hub.py --model outputs/fgmm-tiny --repo_id ORG/fgmm-tiny --private --dataset ORG/narrated
    python scripts/push_to_hub.py --model outputs/mine --repo_id ORG/mine --dataset mine=ORG/kitchen-videos
    python scripts/push_to_hub.py --model outputs/fgmm-tiny --space outputs/space   # a folder; nothing is published

The card is model_cards/NAME.md, NAME being that of the model's folder, if its results are of this very training run;
else model_cards/templates/model.md, filled from the results files in the model's folder, where --output of the
evaluation commands wrote them. It names the models of the Hub that the weights began from (init_from, encoders), and
takes over their licence. Everything goes in one commit; the same command continues a push that broke off.

With --space a folder is written instead that is a Hugging Face Space: scripts/demo.py's page with this model. It runs
where it is (python app.py), and as a Space after hf upload ORG/NAME FOLDER --repo-type space.
"""

import argparse
from pathlib import Path

from fgmm_tools.cli import make_parser, run_command


def parse_arguments() -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.add_argument("--model", type=Path, required=True, help="folder that scripts/pretrain.py wrote")
    target = parser.add_mutually_exclusive_group(required=True)
    target.add_argument("--repo_id", help="ORG/NAME of the repository")
    target.add_argument("--space", type=Path, help="folder for a Space with this model")
    parser.add_argument("--private", action="store_true", help="only ORG may see it")
    parser.add_argument(
        "--dataset",
        nargs="*",
        default=[],
        metavar="[CORPUS=]ORG/NAME",
        help="repositories that hold the corpora it was trained or measured on, as scripts/push_dataset.py publishes "
        "them: ORG/narrated, or narrated=ORG/NAME, for data/narrated",
    )
    parser.add_argument(
        "--license",
        help="of the weights, as the Hub names it; needed where they began from models of unknown or several licences",
    )
    return parser.parse_args()


def main(args: argparse.Namespace) -> None:
    if args.space:
        from fgmm_tools.publishing.space import write_space

        write_space(args.model, args.space, args.license)
        print(f"Wrote {args.space}; try it with python {args.space}/app.py.")
        return

    from fgmm_tools.publishing.model_push import push

    print(f"Published: {push(args.model, args.repo_id, args.private, args.dataset, args.license)}")


if __name__ == "__main__":
    run_command(parse_arguments, main)
