import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fgmm_tools.cli import UserError
from fgmm_tools.corpora.processes import MAX_RESTARTS, run_jobs

WAIT = """
import os, sys, time
from pathlib import Path
from fgmm_tools.corpora.processes import run_jobs

def wait(path):
    Path(path).write_text(str(os.getpid()))
    time.sleep(600)

list(run_jobs(wait, [(sys.argv[1],)], [1], 1, "Waiting", "job"))
"""


def double(number):
    return 2 * number


def test_results_come_in_the_order_of_the_jobs():
    assert list(run_jobs(double, [(number,) for number in range(20)], [1] * 20, 2, "Doubling", "number")) == [
        *range(0, 40, 2)
    ]
    assert list(run_jobs(double, [], [], 2, "Doubling", "number")) == []


def test_a_worker_that_is_killed_again_and_again_is_explained(capsys):
    with pytest.raises(UserError, match=r"Ending: a worker process was killed, .*lower the number of processes"):
        list(run_jobs(os._exit, [(9,)], [1], 1, "Ending", "job"))
    assert capsys.readouterr().err.count("it is started again") == MAX_RESTARTS


def die_once(folder, number):
    """Kills its process where no job of this number has begun before."""
    path = Path(folder, str(number))
    if number % 2 and not path.exists():
        path.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def test_what_a_killed_worker_did_is_done_again(tmp_path):
    jobs = [(tmp_path, number) for number in range(4)]  # the second and the fourth kill, when the one before is done
    assert list(run_jobs(die_once, jobs, [1] * 4, 1, "Ending", "job")) == [0, 1, 2, 3]


def test_workers_end_with_a_killed_parent(tmp_path):
    path = tmp_path / "pid"
    run = subprocess.Popen([sys.executable, "-c", WAIT, str(path)], stderr=subprocess.DEVNULL)
    until = time.monotonic() + 60
    while not (path.exists() and path.read_text()) and time.monotonic() < until:
        time.sleep(0.05)
    run.kill()
    run.wait()
    worker = Path("/proc", path.read_text())
    while worker.exists() and "Z" not in worker.joinpath("stat").read_text().split() and time.monotonic() < until:
        time.sleep(0.05)
    assert not worker.exists() or "Z" in worker.joinpath("stat").read_text().split()
    assert run.returncode == -signal.SIGKILL
