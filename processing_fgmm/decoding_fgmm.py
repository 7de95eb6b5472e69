"""Streams of a container to frames with their presentation times, damaged packets left out."""

from bisect import bisect, bisect_left, insort
from collections.abc import Iterator, Sequence
from itertools import dropwhile

import av

from .containers_fgmm import TIME_TOLERANCE, Container, Kind, MediaError, check_pixels, describe_error

# Presentation times that are remembered of a stream: more than any codec decodes ahead of what it presents.
REORDERED = 64


def decode_from(
    container: Container, kind: Kind, start: float, end: float, times: Sequence[float] = ()
) -> Iterator[tuple[float, object]]:
    """Decodes a stream from the last frame presented at or before `start`; from its first if there is none.

    Args:
        container: that has the stream.
        kind: of the stream.
        start, end: of the window, seconds. Decoding continues past the end, where damage is not reported.
        times: of a window of video, at which its pictures are wanted, s, ascending, the first one `start`. Those that
            are on display at none of them may be left out.

    Yields:
        (time, frame): presentation time in seconds, and the frame of PyAV; None in place of a damaged packet.

    Raises:
        MediaError: when nothing can be decoded, or the limits of the container are exceeded.
    """
    last = None
    decoded = decode_from_keyframe(container, kind, start, end, times)
    for time, frame in decoded:
        if time > start + TIME_TOLERANCE:
            if last is not None:
                yield last
            yield time, frame
            yield from decoded
            return
        last = last if frame is None else (time, frame)
    if last is not None:
        yield last


def decode_from_keyframe(
    container: Container, kind: Kind, start: float, end: float, times: Sequence[float] = ()
) -> Iterator[tuple[float, object]]:
    """Decodes a stream from the keyframe before the frame with which [`decode_from`] begins.

    Where the seek ends behind `start`, because the container has no index (MPEG-TS, MPEG-PS) or the keyframe is
    damaged, earlier keyframes are tried, and at last the beginning.
    """
    earlier = 0.0
    while container.seek(container.find_stream(kind), start - earlier):
        decoded = iter(Decoder(container, kind, start, end, times, after_seek=True))
        first = next(decoded, None)
        if first is not None and first[0] <= start + TIME_TOLERANCE:
            yield first
            yield from decoded
            return
        earlier = max(1.0, 2 * earlier)
    container.rewind(kind)
    yield from Decoder(container, kind, start, end, times, after_seek=False)


