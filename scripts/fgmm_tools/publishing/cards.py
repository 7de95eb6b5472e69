"""The tables of README.md and model_cards/*.md, filled from results files: a number is written nowhere else."""

import json
import re
from pathlib import Path

from ..cli import UserError
from . import dataset_card, model_card
from .studies import make_table as make_study_table
from .studies import mean_and_spread

PLACE = re.compile(r"(<!-- results: ([^>]+?) -->\n).*?(<!-- end of results -->)", re.DOTALL)
COMPARISON = re.compile(r"(<!-- comparison: (\w+) -->\n).*?(<!-- end of comparison -->)", re.DOTALL)
DOWNSTREAM = re.compile(r"(<!-- downstream: ([^>]+?) -->\n).*?(<!-- end of downstream -->)", re.DOTALL)
TRAINING = re.compile(r"(<!-- training: (\w+) -->\n).*?(<!-- end of training -->)", re.DOTALL)
CORPUS = re.compile(r"(<!-- corpus: (\w+) -->\n).*?(<!-- end of corpus -->)", re.DOTALL)
METADATA = re.compile(r"\A---\n.*?\n---\n", re.DOTALL)
COLUMNS = ("R@1", "R@5", "R@10", "MedR")


def read_record(path: Path) -> dict:
    """One results file.

    Raises:
        UserError: when it is not there.
    """
    if not path.exists():
        raise UserError(f"A card asks for {path}, which is not there; run the command that writes it.")
    return json.loads(path.read_text())


def make_table(records: list[dict]) -> str:
    """Results as Markdown, with the commands that gave them."""
    retrieval = [record for record in records if model_card.is_retrieval(record)]
    classification = [record for record in records if not model_card.is_retrieval(record)]
    tables = []
    if retrieval:
        tables.append(make_retrieval_table(retrieval))
    if classification:
        tables.append(make_classification_table(classification))
    return "\n\n".join([*tables, "\n".join(describe_record(record) for record in records)])


def make_retrieval_table(records: list[dict]) -> str:
    """A line for each direction of each record."""
    lines = [
        f"| corpus | task | by | {' | '.join(COLUMNS)} | chance R@10 | queries, items |",
        "|---|---|---|" + "---:|" * (len(COLUMNS) + 2),
    ]
    for record in records:
        score = record["protocol"].removeprefix("retrieval, ").partition(", ")[0]
        for direction, values in record["metrics"].items():
            cells = " | ".join(f"{values[column]:.1f}" for column in COLUMNS)
            sizes = f"{values['num_queries']:,}, {values['num_items']:,}"
            lines.append(
                f"| {Path(record['dataset']).name} | {direction.replace('_', ' ')} | {score} | {cells} | "
                f"{chance_recall(values, 10):.1f} | {sizes} |"
            )
    return "\n".join(lines)


def make_classification_table(records: list[dict]) -> str:
    """A line for each metric of each record."""
    lines = ["| corpus | protocol | metric | mean over splits |", "|---|---|---|---:|"]
    for record in records:
        for _, metric, value in model_card.measured_values(record):
            name = model_card.METRICS[metric].replace("_", " ")
            lines.append(f"| {Path(record['dataset']).name} | {record['protocol']} | {name} | {value:.1f} |")
    return "\n".join(lines)


def chance_recall(values: dict, k: int) -> float:
    """R@k in percent of a random order: of several right answers, one among the first k is enough."""
    num_right = max(1, round(values["num_items"] / values["num_queries"]))
    miss = 1.0
    for place in range(k):
        miss *= 1 - num_right / (values["num_items"] - place)
    return 100 * (1 - miss)


def describe_record(record: dict) -> str:
    """One line: how the numbers came about."""
    measured = f"measured by `{record['command']}` ({record['protocol']}; {record['seconds']:.0f} s, {record['date']})."
    training = record["training"]
    if not training:
        return f"- {Path(record['dataset']).name}: {measured}"
    minutes = training["seconds"] / 60
    return (
        f"- {Path(record['dataset']).name}: trained by `{training['command']}` (seed {record['seed']}, "
        f"{training['clips_seen']:,} clips seen, {minutes:.0f} min on {training['device']}); {measured}"
    )


