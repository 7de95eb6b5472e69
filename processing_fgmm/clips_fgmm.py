"""One row of a corpus to windows, candidate captions and decoded clips; clips to model inputs."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch

from .corpora_fgmm import MEDIA_COLUMNS
from .media_fgmm import Media, MediaError, read_image, unwrap_file
from .processing_fgmm import FgmmProcessor
from .stores_fgmm import read_file, with_retries
from .video_processing_fgmm import image_to_frame


@dataclass
class Clip:
    """One decoded window of a row.

    video_id: of the row.
    frames: (T, 3, H, W) uint8 in [0, 255], T = 1 for an image; None without video and image.
    waveform: (S,) float32 in [-1, 1] at the feature extractor's sampling rate; None without audio.
    captions: candidate captions, at most K.
    is_image: the frame is an image's, not a video's.
    damage: a sentence about the damaged packets that were left out; None without.
    caption_problems: a sentence for each caption of the row that was left out or repaired.
    """

    video_id: str
    frames: torch.Tensor | None
    waveform: torch.Tensor | None
    captions: list[str] = field(default_factory=list)
    is_image: bool = False
    damage: str | None = None
    caption_problems: list[str] = field(default_factory=list)


@contextmanager
def open_row(row: dict) -> Iterator[dict]:
    """Opens the media of a row for [`row_duration`] and [`read_clip`], which then share one opening.

    Args:
        row: of a corpus, see [`load_corpus`]; where it is open already, it is left so at the end of the block.

    Yields:
        the row with a [`Media`] or None for its video and its audio; they are closed at the end of the block.
    """
    with ExitStack() as opened:
        media = {column: unwrap_file(row.get(column)) for column in ("video", "audio")}
        for column, source in media.items():
            if source is not None and not isinstance(source, Media):
                media[column] = opened.enter_context(Media(source, row["video_id"]))
        yield {**row, **media}


def fetch_media(row: dict) -> dict:
    """The row with the bytes of media files that are on the Hub or in an archive, as a streamed folder of them has.

    Raises:
        MediaError: when one cannot be read.
    """
    fetched = {}
    for column in MEDIA_COLUMNS:
        source = unwrap_file(row.get(column))
        if isinstance(source, str) and "://" in source:
            try:
                fetched[column] = {"bytes": with_retries(partial(read_file, source), source), "path": None}
            except Exception as error:  # the libraries of stores have errors of their own
                raise MediaError(f"{row['video_id']} cannot be read from {source}: {error}") from error
    return {**row, **fetched}


def drop_video(row: dict) -> dict:
    """The row without its video, which becomes its audio if it has no audio of its own."""
    return {**row, "audio": row.get("audio") or row.get("video"), "video": None}


def row_duration(row: dict) -> float:
    """Duration of the row's video, else of its audio, seconds; 0 for an image.

    Raises:
        MediaError: when the file cannot be read.
    """
    with open_row(row) as opened:
        media = opened["video"] or opened["audio"]
        return media.duration if media else 0.0


def read_clip(row: dict, processor: FgmmProcessor, start: float, end: float | None, with_audio: bool) -> Clip:
    """Decodes one window of a row, without captions.

    Args:
        row: of a corpus, see [`load_corpus`].
        processor: gives the number and size of the frames and the sampling rate.
        start, end: the window, seconds; end None: the end of the file. An image is the same in any window.
        with_audio: decode audio too, from the column audio if the row has it, else from the video.

    Raises:
        MediaError: when a file cannot be decoded, or the row has none.
    """
    name, video_processor = row["video_id"], processor.video_processor
    frames = waveform = None
    with open_row(row) as opened:
        video, audio, image = opened["video"], opened["audio"] or opened["video"], unwrap_file(row.get("image"))
        if video is not None:
            frames = video.read_frames(video_processor.num_frames, start, end, video_processor.decoded_size)
        elif image is not None:
            frames = image_to_frame(read_image(image, name))
        if with_audio and audio is not None:
            waveform = audio.read_waveform(processor.feature_extractor.sampling_rate, start, end)
        damage = describe_damage([media for media in (opened["video"], opened["audio"]) if media])
    if frames is None and waveform is None:
        wanted = "video, image or audio" if with_audio else "video or image"
        raise MediaError(f"{name} has no {wanted} to decode.")
    return Clip(name, frames, waveform, is_image=video is None and image is not None, damage=damage)


def read_cropped_clip(row: dict, processor: FgmmProcessor, start: float, end: float | None, with_audio: bool) -> Clip:
    """As [`read_clip`], with the frames cropped to their centre."""
    clip = read_clip(row, processor, start, end, with_audio)
    if clip.frames is not None:
        clip.frames = processor.video_processor.resize_and_crop(clip.frames)
    return clip


def describe_damage(media: list[Media]) -> str | None:
    """A sentence about the damage found in media files since the last call; None without."""
    problems = [problem for file in media for problem in file.problems]
    for file in media:
        file.problems.clear()
    if len(problems) > 1:
        return f"{problems[0].removesuffix('.')} and at {len(problems) - 1} more places."
    return problems[0] if problems else None


def random_window(duration: float, seconds: float, generator: np.random.Generator) -> tuple[float, float]:
    """A window of `seconds`, uniformly drawn within `duration` (s); all of a shorter clip.

    Returns:
        (start, end), seconds.
    """
    start = float(generator.uniform(0, max(duration - seconds, 0)))
    return start, min(start + seconds, duration)


def evenly_spaced_windows(start: float, end: float, seconds: float, num_windows: int) -> list[tuple[float, float]]:
    """Windows of `seconds` between `start` and `end` (s): one in the middle, or several from one end to the other.

    Returns:
        (start, end) of each window, seconds; only (start, end) when there is no room for more than one.
    """
    room = end - start - seconds
    if room <= 0:
        return [(start, end)]
    starts = [start + room / 2] if num_windows == 1 else np.linspace(start, start + room, num_windows).tolist()
    return [(first, first + seconds) for first in starts]


def candidate_captions(
    captions: list[dict], start: float, end: float, num_captions: int, generator: np.random.Generator
) -> list[str]:
    """The captions whose middles are nearest to the middle of a window.

    Args:
        captions: of [`usable_captions`]; those of the whole item, whose start is None, have distance 0.
        start, end: the window, seconds.
        num_captions: maximum number (K).
        generator: source of randomness, for the choice among equal distances.

    Returns:
        Texts, nearest first.
    """
    middle = (start + end) / 2
    order = generator.permutation(len(captions))

    def distance(index: int) -> float:
        caption = captions[index]
        return 0.0 if caption["start"] is None else abs((caption["start"] + caption["end"]) / 2 - middle)

    return [captions[index]["text"] for index in sorted(order, key=distance)[:num_captions]]


def collate(
    processor: FgmmProcessor,
    clips: list[Clip],
    with_video: bool = True,
    with_audio: bool = True,
    with_text: bool = True,
) -> dict[str, torch.Tensor]:
    """Clips to the model inputs of [`FgmmProcessor.__call__`]; what a clip lacks is masked.

    Args:
        processor: makes the inputs.
        clips: B decoded clips.
        with_video, with_audio, with_text: modalities of the inputs.
    """
    return dict(
        processor(
            videos=[clip.frames for clip in clips] if with_video else None,
            audio=[clip.waveform for clip in clips] if with_audio else None,
            text=[clip.captions for clip in clips] if with_text else None,
            num_frames=max((len(clip.frames) for clip in clips if clip.frames is not None), default=1),
            verbose=False,  # unknown words are named once a corpus, not in every batch
        )
    )


__all__ = [
    "Clip",
    "candidate_captions",
    "collate",
    "drop_video",
    "evenly_spaced_windows",
    "fetch_media",
    "open_row",
    "random_window",
    "read_clip",
    "read_cropped_clip",
    "row_duration",
]
