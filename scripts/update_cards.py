"""Fills the tables of README.md and model_cards/*.md from the results files; a number is written nowhere else.

    python scripts/update_cards.py
    python scripts/update_cards.py --check

A table stands between `<!-- results: NAME NAME ... -->` and `<!-- end of results -->`, each NAME a file in
model_cards/results without its ending; between `<!-- comparison: STUDY -->` and `<!-- end of comparison -->`, STUDY
being one of scripts/compare_objectives.py; or between `<!-- downstream: DATASET ... -->` and
`<!-- end of downstream -->`, DATASET being one that scripts/measure_downstream.sh measured.
"""

import argparse
import json
import re
import sys
from pathlib import Path

import compare_objectives

ROOT = Path(__file__).parent.parent
PLACE = re.compile(r"(<!-- results: ([^>]+?) -->\n).*?(<!-- end of results -->)", re.DOTALL)
COMPARISON = re.compile(r"(<!-- comparison: (\w+) -->\n).*?(<!-- end of comparison -->)", re.DOTALL)
DOWNSTREAM = re.compile(r"(<!-- downstream: ([^>]+?) -->\n).*?(<!-- end of downstream -->)", re.DOTALL)
COLUMNS = ("R@1", "R@5", "R@10", "MedR")


def read_record(name: str) -> dict:
    """One results file.

    Raises:
        SystemExit: when it is not there.
    """
    path = ROOT / "model_cards" / "results" / f"{name}.json"
    if not path.exists():
        raise SystemExit(
            f"A card asks for {path.relative_to(ROOT)}, which is not there; run the command that writes it."
        )
    return json.loads(path.read_text())


def make_table(records: list[dict]) -> str:
    """Retrieval results as Markdown, with the commands that gave them."""
    lines = [
        f"| corpus | task | {' | '.join(COLUMNS)} | chance R@10 | queries, items |",
        "|---|---|" + "---:|" * (len(COLUMNS) + 2),
    ]
    for record in records:
        for direction, values in record["metrics"].items():
            cells = " | ".join(f"{values[column]:.1f}" for column in COLUMNS)
            sizes = f"{values['num_queries']:,}, {values['num_items']:,}"
            lines.append(
                f"| {Path(record['dataset']).name} | {direction.replace('_', ' ')} | {cells} | "
                f"{chance_recall(values, 10):.1f} | {sizes} |"
            )
    return "\n".join(lines + [""] + [describe_record(record) for record in records])


def chance_recall(values: dict, k: int) -> float:
    """R@k in percent of a random order: of several right answers, one among the first k is enough."""
    num_right = max(1, round(values["num_items"] / values["num_queries"]))
    miss = 1.0
    for place in range(k):
        miss *= 1 - num_right / (values["num_items"] - place)
    return 100 * (1 - miss)


def describe_record(record: dict) -> str:
    """One line: how the numbers came about."""
    training = record["training"]
    minutes = training["seconds"] / 60
    return (
        f"- {Path(record['dataset']).name}: trained by `{training['command']}` (seed {record['seed']}, "
        f"{training['clips_seen']:,} clips seen, {minutes:.0f} min on {training['device']}); measured by "
        f"`{record['command']}` ({record['protocol']}; {record['seconds']:.0f} s, {record['date']})."
    )


def make_downstream_table(datasets: list[str]) -> str:
    """Classification results as Markdown: a line for each protocol and start, over all seeds, and how they came about.

    Raises:
        SystemExit: when a dataset has no results file.
    """
    lines = [
        "| dataset | protocol | encoder begins | top-1 | mean over classes | spread over splits | seeds |",
        "|---|---|---|---:|---:|---:|---:|",
    ]
    notes = []
    for dataset in datasets:
        groups: dict[tuple[str, str], list[dict]] = {}
        for path in sorted((ROOT / "model_cards" / "results" / "downstream").glob(f"{dataset}-*.json")):
            _, protocol, start, _ = path.stem.split("-")
            groups.setdefault((protocol, start), []).append(json.loads(path.read_text()))
        if not groups:
            raise SystemExit(
                f"A card asks for results of {dataset}, which scripts/measure_downstream.sh did not write."
            )
        for (protocol, start), records in groups.items():
            top1, mean_class = (
                compare_objectives.mean_and_spread([record["metrics"][name] for record in records])
                for name in ("top1", "mean_class")
            )
            spread = sum(record["spread"]["top1"] for record in records) / len(records)
            lines.append(
                f"| {dataset} | {protocol} | {start} | {top1} | {mean_class} | {spread:.1f} | {len(records)} |"
            )
        notes.append(describe_downstream(dataset, [record for records in groups.values() for record in records]))
    return "\n".join([*lines, "", *notes])


def describe_downstream(name: str, records: list[dict]) -> str:
    """One line: how a dataset's numbers came about."""
    first = records[0]
    protocols = dict.fromkeys(record["protocol"].removeprefix("random weights, ") for record in records)
    minutes = sum(record["seconds"] for record in records) / 60
    command = f"bash scripts/measure_downstream.sh {first['model']} {name} {first['dataset']}"
    return (
        f"- {name}: `{command}` ({'; '.join(protocols)}); {len(records)} runs, {minutes:.0f} min in all on "
        f"{first['device']}, {first['date']}; each run's own command and the values of each split are in its file."
    )


def fill(text: str) -> str:
    """The text with every table made anew."""
    text = DOWNSTREAM.sub(lambda match: match[1] + make_downstream_table(match[2].split()) + "\n" + match[3], text)
    text = COMPARISON.sub(lambda match: match[1] + compare_objectives.make_table(match[2]) + "\n" + match[3], text)
    return PLACE.sub(
        lambda match: match[1] + make_table([read_record(name) for name in match[2].split()]) + "\n" + match[3], text
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing; fail when a card and its results differ")
    args = parser.parse_args()
    stale = []
    for path in [ROOT / "README.md", *sorted((ROOT / "model_cards").glob("*.md"))]:
        text = path.read_text()
        filled = fill(text)
        if filled != text:
            stale.append(path.relative_to(ROOT))
            if not args.check:
                path.write_text(filled)
    names = ", ".join(map(str, stale))
    if args.check and stale:
        sys.exit(f"{names} differ from the results files; run python scripts/update_cards.py.")
    print(f"Filled {names}." if stale else "Every table agrees with its results files.")


if __name__ == "__main__":
    main()