def make_training_table(training: dict) -> str:
    """What a training run took, as Markdown."""
    rows = {
        "command": f"`{training['command']}`",
        "clips seen": f"{training['clips_seen']:,}",
        "time": f"{training['seconds'] / 3600:.2f} h",
        "hardware": training["device"],
        "seed": training["seed"],
        "code": f"commit {training['commit']}",
        "date": training["date"],
    }
    return "\n".join(["| training | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items())])


def make_downstream_table(results: Path, datasets: list[str]) -> str:
    """Classification results as Markdown: a line for each protocol and start, over all seeds, and how they came about.

    Raises:
        UserError: when a dataset has no results file.
    """
    lines = [
        "| dataset | protocol | encoder begins | top-1 | mean over classes | spread over splits | seeds |",
        "|---|---|---|---:|---:|---:|---:|",
    ]
    notes = []
    for dataset in datasets:
        groups: dict[tuple[str, str], list[dict]] = {}
        for path in sorted((results / "downstream").glob(f"{dataset}-*.json")):
            _, protocol, start, _ = path.stem.split("-")
            groups.setdefault((protocol, start), []).append(json.loads(path.read_text()))
        if not groups:
            raise UserError(f"A card asks for results of {dataset}, which scripts/measure_downstream.sh did not write.")
        for (protocol, start), records in groups.items():
            top1, mean_class = (
                mean_and_spread([record["metrics"][name] for record in records]) for name in ("top1", "mean_class")
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


def fill(text: str, results: Path) -> str:
    """The text with every table and the metadata made anew from a folder of results files."""
    corpora = {name: read_record(results / "corpora" / f"{name}.json") for _, name, _ in CORPUS.findall(text)}
    records = read_named_records(text, results)
    makers = {
        DOWNSTREAM: lambda names: make_downstream_table(results, names.split()),
        COMPARISON: make_study_table,
        PLACE: lambda names: make_table([records[name] for name in names.split()]),
        TRAINING: lambda name: make_training_table(read_training(results / f"{name}.json")),
        CORPUS: lambda name: dataset_card.make_table(corpora[name]),
    }
    for place, make in makers.items():
        text = place.sub(lambda match, make=make: f"{match[1]}{make(match[2])}\n{match[3]}", text)
    if not METADATA.match(text):
        return text
    if corpora:
        return dataset_card.fill_metadata(text, *corpora.values())
    return model_card.fill_metadata(text, list(records.values()))


def read_named_records(text: str, results: Path) -> dict[str, dict]:
    """The results files that `results` tables of a card ask for, by their names."""
    names = [name for _, listed, _ in PLACE.findall(text) for name in listed.split()]
    return {name: read_record(results / f"{name}.json") for name in names}


def results_files(text: str, results: Path) -> list[Path]:
    """All results files that the tables of a model's card are made from."""
    downstream = [dataset for _, datasets, _ in DOWNSTREAM.findall(text) for dataset in datasets.split()]
    return [results / f"{name}.json" for name in read_named_records(text, results)] + [
        path for dataset in downstream for path in sorted((results / "downstream").glob(f"{dataset}-*.json"))
    ]


def read_training(path: Path) -> dict:
    """The training record within a results file; training.json, which stands beside weights, is one itself."""
    record = read_record(path)
    return record.get("training") or record


def find_problems(text: str, folder: Path) -> list[str]:
    """Why a card cannot be published: see [`model_card.find_problems`]; none where it has no metadata."""
    if not METADATA.match(text):
        return []
    prose = METADATA.sub("", text)
    for place in (PLACE, COMPARISON, DOWNSTREAM, TRAINING, CORPUS):
        prose = place.sub("", prose)
    return model_card.find_problems(prose, folder)
