"""Clips of training, in an order that is the same for all numbers of processes and workers, and of evaluation.

A training stream is a function of seed and position, see orders_fgmm. Each worker of each process reads and decodes the
rows of its own lanes; its part of a batch is joined with those of the other workers in the process, see loaders_fgmm.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from datasets import IterableDataset
from torch.utils.data import DataLoader, get_worker_info
from torch.utils.data import IterableDataset as TorchIterableDataset

from .clips_fgmm import (
    Clip,
    candidate_captions,
    drop_video,
    evenly_spaced_windows,
    fetch_media,
    open_row,
    random_window,
    read_clip,
    read_cropped_clip,
    row_duration,
)
from .collation_fgmm import collate_part
from .corpora_fgmm import MEDIA_COLUMNS, check_captions, usable_captions
from .media_fgmm import MediaError, unwrap_file
from .orders_fgmm import CLIP, ClipOrder, Draw, StreamState
from .processing_fgmm import FgmmProcessor
from .rowgroups_fgmm import RowGroupError, RowGroups


@dataclass(frozen=True)
class FailedClip:
    """A clip that could not be decoded: the id of its row, the path of its file if it has one, and the reason.

    Of a row group that could not be read it is the row group, and its file.
    """

    video_id: str
    file: str | None
    reason: str


@dataclass
class Batch:
    """Clips of a training step, of one worker or of all workers of a process, and the place after them.

    inputs: model inputs on the device, see [`collate`]; of one worker, see [`collate_part`], and empty when no clip
        could be decoded.
    state: of the stream after the batch, from which a resumed run continues.
    numbers: (B,) the number in the stream of each clip in `inputs`.
    corpora: (B,) the index of its corpus.
    video_ids: (B,) its row.
    failures: the clips that could not be decoded.
    damaged: a message for each clip in which damaged packets were left out, by its id.
    caption_problems: one message for each caption of the other clips that was left out or repaired.
    """

    inputs: dict[str, torch.Tensor]
    state: StreamState
    numbers: list[int] = field(default_factory=list)
    corpora: list[int] = field(default_factory=list)
    video_ids: list[str] = field(default_factory=list)
    failures: list[FailedClip] = field(default_factory=list)
    damaged: dict[str, str] = field(default_factory=dict)
    caption_problems: list[str] = field(default_factory=list)

    @property
    def num_clips(self) -> int:
        """Clips in `inputs` (B)."""
        return len(self.numbers)

    def pin_memory(self) -> "Batch":
        """The batch in pages that a GPU copies from meanwhile; called by DataLoader."""
        return replace(self, inputs={name: value.pin_memory() for name, value in self.inputs.items()})


def worker_share() -> tuple[int, int]:
    """Index of this DataLoader worker and number of workers; (0, 1) outside of workers."""
    worker = get_worker_info()
    return (worker.id, worker.num_workers) if worker else (0, 1)


class WindowReader:
    """Reads rows of a corpus, and keeps the row groups of the present window of each lane.

    Args:
        rows: of the corpus.
    """

    def __init__(self, rows: RowGroups):
        self.rows = rows
        self.windows: dict[int, tuple[int, int]] = {}
        self.held: dict[int, dict] = {}

    def read(self, draw: Draw) -> dict:
        """The row of a draw.

        Raises:
            RowGroupError: when its row group cannot be read, which is tried once a window.
        """
        lane, window, group, row = draw.place
        if self.windows.get(lane) != (draw.epoch, window):
            self.windows[lane], self.held[lane] = (draw.epoch, window), {}
        held = self.held[lane]
        if group not in held:
            try:
                held[group] = self.rows.read(group)
            except RowGroupError as error:
                held[group] = error
        if isinstance(held[group], RowGroupError):
            raise held[group]
        return held[group](row)


class NarratedClips(TorchIterableDataset):
    """Endless training batches of one or several corpora, for a [`ClipLoader`].

    The batches do not depend on the numbers of processes and workers, which share out the lanes of the order; where a
    corpus has fewer lanes than there are processes, each of them reads all lanes, and takes its share of the rows.

    Args:
        corpora: their row groups, see [`open_row_groups`].
        processor: makes the model inputs; its `clip_seconds` is the length of the windows.
        batch_size: clips in a batch of all processes, fewer at the end of an epoch and when some cannot be decoded.
        weights: the share of clips of each corpus, in any unit; None: all alike.
        num_captions: maximum number of candidate captions of a clip (K).
        with_video, with_audio: modalities to decode.
        seed: of order, windows, crops and captions.
        block_size: rows that are permuted together, see [`ClipOrder`].
        min_crop_area, flip: see [`FgmmVideoProcessor.random_crop`].
        rank, world_size: index of this process, and number of processes.
        state: of the first batch, from a checkpoint; None: the start.

    Attributes:
        sends_waveforms: whether audio features are made on the device, see [`collate_part`]; set by the loader.
    """

    def __init__(
        self,
        corpora: list[RowGroups],
        processor: FgmmProcessor,
        *,
        batch_size: int,
        weights: list[float] | None = None,
        num_captions: int = 4,
        with_video: bool = True,
        with_audio: bool = True,
        seed: int = 0,
        block_size: int = 1024,
        min_crop_area: float = 1.0,
        flip: bool = False,
        rank: int = 0,
        world_size: int = 1,
        state: StreamState | None = None,
    ):
        self.order = ClipOrder(corpora, weights or [1.0] * len(corpora), seed, block_size)
        self.processor = processor
        self.batch_size = batch_size
        self.num_captions = num_captions
        self.with_video = with_video
        self.with_audio = with_audio
        self.seed = seed
        self.min_crop_area = min_crop_area
        self.flip = flip
        self.rank = rank
        self.world_size = world_size
        self.state = state or self.order.start()
        self.sends_waveforms = False

    def __iter__(self) -> Iterator[Batch]:
        """This worker's part of each batch, which may be empty."""
        worker, num_workers = worker_share()
        readers = [WindowReader(rows) for rows in self.order.corpora]
        state = self.state
        while True:
            draws, state = self.order.next_batch(state, self.batch_size)
            own = [draw for draw in draws if self.owner(draw, num_workers) == (self.rank, worker)]
            yield self.make_batch(own, readers, state)

    def owner(self, draw: Draw, num_workers: int) -> tuple[int, int]:
        """The process that shows a clip, and its worker that reads it."""
        lane = draw.place.lane
        if self.order.num_lanes(draw.corpus) < self.world_size:
            return draw.number % self.world_size, lane % num_workers
        return lane % self.world_size, lane // self.world_size % num_workers

    def make_batch(self, draws: list[Draw], readers: list[WindowReader], state: StreamState) -> Batch:
        """Reads, decodes and collates clips.

        Args:
            draws: of this worker.
            readers: of the corpora.
            state: after the whole batch.
        """
        batch, clips = Batch({}, state), []
        for draw in draws:
            try:
                row = readers[draw.corpus].read(draw)
            except RowGroupError as error:
                batch.failures.append(FailedClip(error.place, error.file, str(error)))
                continue
            try:
                clip = self.sample_clip(row, np.random.default_rng([CLIP, self.seed, draw.number]))
            except MediaError as error:
                media = next((row[column] for column in MEDIA_COLUMNS if row.get(column)), {})
                batch.failures.append(FailedClip(row["video_id"], media.get("path"), str(error)))
                continue
            clips.append(clip)
            batch.numbers.append(draw.number)
            batch.corpora.append(draw.corpus)
            batch.video_ids.append(clip.video_id)
            batch.caption_problems += clip.caption_problems
            if clip.damage:
                batch.damaged[clip.video_id] = clip.damage
        if clips:
            batch.inputs = self.make_inputs(clips, batch.numbers)
        return batch

    def make_inputs(self, clips: list[Clip], numbers: list[int]) -> dict[str, torch.Tensor]:
        """B clips, of which `numbers` are the numbers in the stream, to what travels from a worker; see
        [`collate_part`]."""
        return collate_part(self.processor, clips, self.with_video, self.with_audio, self.sends_waveforms)

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
        captions = usable_captions(row, duration or math.inf, clip.caption_problems)  # an image has none
        clip.captions = candidate_captions(captions, start, end, self.num_captions, generator)
        return clip

    def decode_window(self, row: dict, start: float, end: float) -> Clip:
        """One window of a row, uncropped and without captions; times in seconds, `end` 0 for an image."""
        return read_clip(row, self.processor, start, end or None, self.with_audio)


