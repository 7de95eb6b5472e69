import json

import pytest
import torch
from accelerate import Accelerator

from fgmm_tools.cli import UserError
from fgmm_tools.training import monitoring
from fgmm_tools.training.configuration import parse_config
from fgmm_tools.training.monitoring import FailedClips, SkippedSteps, count_cores, suggest_threads, suggest_workers
from processing_fgmm.orders_fgmm import StreamState
from processing_fgmm.streams_fgmm import Batch, FailedClip

STATE = StreamState(0, ((0, 0),))


@pytest.fixture
def failures(tmp_path):
    """Makes the counter of a run, which may be resumed."""
    return lambda max_share=0.5: FailedClips(tmp_path / "failed_clips.jsonl", max_share)


def batch(decoded, *failed):
    return Batch(
        {}, STATE, [0] * decoded, failures=[FailedClip(name, f"{name}.mp4", f"{name} is damaged") for name in failed]
    )


def test_damaged_clips_are_counted_and_named_once(failures, capsys):
    run = failures(0.0)
    for time in (3.0, 4.5):
        run.add(Batch({}, STATE, [0] * 8, damaged={"a": f"a: its audio is damaged at {time} s."}))
    assert (run.failed, run.damaged) == (0, {"a"})
    assert capsys.readouterr().out == "Used without its damaged part: a: its audio is damaged at 3.0 s.\n"


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


def test_a_first_batch_without_any_clip_stops_the_run_at_once(failures, tmp_path):
    with pytest.raises(UserError, match="None of the 2 clips of a batch could be decoded; the first: a is damaged"):
        failures(1.0).add(batch(0, "a", "b"))
    lines = (tmp_path / "failed_clips.jsonl").read_text().splitlines()
    assert [json.loads(line)["video_id"] for line in lines] == ["a", "b"]
    run = failures(1.0)
    run.add(batch(0))  # the share of this process was empty
    run.add(batch(1, "c"))
    run.add(batch(0, "a", "b"))
    assert (run.failed, run.seen) == (3, 4)


def test_steps_without_a_loss_are_listed_and_stop_the_run_when_they_are_too_many(tmp_path, capsys):
    accelerator, path = Accelerator(cpu=True), tmp_path / "skipped_steps.jsonl"
    steps, batches = SkippedSteps(path, 1, 0), [Batch({}, STATE, [0, 1], video_ids=["a", "b"])]
    assert steps.is_finite(accelerator, 1, torch.tensor(2.0), batches) and not path.exists()
    assert not steps.is_finite(accelerator, 5, torch.tensor(float("inf")), batches)
    assert "not a number at step 5, of the clips 'a', 'b'; the step is left out" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"step 7, of the clips 'a', 'b'; .*skipped_steps.jsonl names all"):
        steps.is_finite(accelerator, 7, torch.tensor(float("nan")), batches)
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [5, 7]
    assert [entry["step"] for entry in SkippedSteps(path, 1, 6).known] == [5]


def test_waiting_for_clips_is_said():
    config = parse_config(["--dataset", "a", "--output_dir", "out", "--num_workers", "3"])
    assert suggest_workers(config, 0.2) is None
    assert "waits for clips 35% of the time: raise num_workers, which is 3" in suggest_workers(config, 0.35)


def test_what_failed_is_summed_up(failures):
    accelerator, run = Accelerator(cpu=True), failures()
    run.add(batch(6, "a", "b"))
    run.report(accelerator)
    assert run.summarize() == "Of the clips 2 could not be decoded, 0 were damaged in part."
    run.captions.add(["b has no word."])
    assert run.summarize().endswith(" 0 were damaged in part. 1 captions were left out or repaired, named above.")


def test_more_threads_than_cores_are_said(monkeypatch):
    accelerator = Accelerator(cpu=True)
    monkeypatch.setattr(monitoring, "count_cores", lambda: 4)
    monkeypatch.setattr(monitoring.torch, "get_num_threads", lambda: 4)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "1")
    assert suggest_threads(accelerator) is None
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert suggest_threads(accelerator) == (
        "2 x 4 threads share 4 cores and wait for each other; --num_threads 2 fits."
    )


@pytest.mark.parametrize("text,cores", [("max 100000", 8), ("150000 100000", 1), ("300000 100000", 3), (None, 8)])
def test_the_cores_of_a_container_are_counted(monkeypatch, tmp_path, text, cores):
    monkeypatch.setattr(monitoring.os, "sched_getaffinity", lambda process: range(8))
    monkeypatch.setattr(monitoring, "CPU_QUOTA", tmp_path / "cpu.max")
    if text:
        (tmp_path / "cpu.max").write_text(text)
    assert count_cores() == cores


def test_evaluations_are_results_files(trained, narrated):
    files = sorted((trained[0] / "evaluations").iterdir())
    assert [path.name for path in files] == ["step-0000012.json", "step-0000024.json"]
    for path, step in zip(files, (12, 24), strict=True):
        record = json.loads(path.read_text())
        assert (record["step"], record["dataset"], record["split"]) == (step, str(narrated), "test")
        assert record["metrics"]["text_to_video"]["num_items"] == 8 and record["training"]["clips_seen"] == step * 8
        assert set(record) >= {"model", "protocol", "seed", "command", "commit", "device", "seconds", "date"}


def test_a_split_that_cannot_be_evaluated_does_not_end_the_run(narrated, pretrain_here, tmp_path, monkeypatch, capsys):
    def fail(*arguments):
        raise UserError("Nothing can be decoded.")

    monkeypatch.setattr(monitoring, "measure", fail)
    pretrain_here(narrated, tmp_path, max_steps=2, eval_steps=1)
    assert capsys.readouterr().out.count("is not evaluated: Nothing can be decoded.") == 2
    assert (tmp_path / "model.safetensors").exists()
