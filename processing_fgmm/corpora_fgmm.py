"""Streams of narrated clips: schema, windows, candidate captions, sharding, exact resume, collation.

What a training stream gives follows from seed, epoch and position alone: shards are read in an order drawn for the
epoch, rows are permuted within blocks, and a clip's window is drawn for its place. There is no buffer whose contents
a resumed run would lack.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from datasets import (
    Audio,
    Image,
    IterableDataset,
    Video,
    get_dataset_config_names,
    get_dataset_default_config_name,
    get_dataset_split_names,
    load_dataset,
)
from datasets.distributed import split_dataset_by_node
from torch.utils.data import DataLoader, get_worker_info
from torch.utils.data import IterableDataset as TorchIterableDataset

from .media_fgmm import MediaError, probe_media, read_image, read_waveform, unwrap_file
from .processing_fgmm import FgmmProcessor

MEDIA_COLUMNS = ("video", "image", "audio")
# Of undecoded media that a training stream holds to permute, in each of its workers.
BLOCK_BYTES = 512_000_000


class CorpusError(ValueError):
    """A corpus that cannot be used: where it is, what is wrong with it and what to do."""


def load_corpus(path_or_name: str, split: str, config_name: str | None = None) -> IterableDataset:
    """Streams the rows of a corpus, media undecoded, after its columns are checked.

    Args:
        path_or_name: a folder of Parquet shards or a dataset on the Hub.
        split: for example `"train"`.
        config_name: which of its official splits or folds, where it has several; see [`list_configs`]. None: its
            default, else the first.

    Raises:
        CorpusError: when it does not exist, has no such split, or its columns are not those of the schema.
    """
    names = list_configs(path_or_name)
    if config_name is not None and config_name not in names:
        raise CorpusError(f"{path_or_name} has no configuration {config_name!r}, only {', '.join(names)}.")
    with naming_the_corpus(path_or_name):
        config_name = config_name or get_dataset_default_config_name(path_or_name) or names[0]
        splits = get_dataset_split_names(path_or_name, config_name)
        if split not in splits:
            raise CorpusError(f"{path_or_name} has no split {split!r}, only {', '.join(splits)}.")
        corpus = load_dataset(path_or_name, config_name, split=split, streaming=True)
    check_schema(corpus, path_or_name)
    for name, feature in (("video", Video), ("image", Image), ("audio", Audio)):
        if name in corpus.column_names:
            corpus = corpus.cast_column(name, feature(decode=False))
    return corpus


def list_configs(path_or_name: str) -> list[str]:
    """The names of a corpus' configurations: one for each official split or fold, `["default"]` where there is one.

    Raises:
        CorpusError: when the corpus does not exist or cannot be opened.
    """
    folder = Path(path_or_name)
    if (folder / "corpus.json").exists() and not (folder / "README.md").exists():
        raise CorpusError(
            f"The corpus {path_or_name!r} is not prepared to the end; run the command that makes it again."
        )
    if folder.is_dir() and not any(folder.rglob("*.parquet")):
        raise CorpusError(f"The folder {path_or_name!r} holds no Parquet files, in itself or in a folder within.")
    with naming_the_corpus(path_or_name):
        return get_dataset_config_names(path_or_name)


@contextmanager
def naming_the_corpus(path_or_name: str):
    """Whatever the Hub, the network or the files give becomes a CorpusError: the user needs the corpus' name."""
    try:
        yield
    except CorpusError:
        raise
    except Exception as error:
        cause = f"{type(error).__name__}: {error}".partition("\n")[0]
        raise CorpusError(
            f"The corpus {path_or_name!r} could not be opened ({cause}); "
            "give a folder that scripts/prepare_dataset.py or scripts/make_narrated_corpus.py made, or a Hub dataset."
        ) from error


def check_schema(corpus: IterableDataset, name: str) -> None:
    """Checks the columns of a corpus.

    Raises:
        CorpusError: naming the first field that is missing or of the wrong kind.
    """
    features = corpus.features or {}
    if "video_id" not in features:
        raise CorpusError(f"{name} has no column 'video_id'; its columns are {', '.join(features) or 'unknown'}.")
    if not any(column in features for column in MEDIA_COLUMNS):
        raise CorpusError(f"{name} has none of the columns 'video', 'image', 'audio'; it has {', '.join(features)}.")
    if "captions" in features:
        captions = features["captions"]
        entry = captions[0] if isinstance(captions, list) else getattr(captions, "feature", None)
        missing = [key for key in ("text", "start", "end") if not isinstance(entry, dict) or key not in entry]
        if missing:
            raise CorpusError(
                f"The column 'captions' of {name} lacks the field {missing[0]!r} (text, start, end in s)."
            )


def check_times(corpus: IterableDataset) -> None:
    """Checks that each caption of a corpus has a start and an end; media are left unread.

    Raises:
        CorpusError: naming the first caption without, or saying that there is no caption.
    """
    number = 0
    rows = corpus.select_columns(["video_id", "captions"]) if "captions" in (corpus.column_names or []) else []
    for row in rows:
        for caption in row["captions"] or []:
            number += 1
            if caption["start"] is None or caption["end"] is None:
                raise CorpusError(
                    f"The caption {caption['text']!r} of {row['video_id']} has no start and end, so that it cannot be "
                    "an item of its own; evaluate whole clips of this corpus."
                )
    if not number:
        raise CorpusError("The corpus has no caption that could be an item of its own; evaluate whole clips of it.")


