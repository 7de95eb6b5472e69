"""Folders as `datasets` finds corpora in them."""

import glob
import os
from pathlib import Path

from datasets.data_files import get_data_patterns, sanitize_patterns
from datasets.utils.metadata import MetadataConfigs
from huggingface_hub import DatasetCard, DatasetCardData


def is_pattern(path_or_name: str) -> bool:
    """Whether it is a folder that `datasets` would not find, because its path has characters such as [ and *."""
    return glob.has_magic(path_or_name) and os.path.isdir(path_or_name)


def find_data_files(folder: str) -> dict[str, dict[str, list[str]]]:
    """The files of each configuration and split of a corpus, as `datasets` reads them from its card or finds them.

    Returns:
        by the names of configurations, the default first, and of splits: patterns, in which the folder is escaped.
    """
    card = Path(folder) / "README.md"
    configs = MetadataConfigs.from_dataset_card_data(
        DatasetCard.load(card).data if card.exists() else DatasetCardData()
    )
    default = configs.get_default_config_name()
    escaped = glob.escape(os.path.abspath(folder))
    found = {}
    for name in sorted(configs or ["default"], key=lambda name: name != default):
        values = configs.get(name, {})
        base = os.path.join(escaped, glob.escape(values.get("data_dir", "")))
        patterns = sanitize_patterns(values["data_files"]) if "data_files" in values else get_data_patterns(base)
        found[name] = {str(split): [os.path.join(base, path) for path in paths] for split, paths in patterns.items()}
    return found


__all__ = ["find_data_files", "is_pattern"]
