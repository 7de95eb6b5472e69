"""The order of clips in training and evaluation, shared out among processes and workers.

A training stream is a function of seed, epoch and position: the shards are read in an order drawn for each epoch, rows
are permuted within blocks, and the window of a clip is drawn from its place in the order. There is no shuffle buffer,
whose contents a resumed run would lack.
"""

import math
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
    collate,
    drop_video,
    evenly_spaced_windows,
    fetch_media,
    open_row,
    random_window,
    read_clip,
    row_duration,
)
from .corpora_fgmm import MEDIA_COLUMNS, CorpusError, check_captions, usable_captions
from .media_fgmm import MediaError
from .processing_fgmm import FgmmProcessor

# Bytes of undecoded media in a block of rows, which each worker of a training stream holds in memory.
MAX_BLOCK_BYTES = 512_000_000


@dataclass(frozen=True)
class FailedClip:
    """A clip that could not be decoded: the id of its row, the path of its file if it has one, and the reason."""

    video_id: str
    file: str | None
    reason: str


@dataclass
class Batch:
    """Model inputs of a training step and their place in the stream.

    inputs: see [`collate`]; empty when no clip of the batch could be decoded.
    epoch, position: of the next batch, from which a resumed run continues.
    num_clips: clips in `inputs` (B).
    failures: the clips that could not be decoded.
    damaged: a message for each clip in which damaged packets were left out, by its id.
    problems: one message for each caption of the other clips that was left out or repaired.
    """

    inputs: dict[str, torch.Tensor]
    epoch: int
    position: int
    num_clips: int
    failures: list[FailedClip] = field(default_factory=list)
    damaged: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def iterate_rows(corpus: IterableDataset) -> Iterator[dict]:
    """All rows of a corpus in every worker; its own iterator would share them out among the workers of a DataLoader."""
    for columns in corpus.iter(batch_size=8):
        for index in range(len(columns["video_id"])):
            yield {name: values[index] for name, values in columns.items()}


def worker_share() -> tuple[int, int]:
    """Index of this DataLoader worker and number of workers; (0, 1) outside of workers."""
    worker = get_worker_info()
    return (worker.id, worker.num_workers) if worker else (0, 1)


