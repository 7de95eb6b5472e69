"""The one road from a corpus to vectors.

Rows are decoded in workers, windows are encoded in batches, and each item is given back with its windows' results.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, islice
from typing import Generic, TypeVar

import torch
from torch.utils.data import DataLoader
from tqdm import tqdm

from modeling_fgmm import FgmmModel
from modeling_fgmm.outputs_fgmm import as_keys, as_queries
from modeling_fgmm.scoring_fgmm import Keys, Queries
from processing_fgmm import FgmmProcessor
from processing_fgmm.clips_fgmm import Clip, collate
from processing_fgmm.streams_fgmm import EvaluationClips, in_order

from ..caption_problems import MAX_NAMED, CaptionProblems
from ..cli import ignore_termination

# Texts that are encoded at once.
TEXT_BATCH_SIZE = 128

Result = TypeVar("Result")


@dataclass
class EncodedItem(Generic[Result]):
    """An item of a corpus: its row's id, one result for each of its windows in their order, captions and label, and
    whether it is an image."""

    video_id: str
    windows: list[Result]
    captions: list[str]
    label: int | list[int] | None
    is_image: bool = False


@dataclass
class DecodedWindow(Generic[Result]):
    """A decoded window: the position of its row in the corpus, the item that its result is for, whether it is the
    item's last."""

    position: int
    item: EncodedItem[Result]
    clip: Clip
    is_last: bool


