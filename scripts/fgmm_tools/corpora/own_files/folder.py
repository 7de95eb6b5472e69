"""`prepare_dataset.py folder`: any folder of videos, sounds and images with captions beside them, or a table."""

from dataclasses import replace
from pathlib import Path

from ..benchmarks.layout import Benchmark, Reading, one_config
from ..options import OwnFiles
from ..problems import Problems
from .rows import find_items
from .splits import divide, splits_of_folders
from .tables import list_files, read_table


def read(source: Path, problems: Problems, options: OwnFiles) -> Reading:
    """The media in a folder and below it, see [`find_items`]; or those of a table (CSV) with the columns path and
    caption, a row for each caption, and maybe start, end, split and group.

    Raises:
        UserError: when it holds no media, or not what the options ask for.
    """
    required = options.captions == "required"
    if source.is_file():
        rows = read_table(source, options.columns, ("path", "caption") if required else ("path",))
        files = list_files(source, rows, problems)
        items = [replace(file.item, captions=file.captions(), captions_from=source) for file in files]
        splits = [file.split for file in files]
    else:
        items = find_items(source, required, options.language, problems)
        items, splits = splits_of_folders(items, problems)
    return one_config(divide(items, splits, options))


FOLDER = Benchmark(
    "folder",
    "videos, sounds or images of your own",
    None,
    read,
    "Files of the person who made this corpus, with captions where they had some, for pretraining and retrieval. "
    "Whether they may be passed on is for their owner to say.",
)
