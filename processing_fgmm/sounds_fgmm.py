"""Decoded audio frames to a mono waveform."""

from collections.abc import Iterator
from itertools import chain, groupby, islice
from operator import itemgetter

import av
import numpy as np
from av.audio.frame import format_dtypes

# Seconds by which an audio frame may miss the end of the one before; beyond that there is a gap in the sound.
MAX_JITTER = 0.05
# Seconds by which sound may go back in time; beyond that it is left out until it has caught up. (The clock of
# concatenated transport streams restarts.)
MAX_OVERLAP = 1.0
# Frames that are resampled at once: a call costs more than the work for one frame.
BLOCK_FRAMES = 1024
# Channels whose planes PyAV can give: looking for the end of 8 it leaves their list.
MAX_PLANES = 7


def mix_waveform(decoded: Iterator, sampling_rate: int, start: float, end: float) -> np.ndarray:
    """Resamples decoded audio to a window, with the mean of its channels.

    Args:
        decoded: (presentation time in seconds, audio frame of PyAV or None for damage), ascending.
        sampling_rate: of the result, Hz.
        start, end: the window, seconds.

    Returns:
        (S,) float32, S = round((end - start) · sampling_rate) and at least 1; 0 where no sound was decoded.
    """
    waveform = np.zeros(max(1, round((end - start) * sampling_rate)), dtype=np.float32)
    for (_, run_start), run in groupby(split_runs(decoded, end), key=itemgetter(0)):
        offset = round((run_start - start) * sampling_rate)
        for samples in resample((frame for _, frame in run), sampling_rate):
            first, last = max(offset, 0), min(offset + len(samples), len(waveform))
            if first < last:
                waveform[first:last] = samples[first - offset : last - offset]
            offset += len(samples)
    return waveform


def split_runs(decoded: Iterator, end: float) -> Iterator[tuple[tuple[int, float], object]]:
    """Splits decoded audio up to the time `end` (s) into runs without a gap, damage or a change of format.

    Yields:
        ((number of the run, its first time in seconds), frame).
    """
    run, following, run_format, overlap = (0, 0.0), None, None, MAX_OVERLAP
    for time, frame in decoded:
        if time >= end:
            return
        if frame is None:
            following = None
            continue
        if following is not None and time < following - overlap:
            overlap = MAX_JITTER  # until it has caught up
            continue
        overlap = MAX_OVERLAP
        frame_format = (frame.format.name, frame.layout.name, frame.sample_rate)
        if following is None or abs(time - following) > MAX_JITTER or frame_format != run_format:
            run, run_format = (run[0] + 1, time), frame_format
        following = time + frame.samples / frame.sample_rate
        yield run, frame


def resample(frames: Iterator, sampling_rate: int) -> Iterator[np.ndarray]:
    """Resamples audio frames of one format, one after the other, to the mean of their channels (S,) float32."""
    resampler = av.AudioResampler(format="flt", rate=sampling_rate)
    for frame in chain(join_frames(frames), [None]):  # None flushes the resampler
        for resampled in resampler.resample(frame):
            yield resampled.to_ndarray().reshape(-1, resampled.layout.nb_channels).mean(1)


def join_frames(frames: Iterator) -> Iterator[av.AudioFrame]:
    """Joins audio frames of one format to fewer, longer ones."""
    while block := list(islice(frames, BLOCK_FRAMES)):
        first = block[0]
        if first.layout.nb_channels > MAX_PLANES:
            yield from block
            continue
        samples = join_samples(block)
        joined = av.AudioFrame.from_ndarray(samples, format=first.format, layout=first.layout)
        joined.sample_rate = first.sample_rate
        yield joined


def join_samples(frames: list[av.AudioFrame]) -> np.ndarray:
    """The samples of frames of one format, as `to_ndarray` of one frame gives them, which does more for each frame than
    to copy it: (channels, S) of a planar format, else (1, channels · S)."""
    first = frames[0]
    dtype, channels = np.dtype(format_dtypes[first.format.name]), first.layout.nb_channels
    width, num_planes = (1, channels) if first.format.is_planar else (channels, 1)
    planes = [
        [np.frombuffer(frame.planes[plane], dtype, frame.samples * width) for frame in frames]
        for plane in range(num_planes)
    ]
    return np.stack([np.concatenate(plane) for plane in planes])
