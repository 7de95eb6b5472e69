import json
from dataclasses import asdict

import pytest

from fgmm_tools.cli import UserError
from fgmm_tools.publishing.studies import STUDIES, Run, Study
from fgmm_tools.publishing.study_results import make_earlier_table, make_study_table, read_runs


def write_run(folder, run, recall, direction="text_to_image"):
    values = {"R@1": 1.0, "R@5": 5.0, "R@10": recall}
    back = "_to_".join(reversed(direction.split("_to_")))
    metrics = {direction: values, back: {**values, "R@10": 20.0}}
    record = {"metrics": metrics, "metrics_of_pooled_vectors": metrics, "metrics_on_validation": metrics}
    record |= {"settings": run.settings(), "run": asdict(run), "training": {"commit": "abc1234-dirty"}}
    (folder / f"{run.name}.json").write_text(json.dumps(record))


def test_a_line_for_each_run_over_its_seeds(tmp_path, monkeypatch):
    losses = ("fine", "coarse", "mil_nce")
    study = Study("Tiny", lambda seed, results: [Run("photographs", loss, seed=seed) for loss in losses])
    monkeypatch.setitem(STUDIES, "tiny", study)
    write_run(tmp_path, Run("photographs", "fine"), 10.0)
    write_run(tmp_path, Run("photographs", "fine", seed=1), 12.0)
    write_run(tmp_path, Run("photographs", "coarse"), 7.0)
    write_run(tmp_path, Run("grid", "fine"), 99.0, "text_to_audio")  # of another study
    lines = make_study_table(tmp_path, "tiny").splitlines()[2:]
    settings = "corpus photographs, batch_size 128, clips_seen 96000, learning_rate 0.0015"
    assert lines == [
        f"| fine | {settings} | 1.0 ± 0.0 | 5.0 ± 0.0 | 11.0 ± 1.0 | 20.0 ± 0.0 | 11.0 ± 1.0 | 11.0 ± 1.0 | 2 |",
        f"| coarse | {settings} | 1.0 | 5.0 | 7.0 | 20.0 | 7.0 | 7.0 | 1 |",
    ]


def test_results_files_give_their_runs_back(tmp_path):
    runs = [
        Run("grid", "fine", 32, 640, 0.5, 2, (("model.gce_q", 0.3), ("model.phrase_gates", False))),
        Run("narrated50", "coarse"),
    ]
    for run in runs:
        write_run(tmp_path, run, 1.0)
    (tmp_path / "start_photographs.json").write_text("{}")
    assert set(read_runs(tmp_path)) == set(runs)


def test_earlier_runs_name_their_commit(tmp_path):
    write_run(tmp_path, Run("photographs", "fine"), 10.0)
    head, _, line = make_earlier_table(tmp_path).splitlines()
    assert head.endswith("| commit |") and line.endswith("| 1 | abc1234 |")


def test_an_unknown_study_is_named(tmp_path):
    with pytest.raises(UserError, match="the study 'noisee', but there are only rates"):
        make_study_table(tmp_path, "noisee")
