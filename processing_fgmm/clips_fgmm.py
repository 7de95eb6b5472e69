"""One row of a corpus to windows, candidate captions and decoded clips; clips to model inputs."""

from dataclasses import dataclass, field

import fsspec
import numpy as np
import torch

from .corpora_fgmm import MEDIA_COLUMNS
from .media_fgmm import MediaError, probe_media, read_image, read_waveform, unwrap_file
from .processing_fgmm import FgmmProcessor
from .video_processing_fgmm import image_to_frame


@dataclass
class Clip:
    """One decoded window of a row.

    video_id: of the row.
    frames: (T, 3, H, W) uint8 in [0, 255], T = 1 for an image; None without video and image.
    waveform: (S,) float32 in [-1, 1] at the feature extractor's sampling rate; None without audio.
    captions: candidate captions, at most K.
    is_image: the frame is an image's, not a video's.
    problems: a sentence for each caption of the row that was left out or repaired.
    """

    video_id: str
    frames: torch.Tensor | None
    waveform: torch.Tensor | None
    captions: list[str] = field(default_factory=list)
    is_image: bool = False
    problems: list[str] = field(default_factory=list)


def media_source(row: dict, column: str) -> bytes | str | None:
    """The bytes, else the path, of the undecoded file in a media column; None when the row has none."""
    return unwrap_file(row.get(column))


def fetch_media(row: dict) -> dict:
    """The row with the bytes of media files that are on the Hub or in an archive, as a streamed folder of them has.

    Raises:
        MediaError: when one cannot be read.
    """
    fetched = {}
    for column in MEDIA_COLUMNS:
        source = media_source(row, column)
        if isinstance(source, str) and "://" in source:
            try:
                with fsspec.open(source) as file:
                    fetched[column] = {"bytes": file.read(), "path": None}
            except (OSError, LookupError, ValueError) as error:
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
    source = media_source(row, "video") or media_source(row, "audio")
    return 0.0 if source is None else probe_media(source, name=row["video_id"]).duration


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
    name = row["video_id"]
    video, image, audio = (media_source(row, column) for column in MEDIA_COLUMNS)
    frames = waveform = None
    if video is not None:
        frames = processor.video_processor.load_frames(video, processor.video_processor.num_frames, start, end, name)
    elif image is not None:
        frames = image_to_frame(read_image(image, name))
    if with_audio and (audio is not None or video is not None):
        source = audio if audio is not None else video
        waveform = read_waveform(source, processor.feature_extractor.sampling_rate, start, end, name)
    if frames is None and waveform is None:
        raise MediaError(f"{name} has neither video, image nor audio to decode; remove its row.")
    return Clip(name, frames, waveform, is_image=video is None and image is not None)


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
        )
    )


__all__ = [
    "Clip",
    "candidate_captions",
    "collate",
    "drop_video",
    "evenly_spaced_windows",
    "fetch_media",
    "random_window",
    "read_clip",
    "row_duration",
]
