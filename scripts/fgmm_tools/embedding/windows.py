"""Media files and rows of a corpus to embedded windows; picklable, so that any process can do it."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
import torch

from modeling_fgmm import FgmmModel, FgmmRegionOutput
from modeling_fgmm.layers_fgmm import masked_mean
from processing_fgmm import FgmmProcessor, MediaError
from processing_fgmm.clips_fgmm import (
    Clip,
    collate,
    drop_video,
    evenly_spaced_windows,
    fetch_media,
    open_row,
    read_cropped_clip,
    row_duration,
)
from processing_fgmm.corpora_fgmm import usable_captions

from ..cli import UserError
from ..corpora.problems import Problems
from .pooling import compress, pool_regions
from .settings import EmbeddingSettings

MODALITIES = ("video", "audio")
# A rest of a file below this share of a window gets no window of its own: codecs pad files by some hundredths.
SMALL_REST = 0.1


@dataclass
class EmbeddedModality:
    """What is kept of the video, or of the sound, of a window.

    Args:
        embeds: (D,) float32, L2-normalised: the pooled embedding.
        regions: (n, D) float16 or int8, n at most R; times `scale` they are L2-normalised. None where none are kept.
        scale: 1 for float16.
        features: (C,) float32 of the encoder, averaged over all regions; None where they are not kept.
    """

    embeds: np.ndarray
    regions: np.ndarray | None = None
    scale: float = 1.0
    features: np.ndarray | None = None


@dataclass
class Window:
    """An embedded window of an item.

    Args:
        video_id: of the item.
        start, end: s; None for an image, and where the length of the file is unknown.
        captions: `{"text", "start", "end"}` (s, None for captions of the whole item) of the item, those whose middles
            are nearest to this window's: each usable caption is with one window of its item, the first of equally near
            ones.
        video, audio: None where the window has none, or the model no encoder of it.
        is_image: the item is an image.
        label, group: of the item, in a corpus with these columns.
    """

    video_id: str
    start: float | None
    end: float | None
    captions: list[dict] = field(default_factory=list)
    video: EmbeddedModality | None = None
    audio: EmbeddedModality | None = None
    is_image: bool = False
    label: int | list[int] | None = None
    group: str | None = None

    @property
    def is_decoded(self) -> bool:
        """False for what stands in a table for an item of which nothing could be decoded."""
        return bool(self.media)

    @property
    def media(self) -> set[str]:
        """What is embedded of it: "video" or "image", and "audio"."""
        picture = {"image" if self.is_image else "video"} if self.video else set()
        return picture | ({"audio"} if self.audio else set())


class WindowEncoder:
    """Cuts media into windows of the model's clip length and embeds them.

    Args:
        model, processor: in evaluation mode, as of [`load_model`].
        settings: None: the defaults.
    """

    def __init__(self, model: FgmmModel, processor: FgmmProcessor, settings: EmbeddingSettings | None = None):
        self.model = model
        self.processor = processor
        self.settings = settings or EmbeddingSettings()

    def encode_file(
        self, source: str | bytes, kind: str, video_id: str, problems: Problems, captions: Iterable[dict] = ()
    ) -> Iterator[Window]:
        """The windows of a media file; arguments beside these and results as of [`encode_rows`].

        Args:
            source: path or content.
            kind: `"video"` (with its sound), `"audio"` or `"image"`.
            video_id: by which the windows and problems name it.
            captions: `{"text", "start", "end"}`, s.
        """
        content = {"bytes": source, "path": None} if isinstance(source, bytes) else {"bytes": None, "path": source}
        return self.encode_rows([{"video_id": video_id, kind: content, "captions": list(captions)}], problems)

    def encode_rows(self, rows: Iterable[dict], problems: Problems) -> Iterator[Window]:
        """The windows of rows of a corpus, in their order; one batch of decoded windows is in memory at a time.

        Args:
            rows: of a corpus, see [`load_corpus`].
            problems: to which items, windows and captions that cannot be used are added, and damaged parts.

        Raises:
            UserError: when an embedding is not a number.
        """
        decoded = self.decode_rows(rows, problems)
        while batch := list(islice(decoded, self.settings.batch_size)):
            yield from self.embed(batch)

    def decode_rows(self, rows: Iterable[dict], problems: Problems) -> Iterator[tuple[Window, Clip]]:
        """Each window, not yet embedded, with what is decoded of it."""
        modalities = self.model.config.modalities
        for row in rows:
            if "video" not in modalities:
                row = {**drop_video(row), "image": None}
            try:
                with open_row(fetch_media(row)) as opened:
                    yield from self.decode_row(opened, "audio" in modalities, problems)
            except MediaError as error:
                problems.add(row["video_id"], reason_of(error, row["video_id"]))

    def decode_row(self, row: dict, with_audio: bool, problems: Problems) -> Iterator[tuple[Window, Clip]]:
        """As [`decode_rows`], of one opened row.

        Raises:
            MediaError: when its length cannot be found.
        """
        name, duration = row["video_id"], row_duration(row) or None  # an image has none
        seconds, number = self.processor.clip_seconds, self.settings.num_windows
        times = cut_windows(duration, seconds, number) if duration else [(0.0, None)]
        caption_problems: list[str] = []
        captions = usable_captions(row, duration or math.inf, caption_problems)
        for sentence in caption_problems:
            problems.add(name, sentence.removeprefix(f"{name} ").rstrip("."))
        shared = deal_captions(captions, times)
        damaged = False
        for (start, end), own in zip(times, shared, strict=True):
            try:
                clip = read_cropped_clip(row, self.processor, start, end, with_audio)
            except MediaError as error:
                problems.add(name, reason_of(error, name))
                continue
            if clip.damage and not damaged:
                problems.add(name, f"is used without a damaged part: {reason_of(clip.damage, name)}")
                damaged = True
            yield (
                Window(
                    name,
                    start if duration else None,
                    end,
                    own,
                    is_image=clip.is_image,
                    label=row.get("label"),
                    group=row.get("group"),
                ),
                clip,
            )

    @torch.no_grad()
    def embed(self, batch: list[tuple[Window, Clip]]) -> list[Window]:
        """The windows with their embeddings.

        Raises:
            UserError: when one is not a number.
        """
        modalities = self.model.config.modalities
        flags = {f"with_{name}": name in modalities for name in MODALITIES}
        inputs = collate(self.processor, [clip for _, clip in batch], **flags, with_text=False)
        outputs = self.model.encode_inputs(**{name: value.to(self.model.device) for name, value in inputs.items()})
        for modality, output in outputs.items():
            for (window, _), kept in zip(batch, self.keep(output), strict=True):
                if kept is not None and not np.isfinite(kept.embeds).all():
                    raise UserError(
                        f"The embedding of {window.video_id!r} is not a number: the model's weights are damaged; give "
                        "an earlier checkpoint or train it again."
                    )
                setattr(window, modality, kept)
        return [window for window, _ in batch]

    def keep(self, output: FgmmRegionOutput) -> list[EmbeddedModality | None]:
        """What is kept of each of B windows; None where it lacks the modality."""
        settings = self.settings
        embeds, mask = output.pooler_output.float().cpu(), output.region_mask.cpu()
        features = regions = None
        if settings.with_features:
            features = masked_mean(output.last_hidden_state, output.region_mask.unsqueeze(-1), 1).float().cpu()
        if settings.num_regions:
            regions = output.regions.float().cpu()
        kept: list[EmbeddedModality | None] = []
        for row in range(len(embeds)):
            if not mask[row].any():
                kept.append(None)
                continue
            one = EmbeddedModality(embeds[row].numpy())
            if regions is not None:
                pooled = pool_regions(regions[row], mask[row], output.grid, settings.num_regions)
                one.regions, one.scale = compress(pooled, settings.precision)
            if features is not None:
                one.features = features[row].numpy()
            kept.append(one)
        return kept


def cut_windows(duration: float, seconds: float, number: int | None) -> list[tuple[float, float]]:
    """(start, end) of the windows of an item, s.

    Args:
        duration: of the item, s.
        seconds: length of a window, s.
        number: see [`EmbeddingSettings`]. None: as few as leave no gap; they overlap a little where the duration is no
            multiple of their length.
    """
    if number is None:
        number = max(1, math.ceil(duration / seconds - SMALL_REST))
    return evenly_spaced_windows(0.0, duration, seconds, number)


def deal_captions(captions: list[dict], times: list[tuple[float, float | None]]) -> list[list[dict]]:
    """The captions of each window: those whose middles are nearest to its middle, see [`Window`].

    Args:
        captions: of [`usable_captions`]; those of the whole item are with the first window.
        times: (start, end) of each window, s; end None: there is only one.
    """
    middles = np.array([(start + (start if end is None else end)) / 2 for start, end in times])
    dealt: list[list[dict]] = [[] for _ in times]
    for caption in captions:
        place = 0
        if caption["start"] is not None and len(times) > 1:
            place = int(np.abs(middles - (caption["start"] + caption["end"]) / 2).argmin())
        dealt[place].append({name: caption[name] for name in ("text", "start", "end")})
    return dealt


def reason_of(error: Exception | str, name: str) -> str:
    """What an error says of an item, as the rest of a sentence that begins with its name."""
    return str(error).removeprefix(name).lstrip(": ").rstrip(".")
