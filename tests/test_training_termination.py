"""SIGTERM, in real processes: alone, and two that a launcher started."""

import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from accelerate import Accelerator
from helpers import ROOT, make_caption, training_arguments, write_corpus, write_video
from safetensors.torch import load_file

from fgmm_tools.cli import Terminated
from fgmm_tools.training.termination import Termination

LAUNCH = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]


@pytest.fixture
def terminate(narrated, tmp_path):
    """Trains in tmp_path, sends SIGTERM to all processes when a file is there; gives exit code and output."""

    def run(*launch, marker="checkpoints/step-0000002", dataset=narrated, **fields) -> tuple[int, str]:
        words = training_arguments(dataset, tmp_path, save_steps=2, **fields)
        environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads()), "ACCELERATE_USE_CPU": "true"}
        with open(tmp_path / "run.log", "w") as log:
            process = subprocess.Popen(
                [*launch, str(ROOT / "scripts/pretrain.py"), *words],
                **{"stdout": log, "stderr": log, "env": environment, "start_new_session": True},
            )
        deadline = time.monotonic() + 120
        while not (tmp_path / marker).exists() and time.monotonic() < deadline:
            assert process.poll() is None, (tmp_path / "run.log").read_text()
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGTERM)
        try:
            return process.wait(60), (tmp_path / "run.log").read_text()
        finally:
            process.kill()

    return run


def last_step(folder) -> int:
    names = sorted(path.name for path in (folder / "checkpoints").iterdir())
    assert not [name for name in names if name.endswith(".partial")]
    return int(names[-1].removeprefix("step-"))


def test_a_run_saves_ends_with_143_and_resumes_exactly(terminate, trained, narrated, pretrain_here, tmp_path):
    """Its decoding processes have the signal, too."""
    code, written = terminate(sys.executable, max_steps=24, num_workers=2)
    step = last_step(tmp_path)
    assert code == 143 and 2 <= step < 24
    assert written.endswith(f"Stopped by SIGTERM at step {step}, which is saved; continue by --resume_from latest.\n")
    assert not (tmp_path / "run.lock").exists()
    pretrain_here(narrated, tmp_path, max_steps=24, save_steps=2, resume_from="latest")
    whole, resumed = (load_file(path / "model.safetensors") for path in (trained[0], tmp_path))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_what_failed_by_then_is_listed(terminate, tmp_path):
    data = write_video(tmp_path / "a.mp4", seconds=1, sound=1.0).read_bytes()
    (tmp_path / "a.mp4").unlink()
    rows = [
        {"video_id": str(n), "video": {"bytes": data if n else b"broken"}, "captions": [make_caption("a ball")]}
        for n in range(8)
    ]
    corpus = write_corpus(tmp_path.with_name("corpus"), rows)
    code, _ = terminate(sys.executable, dataset=corpus, max_steps=1000, log_steps=1000)
    assert code == 143 and '"video_id": "0"' in (tmp_path / "failed_clips.jsonl").read_text()


def test_two_processes_save_the_same_step(terminate, tmp_path):
    """torchrun has a code and a traceback of its own."""
    _, written = terminate(*LAUNCH, max_steps=1000)
    step = last_step(tmp_path)
    assert written.count(f"Stopped by SIGTERM at step {step}, which is saved") == 1
    assert "pretrain.py" not in written.partition("Stopped by SIGTERM")[0]


@pytest.fixture
def termination():
    with Termination() as termination:
        yield termination


def test_a_block_that_may_be_interrupted_ends_at_once(termination):
    """As an evaluation does; a step does not."""
    done = []
    termination.defer()
    with termination.interrupting():
        os.kill(os.getpid(), signal.SIGTERM)
        done.append("interrupted")
    os.kill(os.getpid(), signal.SIGTERM)
    done.append("deferred")
    assert done == ["deferred"] and termination.requested(Accelerator(cpu=True))


def test_errors_of_a_block_that_may_be_interrupted_stay_what_they_are(termination):
    with pytest.raises(ZeroDivisionError), termination.interrupting():
        raise ZeroDivisionError
    assert not termination.requested(Accelerator(cpu=True))


def test_modules_are_imported_to_the_end(termination, monkeypatch):
    sent = []
    monkeypatch.setattr("fgmm_tools.training.termination.is_importing", lambda frame: not sent)
    monkeypatch.setattr(termination, "send_again", lambda: sent.append(signal.SIGTERM))
    os.kill(os.getpid(), signal.SIGTERM)
    assert sent == [signal.SIGTERM]
    with pytest.raises(Terminated, match="before the first step"):
        os.kill(os.getpid(), signal.SIGTERM)


def test_before_the_first_step_nothing_is_saved(terminate, tmp_path):
    code, written = terminate(sys.executable, marker="run.lock", max_steps=1000)
    assert code == 143 and written.endswith("Stopped by SIGTERM before the first step.\n")
    assert not (tmp_path / "checkpoints").exists() and not (tmp_path / "run.lock").exists()
