"""Cards, README.md and model_cards/*.md: their tables and metadata, filled from results files.

A table stands between `<!-- KIND: NAME NAME ... -->` and `<!-- end of KIND -->`; see scripts/update_cards.py for the
kinds. Its numbers are written nowhere else: the text of a card that is published may hold none.
"""

import re
from pathlib import Path

from ..cli import UserError
from . import dataset_card, model_card
from .claims import describe_claim
from .grounding_table import make_grounding_table
from .loading_table import make_loading_table
from .results import read_results
from .scale import describe_monitoring, make_scale_table
from .search_table import make_search_tables
from .study_results import make_earlier_table, make_study_table
from .summary import make_summary_table
from .tables import (
    find_downstream,
    make_downstream_table,
    make_finetuning_table,
    make_results_table,
    make_training_table,
)

PLACE = re.compile(r"(<!-- (?P<kind>\w+): (?P<names>[^>]+?) -->\n).*?(<!-- end of (?P=kind) -->)", re.DOTALL)
METADATA = re.compile(r"\A---\n.*?\n---\n", re.DOTALL)


def fill(text: str, folder: Path) -> str:
    """Makes every table, and the metadata where there are any, anew.

    Args:
        text: of a card.
        folder: of the results files.

    Raises:
        UserError: when a results file does not exist or is damaged, or a kind of table is unknown.
    """
    text = PLACE.sub(lambda place: f"{place[1]}{make_table(place['kind'], place['names'], folder)}\n{place[4]}", text)
    if not METADATA.match(text):
        return text
    if corpora := find_names(text, "corpus"):
        return dataset_card.fill_metadata(text, read_results(folder / "corpora" / f"{corpora[0]}.json"))
    return model_card.fill_metadata(text, list(read_records(text, folder).values()))


def make_table(kind: str, names: str, folder: Path) -> str:
    """The table of one place in a card."""
    listed = names.split()
    match kind:
        case "results":
            return make_results_table([read_results(folder / f"{name}.json") for name in listed])
        case "training":
            return make_training_table(folder / f"{names}.json")
        case "finetuning":
            return make_finetuning_table([read_results(folder / f"{name}.json") for name in listed])
        case "downstream":
            return make_downstream_table(folder, listed)
        case "grounding":
            return make_grounding_table([read_results(folder / f"{name}.json") for name in listed])
        case "claim":
            return describe_claim(names, folder / "comparison")
        case "comparison":
            return make_study_table(folder / "comparison", names)
        case "runs":
            return make_earlier_table(folder / names)
        case "corpus":
            return dataset_card.make_table(read_results(folder / "corpora" / f"{names}.json"))
        case "loading":
            return make_loading_table(read_results(folder / f"{names}.json"))
        case "scale":
            return make_scale_table(folder / f"{names}.json")
        case "monitoring":
            return describe_monitoring(folder / f"{names}.json")
        case "search":
            return make_search_tables(read_results(folder / f"{names}.json"))
        case "summary":
            return make_summary_table(folder, listed)
    raise UserError(f"A card has a place for a table of the unknown kind {kind!r}.")


def find_names(text: str, kind: str) -> list[str]:
    """The names in all places of a kind."""
    return [name for place in PLACE.finditer(text) if place["kind"] == kind for name in place["names"].split()]


def read_records(text: str, folder: Path) -> dict[str, dict]:
    """The records of the `results` tables of a card, by the names of their files."""
    return {name: read_results(folder / f"{name}.json") for name in find_names(text, "results")}


def results_files(text: str, folder: Path) -> list[Path]:
    """The results files of the `results` and `downstream` tables of a model's card."""
    named = [folder / f"{name}.json" for name in find_names(text, "results")]
    return named + [path for dataset in find_names(text, "downstream") for path in find_downstream(folder, dataset)]


def grounding_files(text: str, folder: Path) -> list[Path]:
    """The results files of the `grounding` tables of a model's card, in which other models stand beside it."""
    return [folder / f"{name}.json" for name in find_names(text, "grounding")]


def find_problems(text: str, folder: Path) -> list[str]:
    """What a card must not be published with, see [`model_card.find_problems`]; empty for a card without metadata,
    which is not published.

    Args:
        text: of the card.
        folder: of its pictures and results.
    """
    if not METADATA.match(text):
        return []
    return model_card.find_problems(PLACE.sub("", METADATA.sub("", text)), folder)
