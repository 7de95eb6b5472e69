"""Media files to their windows: decoded once from one end to the other, by workers, while the model embeds.

Windows overlap and all have the frames of one grid of times, so that each frame is decoded once, however many windows
it is in.
"""

import signal
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from modeling_fgmm import FgmmModel
from processing_fgmm import FgmmProcessor
from processing_fgmm.clips_fgmm import Clip
from processing_fgmm.media_fgmm import Media, MediaError, read_image
from processing_fgmm.video_processing_fgmm import image_to_frame

from ..cli import ignore_termination
from ..embedding.settings import EmbeddingSettings
from ..embedding.windows import MODALITIES, SMALL_REST, Window, WindowEncoder, reason_of
from .files import MediaFile
from .marks import Marks, mark_frames

# Windows that are decoded in one go: a chunk of 10 s windows of 8 frames of 128 pixels takes 8 MB.
CHUNK_WINDOWS = 16
# Crashes of a worker at a file, after which the file is taken for their cause.
CRASHES = 2


@dataclass(frozen=True)
class Cut:
    """How files are cut into windows.

    seconds: length of a window. num_frames: of a window (T). stride_frames: from window to window, 1 to T.
    """

    seconds: float
    num_frames: int
    stride_frames: int

    @classmethod
    def of(cls, processor: FgmmProcessor, seconds: float, stride: float) -> "Cut":
        """Windows of `seconds`, each a share of its length after the one before, rounded to whole frames."""
        num_frames = processor.video_processor.num_frames
        return cls(seconds, num_frames, min(num_frames, max(1, round(stride * num_frames))))

    @property
    def stride(self) -> float:
        """From the start of a window to that of the next, s."""
        return self.seconds * self.stride_frames / self.num_frames

    def windows(self, duration: float) -> list[tuple[float, float]]:
        """(start, end) of the windows of a file of some duration, s: on the grid, and one more at the end of the file
        where these leave a tenth of a window or more."""
        rest = SMALL_REST * self.seconds
        if duration <= self.seconds + rest:
            return [(0.0, duration)]
        number = int((duration - self.seconds + rest) / self.stride) + 1
        windows = [(place * self.stride, place * self.stride + self.seconds) for place in range(number)]
        if duration - windows[-1][1] > rest:
            windows.append((duration - self.seconds, duration))
        return windows


@dataclass
class DecodedWindow:
    """A decoded window: start and end (s; None for an image), its clip and the marks of its picture."""

    start: float | None
    end: float | None
    clip: Clip
    marks: Marks


@dataclass
class Chunk:
    """Some decoded windows of a file, in their order.

    file: its place in the list of files. is_first, is_last: of the file's chunks.
    duration: s, None for an image. frame_rate: Hz, None without video. damage: what was left out.
    problem: why the file has no windows, as the rest of a sentence that begins with its path.
    """

    file: int
    windows: list[DecodedWindow] = field(default_factory=list)
    is_last: bool = False
    is_first: bool = True
    duration: float | None = None
    frame_rate: float | None = None
    damage: list[str] = field(default_factory=list)
    problem: str | None = None


