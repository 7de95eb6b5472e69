"""One row of a corpus to windows, candidate captions and a decoded clip; clips to model inputs."""

from dataclasses import dataclass

import numpy as np
import torch

from .corpora_fgmm import MEDIA_COLUMNS
from .media_fgmm import MediaError, probe_media, read_image, read_waveform, unwrap_file
from .processing_fgmm import FgmmProcessor


@dataclass
class Clip:
    """What one item shows: frames (T, 3, H, W) uint8 or None, waveform (samples,) or None, candidate captions."""

    video_id: str
    frames: torch.Tensor | None
    waveform: torch.Tensor | None
    captions: list[str]


def media_source(row: dict, column: str):
    """The bytes, or else the path, of a media column; None where the row has neither."""
    return unwrap_file(row.get(column))


def row_duration(row: dict) -> float:
    """Seconds of the row's video, else of its audio; 0 for an image."""
    source = media_source(row, "video") or media_source(row, "audio")
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
    video, image, audio = (media_source(row, column) for column in MEDIA_COLUMNS)
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


def caption_window(caption: dict, duration: float | None) -> tuple[float, float]:
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
