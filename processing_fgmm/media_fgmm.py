"""Media files to frames and waveforms of a window, image files to pictures.

Times are seconds from the container's first presentation timestamp. A file is opened and closed by each function, or
by one [`Media`] for several calls, so that worker processes never share a decoder.
"""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from av.video.reformatter import VideoReformatter

from .containers_fgmm import (
    LIMITS,
    TIME_TOLERANCE,
    Container,
    MediaError,
    MediaLimits,
    check_pixels,
    media_errors,
    open_binary,
    source_name,
)
from .decoding_fgmm import decode_from
from .pictures_fgmm import display_matrix, displayed_size, read_image, to_rgb
from .sounds_fgmm import mix_waveform

# Seconds of sound decoded before a window, which most codecs need (Opus: 0.08).
PREROLL = 0.1


@dataclass(frozen=True)
class MediaInfo:
    """Streams of a container; None for a property of a stream that is absent.

    duration: seconds; 0 when unknown even after all packets have been read.
    frame_rate: average, Hz.
    height, width: of the upright picture with square pixels, as [`read_frames`] gives it.
    audio_rate: sampling rate of the audio, Hz.
    """

    duration: float
    frame_rate: float | None
    height: int | None
    width: int | None
    audio_rate: int | None

    @property
    def has_video(self) -> bool:
        return self.height is not None

    @property
    def has_audio(self) -> bool:
        return self.audio_rate is not None


class Media:
    """A media file that is opened once, by the first thing that is read from it, and closed as a context manager.

    Args:
        source: path, bytes or binary file.
        name: of the source in messages; None: its path.
        limits: of what one call decodes.

    Attributes:
        problems: a sentence for each damaged packet that was left out so far.

    Raises:
        MediaError: from every property and method, when the file cannot be decoded.
    """

    def __init__(self, source, name: str | None = None, limits: MediaLimits = LIMITS):
        self.source = source
        self.name = source_name(source, name)
        self.limits = limits
        self.problems: list[str] = []
        self.resources = ExitStack()

    def __enter__(self) -> "Media":
        return self

    def __exit__(self, *exception) -> None:
        self.resources.close()

    @cached_property
    def container(self) -> Container:
        file = open_binary(self.source)
        if file is not self.source:
            self.resources.enter_context(file)
        container = Container(file, self.name, self.limits, self.problems)
        self.resources.callback(container.close)
        return container

    @property
    def duration(self) -> float:
        """Seconds; 0 when unknown even after all packets have been read."""
        with media_errors(self.name, "its header"):
            return self.container.duration

    @property
    def info(self) -> MediaInfo:
        with media_errors(self.name, "its header"):
            video, audio = self.container.find_stream("video"), self.container.find_stream("audio")
            if video is None and audio is None:
                raise MediaError("it has neither a video nor an audio stream; give a video or audio file")
            height = width = rate = None
            if video is not None:
                rate = float(video.average_rate) if video.average_rate else None
                first = next(frames_at(decode_from(self.container, "video", 0.0, 0.0, [0.0]), [0.0]))
                height, width = self.picture_size(first, None)
            return MediaInfo(self.container.duration, rate, height, width, audio.rate if audio is not None else None)

    def read_frames(
        self, num_frames: int, start: float = 0.0, end: float | None = None, size: int | tuple[int, int] | None = None
    ) -> torch.Tensor:
        """Frames of a window, (T, 3, H, W) uint8; see [`read_frames`]."""
        with media_errors(self.name, format_window(start, end)):
            if self.container.find_stream("video") is None:
                raise MediaError("it has no video stream; give the file as audio alone")
            if num_frames > self.limits.max_frames:
                raise MediaError(f"{num_frames} frames are more than max_frames={self.limits.max_frames}")
            end = self.resolve_end(start, end)
            times = [start + (index + 0.5) * (end - start) / num_frames for index in range(num_frames)]
            frames = frames_at(decode_from(self.container, "video", times[0], end, times), times)
            pictures = np.stack(list(self.to_pictures(frames, size)))
            return torch.from_numpy(pictures).permute(0, 3, 1, 2).contiguous()

    def read_waveform(self, sampling_rate: int, start: float = 0.0, end: float | None = None) -> torch.Tensor | None:
        """Mono audio of a window, (S,) float32, or None; see [`read_waveform`]."""
        with media_errors(self.name, format_window(start, end)):
            if self.container.find_stream("audio") is None:
                return None
            end = self.resolve_end(start, end)
            decoded = decode_from(self.container, "audio", start - PREROLL, end)
            waveform = mix_waveform(decoded, sampling_rate, start, end)
            if not np.isfinite(waveform).all():
                raise MediaError("it has samples that are no finite numbers; write the file again without them")
            return torch.from_numpy(waveform.clip(-1, 1))

    def resolve_end(self, start: float, end: float | None) -> float:
        """Checks a window and returns its end, seconds: that of the file where `end` is None."""
        if not (start >= 0 and (end is None or end > start)):  # in this form NaN is refused, too
            raise MediaError("the window must start at 0 or later and end after its start")
        duration = self.container.duration
        if duration and start >= duration:
            raise MediaError(f"it is {duration:g} s long; choose a window that starts before its end")
        # A file of one frame has no duration; that frame is on display in any window.
        end = max(duration, start + 1e-3) if end is None else end
        if end - start > self.limits.max_seconds:
            raise MediaError(
                f"a window of {end - start:g} s is longer than max_seconds={self.limits.max_seconds:g}; "
                "choose a shorter one"
            )
        return end

    def to_pictures(self, frames: Iterable, size: int | tuple[int, int] | None) -> Iterator[np.ndarray]:
        """Decoded frames to upright pictures (H, W, 3) uint8, all of one size even if that of the frames changes."""
        picture_size, reformatter = None, VideoReformatter()
        for frame in frames:
            if picture_size is None:
                picture_size = self.picture_size(frame, size)
                check_pixels(*picture_size, self.limits)
            yield to_rgb(frame, picture_size, reformatter)

    def picture_size(self, frame, size: int | tuple[int, int] | None) -> tuple[int, int]:
        """(height, width) of the pictures of this file, pixels, from its header and a decoded frame; `size` as in
        [`read_frames`]."""
        stream = self.container.find_stream("video")
        height, width = self.container.stored_size if all(self.container.stored_size) else (frame.height, frame.width)
        aspect = float(stream.sample_aspect_ratio or 1)
        return displayed_size(height, width, aspect, display_matrix(frame), size)


