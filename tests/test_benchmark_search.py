"""The benchmark of search, on little: every part's numbers, against what they must be."""

import http.server
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

pytest.importorskip("faiss", reason="search needs fgmm[search]")
pytest.importorskip("evaluate", reason="the benchmark needs fgmm[eval]")

import benchmark_search
from helpers import run_main

from fgmm_tools.cli import UserError
from fgmm_tools.search_benchmark import latency, load, moments, recall, updating
from fgmm_tools.search_benchmark.settings import BenchmarkSettings


@pytest.fixture(scope="module")
def settings(narrated, narrated_model, tmp_path_factory):
    work = tmp_path_factory.mktemp("benchmark")
    small = {"candidates": 3, "num_vectors": 3000, "dim": 16, "num_queries": 20, "clips": 4, "clips_a_video": 2}
    return BenchmarkSettings(str(narrated_model[0]), str(narrated), work, num_files=4, num_workers=0, **small)


@pytest.fixture(scope="module")
def task(settings):
    return recall.load_task(settings.model, settings.narrated, settings)


def test_recall_of_coarse_then_fine(task):
    """All items as candidates lose nothing; one is the coarse search."""
    number = len(task.maps)
    everything = recall.measure_recall(task, number)
    assert everything["share_of_R@10"] == everything["share_of_top_10"] == 100.0
    assert everything["R@1"] == everything["R@1_of_full"] and everything["num_queries"] == len(task.targets)
    one = recall.measure_recall(task, 1)
    assert one["R@1"] == one["R@1_of_coarse"] and set(one["by_candidates"]) == {"1", "2", "4"}
    assert one["share_of_top_10"] == pytest.approx(100 / number, abs=0.01)  # of all items one is kept
    assert set(everything["by_coarse_search"].values()) == {100.0}
    # By hand for each query: its best by the coarse score alone is scored finely.
    keys = recall.Keys.concatenate([one.as_keys() for one in task.maps])
    coarse, fine = task.objective.coarse_scores(task.texts, keys), task.objective.scores(task.texts, keys)
    best = coarse[..., 0].topk(3, dim=1).indices
    first = best.gather(1, fine[..., 0].gather(1, best).argmax(1, keepdim=True)).squeeze(1)
    share = 100 * (first == task.targets).float().mean().item()
    assert recall.measure_recall(task, 3)["R@1"] == pytest.approx(share, abs=0.01)


def test_fewer_regions_and_digits(task):
    results = recall.measure_regions(task, counts=(1, 4))
    number, dim = int(task.maps[0].mask.sum()), len(task.maps[0].embeds)
    sizes = results["bytes_a_window"]
    assert sizes["float32"] == {"all": number * dim * 4 + 4 + 4 * dim}
    assert sizes["int8"] == {
        "1": dim + 4 + 4 * dim,
        "4": 4 * dim + 4 + 4 * dim,
        str(number): number * dim + 4 + 4 * dim,
    }
    assert sizes["float16"]["4"] == 4 * dim * 2 + 4 + 4 * dim
    found = results["R@10_by_regions"]
    assert found["float16"][str(number)] == found["float32"]["all"]  # all regions, nearly all digits
    one = task.maps[0].as_keys(4, "int8")
    assert one.regions.shape == (1, 4, dim) and torch.allclose(one.regions.norm(dim=-1), torch.ones(1, 4), atol=1e-5)


def test_latency_of_each_engine(settings, monkeypatch):
    pytest.importorskip("lancedb", reason="exporting needs fgmm[export]")
    # In this process: others would take their time to import everything.
    monkeypatch.setattr(latency, "ProcessPoolExecutor", lambda number, mp_context: ThreadPoolExecutor(number))
    result = latency.run_latency(settings)["latency_ms"]
    assert result["num_vectors"] == 3000 and {"p50", "p99", "first"} <= result.keys()
    assert result["engines"].keys() == set(latency.ENGINES)
    for name, values in result["engines"].items():
        assert 0 < values["p50"] <= values["p99"] and values["first"] > 0 and values["memory_bytes"] >= 0
        assert values["disk_bytes"] >= 3000 * 16 * (2 if name == "float16" else 4)
        assert name == "numpy" or values["recall"] > 99
    vectors, queries = (np.load(settings.work / "vectors" / f"{name}.npy") for name in ("vectors", "queries"))
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert latency.search_numpy(vectors, queries[0]) == (-(vectors @ queries[0])).argsort()[: latency.TOP].tolist()


def test_moments_of_stitched_videos(settings):
    result = moments.run_moments(settings)
    found = result["moments"]["narrated"]
    assert result["moments"].keys() == {"narrated"} and found["num_queries"] > 1
    assert {"R1@0.5", "R1@0.7", "mIoU", "mAP@0.5", "mAP@0.75", "mAP"} <= found.keys() & found["chance"].keys()
    assert result["index_hours_an_hour"]["narrated"] > 0 and result["index_bytes_a_window"]["narrated"] > 0
    stitched = [path.stat().st_mtime_ns for path in (settings.work / "stitched").rglob("*.mp4")]
    assert moments.run_moments(settings)["moments"] == result["moments"]
    assert [path.stat().st_mtime_ns for path in (settings.work / "stitched").rglob("*.mp4")] == stitched


def test_adding_files(settings):
    result = updating.run_updating(settings)["updating"]
    assert (result["num_files"], result["added_files"]) == (4, 1) and result["share_of_files"] == 25.0
    assert result["share_of_seconds"] == pytest.approx(100 * result["added_seconds"] / result["seconds"], rel=0.05)


def test_clients_at_once():
    """Of a server that takes 50 ms for an answer, and fails for one text."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            time.sleep(0.05)
            content = b"{}" if "bad" in self.path else json.dumps({"moments": []}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *arguments):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        result = load.ask_together(server.server_port, ["good", "bad", "also good"], clients=4, number=12)
        server.shutdown()
    assert (result["clients"], result["num_queries"], result["failed"]) == (4, 12, 4)
    assert 50 <= result["p50"] <= result["p99"] and 5 < result["queries_a_second"] <= 80


def test_parts_add_to_the_results_file(settings, tmp_path, monkeypatch):
    output = tmp_path / "search.json"
    words = ["--model", settings.model, "--narrated", settings.narrated, "--work", tmp_path, "--output", output]
    words += ["--num_workers", 0, "--candidates", 3]
    run_main(monkeypatch, benchmark_search, *words, "--parts", "recall", "--note", "busy")
    first = json.loads(output.read_text())
    assert first["metrics"].keys() == {"recall_of_full_fine"} and first["parts"]["recall"]["note"] == "busy"
    monkeypatch.setattr(recall, "REGION_COUNTS", (1,))
    run_main(monkeypatch, benchmark_search, *words, "--parts", "regions")
    second = json.loads(output.read_text())
    assert second["metrics"]["recall_of_full_fine"] == first["metrics"]["recall_of_full_fine"]
    assert "R@10_by_regions" in second["metrics"] and second["parts"].keys() == {"recall", "regions"}
    assert {"model", "dataset", "split", "protocol", "command", "seed", "commit", "device", "date"} <= second.keys()
    output.write_text("{}")
    with pytest.raises(UserError, match="is no results file of this benchmark"):
        run_main(monkeypatch, benchmark_search, *words, "--parts", "recall")
