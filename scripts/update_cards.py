"""Fills the tables of README.md and model_cards/*.md from the results files; their numbers are written nowhere else.

    python scripts/update_cards.py
    python scripts/update_cards.py --check

A table stands between `<!-- KIND: NAME NAME ... -->` and `<!-- end of KIND -->`. The names are, for each kind:

    results      files in model_cards/results, without .json
    training     one such file: what the training of its model took
    claim        what the studies of scripts/compare_objectives.py found about a claim
    comparison   a study of scripts/compare_objectives.py
    downstream   datasets that scripts/measure_downstream.sh measured
    corpus       a file in model_cards/results/corpora, without .json: columns and sizes
    monitoring   a file of scripts/benchmark_monitoring.py, without .json: what trackers cost
    scale        a file of scripts/benchmark_scale.py, without .json: what large runs cost
    summary      rows of README's table, see fgmm_tools/publishing/summary.py

A card that begins with metadata (`---`) is published by scripts/push_to_hub.py or scripts/push_dataset.py: its metadata
get the same numbers, and the text between its tables must hold no measured number and no link to what is not published.
"""

import argparse

from fgmm_tools.cli import UserError, make_parser, run_command
from fgmm_tools.paths import ROOT


def parse_arguments() -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.add_argument(
        "--check", action="store_true", help="change nothing; fail where a card differs from its results"
    )
    return parser.parse_args()


def main(args: argparse.Namespace) -> None:
    from fgmm_tools.publishing.cards import fill, find_problems

    changed = []
    for path in [ROOT / "README.md", *sorted((ROOT / "model_cards").glob("*.md"))]:
        text = path.read_text()
        filled = fill(text, ROOT / "model_cards" / "results")
        if problems := find_problems(filled, path.parent):
            raise UserError(f"{path.relative_to(ROOT)} is published and has {problems[0]}; numbers belong into tables.")
        if filled != text:
            changed.append(str(path.relative_to(ROOT)))
            if not args.check:
                path.write_text(filled)
    if args.check and changed:
        raise UserError(f"{', '.join(changed)} differ from the results files; run python scripts/update_cards.py.")
    print(f"Filled {', '.join(changed)}." if changed else "Every table agrees with its results files.")


if __name__ == "__main__":
    run_command(parse_arguments, main)
