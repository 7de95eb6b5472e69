"""What a run costs: floating-point operations, and seconds of processor cores."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from torch.utils.flop_counter import FlopCounterMode

from .checkpoints import Progress


@contextmanager
def counting_operations(progress: Progress) -> Iterator[None]:
    """Counts the floating-point operations of a training step, forward and backward, unless one was counted before.

    Counted are matrix products and convolutions, of this process; a step's count stands for all steps, whose texts
    differ in length. Products inside Triton's kernels are not seen.
    """
    if progress.operations_per_step:
        yield
        return
    with FlopCounterMode(display=False) as counter:
        yield
    progress.operations_per_step = counter.get_total_flops()


def core_seconds() -> float:
    """Seconds that all threads of this process have used processor cores, and those of its ended children."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system
