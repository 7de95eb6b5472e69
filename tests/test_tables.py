import json

import pytest

from fgmm_tools.publishing import tables

RUN = {"command": "c", "commit": "abc", "device": "d", "seconds": 90.0, "date": "2026-01-02"}


@pytest.mark.parametrize(
    ("matching", "queries", "items", "expected"),
    [(1, 1000, 1000, 1.0), (1, 50, 10, 100.0), (5, 1000, 5000, 1.0), (1, 200, 200, 5.0)],
)
def test_chance_recall(matching, queries, items, expected):
    values = {"num_queries": queries, "num_items": items}
    assert tables.chance_recall(values, 10) == pytest.approx(expected, abs=0.01)
    assert matching == max(1, items // queries)


def test_retrieval_and_classification_have_a_table_each():
    values = {"R@1": 1.0, "R@5": 2.0, "R@10": 3.0, "MedR": 4.5, "num_queries": 1000, "num_items": 1000}
    retrieval = {"dataset": "data/x", "protocol": "retrieval, fine score, p", "metrics": {"text_to_video": values}}
    classification = {"dataset": "data/y", "protocol": "linear", "metrics": {"top1": 81.25, "mean_class": 80.0}}
    text = tables.make_results_table([{**RUN, **one, "training": None} for one in (retrieval, classification)])
    assert "| x | text to video | fine score | 1.0 | 2.0 | 3.0 | 4.5 | 1.0 | 1,000, 1,000 |" in text
    assert "| y | linear | accuracy | 81.2 |" in text and "| y | linear | mean class accuracy | 80.0 |" in text
    assert text.endswith("- y: measured by `c` (linear; 90 s, 2026-01-02).")


def test_downstream_runs_are_grouped_by_protocol_and_start_over_seeds(tmp_path):
    (tmp_path / "downstream").mkdir()
    for start, seed, top1 in (("pretrained", 0, 90.0), ("pretrained", 1, 92.0), ("random", 0, 70.0)):
        protocol = "linear" if start == "pretrained" else "random weights, linear"
        record = {"model": "m", "dataset": "data/esc10", "protocol": protocol, **RUN, "spread": {"top1": 3.0}}
        path = tmp_path / "downstream" / f"esc10-linear-{start}-seed{seed}.json"
        path.write_text(json.dumps({**record, "metrics": {"top1": top1, "mean_class": top1 - 1}}))
    lines = tables.make_downstream_table(tmp_path, ["esc10"]).splitlines()
    assert lines[2:4] == [
        "| esc10 | linear | pretrained | 91.0 ± 1.0 | 90.0 ± 1.0 | 3.0 | 2 |",
        "| esc10 | linear | random | 70.0 | 69.0 | 3.0 | 1 |",
    ]
    assert "`bash scripts/measure_downstream.sh m esc10 data/esc10` (linear); 3 runs, 4 min in all" in lines[-1]


def test_training_is_read_from_a_results_file_or_from_training_json(tmp_path):
    training = {**RUN, "seconds": 5400.0, "clips_seen": 16640, "seed": 3}
    (tmp_path / "training.json").write_text(json.dumps(training))
    (tmp_path / "results.json").write_text(json.dumps({"metrics": {}, "training": training}))
    text = tables.make_training_table(tmp_path / "training.json")
    assert "| clips seen | 16,640 |" in text and "| time | 1.50 h |" in text and "| code | commit abc |" in text
    assert tables.make_training_table(tmp_path / "results.json") == text
