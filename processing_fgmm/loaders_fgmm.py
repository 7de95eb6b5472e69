"""Batches of training clips: the parts that worker processes decode, joined in the order of the stream."""

import logging
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import active_children
from multiprocessing.process import BaseProcess

import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader

from .clips_fgmm import Clip
from .processing_fgmm import FgmmProcessor
from .streams_fgmm import Batch, NarratedClips
from .video_processing_fgmm import uniform_indices

logger = logging.getLogger(__name__)

# Times in a run that workers which the system killed are started again, in each process.
MAX_RESTARTS = 5
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
        device: that inputs are moved to, and joined on.
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
            worker_init_fn=self.worker_init_fn,
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
            inputs=join_inputs(inputs, self.clips.processor, self.device, order or [0]),
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


def empty_inputs(clips: NarratedClips) -> dict[str, torch.Tensor]:
    """Model inputs of one item without any modality, with which a process that has no clip takes part in a step."""
    return clips.make_inputs([Clip("", None, None)], [0])


def join_inputs(
    parts: list[dict[str, torch.Tensor]], processor: FgmmProcessor, device: torch.device, order: list[int]
) -> dict[str, torch.Tensor]:
    """Model inputs that were collated apart, as if they had been collated together.

    Args:
        parts: tensors (b, ...), with the b of each part and padded to its longest item.
        processor: that made them.
        device: that they are moved to.
        order: (B,) which item, of all parts end to end, comes first, second and so on.

    Returns:
        tensors (B, ...), padded to the longest item of all.
    """
    padding = {
        "input_ids": processor.tokenizer.pad_token_id,
        "input_features": processor.feature_extractor.padding_value,
    }
    places = torch.empty(len(order), dtype=torch.long)
    places[torch.tensor(order)] = torch.arange(len(order))
    places = places.to(device)
    joined = {}
    for name in parts[0]:
        tensors = [part[name].to(device, non_blocking=True) for part in parts]
        longest = [max(sizes) for sizes in zip(*(tensor.shape[1:] for tensor in tensors), strict=True)]
        whole = tensors[0].new_empty(len(order), *longest)
        first = 0
        for tensor in tensors:
            whole[places[first : first + len(tensor)]] = lengthen(name, tensor, longest, padding.get(name, 0))
            first += len(tensor)
        joined[name] = whole
    return joined


def lengthen(name: str, tensor: torch.Tensor, sizes: list[int], value: float) -> torch.Tensor:
    """Model inputs (b, ...) padded to (b, *sizes) with `value`; images become videos of one frame many times."""
    if list(tensor.shape[1:]) == sizes:
        return tensor
    if name == "pixel_values_videos":
        return tensor[:, uniform_indices(tensor.shape[1], sizes[0]).to(tensor.device)]
    missing = [size - present for size, present in zip(sizes, tensor.shape[1:], strict=True)]
    return F.pad(tensor, [count for size in reversed(missing) for count in (0, size)], value=value)


__all__ = ["MAX_RESTARTS", "ClipLoader", "WorkerError", "join_inputs"]
