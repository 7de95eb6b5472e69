"""What the benchmarks of moment retrieval have in common: texts, each with the windows of a video that it describes."""

from collections.abc import Iterable
from dataclasses import dataclass

from ..problems import Problems
from .layout import Item, MediaFolder, timed_captions


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
