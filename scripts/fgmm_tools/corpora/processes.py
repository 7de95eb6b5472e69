"""Runs jobs in worker processes of this machine, or on a Ray cluster, with a progress bar."""

import logging
import os
import pickle
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from typing import TypeVar

from tqdm import tqdm

from ..cli import UserError, begin_worker

Result = TypeVar("Result")

# Times that worker processes which the system killed are started again, before the run is given up.
MAX_RESTARTS = 2
# What schedules the jobs: worker processes here, or Ray Data (the extra `ray`).
ENGINES = ("processes", "ray")


def run_jobs(
    function: Callable[..., Result],
    jobs: Sequence[tuple],
    sizes: Sequence[int],
    num_proc: int,
    description: str,
    unit: str,
    engine: str = "processes",
) -> Iterator[Result]:
    """Yields the result of each job, in their order; the first exception of a job ends it.

    Args:
        function: run in a worker process; picklable, and a job that was interrupted may be run once more.
        jobs: its arguments, for each job.
        sizes: of each job, by which the bar advances.
        num_proc: jobs that run at a time.
        description, unit: of the bar.
        engine: one of ENGINES. Ray connects to the cluster of RAY_ADDRESS where that is set; the machines of a cluster
            must see the same files.

    Raises:
        UserError: when worker processes are killed again and again, as by a system that is out of memory, or Ray is
            not installed.
    """
    if not jobs:
        return
    run = run_on_ray if engine == "ray" else run_in_processes
    with tqdm(total=sum(sizes), desc=description, unit=unit) as bar:
        for result, size in zip(run(function, jobs, num_proc, description), sizes, strict=True):
            bar.update(size)
            yield result


def run_in_processes(
    function: Callable[..., Result], jobs: Sequence[tuple], num_proc: int, description: str
) -> Iterator[Result]:
    """As [`run_jobs`], without a bar. After a worker was killed, all that has not been yielded is run once more."""
    done = restarts = 0
    while done < len(jobs):
        pool = ProcessPoolExecutor(num_proc, initializer=begin_worker)
        with pool:
            futures = [pool.submit(function, *job) for job in jobs[done:]]
            try:
                for future in futures:
                    yield future.result()
                    done += 1
            except BrokenProcessPool as error:
                restarts += 1
                if restarts > MAX_RESTARTS:
                    raise UserError(
                        f"{description}: a worker process was killed, perhaps for want of memory; lower the number of "
                        "processes, and the same command continues."
                    ) from error
                tqdm.write(f"{description}: a worker process was killed; it is started again.", file=sys.stderr)
            except BaseException:
                pool.shutdown(cancel_futures=True)  # else the remaining jobs would be done first
                raise


def run_on_ray(
    function: Callable[..., Result], jobs: Sequence[tuple], num_proc: int, description: str
) -> Iterator[Result]:
    """As [`run_jobs`], without a bar: each job is a row of a Ray dataset, and a task with one CPU and an equal share of
    the GPUs. Ray runs the tasks of a worker that was killed once more.

    Raises:
        UserError: when Ray is not installed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray  # of the extra `ray`
        import ray.data
    except ImportError as error:
        raise UserError("The engine ray needs Ray Data; install fgmm with the extra `ray`.") from error

    address = os.environ.get("RAY_ADDRESS")
    own = {} if address else {"num_cpus": num_proc, "include_dashboard": False}
    ray.init(address=address, log_to_driver=False, logging_level="ERROR", **own)
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    try:
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.execution_options.preserve_order = True
        gpus = ray.cluster_resources().get("GPU", 0)
        rows = ray.data.from_items(list(range(len(jobs))), override_num_blocks=len(jobs))
        answers = rows.map(partial(run_row, function, jobs), num_cpus=1, num_gpus=min(1, gpus / num_proc))
        for row in answers.iter_rows():
            yield pickle.loads(row["result"])
    finally:
        ray.shutdown()


def run_row(function: Callable[..., Result], jobs: Sequence[tuple], row: dict) -> dict:
    """The task of a row of [`run_on_ray`]; pickled, for the columns of a dataset would change the result's types."""
    return {"result": pickle.dumps(function(*jobs[row["item"]]))}
