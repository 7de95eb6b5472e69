"""The options of scripts/prepare_dataset.py: which rows are taken, how one's own files are read, and what noise the
training split is given.

Without heavy imports, so that the command's `--help` need not wait for them.
"""

from dataclasses import dataclass, field
from pathlib import Path

SLIDE_SIZE = 112  # pixels
# What columns a table of one's own files may have.
TABLE_COLUMNS = ("path", "label", "caption", "start", "end", "split", "group")
TABLE_SUFFIXES = (".csv", ".tsv")


def is_table(path: Path) -> bool:
    """Whether a file is a table, by its ending."""
    return path.suffix.lower() in TABLE_SUFFIXES


@dataclass(frozen=True)
class RowSelection:
    """Which rows of a benchmark are taken.

    Args:
        limit: rows of each split, or of each part that splits share, at most; None: all.
        skip: rows of the training split that are left out, from the first.
    """

    limit: int | None = None
    skip: int = 0

    def options(self) -> dict[str, object]:
        """The options that differ from their defaults, by name."""
        return {name: value for name, value in vars(self).items() if value}


@dataclass(frozen=True)
class OwnFiles:
    """How one's own files are read, by `folder` and `classes`.

    Args:
        captions: `"required"`: a row without captions is left out; `"optional"`: it is taken; None: `folder` requires
            them and `classes` does not.
        language: of the captions, where a file has them in several; None: the only one.
        columns: of a table, its own name for a column: {name that is expected: name that it has}; empty: it has none.
        label_separator: what parts the labels of a row of a table; None: each row has one label.
        group_pattern: regular expression that finds an item's group in its id; None: each item is a group of its own,
            or the table's column `group` says it.
        test_share, validation_share: of the items, that are taken out of the training split, by groups.
        seed: of what is taken out.
    """

    captions: str | None = None
    language: str | None = None
    columns: dict[str, str] = field(default_factory=dict)
    label_separator: str | None = None
    group_pattern: str | None = None
    test_share: float = 0.0
    validation_share: float = 0.0
    seed: int = 0

    def options(self) -> dict[str, object]:
        """The options that differ from their defaults, by name, as on the command line."""
        given = {name: value for name, value in vars(self).items() if value}
        if self.columns:
            given["columns"] = [f"{name}={own}" for name, own in self.columns.items()]
        return given


@dataclass(frozen=True)
class TrainingNoise:
    """What is done to the items of the training split.

    Args:
        slides: photographs in a slide show; None: photographs stay single.
        slide_size: height and width of a slide, pixels; None: SLIDE_SIZE.
        joined: clips that are joined end to end, of sound alone; None: clips stay single.
        chatter: captions of others, in each slide show or joined clip.
        swapped: share of the items that get each other's captions, 0 to 1.
        seed: of slide shows, joined clips and swaps.
    """

    slides: int | None = None
    slide_size: int | None = None
    joined: int | None = None
    chatter: int = 0
    swapped: float = 0.0
    seed: int = 0

    def options(self) -> dict[str, object]:
        """The options that differ from their defaults, by name."""
        return {name: value for name, value in vars(self).items() if value}

    def describe(self) -> str:
        """A sentence for the dataset card, empty without noise."""
        parts = []
        if self.slides:
            parts.append(f"shows {self.slides} photographs, with {self.chatter} captions of others")
        if self.joined:
            parts.append(f"joins {self.joined} clips, with the caption of one and {self.chatter} captions of others")
        if self.swapped:
            parts.append(f"has another item's captions in {self.swapped:.0%} of the cases")
        return f" Each training item {' and '.join(parts)}." if parts else ""
