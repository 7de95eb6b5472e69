"""Batches of training clips: the parts that worker processes decode, joined in the order of the stream."""

import ctypes
import logging
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import active_children
from multiprocessing.process import BaseProcess

import torch
from torch.utils.data import DataLoader

from .clips_fgmm import Clip
from .collation_fgmm import finish_inputs, join_inputs
from .feature_extraction_fgmm import FgmmFeatureExtractor
from .streams_fgmm import Batch, NarratedClips

logger = logging.getLogger(__name__)

# Times in a run that workers which the system killed are started again, in each process.
MAX_RESTARTS = 5
# Options of glibc's mallopt, and their values in bytes: blocks below the first are taken from the heap (32 MB is the
# most that it allows), whose free end goes back to the system only beyond the second.
MALLOC_OPTIONS = {-3: 2**25, -1: 2**29}
# How long a worker may take to end, of which something is met that it has left behind.
EXIT_SECONDS = 0.5


class WorkerError(RuntimeError):
    """Workers were killed too often; the message says what to do."""


class WorkerKilled(Exception):
    """A worker was killed, as the system does for want of memory."""


class ClipLoader:
    """The endless batches of this process. Workers that are killed are started again at their place.

    Args:
        clips: the stream; its `state` is that of the first batch.
        num_workers: processes that read and decode; 0: this one does.
        device: that inputs are moved to, joined, and normalised on; where it is not the CPU, log-mel frames of our
            feature extractor are made there, too.
        worker_init_fn: called in each worker with its index.
    """

    def __init__(
        self,
        clips: NarratedClips,
        num_workers: int,
        device: torch.device | str = "cpu",
        worker_init_fn: Callable[[int], None] | None = None,
    ):
        self.clips = clips
        self.num_workers = num_workers
        self.device = torch.device(device)
        self.worker_init_fn = worker_init_fn
        self.restarts = 0
        clips.sends_waveforms = self.device.type != "cpu" and isinstance(
            clips.processor.feature_extractor, FgmmFeatureExtractor
        )

    def start_worker(self, worker: int) -> None:
        """Begins a worker, of this index."""
        keep_freed_memory()
        if self.worker_init_fn:
            self.worker_init_fn(worker)

    def __iter__(self) -> Iterator[Batch]:
        """
        Raises:
            WorkerError: when workers have been killed more than MAX_RESTARTS times.
        """
        while True:
            try:
                for batch in self.run_workers():
                    self.clips.state = batch.state
                    yield batch
            except WorkerKilled as error:
                self.restarts += 1
                if self.restarts > MAX_RESTARTS:
                    raise WorkerError(
                        f"Workers that read clips were killed {self.restarts} times, perhaps for want of memory; lower "
                        "num_workers or batch_size."
                    ) from error
                logger.warning("A worker that reads clips was killed (%s); it is started again.", error)

    def run_workers(self) -> Iterator[Batch]:
        """The batches from the stream's state on, by new workers.

        Raises:
            WorkerKilled: when one of them was killed.
        """
        loader = DataLoader(
            self.clips,
            batch_size=None,
            num_workers=self.num_workers,
            pin_memory=self.device.type == "cuda",
            worker_init_fn=self.start_worker,
            generator=torch.Generator(),  # else it draws a random number of the training's, also at a restart
        )
        others = active_children()
        with own_signals():
            try:
                parts = iter(loader)
            except RuntimeError as error:  # of DataLoader's handler: a worker was killed as it started
                if "killed by signal" not in str(error):
                    raise
                raise WorkerKilled(str(error)) from error
        workers = [process for process in active_children() if process not in others]
        while True:
            try:
                of_batch = [next(parts) for _ in range(max(1, self.num_workers))]
            except (RuntimeError, EOFError, OSError) as error:  # whatever is met that waits for a dead worker
                killed = [worker.pid for worker in workers if was_killed(worker)]
                if not killed:
                    raise
                raise WorkerKilled(f"process {killed[0]}: {type(error).__name__}") from error
            yield self.join(of_batch)

    def join(self, parts: list[Batch]) -> Batch:
        """The parts of a batch in the order of the stream; without a clip, the inputs are those of an empty item."""
        numbers = [number for part in parts for number in part.numbers]
        order = sorted(range(len(numbers)), key=numbers.__getitem__)

        def in_order(name: str) -> list:
            values = [value for part in parts for value in getattr(part, name)]
            return [values[index] for index in order]

        inputs = [part.inputs for part in parts if part.numbers] or [empty_inputs(self.clips)]
        return Batch(
            inputs=finish_inputs(
                join_inputs(inputs, self.clips.processor, self.device, order or [0]), self.clips.processor
            ),
            state=parts[0].state,
            numbers=in_order("numbers"),
            corpora=in_order("corpora"),
            video_ids=in_order("video_ids"),
            failures=[failure for part in parts for failure in part.failures],
            damaged={name: message for part in parts for name, message in part.damaged.items()},
            caption_problems=[problem for part in parts for problem in part.caption_problems],
        )


def was_killed(worker: BaseProcess) -> bool:
    """Whether a process has ended by a signal; one that is just ending is waited for."""
    worker.join(EXIT_SECONDS)
    return (worker.exitcode or 0) < 0


@contextmanager
def own_signals() -> Iterator[None]:
    """A block that leaves the handler of SIGCHLD as it is. That of DataLoader raises the death of a worker anywhere in
    this process, for instance in the midst of an optimiser step; without it, it is raised where a batch is taken."""
    is_main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGCHLD)
    try:
        yield
    finally:
        if is_main and handler is not None:
            signal.signal(signal.SIGCHLD, handler)


def keep_freed_memory() -> None:
    """Lets this process keep the memory of what it frees, where its C library is glibc: to get it anew from the system
    for each clip, page by page, takes as long as some of the work in it."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    for option, value in MALLOC_OPTIONS.items() if mallopt else ():
        mallopt(option, value)


def empty_inputs(clips: NarratedClips) -> dict[str, torch.Tensor]:
    """A part of one item without any modality, with which a process that has no clip takes part in a step."""
    return clips.make_inputs([Clip("", None, None)], [0])


__all__ = ["MAX_RESTARTS", "ClipLoader", "WorkerError"]
