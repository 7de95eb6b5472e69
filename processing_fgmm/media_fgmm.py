"""Decodes media files: frames and waveform between two times with PyAV, image files with Pillow.

Times are in seconds from the container's first presentation timestamp. Decoders are opened and closed inside each call,
so that worker processes never share one.
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

# Seconds before the requested time to which decoders seek: timestamps jitter, and the keyframe must not come too late.
SEEK_MARGIN = 0.1
# Seconds by which an audio frame may miss the end of the one before; beyond that there is a gap in the sound.
MAX_AUDIO_JITTER = 0.05


class MediaError(ValueError):
    """A file cannot be decoded; the message names the file, the requested window and the cause."""


@dataclass(frozen=True)
class MediaInfo:
    """Streams of a container; None for a property of a stream that is absent.

    duration: seconds; 0 when unknown even after all packets have been read.
    frame_rate: average, Hz.
    height, width: pixels as stored, before rotation.
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


def unwrap_file(item):
    """The content of an undecoded file of `datasets`, `{"bytes", "path"}`: its bytes, else its path, else None. Other
    items are returned as they are."""
    return item["bytes"] or item["path"] if isinstance(item, dict) and item.keys() == {"bytes", "path"} else item


def source_name(source, name: str | None) -> str:
    """How messages call a path, bytes or a binary file: `name` if given, else its path."""
    if name:
        return name
    if isinstance(source, (str, os.PathLike)):
        return os.fspath(source)
    return f"{len(source)} bytes" if isinstance(source, bytes) else getattr(source, "name", "a file object")


@contextmanager
def open_container(source, name: str | None, requested: str) -> Iterator:
    """Opens a container with PyAV and closes it at the end of the block.

    Args:
        source: path, bytes or binary file.
        name: of the source in messages, see [`source_name`].
        requested: the window or other part of the file that is read, for messages.

    Raises:
        MediaError: for any error of decoding inside the block, with the names of the source and the requested part.
    """
    name = source_name(source, name)
    if isinstance(source, bytes):
        source = io.BytesIO(source)
    elif not isinstance(source, (str, os.PathLike)):
        source.seek(0)
    try:
        # FFmpeg takes what is before a colon in a relative path for a protocol.
        file = source if hasattr(source, "read") else os.path.abspath(source)
        with av.open(file, metadata_errors="ignore") as container:
            yield container
    except (av.FFmpegError, OSError, EOFError, MediaError) as error:
        raise MediaError(f"{name} cannot be decoded at {requested}: {error}.") from error


def container_start(container) -> float:
    """First presentation timestamp of a container, seconds: the origin of all times."""
    return (container.start_time or 0) / av.time_base


def container_duration(container) -> float:
    """Seconds, from the container's header, else from its streams', else by reading its packets to the end."""
    if container.duration:
        return container.duration / av.time_base
    known = [float(stream.duration * stream.time_base) for stream in container.streams if stream.duration]
    if known:
        return max(known)
    end = 0.0
    for packet in container.demux():
        if packet.pts is not None:
            end = max(end, float((packet.pts + (packet.duration or 0)) * packet.time_base))
    seek_to_start(container)
    return max(0.0, end - container_start(container))


def seek_to_start(container) -> None:
    """Seeks to the beginning of a container.

    Raises:
        MediaError: for a raw stream, which does not support seeking.
    """
    try:
        container.seek(0)
    except av.PermissionError as error:
        raise MediaError("it is a raw stream without times; put it into a container such as MP4") from error


def find_video_stream(container):
    """The first video stream that is not a cover image, or None."""
    for stream in container.streams.video:
        if not stream.disposition & av.stream.Disposition.attached_pic:
            return stream
    return None


def probe_media(source, name: str | None = None) -> MediaInfo:
    """Reads the header of a media file.

    Args:
        source: path, bytes or binary file.
        name: of the source in messages; None: its path.

    Raises:
        MediaError: when it is not a media file.
    """
    with open_container(source, name, "its header") as container:
        video = find_video_stream(container)
        audio = container.streams.audio[0] if container.streams.audio else None
        if video is None and audio is None:
            raise MediaError("it has neither a video nor an audio stream; give a video or audio file")
        height = width = rate = None
        if video is not None:
            height, width = video.codec_context.height, video.codec_context.width
            rate = float(video.average_rate) if video.average_rate else None
        return MediaInfo(container_duration(container), rate, height, width, audio.rate if audio else None)


