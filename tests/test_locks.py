import os
import signal
import subprocess
import sys

import pytest

from fgmm_tools import locks
from fgmm_tools.cli import UserError

# Holds a lock file until it is ended.
HOLDER = """
import sys, time
from pathlib import Path
from fgmm_tools.locks import locked

with locked(Path(sys.argv[1])):
    print("READY", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """A process that holds the lock of the folder."""
    process = subprocess.Popen([sys.executable, "-c", HOLDER, tmp_path / "run.lock"], stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"READY\n"
    yield process
    process.kill()
    process.wait()


def test_one_process_at_a_time_works_in_a_folder(holder, tmp_path):
    with pytest.raises(UserError, match=rf"Another process is working in .* \(process {holder.pid} on "):
        with locks.locked(tmp_path / "run.lock"):
            pass
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    assert (tmp_path / "run.lock").exists()
    with locks.locked(tmp_path / "run.lock"):  # what a killed process leaves is not in the way
        assert locks.read_holder(tmp_path / "run.lock")["process"] == os.getpid()
    assert not (tmp_path / "run.lock").exists()


def test_where_a_drive_has_no_locks_the_process_is_looked_for(holder, tmp_path, monkeypatch):
    def fail(*arguments):
        raise OSError(locks.NO_LOCKS[0], "No locks available")

    monkeypatch.setattr(locks.fcntl, "lockf", fail)
    with pytest.raises(UserError, match=f"process {holder.pid} on "):
        with locks.locked(tmp_path / "run.lock"):
            pass
    holder.kill()
    holder.wait()
    with locks.locked(tmp_path / "run.lock"):
        pass