class NarratedClips(TorchIterableDataset):
    """Endless training batches of a corpus, for a DataLoader with `batch_size=None`.

    The batches do not depend on the number of workers, each of which makes every n-th batch. Each process takes whole
    shards where the number of shards is divisible by the number of processes, else every n-th row.

    Args:
        corpus: from [`load_corpus`].
        processor: makes the model inputs; its `clip_seconds` is the length of the windows.
        batch_size: clips in a batch of this process (B), fewer when some cannot be decoded.
        num_captions: maximum number of candidate captions of a clip (K).
        with_video, with_audio: modalities to decode.
        seed: of order, windows, crops and captions.
        block_size: rows that are permuted together, fewer when their media exceed `MAX_BLOCK_BYTES`.
        min_crop_area, flip: see [`FgmmVideoProcessor.random_crop`].
        rank, world_size: index of this process, and number of processes.
        epoch, position: of the first batch, from a checkpoint.
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
        # Shuffles the order of the shards alone; more than one input shard at a time would start threads each epoch.
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

    def __iter__(self) -> Iterator[Batch]:
        worker_id, num_workers = worker_share()
        for number, (epoch, position, rows) in enumerate(self.row_batches()):
            if number % num_workers == worker_id:
                yield self.make_batch(epoch, position, rows)

    def row_batches(self) -> Iterator[tuple[int, int, list[dict]]]:
        """(epoch, position, rows) of each batch without end, from the first batch of this stream on.

        The last rows of an epoch, if they are fewer than a batch, are left out.

        Raises:
            CorpusError: when an epoch is smaller than a batch.
        """
        epoch, position = self.epoch, self.position
        while True:
            rows, num_rows = [], 0
            for row in self.rows(epoch):
                num_rows += 1
                if num_rows <= position * self.batch_size:
                    continue
                rows.append(row)
                if len(rows) == self.batch_size:
                    yield epoch, position, rows
                    rows, position = [], position + 1
            if num_rows < self.batch_size:
                raise CorpusError(
                    f"The corpus has {num_rows} clips for this process, fewer than its batch of {self.batch_size}; "
                    "lower batch_size or add clips."
                )
            epoch, position = epoch + 1, 0

    def rows(self, epoch: int) -> Iterator[dict]:
        """Undecoded rows of this process in one epoch, in order."""
        self.corpus.set_epoch(epoch)
        for place, block in enumerate(self.blocks()):
            for index in np.random.default_rng([self.seed, epoch, self.rank, place]).permutation(len(block)):
                yield block[index]

    def blocks(self) -> Iterator[list[dict]]:
        """Blocks of neighbouring rows: `block_size` of them, fewer when their media are large."""
        block, num_bytes = [], 0
        for row in iterate_rows(self.corpus):
            block.append(row)
            num_bytes += sum(len(row[column]["bytes"] or b"") for column in MEDIA_COLUMNS if row.get(column))
            if len(block) == self.block_size or num_bytes >= MAX_BLOCK_BYTES:
                yield block
                block, num_bytes = [], 0
        if block:
            yield block

    def make_batch(self, epoch: int, position: int, rows: list[dict]) -> Batch:
        """Decodes and collates the rows of one batch."""
        clips, failures = [], []
        for place, row in enumerate(rows):
            generator = np.random.default_rng([self.seed, epoch, self.rank, position, place])
            try:
                clips.append(self.sample_clip(row, generator))
            except MediaError as error:
                media = next((row[column] for column in MEDIA_COLUMNS if row.get(column)), {})
                failures.append(FailedClip(row["video_id"], media.get("path"), str(error)))
        inputs = collate(self.processor, clips, self.with_video, self.with_audio) if clips else {}
        damaged = {clip.video_id: clip.damage for clip in clips if clip.damage}
        problems = [problem for clip in clips for problem in clip.problems]
        return Batch(inputs, epoch, position + 1, len(clips), failures, damaged, problems)

    def sample_clip(self, row: dict, generator: np.random.Generator) -> Clip:
        """A random window of a row, randomly cropped, with the captions nearest to it.

        Raises:
            MediaError: when the row cannot be decoded.
        """
        if not self.with_video:
            row = drop_video(row)
        with open_row(fetch_media(row)) as row:
            duration = row_duration(row)
            start, end = random_window(duration, self.processor.clip_seconds, generator)
            clip = self.decode_window(row, start, end)
        if clip.frames is not None:
            clip.frames = self.processor.video_processor.random_crop(
                clip.frames, generator, self.min_crop_area, self.flip
            )
        captions = usable_captions(row, duration or math.inf, clip.problems)  # an image has no duration
        clip.captions = candidate_captions(captions, start, end, self.num_captions, generator)
        return clip

    def decode_window(self, row: dict, start: float, end: float) -> Clip:
        """One window of a row, uncropped and without captions; times in seconds, `end` 0 for an image."""
        return read_clip(row, self.processor, start, end or None, self.with_audio)


@dataclass
class EvaluationItem:
    """One item of an evaluation: a row, or one of its captions with the part of the row that it covers.

    windows: decoded windows of the item.
    captions: all captions of the item.
    label: class, or list of classes, of the row; None without.
    problems: a sentence for each caption of the row that was left out or repaired.
    """

    windows: list[Clip]
    captions: list[str]
    label: int | list[int] | None = None
    problems: list[str] = field(default_factory=list)


class EvaluationClips(TorchIterableDataset):
    """The items of a corpus in its own order, for a DataLoader with `batch_size=None`.

    Yields (position of a row, its items); an item that cannot be decoded is a message in place of an EvaluationItem.
    Each process takes every n-th row, and each of its workers every n-th of these; see [`in_order`].

    Args:
        corpus, processor, with_video, with_audio: see [`NarratedClips`].
        num_windows: windows of `clip_seconds` of an item, see [`evenly_spaced_windows`].
        each_caption: each caption is an item, with the part of the row from its start to its end (YouCook2's clip
            retrieval; see [`check_times`]); else each row is an item, with all its captions.
        rank, world_size: index of this process, and number of processes.
    """

    def __init__(
        self,
        corpus: IterableDataset,
        processor: FgmmProcessor,
        *,
        with_video: bool = True,
        with_audio: bool = True,
        num_windows: int = 1,
        each_caption: bool = False,
        rank: int = 0,
        world_size: int = 1,
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
        worker_id, num_workers = worker_share()
        for position, row in enumerate(iterate_rows(self.corpus)):
            place, rank = divmod(position, self.world_size)
            if rank == self.rank and place % num_workers == worker_id:
                yield position, self.decode_row(row)

    def decode_row(self, row: dict) -> list[EvaluationItem | str]:
        """The items of a row; a message for each that cannot be decoded, or is a caption that is left out."""
        if not self.with_video:
            row = drop_video(row)
        try:
            row = fetch_media(row)
        except MediaError as error:
            return [str(error)]
        with open_row(row) as row:
            try:
                duration = row_duration(row) or None  # an image has none
            except MediaError as error:
                return [str(error)]
            if not self.each_caption:
                problems: list[str] = []
                captions = usable_captions(row, duration or math.inf, problems)
                return [self.decode_item(row, 0.0, duration, [caption["text"] for caption in captions], problems)]
            return [
                self.decode_caption(row, duration, caption, f"{row['video_id']} {problem}." if problem else "")
                for caption, problem in check_captions(row.get("captions"), duration or math.inf)
            ]

    def decode_caption(
        self, row: dict, duration: float | None, caption: dict | None, problem: str
    ) -> EvaluationItem | str:
        """The part of a row that a caption covers; `caption` and `problem`, with the row's id, as of
        [`check_captions`]."""
        if caption is None:
            return problem
        end = duration if caption["end"] in (None, math.inf) else caption["end"]
        return self.decode_item(row, caption["start"] or 0.0, end, [caption["text"]], [problem] if problem else [])

    def decode_item(
        self, row: dict, start: float, end: float | None, captions: list[str], problems: list[str]
    ) -> EvaluationItem | str:
        """The item between two times of a row, seconds (`end` None: its end); a message if it cannot be decoded."""
        windows = [(start, end)]
        if end is not None:
            windows = evenly_spaced_windows(start, end, self.processor.clip_seconds, self.num_windows)
        try:
            clips = [self.decode_window(row, *window) for window in windows]
        except MediaError as error:
            return str(error)
        return EvaluationItem(clips, captions, row.get("label"), problems)

    def decode_window(self, row: dict, start: float, end: float | None) -> Clip:
        """One window of a row, cropped to the centre and without captions; times in seconds."""
        clip = read_clip(row, self.processor, start, end, self.with_audio)
        if clip.frames is not None:
            clip.frames = self.processor.video_processor.resize_and_crop(clip.frames)
        return clip


def in_order(loader: DataLoader) -> Iterator[tuple[int, list[EvaluationItem | str]]]:
    """What a DataLoader over [`EvaluationClips`] yields, in the order of the corpus.

    Workers take turns, but where they run out of rows at different times the last items come out of order.
    """
    waiting, expected = {}, loader.dataset.rank
    for position, items in loader:
        waiting[position] = items
        while expected in waiting:
            yield expected, waiting.pop(expected)
            expected += loader.dataset.world_size


__all__ = ["Batch", "EvaluationClips", "EvaluationItem", "FailedClip", "NarratedClips", "in_order"]
