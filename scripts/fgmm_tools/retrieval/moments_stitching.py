"""Long videos stitched from clips of corpora, so that it is known where each of them is: a test of moment retrieval.

They are written in the layout of QVHighlights, so that what reads that reads them.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from processing_fgmm.corpora_fgmm import load_corpus
from processing_fgmm.media_fgmm import Media, unwrap_file
from processing_fgmm.streams_fgmm import iterate_rows

from ..cli import UserError
from ..corpora.benchmarks import load_benchmark
from ..corpora.benchmarks.layout import Item
from ..corpora.benchmarks.qvhighlights import LISTS
from ..corpora.problems import Problems
from ..records import write_whole

FRAME_RATE = 8  # frames/s
SIDE = 80  # pixels
SAMPLING_RATE = 16000  # Hz
# Of each clip a random part is shown, of this share of it at least, so that no grid of windows fits the clips.
LEAST_SHARE = 0.6


@dataclass(frozen=True)
class StitchedClip:
    """A clip, and what is known of it.

    origin: the corpus that it comes from. source: path or content of its file. texts: which describe all of it.
    """

    origin: str
    source: Path | bytes
    texts: tuple[str, ...]


def read_narrated_clips(dataset: str, split: str) -> list[StitchedClip]:
    """The clips of a narrated corpus, each with the captions that describe it."""
    clips = []
    for row in iterate_rows(load_corpus(dataset, split)):
        texts = [caption["text"] for caption in row["captions"]]
        true = row.get("caption_is_true") or [True] * len(texts)
        texts = tuple(text for text, is_true in zip(texts, true, strict=True) if is_true)
        clips.append(StitchedClip("narrated", unwrap_file(row["video"]), texts))
    return clips


def read_benchmark_clips(name: str, source: Path, split: str) -> list[StitchedClip]:
    """The clips of the first official split of a benchmark, each with its captions, or the name of its class."""
    reading = load_benchmark(name).read(source, Problems())
    items: Iterable[Item] = (
        item for group in next(iter(reading.configs.values()))[split] for item in reading.groups[group]
    )
    if reading.label is None:
        return [StitchedClip(name, item.path, tuple(text for text, _, _ in item.captions)) for item in items]
    return [StitchedClip(name, item.path, (reading.label.names[item.label],)) for item in items]


def stitch_videos(output: Path, clips: list[StitchedClip], clips_a_video: int, seed: int) -> int:
    """Writes `videos/*.mp4` and a list of queries, in the layout of QVHighlights' validation split.

    A query is one of the texts of a clip; it describes all clips of its video that have this text. Its `qid` begins
    with the origin of its clip.

    Args:
        output: folder; what is in it is replaced.
        clips: those of a video are next to each other in a random order of all.
        clips_a_video: the last video may have fewer.
        seed: of the order, the parts that are shown and the texts.

    Returns:
        the number of queries.

    Raises:
        UserError: when there is no clip.
        MediaError: when one cannot be decoded.
    """
    if not clips:
        raise UserError("There is no clip to stitch; give a corpus that has some.")
    generator = np.random.default_rng(seed)
    order = generator.permutation(len(clips))
    (output / "videos").mkdir(parents=True, exist_ok=True)
    lines: list[str] = []
    for number, first in enumerate(range(0, len(order), clips_a_video)):
        name = f"stitched-{number:03d}"
        chosen = [clips[place] for place in order[first : first + clips_a_video]]
        times = write_stitched(output / "videos" / f"{name}.mp4", chosen, generator)
        for origin, text, windows in make_queries(chosen, times, generator):
            entry = {"qid": f"{origin}-{len(lines)}", "query": text, "duration": times[-1][1], "vid": name}
            lines.append(json.dumps({**entry, "relevant_windows": windows}))
    write_whole(output / LISTS["train"], "")
    write_whole(output / LISTS["validation"], "".join(f"{line}\n" for line in lines))
    return len(lines)


def make_queries(
    clips: list[StitchedClip], times: list[tuple[float, float]], generator: np.random.Generator
) -> Iterator[tuple[str, str, list[tuple[float, float]]]]:
    """Origin, text and windows (s) of the queries of one video: a text of each clip, each text once.

    Args:
        times: start and end of each clip in the video, s.
    """
    asked = set()
    for clip in clips:
        text = clip.texts[generator.integers(len(clip.texts))] if clip.texts else None
        if text is None or text in asked:
            continue
        asked.add(text)
        yield clip.origin, text, [time for other, time in zip(clips, times, strict=True) if text in other.texts]


def write_stitched(path: Path, clips: list[StitchedClip], generator: np.random.Generator) -> list[tuple[float, float]]:
    """Writes an MP4 file (H.264, AAC) of the central squares of clips, a random part of each, end to end.

    Returns:
        start and end of each clip in it, s.
    """
    times, num_frames = [], 0
    with av.open(str(path), "w", format="mp4") as container:
        # One thread, so that the same clips give the same bytes.
        options = {"crf": "20", "preset": "ultrafast", "threads": "1"}
        video = container.add_stream("libx264", rate=FRAME_RATE, options=options)
        video.width, video.height, video.pix_fmt, video.gop_size = SIDE, SIDE, "yuv420p", 2 * FRAME_RATE
        audio = container.add_stream("aac", rate=SAMPLING_RATE, layout="mono", bit_rate=32000)
        for clip in clips:
            pictures, waveform = read_part(clip, generator)
            for index, picture in enumerate(pictures, num_frames):
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                frame.pts, frame.time_base = index, Fraction(1, FRAME_RATE)
                container.mux(video.encode(frame))
            samples = av.AudioFrame.from_ndarray(waveform[None], format="fltp", layout="mono")
            samples.sample_rate, samples.time_base = SAMPLING_RATE, Fraction(1, SAMPLING_RATE)
            samples.pts = num_frames * SAMPLING_RATE // FRAME_RATE
            container.mux(audio.encode(samples))
            times.append((num_frames / FRAME_RATE, (num_frames + len(pictures)) / FRAME_RATE))
            num_frames += len(pictures)
        container.mux(video.encode())
        container.mux(audio.encode())
    return times


def read_part(clip: StitchedClip, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A random part of a clip: pictures (T, SIDE, SIDE, 3) uint8 and as long a waveform (S,) float32, silent where it
    has no sound."""
    with Media(clip.source) as media:
        num_frames = max(1, round(media.duration * generator.uniform(LEAST_SHARE, 1.0) * FRAME_RATE))
        seconds = num_frames / FRAME_RATE
        start = generator.uniform(0.0, max(0.0, media.duration - seconds))
        frames = media.read_frames(num_frames, start, start + seconds, SIDE).permute(0, 2, 3, 1).numpy()
        waveform = media.read_waveform(SAMPLING_RATE, start, start + seconds)
    top, left = (frames.shape[1] - SIDE) // 2, (frames.shape[2] - SIDE) // 2
    pictures = np.ascontiguousarray(frames[:, top : top + SIDE, left : left + SIDE])
    samples = np.zeros(num_frames * SAMPLING_RATE // FRAME_RATE, np.float32)
    if waveform is not None:
        samples[: len(waveform)] = waveform.numpy()[: len(samples)]
    return pictures, samples
