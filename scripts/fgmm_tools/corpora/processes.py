"""Runs jobs in worker processes, with a progress bar."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from tqdm import tqdm

from ..cli import UserError, end_with_parent

Result = TypeVar("Result")


def run_jobs(
    function: Callable[..., Result],
    jobs: Sequence[tuple],
    sizes: Sequence[int],
    num_proc: int,
    description: str,
    unit: str,
) -> Iterator[Result]:
    """Yields the result of each job, in their order; the first exception of a job ends it.

    Args:
        function: run in a worker process.
        jobs: its arguments, for each job.
        sizes: of each job, by which the bar advances.
        num_proc: worker processes.
        description, unit: of the bar.

    Raises:
        UserError: when a worker process is killed, as by a system that is out of memory.
    """
    if not jobs:
        return
    pool = ProcessPoolExecutor(num_proc, initializer=end_with_parent)
    with tqdm(total=sum(sizes), desc=description, unit=unit) as bar, pool:
        futures = [pool.submit(function, *job) for job in jobs]
        try:
            for future, size in zip(futures, sizes, strict=True):
                yield future.result()
                bar.update(size)
        except BrokenProcessPool as error:
            raise UserError(
                f"{description}: a worker process was killed, perhaps for want of memory; lower --num_proc, and the "
                "same command continues."
            ) from error
        except BaseException:
            pool.shutdown(cancel_futures=True)  # else the remaining jobs would be done first
            raise
