"""Container to frames and waveform between two times, by PyAV; picture files by Pillow.

Times are in seconds from the container's first presentation time. Decoders are opened and closed inside each call, so
that worker processes never share one.
"""

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import av
import numpy as np
import torch
from av.video.reformatter import Interpolation, VideoReformatter
from PIL import Image, ImageOps

# Decoders look this far (s) before a wanted time, so that a stream whose timestamps jitter is not entered too late.
SEEK_MARGIN = 0.1


class MediaError(ValueError):
    """A file that cannot be decoded: its name, the time asked for and what is wrong."""


@dataclass(frozen=True)
class MediaInfo:
    """What a container holds.

    duration in seconds (0 where unknown even after reading it), frame_rate in Hz, height and width in pixels as stored
    (before rotation), audio_rate in Hz; None where there is no such stream.
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


def unwrap_file(item):
    """An undecoded file in the form of datasets, `{"bytes", "path"}`, to its bytes, or else its path, None where it has
    neither; anything else as it is."""
    return item["bytes"] or item["path"] if isinstance(item, dict) and item.keys() == {"bytes", "path"} else item


def describe(source, name: str | None) -> str:
    """The name of a source in messages."""
    if name:
        return name
    if isinstance(source, (str, os.PathLike)):
        return os.fspath(source)
    return f"{len(source)} bytes" if isinstance(source, bytes) else getattr(source, "name", "a file object")


@contextmanager
def open_container(source, name: str | None, what: str) -> Iterator:
    """Opens a path, bytes or binary file; what goes wrong inside becomes a MediaError that says `what` was asked."""
    label = describe(source, name)
    if isinstance(source, bytes):
        source = io.BytesIO(source)
    elif not isinstance(source, (str, os.PathLike)):
        source.seek(0)
    try:
        with av.open(source if hasattr(source, "read") else os.fspath(source), metadata_errors="ignore") as container:
            yield container
    except (av.FFmpegError, OSError, EOFError) as error:
        raise MediaError(f"{label} cannot be decoded at {what}: {error}.") from error
    except MediaError as error:
        raise MediaError(f"{label} cannot be decoded at {what}: {error}") from error


def start_of(container) -> float:
    """First presentation time, in seconds, which counts as 0."""
    return (container.start_time or 0) / av.time_base


def duration_of(container) -> float:
    """Seconds from the container's header, else from its streams, else by reading its packets to the end."""
    if container.duration:
        return container.duration / av.time_base
    known = [float(stream.duration * stream.time_base) for stream in container.streams if stream.duration]
    if known:
        return max(known)
    last = 0.0
    for packet in container.demux():
        if packet.pts is not None:
            last = max(last, float((packet.pts + (packet.duration or 0)) * packet.time_base))
    rewind(container)
    return max(0.0, last - start_of(container))


def rewind(container) -> None:
    """Goes back to the beginning.

    Raises:
        MediaError: for a raw stream, which cannot be entered at a time.
    """
    try:
        container.seek(0)
    except av.PermissionError as error:
        raise MediaError("it is a raw stream without times; put it into a container such as MP4.") from error


def probe_media(source, name: str | None = None) -> MediaInfo:
    """Reads a container's header.

    Args:
        source: path, bytes or binary file.
        name: of the source in messages, where it is bytes.

    Raises:
        MediaError: when it is no media file.
    """
    with open_container(source, name, "its header") as container:
        video = picture_stream(container)
        audio = container.streams.audio[0] if container.streams.audio else None
        if video is None and audio is None:
            raise MediaError("it has neither a video nor an audio stream.")
        height = width = rate = None
        if video is not None:
            height, width = video.codec_context.height, video.codec_context.width
            rate = float(video.average_rate) if video.average_rate else None
        return MediaInfo(duration_of(container), rate, height, width, audio.rate if audio else None)


def picture_stream(container):
    """The first video stream that is not a cover picture, or None."""
    for stream in container.streams.video:
        if not stream.disposition & av.stream.Disposition.attached_pic:
            return stream
    return None