def read_frames(
    source,
    num_frames: int,
    start: float = 0.0,
    end: float | None = None,
    size: int | tuple[int, int] | None = None,
    name: str | None = None,
) -> torch.Tensor:
    """Decodes the frames at the centres of `num_frames` equal segments of a window.

    The frame at a time is the one on display then: the last whose presentation timestamp is not later. After the end of
    the video stream its last frame is repeated.

    Args:
        source: path, bytes or binary file.
        num_frames: T.
        start, end: the window, seconds; end None: the end of the file.
        size: of the result, pixels: the shorter side, or (height, width); None: that of the file. Scaling is done by
            libswscale while decoding, so that frames of full size never exist in RGB.
        name: of the source in messages; None: its path.

    Returns:
        (T, 3, H, W) uint8 in [0, 255], RGB, with the rotation of the file applied.

    Raises:
        MediaError: when it cannot be decoded, has no video stream, or ends before the window.
    """
    with open_container(source, name, format_window(start, end)) as container:
        stream = find_video_stream(container)
        if stream is None:
            raise MediaError("it has no video stream; give the file as audio alone")
        # One thread: workers decode clips in parallel already, and starting threads costs more than a small frame.
        # (Frame threading together with an early stop can also hang beside torch's thread pools.)
        stream.codec_context.thread_count = 1
        end = resolve_window_end(start, end, container_duration(container))
        origin = container_start(container)
        times = [start + (index + 0.5) * (end - start) / num_frames for index in range(num_frames)]
        decoded = decode_from(container, stream, times[0] + origin)
        frames = frames_at(decoded, [time + origin for time in times])
        reformatter = VideoReformatter()  # shared: setting up a scaler costs more than scaling a small frame
        images = [to_rgb(frame, size, reformatter) for frame in frames]
        return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()


def format_window(start: float, end: float | None) -> str:
    """How messages call a window."""
    return f"{start:g} s to {'its end' if end is None else f'{end:g} s'}"


def resolve_window_end(start: float, end: float | None, duration: float) -> float:
    """Checks a window and returns its end, seconds: that of the file where `end` is None.

    Raises:
        MediaError: for a window that is empty, or starts after the end of the file.
    """
    if start < 0 or (end is not None and end <= start):
        raise MediaError("the window must start at 0 or later and end after its start")
    if duration and start >= duration:
        raise MediaError(f"it is {duration:g} s long; choose a window that starts before its end")
    # A file of one frame has no duration; that frame is on display in any window.
    return end if end is not None else max(duration, start + 1e-3)


def decode_from(container, stream, time: float) -> Iterator:
    """Decodes a stream from the last frame at or before a time (s); from its first frame where none is before it.

    Decoding starts at the last keyframe before the time. In containers without an index (MPEG-TS) seeking can end too
    late, or past the last frame; these are then decoded from their beginning.
    """
    target = int((time - SEEK_MARGIN) / stream.time_base)
    decoded = container.decode(stream)
    if time > SEEK_MARGIN and target > (stream.start_time or 0):
        container.seek(target, stream=stream, backward=True)
        first = next(decoded, None)
        if first is not None and (first.time is None or first.time <= time):
            yield first
        else:
            seek_to_start(container)
            decoded = container.decode(stream)
    yield from decoded


def frames_at(decoded, times: list[float]) -> list:
    """For each of the ascending times (s) the last frame presented at or before it; before the first frame, that one.

    Raises:
        MediaError: when no frame is decoded.
    """
    chosen, current = [], None
    for frame in decoded:
        # A frame without a timestamp is taken to follow the one before at once.
        time = frame.time if frame.time is not None else (current.time if current is not None else 0.0) or 0.0
        while current is not None and len(chosen) < len(times) and times[len(chosen)] < time - 1e-6:
            chosen.append(current)
        if len(chosen) == len(times):
            return chosen
        current = frame
    if current is None:
        raise MediaError("no frame can be decoded there; the file may be incomplete")
    return chosen + [current] * (len(times) - len(chosen))


