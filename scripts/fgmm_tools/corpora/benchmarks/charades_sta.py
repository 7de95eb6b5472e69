"""Charades-STA: videos of activities at home, and sentences, each with the window that it describes."""

from pathlib import Path

from ..problems import Problems
from .layout import VIDEO, Benchmark, MediaFolder, Reading, one_config, require_file
from .moment_queries import MomentQuery, check_windows, make_items, read_list

LISTS = {"train": "charades_sta_train.txt", "test": "charades_sta_test.txt"}
LAYOUT = (
    f"Charades-STA is published as {LISTS['train']} and {LISTS['test']}, with the videos of Charades in folders beside "
    "them"
)


def read(source: Path, problems: Problems) -> Reading:
    """The lists of both splits."""
    videos = MediaFolder(source, VIDEO)
    queries = {split: read_queries(source, split, problems) for split in LISTS}
    return one_config({split: make_items(videos, part, problems) for split, part in queries.items()})


def read_queries(source: Path, split: str, problems: Problems) -> list[MomentQuery]:
    """The queries of a split: lines of `VIDEO START END##SENTENCE`, in seconds.

    Args:
        source: the folder of the lists.
        split: a key of LISTS.
        problems: a line that is damaged is added.

    Raises:
        UserError: when there is no such list.
    """
    return read_list(require_file(source, LAYOUT, LISTS[split]), parse_line, problems)


def parse_line(number: int, line: str) -> MomentQuery:
    """One line; a ValueError for one that is damaged."""
    place, mark, text = line.partition("##")
    if not (mark and text.strip()):
        raise ValueError("it has no sentence after ##")
    video, start, end = place.split()
    return MomentQuery(str(number), " ".join(text.split()), video, check_windows([(start, end)]))


CHARADES_STA = Benchmark(
    "charades_sta",
    "Charades-STA",
    "video",
    read,
    "6,672 videos of half a minute, of people at home, and 16,128 sentences, each with the window that it describes "
    "(Gao et al., 2017, over the videos of Sigurdsson et al., 2016). The videos are for non-commercial use and not to "
    "be redistributed.",
)
