"""How fast, and with how few bytes and how little memory, training clips are loaded, against plain PyAV."""

import functools
import io
import itertools
import multiprocessing
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module, util
from pathlib import Path

import av
import fsspec
import numpy as np
import torch
from av.video.reformatter import VideoReformatter
from fsspec.implementations.local import LocalFileSystem

from processing_fgmm import FgmmFeatureExtractor, FgmmProcessor, FgmmVideoProcessor, rowgroups_fgmm
from processing_fgmm.clips_fgmm import fetch_media, open_row, random_window, read_clip, row_duration
from processing_fgmm.loaders_fgmm import ClipLoader
from processing_fgmm.media_fgmm import Media
from processing_fgmm.orders_fgmm import StreamState
from processing_fgmm.rowgroups_fgmm import ParquetRows, RowGroups
from processing_fgmm.streams_fgmm import Batch, NarratedClips, WindowReader

from .training.configuration import PretrainConfig
from .training.setup import make_part
from .training.tokenizer import train_word_tokenizer

# Batches of a loader that are not counted: its workers start.
WARM_UP = 2
# The long file: picture (height, width), pixels, pictures a second, between two keyframes, and how often it is read.
LONG_SIZE, LONG_RATE, LONG_KEYFRAMES, LONG_WINDOWS = (240, 320), 25, 250, 12
# Places of a stream, in rows, at which it is resumed, and the rows of the plan.
PLACES, PLAN_ROWS = (10, 10_000_000), 12_000_000


@dataclass(frozen=True)
class Window:
    """A window of a media file: its bytes, and start and end in seconds."""

    data: bytes
    start: float
    end: float


@dataclass(frozen=True)
class Sampling:
    """What is decoded of a window: how many frames, their (height, width) in pixels, and sound at a rate in Hz."""

    num_frames: int
    size: tuple[int, int]
    sampling_rate: int

    def times(self, window: Window) -> list[float]:
        """The times of the frames, s: the middles of equal parts of the window."""
        step = (window.end - window.start) / self.num_frames
        return [window.start + (index + 0.5) * step for index in range(self.num_frames)]


def read_plainly(window: Window, sampling: Sampling) -> tuple[np.ndarray, np.ndarray | None]:
    """Decodes a window as plain PyAV does it: seek to the keyframe, decode, scale what is wanted; then the sound.

    Returns:
        frames (T, H, W, 3) uint8, and the waveform (S,) float32, None for a file without sound.
    """
    with av.open(io.BytesIO(window.data)) as container:
        origin = (container.start_time or 0) / av.time_base
        pictures = read_pictures_plainly(container, origin, window, sampling)
        return pictures, read_sound_plainly(container, origin, window, sampling) if container.streams.audio else None


def read_pictures_plainly(container, origin: float, window: Window, sampling: Sampling) -> np.ndarray:
    """Frames (T, H, W, 3) uint8 of a window; see [`read_plainly`]."""
    stream, pictures, reformatter, last = container.streams.video[0], [], VideoReformatter(), None
    stream.codec_context.thread_count = 1
    times = sampling.times(window)
    container.seek(round((origin + times[0]) / stream.time_base), stream=stream)
    for frame in container.decode(stream):
        while last is not None and len(pictures) < len(times) and times[len(pictures)] < frame.time - origin - 1e-6:
            pictures.append(to_array(last, sampling.size, reformatter))
        last = frame
        if len(pictures) == len(times):
            break
    pictures += [to_array(last, sampling.size, reformatter)] * (len(times) - len(pictures))
    return np.stack(pictures)


def to_array(frame, size: tuple[int, int], reformatter: VideoReformatter) -> np.ndarray:
    """A decoded frame as (H, W, 3) uint8, scaled as [`to_rgb`] of pictures_fgmm does."""
    interpolation = "AREA" if size[0] * 2 < frame.height else "BILINEAR"
    return reformatter.reformat(frame, size[1], size[0], "rgb24", interpolation=interpolation, threads=1).to_ndarray()


