"""The corpora of a run: opened, and counted and measured while it trains."""

from dataclasses import dataclass

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from datasets import IterableDataset
from transformers.utils import ModelOutput

from modeling_fgmm import FgmmModel
from processing_fgmm.corpora_fgmm import load_corpus
from processing_fgmm.rowgroups_fgmm import RowGroups, open_row_groups
from processing_fgmm.streams_fgmm import Batch

from .configuration import PretrainConfig
from .processes import on_main_process

# The fields of an encoder's output that say what an item has, by which others are left out of a contrast.
MASKS = ("region_mask", "phrase_mask", "caption_mask")


@dataclass(frozen=True)
class TrainingCorpus:
    """One corpus of a run.

    name: in logs.
    weight: its share of the clips, in any unit.
    stream: its rows, in their own order.
    rows: its row groups, for reading in any order.
    """

    name: str
    weight: float
    stream: IterableDataset
    rows: RowGroups


def open_corpora(config: PretrainConfig, accelerator: Accelerator) -> list[TrainingCorpus]:
    """Opens the training splits of a run's corpora. The main process does so first, and leaves what it has read of the
    Parquet files' footers to the others.

    Raises:
        CorpusError: when one cannot be used.
    """

    def open_all() -> list[TrainingCorpus]:
        arguments = [(entry.dataset, entry.train_split, entry.dataset_config) for entry in config.corpora]
        streams = [load_corpus(*of_corpus) for of_corpus in arguments]
        rows = [open_row_groups(*of_corpus) for of_corpus in arguments]
        return list(map(TrainingCorpus, config.corpus_names, config.corpus_weights, streams, rows))

    if accelerator.num_processes > 1:
        on_main_process(accelerator, lambda: bool(open_all()))
    return open_all()


class CorpusLog:
    """Clips and losses of each corpus of a run that mixes several.

    Args:
        names: of the corpora; of a single one nothing is counted.
    """

    def __init__(self, names: list[str]):
        self.names = names
        self.counts = [0] * len(names)

    def add(self, batch: Batch) -> None:
        """Counts the clips of a batch of this process."""
        for corpus in batch.corpora:
            self.counts[corpus] += 1

    def report(
        self, accelerator: Accelerator, model: FgmmModel, outputs: dict[str, ModelOutput], corpora: list[int]
    ) -> dict[str, float]:
        """Clips of each corpus in this run, in all processes, which call it together; and the loss of the last step's
        clips of each corpus among themselves, where it has any.

        Args:
            accelerator, model: as trained.
            outputs: of the encoders in the last step, by modality; B items.
            corpora: (B,) the corpus of each item; -1 for an empty one.
        """
        if len(self.names) == 1:
            return {}
        values = {}
        totals = torch.tensor(gather_object([self.counts])).sum(0).tolist()
        for corpus, name in enumerate(self.names):
            values[f"clips/{name}"] = totals[corpus]
            loss, present = corpus_loss(model, outputs, [index == corpus for index in corpora])
            if accelerator.reduce(present, "sum").item():
                values[f"loss/{name}"] = accelerator.reduce(loss, "mean").item()
        return values


@torch.no_grad()
def corpus_loss(
    model: FgmmModel, outputs: dict[str, ModelOutput], chosen: list[bool]
) -> tuple[torch.Tensor, torch.Tensor]:
    """The loss of some of the encoded items among themselves, and their number in this process; two numbers.

    Args:
        model: without wrappers.
        outputs: of its encoders, by modality; B items.
        chosen: (B,) which of them.
    """
    some = next(iter(outputs.values())).pooler_output
    mask = torch.tensor(chosen, device=some.device)
    restricted = {
        modality: type(output)(
            **{name: value & mask.unsqueeze(1) if name in MASKS else value for name, value in output.items()}
        )
        for modality, output in outputs.items()
    }
    return model.contrast(restricted), mask.sum().float()