def format_window(start: float, end: float | None) -> str:
    """How messages call a window."""
    return f"{start:g} s to {'its end' if end is None else f'{end:g} s'}"


def frames_at(decoded: Iterable, times: list[float]) -> Iterator:
    """For each of the ascending times (s) the last frame presented at or before it; before the first frame, that one.

    Args:
        decoded: (presentation time in seconds, frame of PyAV or None for damage), ascending.
        times: seconds.

    Raises:
        MediaError: when there is no frame.
    """
    num_chosen, current = 0, None
    for time, frame in decoded:
        if frame is None:
            continue
        while current is not None and times[num_chosen] < time - TIME_TOLERANCE:
            yield current
            num_chosen += 1
            if num_chosen == len(times):
                return
        current = frame
    if current is None:
        raise MediaError("no frame can be decoded there; the file may be incomplete")
    for _ in times[num_chosen:]:
        yield current


def unwrap_file(item):
    """The content of an undecoded file of `datasets`, `{"bytes", "path"}`: its bytes, else its path, else None. Other
    items are returned as they are."""
    return item["bytes"] or item["path"] if isinstance(item, dict) and item.keys() == {"bytes", "path"} else item


def probe_media(source, name: str | None = None) -> MediaInfo:
    """Reads the header and the first frame of a media file.

    Args:
        source: path, bytes or binary file.
        name: of the source in messages; None: its path.

    Raises:
        MediaError: when it is not a media file, or nothing of its first video stream can be decoded.
    """
    with Media(source, name) as media:
        return media.info


def read_frames(
    source,
    num_frames: int,
    start: float = 0.0,
    end: float | None = None,
    size: int | tuple[int, int] | None = None,
    name: str | None = None,
    problems: list[str] | None = None,
    limits: MediaLimits = LIMITS,
) -> torch.Tensor:
    """Decodes the frames at the centres of `num_frames` equal segments of a window.

    The frame at a time is the one on display then: the last whose presentation timestamp is not later. After the end of
    the video stream, and in place of damaged frames, the last frame is repeated.

    Args:
        source: path, bytes or binary file.
        num_frames: T, at least 1.
        start, end: the window, seconds; end None: the end of the file.
        size: of the result, pixels: the shorter side, or (height, width); None: that of the file, widened where its
            pixels are not square. Scaling is done by libswscale while decoding, so that frames of full size never
            exist in RGB.
        name: of the source in messages; None: its path.
        problems: list to which a sentence is added for each damaged packet that was left out.
        limits: of what is decoded.

    Returns:
        (T, 3, H, W) uint8 in [0, 255], RGB, turned and mirrored as the file says.

    Raises:
        MediaError: when it cannot be decoded, has no video stream, ends before the window, or exceeds the limits.
    """
    with Media(source, name, limits) as media:
        frames = media.read_frames(num_frames, start, end, size)
        if problems is not None:
            problems.extend(media.problems)
        return frames


def read_waveform(
    source,
    sampling_rate: int,
    start: float = 0.0,
    end: float | None = None,
    name: str | None = None,
    problems: list[str] | None = None,
    limits: MediaLimits = LIMITS,
) -> torch.Tensor | None:
    """Decodes the audio of a window, mono: the mean of the channels.

    Args:
        source: path, bytes or binary file, of audio or of video.
        sampling_rate: of the result, Hz.
        start, end: the window, seconds; end None: the end of the file.
        name: of the source in messages; None: its path.
        problems: list to which a sentence is added for each damaged packet that was left out.
        limits: of what is decoded.

    Returns:
        (S,) float32 in [-1, 1], S = round((end - start) · sampling_rate), with silence where the stream has no audio or
        is damaged; None when the file has no audio stream.

    Raises:
        MediaError: when it cannot be decoded, ends before the window, exceeds the limits, or holds samples that are NaN
            or infinite.
    """
    with Media(source, name, limits) as media:
        waveform = media.read_waveform(sampling_rate, start, end)
        if problems is not None:
            problems.extend(media.problems)
        return waveform


__all__ = [
    "LIMITS",
    "Media",
    "MediaError",
    "MediaInfo",
    "MediaLimits",
    "probe_media",
    "read_frames",
    "read_image",
    "read_waveform",
    "unwrap_file",
]