def read_sound_plainly(container, origin: float, window: Window, sampling: Sampling) -> np.ndarray:
    """The waveform (S,) float32 of a window; see [`read_plainly`]."""
    stream, rate = container.streams.audio[0], sampling.sampling_rate
    container.seek(max(0, round((origin + window.start) / stream.time_base)), stream=stream)
    resampler = av.AudioResampler(format="flt", layout="mono", rate=rate)
    waveform = np.zeros(round((window.end - window.start) * rate), np.float32)
    place = None
    for frame in itertools.chain(container.decode(stream), [None]):
        if frame is not None and place is None:
            place = round((frame.time - origin - window.start) * rate)
        for resampled in resampler.resample(frame):
            samples = resampled.to_ndarray()[0]
            first, last = max(place, 0), min(place + len(samples), len(waveform))
            if first < last:
                waveform[first:last] = samples[first - place : last - place]
            place += len(samples)
        if frame is None or frame.time - origin >= window.end:
            break
    return waveform


def read_by_torchcodec(window: Window, sampling: Sampling) -> None:
    """Decodes a window with torchcodec."""
    decoders = import_module("torchcodec.decoders")
    frames = decoders.VideoDecoder(window.data, num_ffmpeg_threads=1).get_frames_played_at(sampling.times(window)).data
    torch.nn.functional.interpolate(frames, size=sampling.size, mode="bilinear", antialias=True)
    audio = decoders.AudioDecoder(window.data, sample_rate=sampling.sampling_rate, num_channels=1)
    audio.get_samples_played_in_range(window.start, window.end)


def read_by_media(window: Window, sampling: Sampling) -> None:
    """Decodes a window with media_fgmm, opened once for duration, frames and sound, as a training clip is."""
    with Media(window.data) as media:
        assert media.duration
        media.read_frames(sampling.num_frames, window.start, window.end, sampling.size)
        media.read_waveform(sampling.sampling_rate, window.start, window.end)


def can_import_torchcodec() -> bool:
    """Whether torchcodec is installed, and its libraries fit."""
    if util.find_spec("torchcodec") is None:
        return False
    try:
        import_module("torchcodec.decoders")
    except (ImportError, OSError, RuntimeError):
        return False
    return True


def list_windows(rows: RowGroups, processor: FgmmProcessor, number: int) -> tuple[list[Window], Sampling]:
    """The windows of the first clips of a stream, and what is decoded of each."""
    clips, generator, windows = NarratedClips([rows], processor, batch_size=number), np.random.default_rng(0), []
    draws, _ = clips.order.next_batch(clips.state, number)
    reader = WindowReader(rows)
    for draw in draws:
        with open_row(fetch_media(row := reader.read(draw))) as opened:
            window = random_window(row_duration(opened), processor.clip_seconds, generator)
        windows.append(Window(row["video"]["bytes"] or Path(row["video"]["path"]).read_bytes(), *window))
        if len(windows) == 1:
            frames = read_clip(row, processor, *window, False).frames
    rate = processor.feature_extractor.sampling_rate
    return windows, Sampling(len(frames), tuple(frames.shape[-2:]), rate)


def make_processor(config: PretrainConfig) -> FgmmProcessor:
    """The processor of a run, with a tokenizer that knows next to nothing, which takes as long."""
    return FgmmProcessor(
        make_part(FgmmVideoProcessor, config.video_processor, None),
        make_part(FgmmFeatureExtractor, config.feature_extractor, None),
        train_word_tokenizer(["a clip"], 100),
        clip_seconds=config.clip_seconds,
    )


def measure_rate(read: Callable, windows: list[Window], sampling: Sampling, num_processes: int) -> float:
    """Windows a second that a number of processes read together, each its share, once all have begun."""
    context = multiprocessing.get_context("fork")
    barrier, seconds = context.Barrier(num_processes), context.SimpleQueue()

    def work(rank: int) -> None:
        torch.set_num_threads(1)
        own = windows[rank::num_processes]
        read(own[0], sampling)
        barrier.wait()
        started = time.monotonic()
        for window in own:
            read(window, sampling)
        seconds.put(time.monotonic() - started)

    processes = [context.Process(target=work, args=(rank,)) for rank in range(num_processes)]
    for process in processes:
        process.start()
    slowest = max(seconds.get() for _ in processes)
    for process in processes:
        process.join()
    return len(windows) / slowest


