"""What the benchmarks of moment retrieval have in common: texts, each with the windows of a video that it describes."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from ..problems import Problems
from .layout import Item, MediaFolder, read_lines, reading_row, timed_captions


@dataclass(frozen=True)
class MomentQuery:
    """A text and what it describes.

    Args:
        query_id: unique in its list.
        text: of the query.
        video: name of the video, without extension.
        windows: (start, end) in seconds, at least one.
    """

    query_id: str
    text: str
    video: str
    windows: tuple[tuple[float, float], ...]


def read_list(path: Path, parse: Callable[[int, str], MomentQuery], problems: Problems) -> list[MomentQuery]:
    """The queries of a file with one a line.

    Args:
        parse: number, from 1, and text of a line to its query; it raises a ValueError, KeyError or TypeError for one
            that is damaged.
        problems: a line that is damaged is added.
    """
    queries = []
    for number, line in enumerate(read_lines(path), start=1):
        with reading_row(f"line {number} of {path.name}", problems):
            queries.append(parse(number, line))
    return queries


def make_items(videos: MediaFolder, queries: Iterable[MomentQuery], problems: Problems) -> list[Item]:
    """One row for each video that exists, its captions the queries, one for each of their windows."""
    rows: dict[str, list[tuple[str, float, float]]] = {}
    for query in queries:
        rows.setdefault(query.video, []).extend((query.text, *window) for window in query.windows)
    items = []
    for name, moments in rows.items():
        captions = timed_captions(name, moments, problems)
        if captions and (path := videos.find(problems, name)):
            items.append(Item(name, path, captions))
    return items


def check_windows(windows: Iterable[Iterable[float]]) -> tuple[tuple[float, float], ...]:
    """Windows as pairs of numbers.

    Raises:
        ValueError: when there is none, or one does not have 0 <= start < end.
    """
    pairs = tuple((float(start), float(end)) for start, end in windows)
    if not pairs or not all(0 <= start < end < float("inf") for start, end in pairs):
        raise ValueError(f"its windows are {[list(pair) for pair in pairs]}")
    return pairs