def read_frames(
    source,
    num_frames: int,
    start: float = 0.0,
    end: float | None = None,
    size: int | tuple[int, int] | None = None,
    name: str | None = None,
) -> torch.Tensor:
    """Frames in the middle of `num_frames` equal parts of a window.

    A frame is the one on display at its time: the last whose presentation time is not later. Past the last frame, that
    one stays on display.

    Args:
        source: path, bytes or binary file.
        num_frames: T.
        start, end: the window in seconds; end None is the end of the file.
        size: pixels of the shorter side, or (height, width); None keeps the file's own. Scaling happens in libswscale.
        name: of the source in messages, where it is bytes.

    Returns:
        (T, 3, H, W) uint8, upright.

    Raises:
        MediaError: when it cannot be decoded, has no video stream, or ends before the window.
    """
    with open_container(source, name, window_text(start, end)) as container:
        stream = picture_stream(container)
        if stream is None:
            raise MediaError("it has no video stream.")
        # One thread: clips are decoded side by side by workers, and to start threads costs more than a small frame.
        # (Frame threading together with an early stop can hang beside torch's thread pools, too.)
        stream.codec_context.thread_count = 1
        duration = duration_of(container)
        end = check_window(start, end, duration)
        origin = start_of(container)
        times = [start + (index + 0.5) * (end - start) / num_frames for index in range(num_frames)]
        decoded = decode_from(container, stream, times[0] + origin)
        frames = frames_at(decoded, [time + origin for time in times])
        reformatter = VideoReformatter()  # one, because setting up a scaler costs more than scaling a small frame
        pictures = [to_rgb(frame, size, reformatter) for frame in frames]
        return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).contiguous()


def window_text(start: float, end: float | None) -> str:
    """The window in messages."""
    return f"{start:g} s to {'its end' if end is None else f'{end:g} s'}"


def check_window(start: float, end: float | None, duration: float) -> float:
    """The window's end in seconds, that of the file where it is None.

    Raises:
        MediaError: for a window that is empty, or begins after the file's end.
    """
    if start < 0 or (end is not None and end <= start):
        raise MediaError("the window must begin at 0 or later and end after it begins.")
    if duration and start >= duration:
        raise MediaError(f"it is {duration:g} s long.")
    # A single picture has no duration; it is on display as long as one likes.
    return end if end is not None else max(duration, start + 1e-3)


def decode_from(container, stream, time: float) -> Iterator:
    """Decoded frames, the first at or before a time (s) where there is one.

    It enters at the last keyframe before the time. Containers without an index (MPEG-TS) can be entered too late, or
    after their end; they are then decoded from their beginning.
    """
    target = int((time - SEEK_MARGIN) / stream.time_base)
    decoded = container.decode(stream)
    if time > SEEK_MARGIN and target > (stream.start_time or 0):
        container.seek(target, stream=stream, backward=True)
        first = next(decoded, None)
        if first is not None and (first.time is None or first.time <= time):
            yield first
        else:
            rewind(container)
            decoded = container.decode(stream)
    yield from decoded


def frames_at(decoded, times: list[float]) -> list:
    """For each time, in order, the last frame presented at or before it (or the first of all).

    Raises:
        MediaError: when there is no frame.
    """
    chosen, current = [], None
    for frame in decoded:
        # Without a timestamp a frame is taken to follow at once on the last one.
        time = frame.time if frame.time is not None else (current.time if current is not None else 0.0) or 0.0
        while current is not None and len(chosen) < len(times) and times[len(chosen)] < time - 1e-6:
            chosen.append(current)
        if len(chosen) == len(times):
            return chosen
        current = frame
    if current is None:
        raise MediaError("it holds no frame there.")
    return chosen + [current] * (len(times) - len(chosen))


