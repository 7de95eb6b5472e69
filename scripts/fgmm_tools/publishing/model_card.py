"""What the cards of published models hold beside their tables: metadata for the Hub, made from the same results files.

Only results files give numbers: the model-index at the top of a card and the files in .eval_results come from the
records that the card's tables name, and `find_problems` notes measured numbers in the text between them.
"""

import re
from pathlib import Path

from huggingface_hub import EvalResult, EvalResultEntry, ModelCard, eval_result_entries_to_yaml

# Metrics that go into metadata, and their names in evaluate's style.
METRICS = {
    "R@1": "recall_at_1",
    "R@5": "recall_at_5",
    "R@10": "recall_at_10",
    "MedR": "median_rank",
    "top1": "accuracy",
    "mean_class": "mean_class_accuracy",
    "mAP": "mean_average_precision",
}
# What the text of a card may hold beside the generated places: code, addresses and comments.
NOT_PROSE = re.compile(r"```.*?```|`[^`]*`|\]\([^)]*\)|<!--.*?-->", re.DOTALL)
# A share, a decimal number or one after a metric's name; seconds describe data, and a version follows letters.
MEASURED = re.compile(
    r"\d+(?:\.\d+)? ?%|(?<![\d.])(?<![A-Za-z]-)\d+\.\d+(?! s\b)|(?:R@\d+|MedR|top-1|accuracy)(?: of| is|:| =)? \d+"
)
LINK = re.compile(r"\]\((?!https?:|#|mailto:)([^)#]+)")


def measured_values(record: dict) -> list[tuple[str, str, float]]:
    """(task, metric, value) of a results file, rounded as in the tables; the task is a direction, or classification."""
    groups = record["metrics"] if is_retrieval(record) else {"classification": record["metrics"]}
    return [
        (task, metric, round(values[metric], 1))
        for task, values in groups.items()
        for metric in METRICS
        if metric in values
    ]


def is_retrieval(record: dict) -> bool:
    """Whether its metrics stand under directions such as text_to_video."""
    return all(isinstance(values, dict) and "R@1" in values for values in record["metrics"].values())


def is_floor(record: dict) -> bool:
    """Whether it tells what random weights reach, which stands beside a model and is not its own."""
    return "random weights" in record["protocol"]


def make_eval_results(records: list[dict], dataset_ids: dict[str, str]) -> list[EvalResult]:
    """Records as entries of the model-index.

    Args:
        dataset_ids: the Hub ids of datasets, by the last part of the name that records have.
    """
    results = []
    for record in records:
        name = Path(record["dataset"]).name
        for task, metric, value in measured_values(record):
            results.append(
                EvalResult(
                    task_type="retrieval" if is_retrieval(record) else "classification",
                    dataset_type=dataset_ids.get(name, name),
                    dataset_name=name,
                    dataset_config=record.get("dataset_config"),
                    dataset_split=record["split"],
                    metric_type=METRICS[metric],
                    metric_name=f"{metric}, {task.replace('_', ' ')} ({record['protocol']})",
                    metric_value=value,
                )
            )
    return results


def fill_metadata(text: str, records: list[dict], dataset_ids: dict[str, str] | None = None, **metadata) -> str:
    """A card with the model-index that its records give, floors left out; without records it has none.

    Args:
        text: the card, whose first heading is the model's name.
        dataset_ids: see [`make_eval_results`].
        metadata: further fields for the top of the card.

    Raises:
        ValueError: when the library does not accept the metadata.
    """
    card = ModelCard(text)
    measured = [record for record in records if not is_floor(record)]
    card.data.eval_results = make_eval_results(measured, dataset_ids or {}) or None
    card.data.model_name = re.search(r"^# (.+)$", card.text, re.MULTILINE)[1] if card.data.eval_results else None
    for name, value in metadata.items():
        card.data[name] = value
    return str(ModelCard(str(card)))


def make_eval_entries(record: dict, name: str, dataset_id: str, results_url: str) -> list[dict]:
    """A record in the form of .eval_results/NAME.yaml.

    Args:
        name: of the results file, without its ending.
        dataset_id: the Hub's id of the dataset.
        results_url: address of the folder of results files.
    """
    return eval_result_entries_to_yaml(
        [
            EvalResultEntry(
                dataset_id=dataset_id,
                task_id=f"{task}_{METRICS[metric]}",
                value=value,
                date=record["date"],
                source_url=f"{results_url}/{name}.json",
                source_name=f"results/{name}.json",
                notes=record["protocol"],
            )
            for task, metric, value in measured_values(record)
        ]
    )


def find_problems(prose: str, folder: Path) -> list[str]:
    """What a card may not be published with: measured numbers outside its tables, and links to what does not go along.

    Args:
        prose: the card without its metadata and generated places.
        folder: where its pictures and results are.
    """
    problems = [f"the number {match[0]!r} in its text" for match in MEASURED.finditer(NOT_PROSE.sub("", prose))]
    for target in LINK.findall(prose):
        if target.split("/")[0] not in ("pictures", "results") or not (folder / target).exists():
            problems.append(f"a link to {target}, which is none of its pictures or results")
    return problems
