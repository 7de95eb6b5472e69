"""The tables of cards, made from results files as Markdown."""

from pathlib import Path

from ..cli import UserError
from .results import METRIC_NAMES, is_retrieval, list_values, mean_and_spread, read_json, read_results

RETRIEVAL_COLUMNS = ("R@1", "R@5", "R@10", "MedR")


def make_results_table(records: list[dict]) -> str:
    """A table for each kind of measurement, and below them how the numbers came about."""
    retrieval = [record for record in records if is_retrieval(record)]
    classification = [record for record in records if not is_retrieval(record)]
    tables = []
    if retrieval:
        tables.append(make_retrieval_table(retrieval))
    if classification:
        tables.append(make_classification_table(classification))
    return "\n\n".join([*tables, "\n".join(describe_record(record) for record in records)])


def make_retrieval_table(records: list[dict]) -> str:
    """One line for each direction of each record."""
    lines = [
        f"| corpus | task | score | {' | '.join(RETRIEVAL_COLUMNS)} | chance R@10 | queries, items |",
        "|---|---|---|" + "---:|" * (len(RETRIEVAL_COLUMNS) + 2),
    ]
    for record in records:
        score = record["protocol"].removeprefix("retrieval, ").partition(", ")[0]
        for direction, values in record["metrics"].items():
            cells = " | ".join(f"{values[column]:.1f}" for column in RETRIEVAL_COLUMNS)
            sizes = f"{values['num_queries']:,}, {values['num_items']:,}"
            lines.append(
                f"| {Path(record['dataset']).name} | {direction.replace('_', ' ')} | {score} | {cells} | "
                f"{chance_recall(values, 10):.1f} | {sizes} |"
            )
    return "\n".join(lines)


def chance_recall(values: dict, k: int) -> float:
    """R@k of a random order, percent: of several matching items, one among the first k is enough.

    Args:
        values: of a results file: `num_items` and `num_queries`.
    """
    num_matching = max(1, round(values["num_items"] / values["num_queries"]))
    miss = 1.0
    for rank in range(k):
        miss *= 1 - num_matching / (values["num_items"] - rank)
    return 100 * (1 - miss)


def make_classification_table(records: list[dict]) -> str:
    """One line for each metric of each record."""
    lines = ["| corpus | protocol | metric | mean over splits |", "|---|---|---|---:|"]
    for record in records:
        for _, metric, value in list_values(record):
            name = METRIC_NAMES[metric].replace("_", " ")
            lines.append(f"| {Path(record['dataset']).name} | {record['protocol']} | {name} | {value:.1f} |")
    return "\n".join(lines)


def describe_record(record: dict) -> str:
    """One list item: the commands, times and machines behind a record."""
    measured = f"measured by `{record['command']}` ({record['protocol']}; {record['seconds']:.0f} s, {record['date']})."
    training = record["training"]
    if not training:
        return f"- {Path(record['dataset']).name}: {measured}"
    minutes = training["seconds"] / 60
    return (
        f"- {Path(record['dataset']).name}: trained by `{training['command']}` (seed {record['seed']}, "
        f"{training['clips_seen']:,} clips seen, {minutes:.0f} min on {training['device']}); {measured}"
    )


def make_finetuning_table(records: list[dict]) -> str:
    """One line for each variant that scripts/benchmark_finetuning.py measured, and below them with which commands."""
    lines = [
        "| CLIP | trained | frames | steps | s a step | clips/s | core seconds in all | peak memory, GB | first loss | "
        "mean of the last five |",
        "|---|---|" + "---:|" * 8,
    ]
    for record in records:
        for name, values in record["results"].items():
            last = values["losses"][-5:]
            lines.append(
                f"| {record['settings']['model']} | {name} | {record['settings']['num_frames']} | "
                f"{record['settings']['steps']} | {values['seconds_per_step']:.2f} | {values['clips_per_s']:.2g} | "
                f"{values['core_seconds']:.0f} | {values['peak_gb']:.2f} | {values['losses'][0]:.2f} | "
                f"{sum(last) / len(last):.2f} |"
            )
    commands = "\n".join(f"- `{record['command']}` ({record['device']}, {record['date']})" for record in records)
    return "\n".join([*lines, "", commands])


def make_training_table(path: Path) -> str:
    """What a training run took.

    Args:
        path: a results file, or training.json of a model's folder, which is the training record itself.
    """
    record = read_results(path)
    training = record.get("training") or record
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


def find_downstream(folder: Path, dataset: str) -> list[Path]:
    """The results files that scripts/measure_downstream.sh wrote for a dataset.

    Args:
        folder: of all results files.
        dataset: the second argument of the script.

    Raises:
        UserError: when there are none.
    """
    paths = sorted((folder / "downstream").glob(f"{dataset}-*.json"))
    if not paths:
        raise UserError(f"A card needs results of {dataset}, which scripts/measure_downstream.sh did not write.")
    return paths


def make_downstream_table(folder: Path, datasets: list[str]) -> str:
    """Classification results: a line for each protocol and initialisation, over all seeds, and how they came about.

    Args:
        folder: of all results files.
        datasets: see [`find_downstream`].
    """
    lines = [
        "| dataset | protocol | initial weights | top-1 | mean over classes | spread over splits | seeds |",
        "|---|---|---|---:|---:|---:|---:|",
    ]
    notes = []
    for dataset in datasets:
        groups: dict[tuple[str, str], list[dict]] = {}
        for path in find_downstream(folder, dataset):
            _, protocol, start, _ = path.stem.split("-")
            groups.setdefault((protocol, start), []).append(read_json(path))
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


def describe_downstream(dataset: str, records: list[dict]) -> str:
    """One list item: the command, times and machine behind a dataset's records."""
    first = records[0]
    protocols = dict.fromkeys(record["protocol"].removeprefix("random weights, ") for record in records)
    minutes = sum(record["seconds"] for record in records) / 60
    command = f"bash scripts/measure_downstream.sh {first['model']} {dataset} {first['dataset']}"
    return (
        f"- {dataset}: `{command}` ({'; '.join(protocols)}); {len(records)} runs, {minutes:.0f} min in all on "
        f"{first['device']}, {first['date']}; each run's own command and the values of each split are in its file."
    )