def measure_loader(rows: RowGroups, processor: FgmmProcessor, num_workers: int, number: int, batch_size: int) -> float:
    """Clips a second that the loader of training gives, at least `number` of them, once its workers have started."""
    batches = iter(ClipLoader(NarratedClips([rows], processor, batch_size=batch_size), num_workers))
    for _ in range(WARM_UP):
        next(batches)
    started, count = time.monotonic(), 0
    while count < number:
        count += next(batches).num_clips
    rate = count / (time.monotonic() - started)
    batches.close()
    return rate


def render_long_file(path: Path, minutes: float) -> None:
    """Renders a file of moving noise with B-frames and a keyframe every LONG_KEYFRAMES pictures, and a sound."""
    generator = np.random.default_rng(0)
    background = generator.integers(0, 255, (*LONG_SIZE, 3), np.uint8)
    with av.open(str(path), "w") as container:
        options = {"preset": "veryfast", "g": str(LONG_KEYFRAMES), "bf": "3", "b_strategy": "0"}
        stream = container.add_stream("libx264", rate=LONG_RATE, options=options)
        stream.height, stream.width, stream.pix_fmt = *LONG_SIZE, "yuv420p"
        for index in range(round(60 * minutes * LONG_RATE)):
            picture = np.roll(background, (index % LONG_SIZE[0], 2 * index % LONG_SIZE[1]), (0, 1))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))


def measure_long_window(path: Path, seconds: float, sampling: Sampling) -> float:
    """Time of some windows of `seconds` in a long file, as a share of plain decoding from the keyframes before them."""
    data = path.read_bytes()
    with Media(data) as media:
        last = media.duration - seconds
    starts = np.random.default_rng(0).uniform(0, last, LONG_WINDOWS).tolist()
    spent = {"media": 0.0, "plain": 0.0}
    for window in [Window(data, start, start + seconds) for start in starts]:
        for name, read in (("plain", read_plainly), ("media", read_pictures)):
            best = float("inf")
            for _ in range(3):
                started = time.perf_counter()
                read(window, sampling)
                best = min(best, time.perf_counter() - started)
            spent[name] += best
    return spent["media"] / spent["plain"]


def read_pictures(window: Window, sampling: Sampling) -> torch.Tensor:
    """The frames (T, 3, H, W) uint8 of a window, with media_fgmm."""
    with Media(window.data) as media:
        return media.read_frames(sampling.num_frames, window.start, window.end, sampling.size)


class CountedFileSystem(LocalFileSystem):
    """Local files by addresses `counted://PATH`, whose bytes are counted in all processes as they are read."""

    protocol = "counted"
    num_bytes = multiprocessing.get_context("fork").Value("q", 0)

    def open(self, path, mode="rb", **options):
        return CountedFile(path)


class CountedFile(io.FileIO):
    """A file whose bytes are counted in [`CountedFileSystem`]."""

    def read(self, *arguments) -> bytes:
        return self.count(super().read(*arguments))

    def readall(self) -> bytes:
        return self.count(super().readall())

    def count(self, data: bytes) -> bytes:
        with CountedFileSystem.num_bytes.get_lock():
            CountedFileSystem.num_bytes.value += len(data)
        return data


class UndecodedClips(NarratedClips):
    """The stream of training to the end of its first epoch, whose clips are read and not decoded."""

    def __iter__(self) -> Iterator[Batch]:
        for batch in super().__iter__():
            yield batch
            if batch.state.number == self.order.corpora[0].num_rows:
                return

    def make_batch(self, draws, readers, state) -> Batch:
        video_ids = [readers[draw.corpus].read(draw)["video_id"] for draw in draws]
        numbers, corpora = [draw.number for draw in draws], [draw.corpus for draw in draws]
        return Batch({}, state, numbers, corpora, video_ids)

    def make_inputs(self, clips, numbers) -> dict[str, torch.Tensor]:
        return {}