@dataclass
class Clip:
    """What one item shows: frames (T, 3, H, W) uint8 or None, waveform (samples,) or None, candidate captions."""

    video_id: str
    frames: torch.Tensor | None
    waveform: torch.Tensor | None
    captions: list[str]


def open_media(row: dict, column: str):
    """The bytes, or else the path, of a media column; None where the row has neither."""
    return unwrap_file(row.get(column))


def row_duration(row: dict) -> float:
    """Seconds of the row's video, else of its audio; 0 for an image."""
    source = open_media(row, "video") or open_media(row, "audio")
    return 0.0 if source is None else probe_media(source, name=row["video_id"]).duration


def read_clip(row: dict, processor: FgmmProcessor, start: float, end: float | None, with_audio: bool) -> Clip:
    """Decodes one window of a row.

    Args:
        row: one item of a corpus.
        processor: its video processor and feature extractor say how many frames and which rate.
        start, end: the window in seconds; end None is the end of the file.
        with_audio: read sound as well, from the column audio, else from the video.

    Raises:
        MediaError: when anything in it cannot be decoded.
    """
    video, image, audio = (open_media(row, column) for column in MEDIA_COLUMNS)
    frames = waveform = None
    name = row["video_id"]
    if video is not None:
        frames = processor.video_processor.load(video, processor.video_processor.num_frames, start, end, name)
    elif image is not None:
        frames = processor.video_processor.load(read_image(image, name), 1)
    sound = audio if audio is not None else video
    if with_audio and sound is not None:
        waveform = read_waveform(sound, processor.feature_extractor.sampling_rate, start, end, name=name)
    if frames is None and waveform is None:
        raise MediaError(f"{name} has neither video, image nor sound.")
    return Clip(name, frames, waveform, [])


def random_window(duration: float, seconds: float, generator: np.random.Generator) -> tuple[float, float]:
    """A window of `seconds`, anywhere within the duration; all of a shorter clip."""
    start = float(generator.uniform(0, max(duration - seconds, 0)))
    return start, min(start + seconds, duration)


def spread_windows(start: float, end: float, seconds: float, number: int) -> list[tuple[float, float]]:
    """`number` windows of `seconds` between start and end: one in the middle, several from one end to the other.

    A shorter stretch is one window.
    """
    room = end - start - seconds
    if room <= 0:
        return [(start, end)]
    firsts = [start + room / 2] if number == 1 else np.linspace(start, start + room, number).tolist()
    return [(first, first + seconds) for first in firsts]


def caption_stretch(caption: dict, duration: float | None) -> tuple[float, float]:
    """From a caption's start to its end within a clip of `duration` seconds (None: unknown).

    A caption that begins after the clip's end keeps its times, which the message that they cannot be decoded tells.
    """
    start, end = max(caption["start"], 0.0), caption["end"]
    return start, end if duration is None or start >= duration else min(end, duration)


def candidate_captions(
    captions: list[dict], start: float, end: float, number: int, generator: np.random.Generator
) -> list[str]:
    """The captions nearest in time to a window; those of the whole item are drawn at random.

    Args:
        captions: {text, start, end} in seconds, start None for a caption of the whole item.
        start, end: the window, seconds.
        number: how many at most (K).
        generator: draws among captions that are equally near.
    """
    middle = (start + end) / 2
    order = generator.permutation(len(captions))

    def distance(index: int) -> float:
        caption = captions[index]
        return 0.0 if caption["start"] is None else abs((caption["start"] + caption["end"]) / 2 - middle)

    return [captions[index]["text"] for index in sorted(order, key=distance)[:number]]


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


def collate(
    processor: FgmmProcessor,
    clips: list[Clip],
    with_video: bool = True,
    with_audio: bool = True,
    with_text: bool = True,
) -> dict[str, torch.Tensor]:
    """Clips to model inputs; what a clip lacks is masked.

    Args:
        processor: makes the tensors.
        clips: decoded clips.
        with_video, with_audio, with_text: what to give.
    """
    return dict(
        processor(
            videos=[clip.frames for clip in clips] if with_video else None,
            audio=[clip.waveform for clip in clips] if with_audio else None,
            text=[clip.captions for clip in clips] if with_text else None,
            num_frames=max((len(clip.frames) for clip in clips if clip.frames is not None), default=1),
        )
    )


@dataclass
class EvaluationItem:
    """What is retrieved or classified: windows of one row, its captions, its label (several: a list), None without."""

    windows: list[Clip]
    captions: list[str]
    label: int | list[int] | None = None


class FixedClips(TorchIterableDataset):
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
        return [self.decode(row, *caption_stretch(caption, duration), [caption["text"]]) for caption in captions]

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
    """What a DataLoader over [`FixedClips`] gives, in the order of the corpus: workers answer in turn, but for the
    last ones."""
    waiting, expected = {}, loader.dataset.rank
    for position, items in loader:
        waiting[position] = items
        while expected in waiting:
            yield expected, waiting.pop(expected)
            expected += loader.dataset.world_size
