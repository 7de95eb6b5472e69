"""Media containers, opened with PyAV: their streams, duration and packets.

All times are seconds from the container's first presentation timestamp.
"""

import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from typing import BinaryIO, Literal

import av
from av.format import Flags
from av.stream import Discard, Disposition

# Containers without a duration in their header; FFmpeg guesses it from the bit rate of the first packets.
DURATION_GUESSED = {"aac", "ac3", "amr", "dts", "eac3", "loas", "mp3"}
# Containers whose header may give the last timestamp as the duration, although the first is not 0.
DURATION_FROM_ZERO = {"flv", "matroska,webm"}
# A duration is checked if the file has fewer bytes for each of its seconds: damaged headers claim years.
MIN_BYTES_PER_SECOND = 1000
# Seconds by which packets may end before or after the header's duration, which then counts: it excludes padding.
DURATION_TOLERANCE = 0.1
# Containers that list all packets, so that a seek to the first one is as good as opening the file again; and seconds
# before a stream's start in which it may lie: MP4 keeps packets of an encoder's delay, whose samples are dropped.
FULLY_INDEXED = {"avi": 0, "mov,mp4,m4a,3gp,3g2,mj2": 1}
# Decoders that a seek does not reset.
NEVER_RESET = {"amrnb", "amrwb"}
# Times this close (s) are equal: timestamps are rounded to the container's unit.
TIME_TOLERANCE = 1e-6
# What PyAV raises for damaged files: FFmpeg's errors, and Python's for values out of range.
DECODING_ERRORS = (av.FFmpegError, OSError, ValueError, ArithmeticError, MemoryError)

Kind = Literal["video", "audio"]


class MediaError(ValueError):
    """A file cannot be decoded; the message names the file, the requested window and the cause."""


@dataclass(frozen=True)
class MediaLimits:
    """The most that one call decodes; more is refused with a [`MediaError`].

    They protect the machine that reads, and so are no settings of a processor: a configuration from the Hub must not be
    able to raise them.

    max_seconds: length of a window.
    max_pixels: of one picture, as stored and as returned.
    max_frames: from the keyframe before a window to its end.
    """

    max_seconds: float = 6 * 3600.0
    max_pixels: int = 2**27
    max_frames: int = 1_000_000


LIMITS = MediaLimits()


def source_name(source, name: str | None) -> str:
    """How messages call a path, bytes or a binary file: `name` if given, else its path."""
    if name:
        return name
    if isinstance(source, (str, os.PathLike)):
        return os.fspath(source)
    return f"{len(source)} bytes" if isinstance(source, bytes) else getattr(source, "name", "a file object")


@contextmanager
def media_errors(name: str, requested: str) -> Iterator[None]:
    """Turns the errors of decoding inside the block into a MediaError with the names of the file and of what was
    requested."""
    try:
        yield
    except DECODING_ERRORS as error:
        raise MediaError(f"{name} cannot be decoded at {requested}: {describe_error(error)}.") from error