class Decoder:
    """Decodes a stream from the present position of its container to the end; see [`decode_from`].

    Args:
        container, kind, start, end, times: see [`decode_from`].
        after_seek: whether the first packets may lack what stands before them. What cannot be decoded or placed in time
            then does not count as damage, up to the first frame.
    """

    def __init__(
        self, container: Container, kind: Kind, start: float, end: float, times: Sequence[float], after_seek: bool
    ):
        self.container = container
        self.kind = kind
        self.start = start
        self.end = end
        self.times = times
        self.after_seek = after_seek
        self.stream = container.find_stream(kind)
        self.context = self.stream.codec_context
        self.seconds = container.clock(self.stream)
        # AVI has no presentation times, and those that FFmpeg makes up are late: its pictures are presented in their
        # order, at the distances of the packets.
        self.in_packet_order = kind == "video" and container.container.format.name == "avi"
        self.last: tuple[float, object] | None = None
        self.presented: list[float] = []
        self.skips_frames = None
        self.num_frames = self.num_damaged = 0

    def __iter__(self) -> Iterator[tuple[float, object]]:
        packets = self.read_packets()
        if self.after_seek and self.kind == "video":
            # Pictures that need others from before them. The last packet, which is empty, is kept.
            packets = dropwhile(lambda packet: packet.size and not packet.is_keyframe, packets)
        try:
            for packet in packets:
                yield from self.decode(packet)
        except av.FFmpegError as error:  # the container cannot be read on
            self.count_damage(self.next_time(), describe_error(error))
            yield from self.decode(av.Packet())  # an empty one flushes the decoder
        if self.num_damaged and not self.num_frames:
            raise MediaError(f"nothing of its {self.kind} can be decoded; the file may be incomplete")

    def read_packets(self) -> Iterator:
        """The packets whose timestamps can be trusted."""
        packets = self.container.read_packets([self.stream])
        if self.after_seek and self.container.container.format.name == "mpeg":
            # In MPEG-PS a timestamp, like a position, is given to the first packet of a block. A seek can end within a
            # block, whose timestamp FFmpeg then gives to a wrong packet and goes on from there.
            num_blocks = 0
            for packet in packets:
                num_blocks += packet.pos is not None
                if num_blocks == 2:
                    yield packet
                    break
        yield from packets

    def decode(self, packet) -> Iterator[tuple[float, object]]:
        """The frames of a packet with their times, or (time, None) if it is damaged."""
        self.skip_if_not_shown(packet)
        try:
            frames = self.context.decode(packet)
        except av.FFmpegError as error:
            timestamp = packet.dts if packet.pts is None else packet.pts
            time = self.next_time() if timestamp is None else self.seconds(timestamp)
            if self.count_damage(time, describe_error(error)):
                yield time, None
            return
        for frame in frames:
            time = self.presentation_time(frame)
            if time is None:
                continue
            self.last = time, frame
            self.num_frames += 1
            if self.kind == "video":
                self.check_limits(frame)
            if frame.is_corrupt:
                self.count_damage(time, "the decoder replaced a part of it")
            yield time, frame

    def skip_if_not_shown(self, packet) -> None:
        """Lets the decoder skip a picture that no other picture needs (a B-frame), where it is not wanted.

        Such a picture is decoded after one that is presented later. If none of the wanted times lies between the two,
        it is on display at none.
        """
        if not self.times or self.in_packet_order:
            return
        skips = False
        if packet.pts is not None:
            time = self.seconds(packet.pts)
            place = bisect(self.presented, time)
            if 0 < place < len(self.presented):
                wanted = bisect_left(self.times, time - 2 * TIME_TOLERANCE)
                skips = wanted == len(self.times) or self.times[wanted] >= self.presented[place]
            insort(self.presented, time)
            del self.presented[:-REORDERED]
        if skips is not self.skips_frames:
            self.skips_frames = skips
            self.context.skip_frame = "NONREF" if skips else "DEFAULT"

    def presentation_time(self, frame) -> float | None:
        """Seconds; None for a frame without a timestamp after a seek, until another had one."""
        timestamp = frame.pts
        if self.in_packet_order:
            # The decoder took in `reorder_depth` more packets than it gave frames, `dts` is of the last of them.
            timestamp = None if frame.dts is None else frame.dts - self.context.reorder_depth
        if timestamp is not None:
            return self.seconds(timestamp)
        return None if self.last is None and self.after_seek else self.next_time()

    def next_time(self) -> float:
        """The end of the last frame, seconds; 0 before the first."""
        if self.last is None:
            return 0.0
        time, frame = self.last
        if self.kind == "audio":
            return time + frame.samples / frame.sample_rate
        if frame.duration:
            return time + float(frame.duration * self.stream.time_base)
        return time + (1 / float(self.stream.average_rate) if self.stream.average_rate else 0.0)

    def count_damage(self, time: float, cause: str) -> bool:
        """Adds damage at a time (s) to the problems of the container; False where it does not count."""
        if time >= self.end or (self.after_seek and self.last is None):
            return False
        self.num_damaged += 1
        self.container.problems.append(f"{self.container.name}: its {self.kind} is damaged at {time:.2f} s ({cause}).")
        return True

    def check_limits(self, frame) -> None:
        """Raises a MediaError for a picture that is too large, or one too many."""
        check_pixels(frame.height, frame.width, self.container.limits)
        max_frames = self.container.limits.max_frames
        if self.num_frames > max_frames:
            raise MediaError(f"more than max_frames={max_frames} would be decoded; choose a shorter window")
