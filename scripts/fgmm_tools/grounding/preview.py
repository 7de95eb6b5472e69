"""A file's part as a small MP4 that every browser plays, and frames and sound in step with it."""

import io
import math
from collections.abc import Callable, Iterator
from fractions import Fraction
from itertools import pairwise

import av
import numpy as np

from processing_fgmm.media_fgmm import Media

# Of the film: frames per second at most, height at most (pixels), sampling rate (Hz), and seconds decoded at once.
FRAME_RATE, HEIGHT, RATE, CHUNK = 25.0, 480, 32000, 2.0


def frame_rate_of(media: Media) -> float:
    """Frames per second of the film of a file, Hz."""
    return min(media.info.frame_rate or FRAME_RATE, FRAME_RATE)


def iterate_frames(
    media: Media, start: float, end: float, rate: float, height: int
) -> Iterator[tuple[float, np.ndarray]]:
    """The time (s) and picture (height, width, 3) uint8 of each frame of a part of a file.

    Args:
        rate: frames per second.
        height: of the pictures at most, pixels; smaller ones keep their size.
    """
    size = (height, max(2, round(height * media.info.width / media.info.height)))
    size = size if media.info.height > height else None
    total = max(1, round((end - start) * rate))
    each = max(1, round(CHUNK * rate))
    for first in range(0, total, each):
        number = min(each, total - first)
        begin = start + first / rate
        frames = media.read_frames(number, begin, begin + number / rate, size)
        for index, frame in enumerate(frames.permute(0, 2, 3, 1).numpy()):
            yield start + (first + index + 0.5) / rate, frame


def encode_film(pictures: Iterator[np.ndarray], rate: float, sound: np.ndarray | None) -> bytes:
    """Pictures (height, width, 3) uint8, of even height and width, and sound (samples,) float32 at RATE, as an MP4 with
    H.264 and AAC.

    Args:
        pictures: one after the other; none for a sound alone.
        rate: pictures per second.
        sound: None without.
    """
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        video = None
        audio = container.add_stream("aac", rate=RATE, layout="mono", bit_rate=96000) if sound is not None else None
        time_base = Fraction(1, 1000)
        for index, picture in enumerate(pictures):
            if video is None:
                options = {"crf": "23", "preset": "veryfast", "threads": "1"}
                video = container.add_stream("libx264", rate=Fraction(rate).limit_denominator(1001), options=options)
                video.height, video.width, video.pix_fmt = picture.shape[0], picture.shape[1], "yuv420p"
                video.time_base = time_base
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = round(1000 * index / rate), time_base
            container.mux(video.encode(frame))
        if video is not None:
            container.mux(video.encode())
        if audio is not None:
            samples = av.AudioFrame.from_ndarray(np.ascontiguousarray(sound[None]), format="fltp", layout="mono")
            samples.sample_rate, samples.pts, samples.time_base = RATE, 0, Fraction(1, RATE)
            container.mux(audio.encode(samples))
            container.mux(audio.encode())
    return file.getvalue()


def read_sound(media: Media, start: float, end: float) -> np.ndarray | None:
    """The sound of a part of a file, (samples,) float32 at RATE; None without sound."""
    parts = []
    number = max(1, math.ceil((end - start) / 60))
    edges = np.linspace(start, end, number + 1).tolist()
    for first, last in pairwise(edges):
        waveform = media.read_waveform(RATE, first, last)
        if waveform is None:
            return None
        parts.append(waveform.numpy())
    return np.concatenate(parts)


def make_even(picture: np.ndarray) -> np.ndarray:
    """A picture without its last row or column where their number is odd, which H.264 does not take."""
    return picture[: picture.shape[0] // 2 * 2, : picture.shape[1] // 2 * 2]


def make_preview(source, start: float, end: float, name: str, draw: Callable | None = None) -> bytes:
    """A part of a file, as an MP4 of at most HEIGHT pixels with its sound.

    Args:
        source: path or bytes.
        start, end: seconds.
        name: of the file in messages.
        draw: makes another picture of a time (s) and a picture (height, width, 3); None: the picture stays as it is.

    Raises:
        MediaError: when it cannot be decoded.
    """
    with Media(source, name) as media:
        rate = frame_rate_of(media) if media.info.has_video else FRAME_RATE
        sound = read_sound(media, start, end)
        pictures: Iterator[np.ndarray] = iter(())
        if media.info.has_video:
            frames = iterate_frames(media, start, end, rate, HEIGHT)
            pictures = (make_even(draw(time, frame) if draw else frame) for time, frame in frames)
        return encode_film(pictures, rate, sound)
