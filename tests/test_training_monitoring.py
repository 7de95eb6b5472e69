import pytest

from fgmm_tools.cli import UserError
from fgmm_tools.training.monitoring import FailureCount
from processing_fgmm.streams_fgmm import Batch


def batch(decoded, failed):
    return Batch({}, 0, 0, decoded, [f"clip {index}" for index in range(failed)])


def test_failures_are_counted_and_named(capsys):
    failures = FailureCount(0.5)
    failures.add(batch(6, 2))
    assert (failures.failed, failures.seen) == (2, 8)
    assert "Skipped a clip: clip 1" in capsys.readouterr().out


def test_damaged_clips_are_counted_and_named_once(capsys):
    failures = FailureCount(0.0)
    for time in (3.0, 4.5):
        failures.add(Batch({}, 0, 0, 8, [], {"a": f"a: its audio is damaged at {time} s."}))
    assert (failures.failed, failures.damaged) == (0, {"a"})
    assert capsys.readouterr().out == "Used without its damaged part: a: its audio is damaged at 3.0 s.\n"


def test_too_large_a_share_of_failures_stops_the_run_after_100_clips():
    failures = FailureCount(0.1)
    for _ in range(12):
        failures.add(batch(7, 1))
    with pytest.raises(UserError, match=r"13 of 104 clips could not be decoded, more than max_failed_share 0\.1"):
        failures.add(batch(7, 1))


def test_a_batch_without_any_clip_stops_the_run_at_once():
    with pytest.raises(UserError, match="8 of 8 clips"):
        FailureCount(1.0).add(batch(0, 8))
