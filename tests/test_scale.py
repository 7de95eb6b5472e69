import json
from dataclasses import fields, replace

import pytest

from fgmm_tools.publishing import cards
from fgmm_tools.publishing.scale import Assumptions, ClipCost, estimate, read_meanings

COST = ClipCost(core_seconds=0.1, operations=100e9, contrast_operations=1e6, parameters=50e6, seconds=4.0)
ROUND = Assumptions(
    **{"clips": 36e6, "videos": 1e6, "bytes_of_corpus": 10e12, "peak_operations": 1e15, "utilisation": 0.1},
    **{"gpus_per_machine": 8, "cores_per_gpu": 20, "loader_of_limit": 0.5, "core_speed": 2.0, "storage_rate": 2e9},
    **{"network_rate": 1e9, "batch_size": 100, "gpu_hour_price": 2.0},
)


def test_the_rates_of_one_gpu_by_hand():
    run = estimate(COST, ROUND, 1)
    # 1e14 operations/s by 1e11 + 100 * 1e6 a clip; 20 cores of double speed at half; 2e9 bytes/s of rows of 1e7.
    assert run.rates == pytest.approx({"arithmetic": 1e14 / 100.1e9, "decoding": 200.0, "storage": 200.0})
    assert run.hours == pytest.approx(36e6 / 200 / 3600) and run.dollars == pytest.approx(2 * run.hours)


def test_gpus_of_one_machine_share_its_storage():
    one, eight = estimate(COST, ROUND, 1), estimate(COST, ROUND, 8)
    assert eight.binds == "storage" and eight.hours == pytest.approx(one.hours)
    assert eight.dollars == pytest.approx(8 * one.dollars) and "network" not in eight.rates


def test_machines_add_storage_and_exchange_gradients():
    run = estimate(COST, ROUND, 64)
    assert run.rates["storage"] == pytest.approx(8 * 200)
    # A ring of 8 machines moves 2 * 7/8 of 2e8 bytes, for a step of 6,400 clips.
    assert run.rates["network"] == pytest.approx(6400 * 1e9 / (1.75 * 2e8))
    assert run.rates["arithmetic"] == pytest.approx(64 * 1e14 / (100e9 + 6400 * 1e6))


def test_shorter_rows_need_fewer_bytes():
    pieces = estimate(COST, replace(ROUND, row_seconds=39.0), 8)
    assert pieces.rates["storage"] == pytest.approx(10 * 200) and pieces.binds == "decoding"


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"core_speed": 0.01}, "decoding"),
        ({"utilisation": 0.001}, "arithmetic"),
        ({"network_rate": 1e4}, "network"),
        ({"storage_rate": 1e6}, "storage"),
    ],
)
def test_what_is_made_slower_binds(change, part):
    assert estimate(COST, replace(ROUND, row_seconds=1.0, **change), 64).binds == part


def test_every_assumption_is_explained():
    assert read_meanings().keys() == {field.name for field in fields(Assumptions)}


def test_the_cost_of_trackers_is_a_sentence(tmp_path):
    metrics = {
        "cost": 0.0041,
        "ratio_of_core_seconds": 1.001,
        "ratio_of_step": 1.002,
        "quartiles_of_ratio": [0.999, 1.01],
    }
    run = {"model": "m", "protocol": "p", "command": "c", "device": "d", "date": "2026-01-01"}
    settings = {"trackers": ["tensorboard", "trackio"], "log_steps": 20, "batch_size": 64, "picture_steps": 1000}
    record = {**run, "settings": settings, "metrics": {**metrics, "picture_seconds": 1.5, "same_weights": True}}
    (tmp_path / "one.json").write_text(json.dumps(record))
    text = cards.fill("<!-- monitoring: one -->\nold\n<!-- end of monitoring -->\n", tmp_path)
    assert "tensorboard and trackio, told every 20 steps of 64 clips, with a picture every 1,000 steps: 0.41 %" in text
    assert "1.002 (quartiles 0.999 and 1.010), that of core seconds 1.001" in text and "bit for bit" in text


def test_the_table_says_what_was_measured_and_what_is_assumed(tmp_path):
    metrics = {field.name: getattr(COST, field.name) for field in fields(ClipCost)}
    run = {"model": "m", "protocol": "p", "command": "c", "device": "d", "date": "2026-01-01"}
    (tmp_path / "mine.json").write_text(json.dumps({**run, "metrics": metrics}))
    text = cards.fill("<!-- scale: mine -->\nold\n<!-- end of scale -->\n", tmp_path)
    rows = [line for line in text.splitlines() if line.startswith(("| whole videos", "| pieces of 30 s"))]
    assert "old" not in text and len(rows) == 6
    assert "100 ms of a core" in text and "100 GFLOP of encoders" in text
    assert all(f"| {field.name} |" in text for field in fields(Assumptions))
    first = estimate(COST, Assumptions(), 1)
    assert f"| {first.binds} | {first.hours:,.0f} | {first.dollars:,.0f} |" in rows[0]
