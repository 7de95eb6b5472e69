"""Embeddings of a corpus, read in place of its media."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as parquet
from datasets import IterableDataset, load_dataset

from modeling_fgmm import FgmmModel
from modeling_fgmm.scoring_fgmm import Keys
from processing_fgmm import FgmmProcessor
from processing_fgmm.corpora_fgmm import CorpusError, list_files, list_splits

from ..cli import UserError
from ..models import fingerprint_weights
from .encoding import EncodedItem
from .settings import EmbeddingSettings
from .storage import NAME, read_manifest
from .tables import from_table, window_keys
from .windows import MODALITIES, Window


class StoredEmbeddings:
    """A split of a folder of embeddings.

    Args:
        folder: of scripts/embed_corpus.py.
        split, config_name: of the corpus.

    Attributes:
        settings: that the corpus was embedded with.

    Raises:
        CorpusError: when it has no such split or configuration.
        UserError: when the folder is incomplete or damaged.
    """

    def __init__(self, folder: str, split: str, config_name: str | None = None):
        self.folder = folder
        self.manifest = read_manifest(Path(folder))
        self.settings = EmbeddingSettings(**self.manifest["settings"])
        if not self.manifest["complete"]:
            raise UserError(f"{folder} is incomplete; run the command of scripts/embed_corpus.py that made it again.")
        splits = list_splits(folder, config_name)
        if split not in splits:
            raise CorpusError(f"{folder} has no split {split!r}, only {', '.join(splits)}.")
        self.files = list_files(folder, split, config_name)
        self.schema = parquet.read_schema(self.files[0])

    def check_model(self, model: FgmmModel, processor: FgmmProcessor) -> None:
        """Raises a UserError where the embeddings are of another model than this one, in weights or settings."""
        if fingerprint_weights(model, processor) != self.manifest["fingerprint"]:
            raise UserError(
                f"{self.folder} holds embeddings of another model, {self.manifest['model']!r}, or of another state of "
                "it; give that model, or embed the corpus with this one."
            )

    def check_num_windows(self, number: int | None) -> None:
        """Raises a UserError where an item has not the number of windows that is asked for; None asks for no number."""
        if number not in (None, self.settings.num_windows):
            had = self.settings.num_windows or "as many windows as cover it"
            raise UserError(
                f"{self.folder} has of each item {had}, not {number}; leave out --num_windows, or embed the corpus "
                f"with --num_windows {number}."
            )

    def describe(self) -> str:
        """How the embeddings differ from those of media, for the line of a protocol."""
        number = self.settings.num_regions
        regions = f"at most {number} regions of a window in {self.settings.precision}" if number else "no regions"
        return f"stored embeddings, {regions}"

    def read_windows(self, with_regions: bool = True) -> Iterator[Window]:
        """All windows, in the order of the corpus; a row group of them is in memory at a time.

        Args:
            with_regions: read the regions, too, which are most of the bytes.
        """
        ends = () if with_regions else ("_regions", "_scale")
        columns = [name for name in self.schema.names if not name.endswith(ends)]
        for path in self.files:
            with parquet.ParquetFile(path) as file:
                for group in range(file.num_row_groups):
                    yield from from_table(file.read_row_group(group, columns))

    def read_items(self, with_regions: bool = True) -> tuple[list[EncodedItem[dict[str, Keys]]], int]:
        """The items, as they would be encoded, and the number of those of which nothing could be decoded; without
        regions the pooled embedding stands for them."""
        items: dict[str, EncodedItem[dict[str, Keys]]] = {}
        undecodable = 0
        for window in self.read_windows(with_regions):
            if not window.is_decoded:
                undecodable += 1
                continue
            item = items.setdefault(
                window.video_id, EncodedItem(window.video_id, [], [], window.label, window.is_image)
            )
            item.windows.append(window_keys(window, [name for name in MODALITIES if self.has(name)]))
            item.captions += [caption["text"] for caption in window.captions]
        return list(items.values()), undecodable

    def has(self, modality: str) -> bool:
        """Whether the model embedded a modality."""
        return f"{modality}_embeds" in self.schema.names

    def open_rows(self) -> IterableDataset:
        """The windows as a stream of rows with the features of the columns, of which single ones may be selected."""
        return load_dataset("parquet", data_files={"train": self.files}, split="train", streaming=True)


def open_embeddings(dataset: str, split: str, config_name: str | None = None) -> StoredEmbeddings | None:
    """The embeddings in a folder; None where `dataset` is none, but a corpus or a name on the Hub.

    Raises: see [`StoredEmbeddings`].
    """
    return StoredEmbeddings(dataset, split, config_name) if (Path(dataset) / NAME).exists() else None
