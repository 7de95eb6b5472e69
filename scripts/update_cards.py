"""Fills the tables of README.md and model_cards/*.md from the results files; a number is written nowhere else.

    python scripts/update_cards.py
    python scripts/update_cards.py --check

A table stands between `<!-- results: NAME NAME ... -->` and `<!-- end of results -->`, each NAME a file in
model_cards/results without its ending; between `<!-- comparison: STUDY -->` and `<!-- end of comparison -->`, STUDY
being one of scripts/compare_objectives.py; or between `<!-- downstream: DATASET ... -->` and
`<!-- end of downstream -->`, DATASET being one that scripts/measure_downstream.sh measured. `<!-- training: NAME -->`
tells what the training of that results file's model took, and `<!-- corpus: NAME -->` what results/corpora/NAME.json
says of a corpus.

A card that begins with metadata (`---`) is published by scripts/push_to_hub.py or scripts/push_dataset.py: the metadata
gets the same numbers, and its text between the tables may hold no measured number and no link to what is not published.
"""

import argparse

from fgmm_tools.cli import UserError, make_parser, run_command


def parse_arguments() -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; fail when a card and its results differ")
    return parser.parse_args()


def main(args: argparse.Namespace) -> None:
    from fgmm_tools.publishing.cards import ROOT, fill, find_problems

    stale = []
    for path in [ROOT / "README.md", *sorted((ROOT / "model_cards").glob("*.md"))]:
        text = path.read_text()
        filled = fill(text, ROOT / "model_cards" / "results")
        if problems := find_problems(filled, path.parent):
            raise UserError(
                f"{path.relative_to(ROOT)} is to be published and has {problems[0]}; a number comes by a table."
            )
        if filled != text:
            stale.append(path.relative_to(ROOT))
            if not args.check:
                path.write_text(filled)
    names = ", ".join(map(str, stale))
    if args.check and stale:
        raise UserError(f"{names} differ from the results files; run python scripts/update_cards.py.")
    print(f"Filled {names}." if stale else "Every table agrees with its results files.")


if __name__ == "__main__":
    run_command(parse_arguments, main)
