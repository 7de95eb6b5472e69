"""A corpus' official splits or folds: what is trained on, what is evaluated, classes and labels."""

import re
import warnings
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from datasets import ClassLabel, IterableDataset
from sklearn.model_selection import GroupKFold, StratifiedGroupKFold

from processing_fgmm.corpora_fgmm import load_corpus
from processing_fgmm.rowgroups_fgmm import RowGroups, SelectedRows, open_row_groups

from ..cli import UserError
from ..embedding.stored import open_embeddings
from .settings import HELD_OUT

# Parts of the training split, in cross-validation and to hold one out.
NUM_PARTS = 5
# Clips cut from one recording: UCF101's v_CLASS_gNN_cNN, ESC's FOLD-RECORDING-TAKE, Speech Commands' SPEAKER_nohash_N.
GROUP_PATTERNS = (r".+_g\d+(?=_c\d+)", r"^\d-\d+(?=-[A-Z])", r"[0-9a-f]{8}(?=_nohash_)")


@dataclass(frozen=True)
class Classes:
    """The classes of a corpus: their names, and whether a clip may be of several."""

    names: list[str]
    multi_label: bool

    def targets(self, labels: list[int | list[int]]) -> np.ndarray:
        """(clips, classes) int64, 1 for a clip's classes, else 0."""
        targets = np.zeros((len(labels), len(self.names)), dtype=np.int64)
        for row, label in enumerate(labels):
            targets[row, label] = 1
        return targets

    def model_labels(self, labels: list[int | list[int]]) -> np.ndarray:
        """As a classification model takes them: (clips,) int64 indices, or (clips, classes) float32, 0 or 1."""
        return self.targets(labels).astype(np.float32) if self.multi_label else np.array(labels)


@dataclass(frozen=True)
class Split:
    """Some clips of a corpus, and the label of each by its video_id.

    source: dataset, split and configuration that they are from.
    corpus: their rows as a stream.
    labels: in the order of the stream.
    groups: what each clip was cut from, see [`group_of`], or its column `group`.
    """

    source: tuple[str, str, str]
    corpus: IterableDataset
    labels: dict[str, int | list[int]]
    groups: dict[str, str]

    def keep(self, names) -> "Split":
        """The split reduced to the clips of these names."""
        names = frozenset(names)
        corpus = self.corpus.filter(partial(is_among, names), input_columns="video_id")
        return replace(self, corpus=corpus, labels={n: label for n, label in self.labels.items() if n in names})

    def row_groups(self) -> RowGroups:
        """The rows, to be read in any order."""
        rows = open_row_groups(*self.source)
        return rows if rows.num_rows == len(self.labels) else SelectedRows(rows, self.labels)


def is_among(names: frozenset[str], video_id: str) -> bool:
    """As a function of the module it can be pickled, which decoding processes need."""
    return video_id in names


def read_classes(corpus: IterableDataset, dataset: str) -> Classes:
    """The classes of the column `label`.

    Raises:
        UserError: when there is none, or it is neither a ClassLabel nor a list of them.
    """
    feature = corpus.features.get("label")
    multi_label = not isinstance(feature, ClassLabel)
    feature = getattr(feature, "feature", None) if multi_label else feature
    if not isinstance(feature, ClassLabel):
        raise UserError(
            f"{dataset} has no column 'label' of ClassLabel or List(ClassLabel), which classes come from; of folders "
            "of classes, also beside a metadata.csv, scripts/prepare_dataset.py classes makes it."
        )
    return Classes(list(feature.names), multi_label)


def read_split(dataset: str, split: str, config_name: str) -> Split:
    """A split's rows, and their labels; of stored embeddings the rows are windows, several of a clip.

    Raises:
        CorpusError: when the split does not exist.
        UserError: naming a clip that is in it twice or has no label.
    """
    stored = open_embeddings(dataset, split, config_name)
    corpus, labels, groups = stored.open_rows() if stored else load_corpus(dataset, split, config_name), {}, {}
    for row in corpus.select_columns([name for name in ("video_id", "label", "group") if name in corpus.column_names]):
        name, label = row["video_id"], row["label"]
        if name in labels and stored:
            continue
        if name in labels:
            raise UserError(f"{dataset}, {config_name}, has {name!r} twice in its split {split!r}.")
        if label is None or label == -1:
            raise UserError(f"{dataset}, {config_name}, has no label for {name!r} in its split {split!r}.")
        labels[name], groups[name] = label, row.get("group") or group_of(name)
    return Split((dataset, split, config_name), corpus, labels, groups)


def group_of(video_id: str) -> str:
    """The recording that a clip was cut from, where its name tells, else the clip's name."""
    matches = (re.search(pattern, video_id) for pattern in GROUP_PATTERNS)
    return next((match.group() for match in matches if match), video_id)


def split_groups(targets: np.ndarray, groups: list[str], seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Cross-validation in five parts, fewer where there are fewer groups; no group is trained and validated on.

    Args:
        targets: (rows, classes) 0 or 1. Where every row is of one class, the parts have like shares of each.
        groups: the group of each row.
        seed: of the order.

    Returns:
        for each part the indices of the rows to train on, and of the rows to validate on.

    Raises:
        ValueError: when all rows are of one group.
    """
    number = min(NUM_PARTS, len(set(groups)))
    if number < 2:
        raise ValueError("The training clips are all of one recording, so that no part of them can be held out.")
    one_class = (targets.sum(1) == 1).all()
    splitter = (StratifiedGroupKFold if one_class else GroupKFold)(number, shuffle=True, random_state=seed)
    with warnings.catch_warnings():  # of classes with fewer rows than parts, for which there is no remedy
        warnings.simplefilter("ignore", UserWarning)
        return list(splitter.split(targets, targets.argmax(1), groups))


def read_fold(dataset: str, config_name: str, split: str, classes: Classes, seed: int) -> tuple[Split, Split]:
    """The clips of one configuration to train on, and those to evaluate.

    Args:
        split: that is evaluated, or `HELD_OUT`.
        seed: of what is held out.

    Raises:
        CorpusError: when a split does not exist.
        UserError: when there are training clips of fewer than two classes, or nothing can be held out.
    """
    train = read_split(dataset, "train", config_name)
    if split == HELD_OUT:
        names = np.array(list(train.labels))
        targets = classes.targets(list(train.labels.values()))
        try:
            kept, held_out = split_groups(targets, [train.groups[name] for name in names], seed)[0]
        except ValueError as error:
            raise UserError(f"{dataset}, {config_name}: {error}") from error
        train, evaluated = train.keep(names[kept].tolist()), train.keep(names[held_out].tolist())
    else:
        evaluated = read_split(dataset, split, config_name)
    if classes.targets(list(train.labels.values())).any(0).sum() < 2:
        raise UserError(f"{dataset}, {config_name}, has training clips of fewer than two classes.")
    return train, evaluated
