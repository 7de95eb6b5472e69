"""The order of training and evaluation clips: shards, processes, workers, exact resume.

A training stream is a function of seed, epoch and position: shards are read in an order drawn for the epoch, rows are
permuted within blocks, and a clip's window is drawn for its place. There is no shuffle buffer whose contents a resumed
run would lack.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from datasets import IterableDataset
from datasets.distributed import split_dataset_by_node
from torch.utils.data import DataLoader, get_worker_info
from torch.utils.data import IterableDataset as TorchIterableDataset

from .clips_fgmm import (
    Clip,
    candidate_captions,
    caption_window,
    collate,
    random_window,
    read_clip,
    row_duration,
    spread_windows,
)
from .corpora_fgmm import MEDIA_COLUMNS, CorpusError
from .media_fgmm import MediaError
from .processing_fgmm import FgmmProcessor

# Of undecoded media that a training stream holds to permute, in each of its workers.
BLOCK_BYTES = 512_000_000


@dataclass
class Batch:
    """Model inputs, where they stand in the stream, and what was left out.

    epoch and position give the batch after this one, for a resumed run; failures holds a message for each clip that
    could not be decoded; num_clips counts those that could.
    """

    inputs: dict[str, torch.Tensor]
    epoch: int
    position: int
    num_clips: int
    failures: list[str] = field(default_factory=list)


def iterate_rows(corpus: IterableDataset) -> Iterator[dict]:
    """All rows; the corpus' own iterator would share them out among a DataLoader's workers."""
    for columns in corpus.iter(batch_size=8):
        for index in range(len(columns["video_id"])):
            yield {name: values[index] for name, values in columns.items()}


class NarratedClips(TorchIterableDataset):
    """Endless training batches of a corpus; give it to a DataLoader with `batch_size=None`.

    The batches do not depend on the number of workers, each of which makes every n-th batch. Processes take whole
    shards each where the number of shards divides evenly, else every n-th row.

    Args:
        corpus: from [`load_corpus`].
        processor: makes model inputs; its `clip_seconds` is the length of the window.
        batch_size: clips in a batch (B) of this process; a clip that cannot be decoded leaves its batch smaller.
        num_captions: candidate captions of a clip (K).
        with_video, with_audio: what to decode.
        seed: of order, windows and crops.
        block_size: rows that are permuted together, fewer where their media have more than `BLOCK_BYTES`.
        min_crop_area, flip: see [`FgmmVideoProcessor.random_crop`].
        rank, world_size: this process and their number.
        epoch, position: the first batch, from a checkpoint.
    """

    def __init__(
        self,
        corpus: IterableDataset,
        processor: FgmmProcessor,
        *,
        batch_size: int,
        num_captions: int = 4,
        with_video: bool = True,
        with_audio: bool = True,
        seed: int = 0,
        block_size: int = 1024,
        min_crop_area: float = 1.0,
        flip: bool = False,
        rank: int = 0,
        world_size: int = 1,
        epoch: int = 0,
        position: int = 0,
    ):
        # Only the order of shards is shuffled here; more than one shard at a time would start threads each epoch.
        shuffled = corpus.shuffle(seed=seed, buffer_size=1, max_buffer_input_shards=1)
        self.corpus = split_dataset_by_node(shuffled, rank, world_size)
        self.processor = processor
        self.batch_size = batch_size
        self.num_captions = num_captions
        self.with_video = with_video
        self.with_audio = with_audio
        self.seed = seed
        self.block_size = block_size
        self.min_crop_area = min_crop_area
        self.flip = flip
        self.rank = rank
        self.epoch = epoch
        self.position = position

    def rows(self, epoch: int) -> Iterator[dict]:
        """Undecoded rows of one epoch, in its order."""
        self.corpus.set_epoch(epoch)
        for place, block in enumerate(self.blocks()):
            for index in np.random.default_rng([self.seed, epoch, self.rank, place]).permutation(len(block)):
                yield block[index]

    def blocks(self) -> Iterator[list[dict]]:
        """Neighbouring rows that are permuted together: `block_size` of them, fewer where their media are large."""
        block, size = [], 0
        for row in iterate_rows(self.corpus):
            block.append(row)
            size += sum(len(row[column]["bytes"] or b"") for column in MEDIA_COLUMNS if row.get(column))
            if len(block) == self.block_size or size >= BLOCK_BYTES:
                yield block
                block, size = [], 0
        if block:
            yield block

    def row_batches(self) -> Iterator[tuple[int, int, list[dict]]]:
        """(epoch, position, rows) without end, from where this stream begins; an epoch's last rows may be left over."""
        epoch, position = self.epoch, self.position
        while True:
            rows, seen = [], 0
            for row in self.rows(epoch):
                seen += 1
                if seen <= position * self.batch_size:
                    continue
                rows.append(row)
                if len(rows) == self.batch_size:
                    yield epoch, position, rows
                    rows, position = [], position + 1
            if seen < self.batch_size:
                raise CorpusError(
                    f"The corpus has {seen} clips for this process, fewer than its batch of {self.batch_size}; "
                    "lower batch_size or add clips."
                )
            epoch, position = epoch + 1, 0

    def __iter__(self) -> Iterator[Batch]:
        worker = get_worker_info()
        worker_id, num_workers = (worker.id, worker.num_workers) if worker else (0, 1)
        for number, (epoch, position, rows) in enumerate(self.row_batches()):
            if number % num_workers == worker_id:
                yield self.make_batch(epoch, position, rows)

    def make_batch(self, epoch: int, position: int, rows: list[dict]) -> Batch:
        """Decodes and collates."""
        clips, failures = [], []
        for place, row in enumerate(rows):
            generator = np.random.default_rng([self.seed, epoch, self.rank, position, place])
            try:
                clips.append(self.sample(row, generator))
            except MediaError as error:
                failures.append(str(error))
        inputs = collate(self.processor, clips, self.with_video, self.with_audio) if clips else {}
        return Batch(inputs, epoch, position + 1, len(clips), failures)

    def read(self, row: dict, start: float, end: float) -> Clip:
        """One window of a row, decoded; times in seconds, end 0 for an image."""
        return read_clip(row, self.processor, start, end or None, self.with_audio)

    def sample(self, row: dict, generator: np.random.Generator) -> Clip:
        """One random window of a row and the captions nearest to it."""
        start, end = random_window(row_duration(row), self.processor.clip_seconds, generator)
        if not self.with_video:
            row = {**row, "audio": row.get("audio") or row.get("video"), "video": None}
        clip = self.read(row, start, end)
        if clip.frames is not None:
            clip.frames = self.processor.video_processor.random_crop(
                clip.frames, generator, self.min_crop_area, self.flip
            )
        captions = row.get("captions") or []
        clip.captions = candidate_captions(captions, start, end, self.num_captions, generator)
        return clip