def count_bytes(rows: ParquetRows, processor: FgmmProcessor, num_workers: int) -> float:
    """Bytes that an epoch reads, of all that the files have."""
    fsspec.register_implementation("counted", CountedFileSystem, clobber=True)
    files = [f"counted://{Path(file).resolve()}" for file in rows.files]
    counted = ParquetRows(rows.name, files, rows.digests.tolist(), rows.features)
    CountedFileSystem.num_bytes.value, seen = 0, 0
    rowgroups_fgmm.read_metadata.cache_clear()
    for batch in ClipLoader(UndecodedClips([counted], processor, batch_size=64), num_workers):
        seen += len(batch.video_ids)
        if seen == rows.num_rows:
            break
    return CountedFileSystem.num_bytes.value / int(rows.file_bytes.sum())


class RepeatedRows(RowGroups):
    """The row groups of a corpus again and again, as a plan of many millions of rows.

    Args:
        rows: of the corpus.
        num_rows: of the plan, at least.
    """

    def __init__(self, rows: RowGroups, num_rows: int):
        self.rows = rows
        self.name, self.group_bytes = rows.name, rows.group_bytes
        self.sizes = np.tile(rows.sizes, -(-num_rows // rows.num_rows))
        self.fingerprint = f"{rows.fingerprint} {len(self.sizes)}"

    def read_ids(self, group: int) -> list[str]:
        return self.rows.read_ids(group % len(self.rows.sizes))

    def read(self, group: int) -> Callable[[int], dict]:
        return self.rows.read(group % len(self.rows.sizes))


def measure_resumption(rows: RowGroups, processor: FgmmProcessor, place: int) -> float:
    """Seconds from nothing to the first clip of a stream that is resumed at a place of a plan of PLAN_ROWS rows."""
    started = time.monotonic()
    state = StreamState(place, ((0, place),))
    clips = NarratedClips([RepeatedRows(rows, PLAN_ROWS)], processor, batch_size=1, state=state)
    next(iter(ClipLoader(clips, 0)))
    return time.monotonic() - started


def measure_memory(rows: RowGroups, processor: FgmmProcessor, number: int, batch_size: int) -> list[float]:
    """The memory of a worker, MB, at ten times over a number of clips."""
    others = multiprocessing.active_children()
    batches = iter(ClipLoader(NarratedClips([rows], processor, batch_size=batch_size), 1))
    memory, count = [], 0
    while len(memory) < 10:
        count += next(batches).num_clips
        if count >= number * (len(memory) + 1) / 10:
            [worker] = [process for process in multiprocessing.active_children() if process not in others]
            memory.append(resident_memory(worker.pid))
    batches.close()
    return memory


def resident_memory(process: int) -> float:
    """Memory of a process that no file or other process shares, MB."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("RssAnon")).split()[1]) / 1000


def measure_corpus(
    rows: RowGroups, processor: FgmmProcessor, number: int, batch_size: int, workers: list[int], repeats: int
) -> Iterator[tuple[str, dict]]:
    """Rates of a corpus, the best of some repeats, windows or clips a second.

    Yields:
        name and values: `"limit"` and `"loader"` by number of processes or workers, `"media"` and, where it can be
        imported, `"torchcodec"` of one process.
    """
    windows, sampling = list_windows(rows, processor, number)

    def best(measure: Callable[[], float]) -> float:
        return round(max(measure() for _ in range(repeats)), 1)

    rate = functools.partial(measure_rate, windows=windows, sampling=sampling)
    yield "limit", {str(count): best(lambda n=count: rate(read_plainly, num_processes=n)) for count in workers}
    yield "media", {"1": best(lambda: rate(read_by_media, num_processes=1))}
    if can_import_torchcodec():
        yield "torchcodec", {"1": best(lambda: rate(read_by_torchcodec, num_processes=1))}
    loader = functools.partial(measure_loader, rows, processor, number=number, batch_size=batch_size)
    yield "loader", {str(count): best(lambda n=count: loader(n)) for count in workers}


def relate_rates(rates: dict[str, dict]) -> dict:
    """`media_of_limit` and `loader_of_limit` by number of workers, of what [`measure_corpus`] gives."""
    return {
        "media_of_limit": round(rates["media"]["1"] / rates["limit"]["1"], 3),
        "loader_of_limit": {count: round(rate / rates["limit"][count], 3) for count, rate in rates["loader"].items()},
    }
