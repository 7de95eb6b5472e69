"""QVHighlights: videos of up to 150 s, texts, and the several windows that each of them describes."""

import json
from pathlib import Path

from ..problems import Problems
from .layout import VIDEO, Benchmark, MediaFolder, Reading, one_config, require_file
from .moment_queries import MomentQuery, check_windows, make_items, read_list

LISTS = {"train": "highlight_train_release.jsonl", "validation": "highlight_val_release.jsonl"}
LAYOUT = (
    f"QVHighlights is published as {LISTS['train']} and {LISTS['validation']}, with the videos in folders beside them"
)


def read(source: Path, problems: Problems) -> Reading:
    """The lists of both splits whose windows are public."""
    videos = MediaFolder(source, VIDEO)
    queries = {split: read_queries(source, split, problems) for split in LISTS}
    return one_config({split: make_items(videos, part, problems) for split, part in queries.items()})


def read_queries(source: Path, split: str, problems: Problems) -> list[MomentQuery]:
    """The queries of a split: a JSON object a line, of `qid`, `query`, `vid` and `relevant_windows` (s), among others.

    Args:
        source: the folder of the lists.
        split: a key of LISTS.
        problems: a line that is damaged is added.

    Raises:
        UserError: when there is no such list.
    """
    return read_list(require_file(source, LAYOUT, LISTS[split]), parse_line, problems)


def parse_line(number: int, line: str) -> MomentQuery:
    """One line; a ValueError, KeyError or TypeError for one that is damaged."""
    entry = json.loads(line)
    text = " ".join(entry["query"].split())
    return MomentQuery(str(entry["qid"]), text, entry["vid"], check_windows(entry["relevant_windows"]))


QVHIGHLIGHTS = Benchmark(
    "qvhighlights",
    "QVHighlights",
    "video",
    read,
    "10,148 videos of up to 150 s from YouTube, and 10,310 texts, each with the windows that it describes, in steps of "
    "2 s (Lei, Berg and Bansal, 2021). A text is a caption of each of its windows. The field reports on `validation`, "
    "as the windows of the test split are not public. The annotations are under CC BY-NC-SA 4.0, the videos YouTube's "
    "and not to be redistributed.",
)