@dataclass
class EvaluationItem:
    """What is retrieved or classified: windows of one row, its captions, its label (several: a list), None without."""

    windows: list[Clip]
    captions: list[str]
    label: int | list[int] | None = None


class EvaluationClips(TorchIterableDataset):
    """What an evaluation sees of a corpus, in its own order; give it to a DataLoader with `batch_size=None`.

    Gives (position of the row, its items); in place of an item that cannot be decoded, why. Processes take every n-th
    row, and of these their workers every n-th, see [`in_order`].

    Args:
        corpus, processor, with_video, with_audio: see [`NarratedClips`].
        num_windows: windows of `clip_seconds` an item, see [`spread_windows`].
        each_caption: every caption is an item of its own, shown between its start and end (YouCook2's clip retrieval;
            see [`check_times`]); else a row is one item with all its captions.
        rank, world_size: this process and their number.
    """

    def __init__(
        self,
        corpus,
        processor,
        *,
        with_video=True,
        with_audio=True,
        num_windows=1,
        each_caption=False,
        rank=0,
        world_size=1,
    ):
        self.corpus = corpus
        self.processor = processor
        self.with_video = with_video
        self.with_audio = with_audio
        self.num_windows = num_windows
        self.each_caption = each_caption
        self.rank = rank
        self.world_size = world_size

    def __iter__(self) -> Iterator[tuple[int, list[EvaluationItem | str]]]:
        worker = get_worker_info()
        worker_id, num_workers = (worker.id, worker.num_workers) if worker else (0, 1)
        for position, row in enumerate(iterate_rows(self.corpus)):
            place, share = divmod(position, self.world_size)
            if share == self.rank and place % num_workers == worker_id:
                yield position, self.decode_row(row)

    def decode_row(self, row: dict) -> list[EvaluationItem | str]:
        """The items of a row, or why each could not be decoded."""
        if not self.with_video:
            row = {**row, "audio": row.get("audio") or row.get("video"), "video": None}
        captions = row.get("captions") or []
        try:
            duration = row_duration(row) or None  # a picture has none
        except MediaError as error:
            return [str(error)]
        if not self.each_caption:
            return [self.decode(row, 0.0, duration, [caption["text"] for caption in captions])]
        return [self.decode(row, *caption_window(caption, duration), [caption["text"]]) for caption in captions]

    def decode(self, row: dict, start: float, end: float | None, captions: list[str]) -> EvaluationItem | str:
        """The windows between two times in seconds (None: the end), or why they could not be decoded."""
        windows = [(start, end)]
        if end is not None:
            windows = spread_windows(start, end, self.processor.clip_seconds, self.num_windows)
        try:
            clips = [self.decode_window(row, *window) for window in windows]
        except MediaError as error:
            return str(error)
        return EvaluationItem(clips, captions, row.get("label"))

    def decode_window(self, row: dict, start: float, end: float | None) -> Clip:
        """One window, frames cropped in the middle."""
        clip = read_clip(row, self.processor, start, end, self.with_audio)
        if clip.frames is not None:
            clip.frames = self.processor.video_processor.resize_and_crop(clip.frames)
        return clip


def in_order(loader: DataLoader) -> Iterator[tuple[int, list[EvaluationItem | str]]]:
    """What a DataLoader over [`EvaluationClips`] gives, in the order of the corpus: workers answer in turn, but for the
    last ones."""
    waiting, expected = {}, loader.dataset.rank
    for position, items in loader:
        waiting[position] = items
        while expected in waiting:
            yield expected, waiting.pop(expected)
            expected += loader.dataset.world_size