def describe_error(error: Exception) -> str:
    """What an error says, without its number and the name of the file."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def open_binary(source) -> BinaryIO:
    """A path, bytes or a binary file as a binary file."""
    if isinstance(source, bytes):
        return io.BytesIO(source)
    return open(source, "rb") if isinstance(source, (str, os.PathLike)) else source


class FFmpegFile:
    """A binary file as FFmpeg expects it: it says that it cannot seek to a place, where Python would raise an error,
    which PyAV prints with its traceback."""

    def __init__(self, file: BinaryIO):
        self.file = file
        self.name = getattr(file, "name", "")
        self.read, self.tell = file.read, file.tell

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        try:
            return self.file.seek(offset, whence)
        except (OSError, ValueError):
            return -1


class Container:
    """A media container that is open for reading.

    Args:
        file: binary, seekable; it stays open when the container is closed.
        name: of the file in `problems`.
        limits: of pixels and frames.
        problems: list to which a sentence is added for each damaged packet that is left out.

    Attributes:
        stored_size: (height, width) of the video by its header, pixels; frames may be of other sizes.

    Raises:
        MediaError: for a raw stream, which has no times.
    """

    def __init__(self, file: BinaryIO, name: str, limits: MediaLimits, problems: list[str]):
        self.file = FFmpegFile(file)
        self.name = name
        self.limits = limits
        self.problems = problems
        self.open()
        if self.container.format.flags & Flags.no_timestamps.value:
            self.close()
            raise MediaError("it is a raw stream without times; put it into a container such as MP4")

    def open(self) -> None:
        """Opens the file at its beginning."""
        self.file.seek(0)
        # Without protocols FFmpeg opens nothing but this file, whatever a playlist in it asks for.
        self.options = {"protocol_whitelist": "none", "max_pixels": str(self.limits.max_pixels)}
        self.container = av.open(self.file, metadata_errors="ignore", options=self.options)
        self.found, self.stored_size = {}, (0, 0)
        self.at_beginning = True

    def close(self) -> None:
        self.container.close()

    def reopen(self) -> None:
        self.close()
        self.open()

    def list_streams(self, kind: Kind) -> list:
        """The streams of a kind, those marked as default first, without cover images."""
        streams = getattr(self.container.streams, kind)
        streams = [stream for stream in streams if not stream.disposition & Disposition.attached_pic]
        return sorted(streams, key=lambda stream: not stream.disposition & Disposition.default)

    def find_stream(self, kind: Kind):
        """The stream to decode, its decoder opened: the first of [`list_streams`] for which there is one.

        Returns:
            the stream of PyAV, or None when there is none of the kind.

        Raises:
            MediaError: when there are some and none can be decoded, or the pictures are too large.
        """
        if kind not in self.found:
            streams = self.list_streams(kind)
            self.found[kind] = next(filter(self.open_decoder, streams), None)
            if streams and self.found[kind] is None:
                raise MediaError(f"there is no decoder for its {kind}; convert it to a common codec")
            if kind == "video" and streams:
                context = self.found[kind].codec_context
                self.stored_size = (context.height, context.width)
        return self.found[kind]

    def open_decoder(self, stream) -> bool:
        """Opens the decoder of a stream; False if there is none, or the header is too damaged for it."""
        context = stream.codec_context
        if context is None or not stream.time_base:
            return False
        if stream.type == "video":
            check_pixels(context.height, context.width, self.limits)
        # One thread: workers decode clips in parallel already, and starting threads costs more than a small frame.
        # (Frame threading together with an early stop can also hang beside torch's thread pools.)
        context.thread_count = 1
        context.options = self.options
        try:
            context.open(strict=False)
        except av.FFmpegError:
            return False
        return True

    @property
    def start(self) -> float:
        """First presentation timestamp of the container, seconds: the origin of all times."""
        return (self.container.start_time or 0) / av.time_base

    @cached_property
    def duration(self) -> float:
        """Seconds, 0 if unknown: from the header, or from the packets where the header guesses or cannot be right."""
        claimed = self.claimed_duration()
        doubtful = (
            self.container.format.name in DURATION_GUESSED
            or (self.container.format.name in DURATION_FROM_ZERO and abs(self.start) > DURATION_TOLERANCE)
            or claimed * MIN_BYTES_PER_SECOND > self.container.size
        )
        if claimed and not doubtful:
            return claimed
        measured = self.measure_duration(claimed)
        return claimed if abs(claimed - measured) < DURATION_TOLERANCE else measured

    def claimed_duration(self) -> float:
        """Seconds, by the header of the container, else by those of its streams; 0 without."""
        if self.container.duration:
            return self.container.duration / av.time_base
        streams = [stream for stream in self.container.streams if stream.duration and stream.time_base]
        return max((float(stream.duration * stream.time_base) for stream in streams), default=0.0)

    def measure_duration(self, claimed: float) -> float:
        """The end (s) of the last packet after the claimed end (s), or of the last of all if there is none."""
        for position in (claimed, 0.0):
            if not self.try_seek(round((self.start + position) * av.time_base)):
                self.reopen()
            streams = [*self.list_streams("video"), *self.list_streams("audio")]
            streams = [stream for stream in streams if stream.time_base]
            clocks = {stream.index: self.clock(stream) for stream in streams}
            end = 0.0
            with suppress(av.FFmpegError):  # the file ends where it cannot be read on
                for packet in self.read_packets(streams):
                    if packet.pts is not None:
                        end = max(end, clocks[packet.stream_index](packet.pts + (packet.duration or 0)))
            if end:
                return end
        return 0.0

    def clock(self, stream) -> Callable[[int], float]:
        """The function that converts a stream's timestamps to seconds from the container's first timestamp."""
        unit, start = stream.time_base, self.start
        numerator, denominator = unit.numerator, unit.denominator
        return lambda timestamp: timestamp * numerator / denominator - start

    def read_packets(self, streams: list) -> Iterator:
        """The packets of streams from the present position to the end; the last of each is empty and flushes its
        decoder."""
        for stream in self.container.streams:
            stream.discard = Discard.default if stream in streams else Discard.all
        self.at_beginning = False
        with suppress(IndexError):  # of PyAV, at the end, where streams came up that the header had not named
            yield from self.container.demux(streams)

    def seek(self, stream, time: float) -> bool:
        """Seeks to the last keyframe of a stream at or before a time (s); False if that is not after its first."""
        timestamp = int((time + TIME_TOLERANCE + self.start) / stream.time_base)
        return time > 0 and timestamp > (stream.start_time or 0) and self.try_seek(timestamp, stream)

    def try_seek(self, timestamp: int, stream=None) -> bool:
        """Seeks to the last keyframe at or before a timestamp; False where the container cannot.

        Args:
            timestamp: in the unit of the stream; of PyAV if it is None.
        """
        self.at_beginning = False
        try:
            self.container.seek(timestamp, stream=stream)
        except (av.FFmpegError, OverflowError):
            return False
        return True

    def rewind(self, kind: Kind) -> None:
        """Goes back to the first packet of a stream."""
        if self.at_beginning:
            return
        stream = self.find_stream(kind)
        lead = None if stream.codec_context.name in NEVER_RESET else FULLY_INDEXED.get(self.container.format.name)
        if lead is None or not self.try_seek((stream.start_time or 0) - int(lead / stream.time_base), stream):
            self.reopen()


def check_pixels(height: int, width: int, limits: MediaLimits) -> None:
    """Raises a MediaError for a picture of too many pixels."""
    if height * width > limits.max_pixels:
        raise MediaError(
            f"pictures of {width} x {height} pixels exceed max_pixels={limits.max_pixels}; scale them down"
        )