class DecodedFiles(IterableDataset):
    """The files of a list, decoded: [`Chunk`] after chunk, each file by one worker.

    Args:
        files: to decode. processor: gives size and number of frames, and the sampling rate.
        modalities: of the model. cut: into windows.

    Attributes:
        places: of the files that are decoded, in the list; all of them, unless it is set.
        at_work: int64 the place of the file that the only worker is at, in shared memory.
    """

    def __init__(self, files: Sequence[MediaFile], processor: FgmmProcessor, modalities: Sequence[str], cut: Cut):
        self.files = files
        self.processor = processor
        self.modalities = modalities
        self.cut = cut
        self.places = list(range(len(files)))
        self.at_work = torch.tensor(0).share_memory_()

    def __iter__(self) -> Iterator[Chunk]:
        worker = get_worker_info()
        first, step = (worker.id, worker.num_workers) if worker else (0, 1)
        for place in self.places[first::step]:
            self.at_work.fill_(place)
            yield from self.decode_file(place)

    def decode_file(self, place: int) -> Iterator[Chunk]:
        """The chunks of a file; of one that cannot be decoded a last chunk that says why."""
        file = self.files[place]
        name = str(file.path)
        try:
            if file.kind == "image":
                yield self.decode_image(place)
                return
            with Media(str(file.path)) as media:
                yield from self.decode_media(place, media)
        except (MediaError, OSError, MemoryError) as error:
            yield Chunk(place, is_last=True, problem=reason_of(error, name))

    def decode_image(self, place: int) -> Chunk:
        """The one chunk of an image."""
        if "video" not in self.modalities:
            return Chunk(place, is_last=True, problem="is an image, for which the model has no encoder")
        processor = self.processor.video_processor
        frames = processor.resize_and_crop(image_to_frame(read_image(str(self.files[place].path))))
        clip = Clip(self.files[place].name, frames, None, is_image=True)
        return Chunk(place, [DecodedWindow(None, None, clip, mark_frames(frames / 255))], is_last=True)

    def decode_media(self, place: int, media: Media) -> Iterator[Chunk]:
        """The chunks of a video or sound."""
        duration = media.duration
        video, audio = (media.container.find_stream(kind) for kind in MODALITIES)
        present = [kind for kind, stream in zip(MODALITIES, (video, audio), strict=True) if stream is not None]
        wanted = [kind for kind in present if kind in self.modalities]
        if not wanted:
            has = f"has {' and '.join(present) or 'neither video nor audio'}"
            yield Chunk(place, is_last=True, problem=f"{has}, and the model encodes {' and '.join(self.modalities)}")
            return
        rate = float(video.average_rate) if video is not None and video.average_rate else None
        windows, decoded = self.cut.windows(duration), 0
        for first in range(0, len(windows), CHUNK_WINDOWS):
            part, problems = self.decode_windows(media, windows[first : first + CHUNK_WINDOWS], wanted)
            decoded += len(part)
            is_last = first + CHUNK_WINDOWS >= len(windows)
            damage = problems + [reason_of(problem, media.name) for problem in media.problems]
            media.problems.clear()
            problem = None
            if is_last and not decoded:
                problem = damage[0] if damage else "has no window that can be decoded"
            yield Chunk(place, part, is_last, first == 0, duration, rate, damage, problem)

    def decode_windows(
        self, media: Media, windows: list[tuple[float, float]], wanted: list[str]
    ) -> tuple[list[DecodedWindow], list[str]]:
        """Windows that follow each other in a file, and what was wrong with those that are left out."""
        last = windows[-1]
        on_grid = len(windows) == 1 or last[0] - windows[-2][0] == self.cut.stride
        try:
            if not on_grid:
                before, problems = self.decode_windows(media, windows[:-1], wanted)
                after, more = self.decode_windows(media, [last], wanted)
                return before + after, problems + more
            return self.read_windows(media, windows, wanted), []
        except MediaError as error:
            if len(windows) == 1:
                return [], [reason_of(error, media.name)]
        pieces = [self.decode_windows(media, [window], wanted) for window in windows]
        return [window for part, _ in pieces for window in part], [reason for _, part in pieces for reason in part]

    def read_windows(self, media: Media, windows: list[tuple[float, float]], wanted: list[str]) -> list[DecodedWindow]:
        """Windows at the stride of the grid, or a single one, decoded in one go.

        Raises:
            MediaError: when the file cannot be decoded there.
        """
        cut, processor = self.cut, self.processor.video_processor
        start, end = windows[0][0], windows[-1][1]
        frames = waveform = None
        if "video" in wanted:
            number = (len(windows) - 1) * cut.stride_frames + cut.num_frames
            frames = processor.resize_and_crop(media.read_frames(number, start, end, processor.decoded_size))
        rate = self.processor.feature_extractor.sampling_rate
        if "audio" in wanted:
            waveform = media.read_waveform(rate, start, end)
        decoded = []
        for place, window in enumerate(windows):
            own = sound = None
            marks = Marks()
            if frames is not None:
                own = frames[place * cut.stride_frames :][: cut.num_frames].clone()
                marks = mark_frames(own / 255)
            if waveform is not None:
                first = round((window[0] - start) * rate)
                sound = waveform[first : first + round((window[1] - window[0]) * rate)].clone()
            decoded.append(DecodedWindow(*window, Clip(media.name, own, sound), marks))
        return decoded


@contextmanager
def workers_may_die() -> Iterator[None]:
    """Lets a DataLoader say that a worker died where its next item is asked for; its handler of the signal would raise
    the error wherever this process is, in the midst of a file that is written, too."""
    if threading.current_thread() is not threading.main_thread():  # it has no handlers
        yield
        return
    handler = signal.getsignal(signal.SIGCHLD)
    set_handler = torch.utils.data._utils.signal_handling._set_SIGCHLD_handler
    set_handler()  # once in a process, so that the loader does not do it later
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGCHLD, handler if handler is not None else signal.SIG_DFL)