def to_rgb(frame, size: int | tuple[int, int] | None, reformatter: VideoReformatter) -> np.ndarray:
    """(H, W, 3) uint8, scaled by libswscale and turned upright."""
    height, width = frame.height, frame.width
    turns = round(frame.rotation / 90) % 4
    if isinstance(size, int):
        ratio = size / min(height, width)
        height, width = max(1, round(height * ratio)), max(1, round(width * ratio))
    elif size is not None:
        height, width = size if turns % 2 == 0 else size[::-1]
    # Averaging over the pixels that fall together costs more, and only pays where many do.
    interpolation = Interpolation.AREA if height * 2 < frame.height else Interpolation.BILINEAR
    picture = reformatter.reformat(frame, width, height, "rgb24", interpolation=interpolation, threads=1).to_ndarray()
    return np.rot90(picture, turns) if turns else picture


def read_image(source, name: str | None = None) -> Image.Image:
    """A picture in RGB, upright by its EXIF orientation.

    Args:
        source: path, bytes or binary file.
        name: of the source in messages, where it is bytes.

    Raises:
        MediaError: when it is no image, or damaged.
    """
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as opened:
            return ImageOps.exif_transpose(opened).convert("RGB")
    except (OSError, SyntaxError) as error:  # Pillow reports some damaged PNG files as SyntaxError
        raise MediaError(f"{describe(source, name)} is not an image that can be read: {error}.") from error


def read_waveform(
    source, sampling_rate: int, start: float = 0.0, end: float | None = None, name: str | None = None
) -> torch.Tensor | None:
    """The sound of a window, mono.

    Args:
        source: path, bytes or binary file, of sound or of video.
        sampling_rate: of the result, Hz.
        start, end: the window in seconds; end None is the end of the file.
        name: of the source in messages, where it is bytes.

    Returns:
        (samples,) float32 in [-1, 1], round((end - start) · rate) samples, silence where the stream has none; None when
        there is no audio stream.

    Raises:
        MediaError: when it cannot be decoded or ends before the window.
    """
    with open_container(source, name, window_text(start, end)) as container:
        if not container.streams.audio:
            return None
        stream = container.streams.audio[0]
        end = check_window(start, end, duration_of(container))
        origin = start_of(container)
        waveform = torch.zeros(max(1, round((end - start) * sampling_rate)))
        decoded = decode_from(container, stream, start + origin)
        for time, samples in resampled(decoded, sampling_rate, end + origin):
            place = round((time - origin - start) * sampling_rate)
            skip = max(0, -place)
            piece = samples[skip : skip + max(0, len(waveform) - max(place, 0))]
            if len(piece):
                waveform[max(place, 0) : max(place, 0) + len(piece)] = torch.from_numpy(piece)
        if not waveform.isfinite().all():
            raise MediaError("it holds samples that are no finite numbers.")
        return waveform


def resampled(decoded, sampling_rate: int, end: float) -> Iterator[tuple[float, np.ndarray]]:
    """Time (s) and mono samples of each piece of sound up to `end`; a gap in the timestamps begins a new piece."""
    resampler, first, produced, expected = None, 0.0, 0, None
    for frame in decoded:
        time = frame.time if frame.time is not None else expected or 0.0
        if time >= end:
            break
        if resampler is None or abs(time - expected) > 0.05:
            if resampler is not None:
                for part in resampler.resample(None):
                    yield first + produced / sampling_rate, part.to_ndarray()[0]
                    produced += part.samples
            resampler = av.AudioResampler(format="fltp", layout="mono", rate=sampling_rate)
            first, produced = time, 0
        expected = time + frame.samples / frame.sample_rate
        for part in resampler.resample(frame):
            yield first + produced / sampling_rate, part.to_ndarray()[0]
            produced += part.samples
    if resampler is not None:
        for part in resampler.resample(None):
            yield first + produced / sampling_rate, part.to_ndarray()[0]
            produced += part.samples


__all__ = ["MediaError", "MediaInfo", "probe_media", "read_frames", "read_image", "read_waveform", "unwrap_file"]
