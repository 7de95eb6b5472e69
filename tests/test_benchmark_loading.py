"""The benchmark of loading: what it compares with does the same work, and its record has what is said of it."""

import json

import benchmark_loading
import numpy as np
import pytest
from helpers import run_main, tiny_processor

from fgmm_tools import loading_benchmark
from processing_fgmm.media_fgmm import Media
from processing_fgmm.rowgroups_fgmm import open_row_groups


@pytest.fixture(scope="module")
def rows(narrated):
    return open_row_groups(str(narrated), "train")


@pytest.fixture(scope="module")
def windows(rows, narrated_model):
    return loading_benchmark.list_windows(rows, tiny_processor(narrated_model[2].tokenizer, 640, clip_seconds=2.0), 8)


def test_plain_pyav_decodes_the_same_frames_and_sound(windows):
    listed, sampling = windows
    assert len({window.start for window in listed}) > 1
    for window in listed:
        frames, waveform = loading_benchmark.read_plainly(window, sampling)
        with Media(window.data) as media:
            ours = media.read_frames(sampling.num_frames, window.start, window.end, sampling.size)
            sound = media.read_waveform(sampling.sampling_rate, window.start, window.end).numpy()
        assert np.array_equal(frames.transpose(0, 3, 1, 2), ours.numpy())
        assert waveform.shape == sound.shape and np.corrcoef(waveform, sound)[0, 1] > 0.99


def test_rates_are_those_of_all_processes_together(windows):
    listed, sampling = windows
    reads = []
    rate = loading_benchmark.measure_rate(lambda *window: reads.append(window), listed, sampling, 2)
    assert rate > 100 and not reads  # in processes of their own


@pytest.mark.parametrize("num_workers", [0, 2])
def test_an_epoch_reads_each_byte_once(rows, narrated_model, num_workers):
    share = loading_benchmark.count_bytes(rows, narrated_model[2], num_workers)
    assert 0.9 < share < 1.2  # files of a few kB, whose footers are read by each worker


def test_a_plan_of_many_rows_repeats_those_of_the_corpus(rows):
    repeated = loading_benchmark.RepeatedRows(rows, 10 * rows.num_rows - 1)
    last = len(repeated.sizes) - 1
    assert repeated.num_rows == 10 * rows.num_rows
    assert repeated.read_ids(last) == rows.read_ids(len(rows.sizes) - 1)
    assert repeated.read(last)(0)["video_id"] == repeated.read_ids(last)[0]


def test_the_record_has_all_metrics(narrated, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(loading_benchmark, "LONG_RATE", 5)
    monkeypatch.setattr(loading_benchmark, "PLAN_ROWS", 10_000_100)
    options = ["--num_clips", 8, "--repeats", 1, "--memory_clips", 16, "--workers", 1, 2, "--minutes", 1]
    output = tmp_path / "loading.json"
    run_main(monkeypatch, benchmark_loading, "--datasets", narrated, *options, "--output", output)
    record = json.loads(output.read_text())
    metrics = record["metrics"]
    assert metrics["media_of_limit"] > 0 and metrics["long_window_of_own"] > 0 and metrics["resume_seconds"] > 0
    assert set(metrics["loader_of_limit"]) == {"1", "2"} and all(metrics["loader_of_limit"].values())
    assert set(metrics["bytes_read_of_needed"]) == {"0", "1", "2", "3", "4"}
    assert set(record["resume_seconds_at"]) == {"10", "10000000"} and len(record["worker_memory_mb"]) == 10
    assert set(record["clips_per_second"]["corpus"]) >= {"limit", "media", "loader"}
    assert "media_of_limit: " in capsys.readouterr().out