def to_rgb(frame, size: int | tuple[int, int] | None, reformatter: VideoReformatter) -> np.ndarray:
    """A decoded frame to (H, W, 3) uint8, scaled by libswscale and rotated upright; `size` as in [`read_frames`]."""
    height, width = frame.height, frame.width
    quarter_turns = round(frame.rotation / 90) % 4
    if isinstance(size, int):
        ratio = size / min(height, width)
        height, width = max(1, round(height * ratio)), max(1, round(width * ratio))
    elif size is not None:
        height, width = size if quarter_turns % 2 == 0 else size[::-1]
    # Area averaging costs more than bilinear interpolation, and only pays where many pixels become one.
    interpolation = Interpolation.AREA if height * 2 < frame.height else Interpolation.BILINEAR
    image = reformatter.reformat(frame, width, height, "rgb24", interpolation=interpolation, threads=1).to_ndarray()
    return np.rot90(image, quarter_turns) if quarter_turns else image


def read_image(source, name: str | None = None) -> Image.Image:
    """Decodes an image file to RGB, rotated upright by its EXIF orientation.

    Args:
        source: path, bytes or binary file.
        name: of the source in messages; None: its path.

    Raises:
        MediaError: when it is not an image, or damaged.
    """
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as opened:
            return ImageOps.exif_transpose(opened).convert("RGB")
    except (OSError, SyntaxError) as error:  # Pillow reports some damaged PNG files as SyntaxError
        raise MediaError(f"{source_name(source, name)} is not an image that can be read: {error}.") from error


def read_waveform(
    source, sampling_rate: int, start: float = 0.0, end: float | None = None, name: str | None = None
) -> torch.Tensor | None:
    """Decodes the audio of a window, mono.

    Args:
        source: path, bytes or binary file, of audio or of video.
        sampling_rate: of the result, Hz.
        start, end: the window, seconds; end None: the end of the file.
        name: of the source in messages; None: its path.

    Returns:
        (S,) float32 in [-1, 1], S = round((end - start) · sampling_rate), with silence where the stream has no audio;
        None when the file has no audio stream.

    Raises:
        MediaError: when it cannot be decoded, ends before the window, or holds samples that are NaN or infinite.
    """
    with open_container(source, name, format_window(start, end)) as container:
        if not container.streams.audio:
            return None
        stream = container.streams.audio[0]
        end = resolve_window_end(start, end, container_duration(container))
        origin = container_start(container)
        waveform = torch.zeros(max(1, round((end - start) * sampling_rate)))
        decoded = decode_from(container, stream, start + origin)
        for time, samples in resample_frames(decoded, sampling_rate, end + origin):
            offset = round((time - origin - start) * sampling_rate)
            first, last = max(offset, 0), min(offset + len(samples), len(waveform))
            if first < last:
                waveform[first:last] = torch.from_numpy(samples[first - offset : last - offset])
        if not waveform.isfinite().all():
            raise MediaError("it has samples that are no finite numbers; write the file again without them")
        return waveform


def resample_frames(decoded, sampling_rate: int, end: float) -> Iterator[tuple[float, np.ndarray]]:
    """Resamples decoded audio frames up to the time `end` (s) to mono at `sampling_rate` (Hz).

    The resampler starts anew after a gap in the timestamps, so that what follows keeps its time.

    Yields:
        time of the first sample (s), and samples (S,) float32.
    """
    resampler, start, num_resampled, expected = None, 0.0, 0, None

    def resample(frame) -> Iterator[tuple[float, np.ndarray]]:
        nonlocal num_resampled
        for piece in resampler.resample(frame):
            yield start + num_resampled / sampling_rate, piece.to_ndarray()[0]
            num_resampled += piece.samples

    for frame in decoded:
        time = frame.time if frame.time is not None else expected or 0.0
        if time >= end:
            break
        if resampler is None or abs(time - expected) > MAX_AUDIO_JITTER:
            if resampler is not None:
                yield from resample(None)  # None: what the resampler still holds back
            resampler = av.AudioResampler(format="fltp", layout="mono", rate=sampling_rate)
            start, num_resampled = time, 0
        expected = time + frame.samples / frame.sample_rate
        yield from resample(frame)
    if resampler is not None:
        yield from resample(None)


__all__ = ["MediaError", "MediaInfo", "probe_media", "read_frames", "read_image", "read_waveform", "unwrap_file"]