@dataclass
class EmbeddedFile:
    """What is kept of a file.

    file: its place in the list of files. windows: embedded; marks: of each window's picture.
    duration, frame_rate, damage, problem: see [`Chunk`].
    """

    file: int
    windows: list[Window] = field(default_factory=list)
    marks: list[Marks] = field(default_factory=list)
    duration: float | None = None
    frame_rate: float | None = None
    damage: list[str] = field(default_factory=list)
    problem: str | None = None


class Embedder:
    """Embeds media files.

    Args:
        model, processor: in evaluation mode, as of [`load_model`].
        cut: how files are cut into windows.
        settings: what is kept of each window.
        num_workers: decoding processes; 0 decodes in this one.
    """

    def __init__(
        self, model: FgmmModel, processor: FgmmProcessor, cut: Cut, settings: EmbeddingSettings, num_workers: int
    ):
        self.model = model
        self.processor = processor
        self.cut = cut
        self.encoder = WindowEncoder(model, processor, settings)
        self.batch_size = settings.batch_size
        self.num_workers = num_workers

    def embed_files(self, files: Sequence[MediaFile], on_chunk=lambda chunk: None) -> Iterator[EmbeddedFile]:
        """The files of a list, each as soon as it is whole; those of different workers in any order.

        Windows of several files are embedded together, so that many small files take no longer than a long one.

        Args:
            on_chunk: is called with each decoded [`Chunk`], for progress.
        """
        at_work: dict[int, EmbeddedFile] = {}
        waiting: list[tuple[EmbeddedFile, DecodedWindow]] = []
        finished: list[EmbeddedFile] = []
        for chunk in self.decode(files):
            on_chunk(chunk)
            if chunk.is_first:  # also of a file that is decoded once more
                at_work[chunk.file] = EmbeddedFile(chunk.file)
            embedded = at_work[chunk.file]
            embedded.damage += chunk.damage
            waiting += [(embedded, window) for window in chunk.windows]
            while len(waiting) >= self.batch_size:
                self.embed(waiting[: self.batch_size])
                del waiting[: self.batch_size]
            if chunk.is_last:
                embedded.duration, embedded.frame_rate = chunk.duration, chunk.frame_rate
                embedded.problem = chunk.problem
                finished.append(at_work.pop(chunk.file))
            still_waiting = {id(owner) for owner, _ in waiting}
            yield from [one for one in finished if id(one) not in still_waiting]
            finished = [one for one in finished if id(one) in still_waiting]
        self.embed(waiting)
        yield from finished

    def decode(self, files: Sequence[MediaFile]) -> Iterator[Chunk]:
        """The chunks of files, decoded by workers; those of one file in their order.

        Where a damaged file makes a decoder crash its worker, or takes all memory so that the system ends it, one
        worker goes on, so that it is known at which file it was; one at which it dies twice has a problem.
        """
        modalities = [name for name in MODALITIES if name in self.model.config.modalities]
        decoded = DecodedFiles(files, self.processor, modalities, self.cut)
        crashes: Counter[int] = Counter()
        workers = min(self.num_workers, len(files))
        while decoded.places:
            loader = DataLoader(decoded, batch_size=None, num_workers=workers, worker_init_fn=ignore_termination)
            done: set[int] = set()
            try:
                with workers_may_die():
                    for chunk in loader:
                        yield chunk
                        done |= {chunk.file} if chunk.is_last else set()
            except (RuntimeError, ConnectionError, EOFError) as error:
                # How a DataLoader says that a worker died, or that what it sent is gone with it.
                if isinstance(error, RuntimeError) and "DataLoader worker" not in str(error):
                    raise
            else:
                return
            decoded.places = [place for place in decoded.places if place not in done]
            if workers == 1:
                place = int(decoded.at_work)
                crashes[place] += 1
                if crashes[place] == CRASHES:
                    yield Chunk(place, is_last=True, problem="makes the decoder crash; convert it to a common codec")
                    decoded.places.remove(place)
            workers = 1

    def embed(self, batch: list[tuple[EmbeddedFile, DecodedWindow]]) -> None:
        """Embeds decoded windows and adds them to their files."""
        if not batch:
            return
        pairs = [
            (Window(decoded.clip.video_id, decoded.start, decoded.end, is_image=decoded.clip.is_image), decoded.clip)
            for _, decoded in batch
        ]
        for (owner, decoded), window in zip(batch, self.encoder.embed(pairs), strict=True):
            owner.windows.append(window)
            owner.marks.append(decoded.marks)
