"""What the card of a published model has beside its tables: metadata for the Hub, made from the same results files.

Only results files give numbers: the model-index at the top of a card and the files in .eval_results come from the
records that the card's tables name, and `find_problems` finds measured numbers in the text between the tables.
"""

import re
from pathlib import Path

from huggingface_hub import EvalResult, EvalResultEntry, ModelCard, eval_result_entries_to_yaml

from .results import METRIC_NAMES, is_random_init, is_retrieval, list_values

# Parts of a card's text in which numbers are no measurements: code, addresses and comments.
NOT_PROSE = re.compile(r"```.*?```|`[^`]*`|\]\([^)]*\)|<!--.*?-->", re.DOTALL)
# A percentage, a decimal number, or a number after a metric's name; but no seconds, which describe data, and no
# version, which follows letters.
MEASURED = re.compile(
    r"\d+(?:\.\d+)? ?%|(?<![\d.])(?<![A-Za-z]-)\d+\.\d+(?! s\b)|(?:R@\d+|MedR|top-1|accuracy)(?: of| is|:| =)? \d+"
)
LINK = re.compile(r"\]\((?!https?:|#|mailto:)([^)#]+)")


def make_eval_results(records: list[dict], dataset_ids: dict[str, str]) -> list[EvalResult]:
    """Records as entries of the model-index.

    Args:
        records: of results files.
        dataset_ids: the Hub ids of datasets, by the last part of their name in the records.
    """
    results = []
    for record in records:
        name = Path(record["dataset"]).name
        for task, metric, value in list_values(record):
            results.append(
                EvalResult(
                    task_type="retrieval" if is_retrieval(record) else "classification",
                    dataset_type=dataset_ids.get(name, name),
                    dataset_name=name,
                    dataset_config=record.get("dataset_config"),
                    dataset_split=record["split"],
                    metric_type=METRIC_NAMES[metric],
                    metric_name=f"{metric}, {task.replace('_', ' ')} ({record['protocol']})",
                    metric_value=value,
                )
            )
    return results


def fill_metadata(text: str, records: list[dict], dataset_ids: dict[str, str] | None = None, **metadata) -> str:
    """A card with the model-index of its records; those of random weights are left out, and without any there is none.

    Args:
        text: the card, whose first heading is the model's name.
        records: of results files.
        dataset_ids: see [`make_eval_results`].
        metadata: further fields for the top of the card.

    Raises:
        ValueError: when huggingface_hub does not accept the metadata.
    """
    card = ModelCard(text)
    measured = [record for record in records if not is_random_init(record)]
    card.data.eval_results = make_eval_results(measured, dataset_ids or {}) or None
    card.data.model_name = re.search(r"^# (.+)$", card.text, re.MULTILINE)[1] if card.data.eval_results else None
    for name, value in metadata.items():
        card.data[name] = value
    return str(ModelCard(str(card)))


def make_eval_entries(record: dict, name: str, dataset_id: str, results_url: str) -> list[dict]:
    """A record in the form of .eval_results/NAME.yaml.

    Args:
        record: of a results file.
        name: of the file, without its extension.
        dataset_id: the Hub's id of the dataset.
        results_url: address of the folder of results files.
    """
    return eval_result_entries_to_yaml(
        [
            EvalResultEntry(
                dataset_id=dataset_id,
                task_id=f"{task}_{METRIC_NAMES[metric]}",
                value=value,
                date=record["date"],
                source_url=f"{results_url}/{name}.json",
                source_name=f"results/{name}.json",
                notes=record["protocol"],
            )
            for task, metric, value in list_values(record)
        ]
    )


def find_problems(prose: str, folder: Path) -> list[str]:
    """What a card must not be published with: measured numbers outside its tables, and links to files that are not
    published with it.

    Args:
        prose: the card without its metadata and tables.
        folder: of its pictures and results.
    """
    problems = [f"the number {match[0]!r} in its text" for match in MEASURED.finditer(NOT_PROSE.sub("", prose))]
    for target in LINK.findall(prose):
        if target.split("/")[0] not in ("pictures", "results") or not (folder / target).exists():
            problems.append(f"a link to {target}, which is none of its pictures or results")
    return problems
