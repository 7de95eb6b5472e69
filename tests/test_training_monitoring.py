import json

import pytest
from accelerate import Accelerator

from fgmm_tools.cli import UserError
from fgmm_tools.training.monitoring import FailedClips
from processing_fgmm.streams_fgmm import Batch, FailedClip


@pytest.fixture
def failures(tmp_path):
    """Makes the counter of a run, which may be resumed."""
    return lambda max_share=0.5: FailedClips(tmp_path / "failed_clips.jsonl", max_share)


def batch(decoded, *failed):
    return Batch({}, 0, 0, decoded, [FailedClip(name, f"{name}.mp4", f"{name} is damaged") for name in failed])


def test_failed_clips_are_named_and_listed_once_a_run(failures, tmp_path, capsys):
    accelerator, run = Accelerator(cpu=True), failures()
    run.add(batch(6, "a", "b"))
    assert run.report(accelerator) == 2
    run.add(batch(6, "b", "c"))
    assert run.report(accelerator) == 3
    assert (run.failed, run.seen) == (4, 16)
    resumed = failures()
    resumed.add(batch(7, "a"))
    resumed.add(batch(7, "d"))
    assert resumed.report(accelerator) == 4
    printed = [line for line in capsys.readouterr().out.splitlines() if line.startswith("Skipped a clip")]
    assert printed == [f"Skipped a clip: {name} is damaged" for name in "abcd"]
    lines = (tmp_path / "failed_clips.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [
        {"video_id": name, "file": f"{name}.mp4", "reason": f"{name} is damaged"} for name in "abcd"
    ]


def test_too_large_a_share_of_failures_stops_the_run_after_100_clips(failures, tmp_path):
    accelerator, run = Accelerator(cpu=True), failures(0.1)
    for index in range(12):
        run.add(batch(7, str(index)))
    run.report(accelerator)
    run.add(batch(7, "13"))
    with pytest.raises(UserError, match=r"13 of 104 clips could not be decoded, more than max_failed_share 0\.1"):
        run.report(accelerator)
    assert len((tmp_path / "failed_clips.jsonl").read_text().splitlines()) == 13


def test_a_batch_without_any_clip_stops_the_run_at_once(failures):
    with pytest.raises(UserError, match="None of the 2 clips of a batch could be decoded; the first: a is damaged"):
        failures(1.0).add(batch(0, "a", "b"))