def iterate_rows(corpus: IterableDataset) -> Iterator[dict]:
    """All rows of a corpus in every worker; its own iterator would share them out among the workers of a DataLoader."""
    for columns in corpus.iter(batch_size=8):
        for index in range(len(columns["video_id"])):
            yield {name: values[index] for name, values in columns.items()}


# In place of the items of a row without media.
NO_MEDIA = (
    "The rows of this corpus hold no media, as where it is published as ids; make it from the publishers' files with "
    "scripts/prepare_dataset.py."
)


@dataclass
class EvaluationItem:
    """One item of an evaluation: a row, or one of its captions with the part of the row that it covers.

    windows: decoded windows of the item; none for a caption that is left out, which is no item.
    captions: all captions of the item.
    label: class, or list of classes, of the row; None without.
    caption_problems: a sentence for each caption of the row that was left out or repaired.
    """

    windows: list[Clip]
    captions: list[str]
    label: int | list[int] | None = None
    caption_problems: list[str] = field(default_factory=list)


class EvaluationClips(TorchIterableDataset):
    """The items of a corpus in its own order, for a DataLoader with `batch_size=None`.

    Yields (position of a row, its items); an item that cannot be decoded is a message in place of an EvaluationItem.
    Processes take turns in blocks of neighbouring rows, which are the same for all numbers of processes; the workers of
    a process take turns in its rows, see [`in_order`].

    Args:
        corpus, processor, with_video, with_audio: see [`NarratedClips`].
        num_windows: windows of `clip_seconds` of an item, see [`evenly_spaced_windows`].
        each_caption: each caption is an item, with the part of the row from its start to its end (YouCook2's clip
            retrieval; see [`check_times`]); else each row is an item, with all its captions.
        block_rows: rows of a block.
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
        block_rows: int = 1,
        rank: int = 0,
        world_size: int = 1,
    ):
        self.corpus = corpus
        self.processor = processor
        self.with_video = with_video
        self.with_audio = with_audio
        self.num_windows = num_windows
        self.each_caption = each_caption
        self.block_rows = block_rows
        self.rank = rank
        self.world_size = world_size

    def __iter__(self) -> Iterator[tuple[int, list[EvaluationItem | str]]]:
        worker_id, num_workers = worker_share()
        for position, row in enumerate(iterate_rows(self.corpus)):
            rank, place = self.place_of(position)
            if rank == self.rank and place % num_workers == worker_id:
                yield position, self.decode_row(row)

    def place_of(self, position: int) -> tuple[int, int]:
        """The process that a row belongs to, by its position in the corpus, and the row's place in its share."""
        block, row = divmod(position, self.block_rows)
        turn, rank = divmod(block, self.world_size)
        return rank, turn * self.block_rows + row

    def decode_row(self, row: dict) -> list[EvaluationItem | str]:
        """The items of a row; a message for each that cannot be decoded, NO_MEDIA for a row without media, and an item
        without windows for a caption that is left out."""
        if not any(unwrap_file(row.get(column)) for column in MEDIA_COLUMNS):
            return [NO_MEDIA]
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
                self.decode_caption(row, duration, caption, [f"{row['video_id']} {problem}."] if problem else [])
                for caption, problem in check_captions(row.get("captions"), duration or math.inf)
            ]

    def decode_caption(
        self, row: dict, duration: float | None, caption: dict | None, caption_problems: list[str]
    ) -> EvaluationItem | str:
        """The part of a row that a caption covers; `caption` and what is wrong with it as of [`check_captions`]."""
        if caption is None:
            return EvaluationItem([], [], caption_problems=caption_problems)
        end = duration if caption["end"] in (None, math.inf) else caption["end"]
        return self.decode_item(row, caption["start"] or 0.0, end, [caption["text"]], caption_problems)

    def decode_item(
        self, row: dict, start: float, end: float | None, captions: list[str], caption_problems: list[str]
    ) -> EvaluationItem | str:
        """The item between two times of a row, seconds (`end` None: its end); a message if it cannot be decoded."""
        windows = [(start, end)]
        if end is not None:
            windows = evenly_spaced_windows(start, end, self.processor.clip_seconds, self.num_windows)
        try:
            clips = [self.decode_window(row, *window) for window in windows]
        except MediaError as error:
            return str(error)
        return EvaluationItem(clips, captions, row.get("label"), caption_problems)

    def decode_window(self, row: dict, start: float, end: float | None) -> Clip:
        """One window of a row, cropped to the centre and without captions; times in seconds."""
        return read_cropped_clip(row, self.processor, start, end, self.with_audio)


def in_order(loader: DataLoader) -> Iterator[tuple[int, list[EvaluationItem | str]]]:
    """What a DataLoader over [`EvaluationClips`] yields, in the order of the corpus.

    Workers take turns, but where they run out of rows at different times the last items come out of order.
    """
    waiting, expected = {}, 0
    for position, items in loader:
        waiting[loader.dataset.place_of(position)[1]] = position, items
        while expected in waiting:
            yield waiting.pop(expected)
            expected += 1


__all__ = ["NO_MEDIA", "Batch", "EvaluationClips", "EvaluationItem", "FailedClip", "NarratedClips", "in_order"]