class EncodedCorpus(Generic[Result]):
    """Iterates over the items of a process' share of a corpus, in its order; each pass decodes and encodes them anew.

    Windows are batched within a block of rows, so that a result is the same for all numbers of processes to the last
    digit. An item that cannot be decoded is left out; so are damaged parts of the others, and captions that cannot be
    used. The first of each are named on stderr. Beside what the workers have ready, the decoded windows of one batch
    and one row are held in memory at most.

    Args:
        clips: what is decoded: the corpus, its windows and modalities, and this process' share of the rows.
        encode: model inputs of B windows, on `device`, to B results, one a window, on the CPU, for they are held until
            their item is complete; called without gradients.
        device: of the model.
        batch_size: windows that are encoded at once.
        num_workers: decoding processes; 0 decodes in this one.
        description: of the progress bar, which the first process shows.

    Attributes:
        failures: why each item that was left out could not be decoded; of the last pass.
        damaged: ids of the rows of which damaged parts were left out; of the last pass.
        caption_problems: the captions that were left out or repaired; of the last pass.
    """

    def __init__(
        self,
        clips: EvaluationClips,
        encode: Callable[[dict[str, torch.Tensor]], Sequence[Result]],
        *,
        device: torch.device,
        batch_size: int,
        num_workers: int,
        description: str = "Encoding clips",
    ):
        self.clips = clips
        self.encode = encode
        self.device = device
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.description = description
        self.failures: list[str] = []
        self.damaged: set[str] = set()
        self.caption_problems = CaptionProblems()

    def __iter__(self) -> Iterator[EncodedItem[Result]]:
        return (item for _, item in self.encode_rows())

    def encode_rows(self) -> Iterator[tuple[int, EncodedItem[Result]]]:
        """The position of a row, and one of its items."""
        self.failures, self.damaged, self.caption_problems = [], set(), CaptionProblems()
        for _, windows in groupby(self.decode_windows(), lambda window: window.position // self.clips.block_rows):
            while batch := list(islice(windows, self.batch_size)):
                results = self.encode_windows([window.clip for window in batch])
                for window, result in zip(batch, results, strict=True):
                    window.item.windows.append(result)
                    if window.is_last:
                        yield window.position, window.item

    def gather(self) -> list[EncodedItem[Result]] | None:
        """The items of all processes in the order of the corpus, in the first one, which reports; None in the others.

        `failures`, `damaged` and `caption_problems` are then those of all processes, too.
        """
        items = list(self.encode_rows())
        if self.clips.world_size > 1:
            own = (items, self.failures, self.damaged, self.caption_problems)
            parts = [None] * self.clips.world_size if self.clips.rank == 0 else None
            torch.distributed.gather_object(own, parts)
            if parts is None:
                return None
            items = sorted((entry for part in parts for entry in part[0]), key=lambda entry: entry[0])
            self.failures = [failure for part in parts for failure in part[1]]
            self.damaged = {name for part in parts for name in part[2]}
            self.caption_problems.found = {problem: None for part in parts for problem in part[3].found}
        self.report()
        return [item for _, item in items]

    def report(self) -> None:
        """Says on stderr how many items could not be decoded, and how many captions not be used as they are."""
        number = len(self.failures)
        if number:
            named = "named above" if len({*self.failures}) <= MAX_NAMED else f"the first {MAX_NAMED} named above"
            tqdm.write(f"{number} clips could not be decoded, {named}.", file=sys.stderr)
        if self.caption_problems.found:
            tqdm.write(self.caption_problems.summarize(), file=sys.stderr)

    def decode_windows(self) -> Iterator[DecodedWindow[Result]]:
        """The windows of all items that can be decoded."""
        loader = DataLoader(
            self.clips, batch_size=None, num_workers=self.num_workers, worker_init_fn=ignore_termination
        )
        rows = tqdm(in_order(loader), desc=self.description, unit="row", leave=False, disable=self.clips.rank != 0)
        for position, items in rows:
            for item in items:
                if isinstance(item, str):
                    self.add_failure(item)
                    continue
                self.caption_problems.add(item.caption_problems)
                if not item.windows:  # a caption that is left out
                    continue
                first = item.windows[0]
                encoded = EncodedItem(first.video_id, [], item.captions, item.label, first.is_image)
                for number, clip in enumerate(item.windows, 1):
                    if clip.damage and clip.video_id not in self.damaged:
                        self.damaged.add(clip.video_id)
                        if len(self.damaged) <= MAX_NAMED:
                            tqdm.write(f"Used without its damaged part: {clip.damage}", file=sys.stderr)
                    yield DecodedWindow(position, encoded, clip, number == len(item.windows))

    def add_failure(self, reason: str) -> None:
        """Counts an item that cannot be decoded, and names it where it is one of the first."""
        named = set(self.failures)
        if reason not in named and len(named) < MAX_NAMED:
            tqdm.write(f"Skipped a clip: {reason}", file=sys.stderr)
        self.failures.append(reason)

    @torch.no_grad()
    def encode_windows(self, clips: list[Clip]) -> Sequence[Result]:
        """One result for each window."""
        flags = {"with_video": self.clips.with_video, "with_audio": self.clips.with_audio}
        inputs = collate(self.clips.processor, clips, **flags, with_text=False)
        return self.encode({name: value.to(self.device) for name, value in inputs.items()})


def encode_keys(model: FgmmModel, inputs: dict[str, torch.Tensor]) -> list[dict[str, Keys]]:
    """The regions and embeddings of windows; `encode` of [`EncodedCorpus`], once the model is bound.

    Args:
        inputs: of B windows, their video, audio or both.

    Returns:
        for each window, under "video" and "audio", its [`Keys`], on the CPU: regions (1, N, D), embeds (1, D).
    """
    keys = {name: as_keys(output).to("cpu") for name, output in model.encode_inputs(**inputs).items()}
    number = len(next(iter(inputs.values())))
    return [{name: batch.select(slice(row, row + 1)) for name, batch in keys.items()} for row in range(number)]


@torch.no_grad()
def encode_texts(model: FgmmModel, processor: FgmmProcessor, texts: list[str]) -> Queries:
    """B texts to [`Queries`] of one caption each, on the CPU: phrases (B, M, D), embeds (B, 1, D).

    Words that the tokenizer does not know are named in one warning.
    """
    processor.warn_of_unknown_words(texts)
    pieces = []
    for first in range(0, len(texts), TEXT_BATCH_SIZE):
        inputs = processor(text=texts[first : first + TEXT_BATCH_SIZE], verbose=False).to(model.device)
        pieces.append(as_queries(model.get_text_features(**inputs)).to("cpu"))
    return Queries.concatenate(pieces)
