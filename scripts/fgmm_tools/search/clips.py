"""Moments cut out of their files: MP4 of videos, M4A of sounds, copies of images."""

import re
import shutil
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import av
from av.audio.resampler import AudioResampler

from processing_fgmm.media_fgmm import MediaError

from ..cli import UserError
from .moments import Moment

# Frames a second of a clip whose file says none.
DEFAULT_RATE = Fraction(25)
# Sampling rates that AAC has, Hz; sounds of other rates are resampled to the last.
AAC_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)
# Seconds before a moment from which sound is decoded, which most codecs need.
PREROLL = 0.1


def export_clips(folder: Path, moments: Sequence[Moment]) -> list[str]:
    """Writes each moment as a file of its own, 01-NAME-12.5-17.0.mp4, encoded anew so that it begins on time.

    Returns:
        a sentence for each that could not be written.

    Raises:
        UserError: when the folder cannot be made.
        OSError: when the disk is full.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--export_clips {folder} cannot be made ({error.strerror}); give another folder.") from error
    problems = []
    for number, moment in enumerate(moments, 1):
        name = f"{number:02d}-{safe_name(moment.file.path.stem)}"
        try:
            if moment.file.kind == "image":
                shutil.copyfile(moment.path, folder / f"{name}{moment.file.path.suffix}")
            else:
                suffix = ".m4a" if moment.file.kind == "audio" else ".mp4"
                cut(moment, folder / f"{name}-{moment.start:.1f}-{moment.end:.1f}{suffix}")
        except (av.FFmpegError, MediaError, FileNotFoundError) as error:
            problems.append(f"{moment.path} cannot be cut: {getattr(error, 'strerror', None) or error}.")
    return problems


def safe_name(name: str) -> str:
    """A name that every file system takes, at most 60 characters."""
    return re.sub(r'[\x00-\x1f<>:"/\\|?*]+', "_", name).strip(" .")[:60] or "clip"


def cut(moment: Moment, output: Path) -> None:
    """Writes a moment of a video or sound into a file, whole or not at all."""
    partial = output.with_name(f"{output.stem}.partial{output.suffix}")
    try:
        with av.open(moment.path, metadata_errors="ignore") as source, av.open(str(partial), "w") as target:
            copy_window(source, target, moment.start, moment.end)
        partial.replace(output)
    finally:
        partial.unlink(missing_ok=True)


def copy_window(source, target, start: float, end: float) -> None:
    """Encodes what is between two times (s) of one open container into another."""
    origin = (source.start_time or 0) / av.time_base
    video, audio = find_stream(source, "video"), find_stream(source, "audio")
    if video is None and audio is None:
        raise MediaError("it has neither video nor sound")
    tracks = []
    if video is not None:
        rate = Fraction(video.average_rate or DEFAULT_RATE).limit_denominator(1001)
        encoder = target.add_stream("libx264", rate=rate, options={"crf": "20", "preset": "veryfast"})
        encoder.width, encoder.height = (size + size % 2 for size in (video.width, video.height))
        encoder.pix_fmt = "yuv420p"
        tracks.append((copy_video, video, encoder, rate))
    if audio is not None:
        rate = audio.rate if audio.rate in AAC_RATES else AAC_RATES[-1]
        encoder = target.add_stream("aac", rate=rate, layout="stereo" if audio.channels > 1 else "mono")
        tracks.append((copy_audio, audio, encoder, rate))
    # One stream after the other, so that no sound is lost that lies far from its picture in the file.
    for copy_track, stream, encoder, rate in tracks:
        for packet in copy_track(decode(source, stream, start, end, origin), encoder, rate, start, end):
            target.mux(packet)


def find_stream(container, kind: str):
    """The first stream of a kind that is no cover picture and has a decoder; None without."""
    streams = getattr(container.streams, kind)
    cover = av.stream.Disposition.attached_pic
    return next((found for found in streams if found.codec_context is not None and not found.disposition & cover), None)


def decode(source, stream, start: float, end: float, origin: float) -> Iterator[tuple[float, object]]:
    """(time in s from the file's start, frame) of a stream, from the last keyframe before `start` to `end`."""
    stream.codec_context.thread_count = 1
    before = start if stream.type == "video" else max(0.0, start - PREROLL)
    source.seek(int((before + origin) / stream.time_base), stream=stream)
    for frame in source.decode(stream):
        if frame.pts is None:
            continue
        time = float(frame.pts * stream.time_base) - origin
        if time >= end:
            break
        yield time, frame


def copy_video(frames: Iterator, encoder, rate: Fraction, start: float, end: float) -> Iterator:
    """The packets of the frames on display from `start` to `end` (s), at a rate, Hz."""
    step = float(1 / rate)
    number, count, shown = 0, max(1, round((end - start) / step)), None
    for time, frame in frames:
        while shown is not None and number < count and start + (number + 0.5) * step < time:
            yield from encoder.encode(as_frame(shown, encoder, number, rate))
            number += 1
        shown = frame
    while shown is not None and number < count:
        yield from encoder.encode(as_frame(shown, encoder, number, rate))
        number += 1
    yield from encoder.encode(None)


def as_frame(frame, encoder, number: int, rate: Fraction):
    """A decoded frame as the encoder takes it, at its place."""
    picture = frame.reformat(encoder.width, encoder.height, "yuv420p")
    picture.pts, picture.time_base = number, 1 / rate
    picture.pict_type = av.video.frame.PictureType.NONE
    return picture


def copy_audio(frames: Iterator, encoder, rate: int, start: float, end: float) -> Iterator:
    """The packets of the samples from `start` to `end` (s), at a rate, Hz."""
    written, resampler, fifo = 0, None, av.AudioFifo()
    count = round((end - start) * rate)
    for time, frame in frames:
        if resampler is None:
            resampler = AudioResampler("fltp", encoder.codec_context.layout, rate)
            skipped = round((start - time) * rate)
        frame.pts = None
        for resampled in resampler.resample(frame):
            resampled.pts = None
            fifo.write(resampled)
    if resampler is None:
        return
    if skipped > 0:
        fifo.read(min(skipped, fifo.samples))
    size = encoder.codec_context.frame_size or 1024
    while written < count and (piece := fifo.read(min(size, count - written), partial=True)) is not None:
        piece.pts, piece.time_base = written, Fraction(1, rate)
        written += piece.samples
        yield from encoder.encode(piece)
    yield from encoder.encode(None)
