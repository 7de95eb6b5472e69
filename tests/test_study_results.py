import json

import pytest

from fgmm_tools.cli import UserError
from fgmm_tools.publishing.studies import STUDIES, Run, Study
from fgmm_tools.publishing.study_results import find_results, group_by_settings, make_study_table


def write_run(folder, run, recall, commit="abc1234-dirty"):
    values = {"R@1": 1.0, "R@5": 5.0, "R@10": recall}
    metrics = {"text_to_image": values, "image_to_text": {**values, "R@10": 20.0}}
    record = {"metrics": metrics, "metrics_of_pooled_vectors": metrics, "metrics_on_validation": None}
    (folder / f"{run.name}.json").write_text(json.dumps({**record, "training": {"commit": commit}}))


def test_a_line_for_each_run_over_its_seeds(tmp_path, monkeypatch):
    retired = (("model.contrast_bag", False),)
    monkeypatch.setitem(STUDIES, "tiny", Study("Tiny", {"loss": ["fine", "coarse"], "options": [(), retired]}))
    write_run(tmp_path, Run("fine"), 10.0)
    write_run(tmp_path, Run("fine", seed=1), 12.0)
    write_run(tmp_path, Run("fine", options=retired), 7.0)
    assert make_study_table(tmp_path, "tiny").splitlines()[2:] == [
        "| fine | 1.0 ± 0.0 | 5.0 ± 0.0 | 11.0 ± 1.0 | 20.0 ± 0.0 | 11.0 ± 1.0 |  | 2 |",
        "| fine, contrast_bag=False (commit abc1234) | 1.0 | 5.0 | 7.0 | 20.0 | 7.0 |  | 1 |",
    ]


def test_seeds_are_grouped_and_missing_results_left_out(tmp_path):
    write_run(tmp_path, Run("fine", seed=3), 10.0)
    results = find_results(tmp_path, [Run("fine", seed=seed) for seed in range(5)])
    assert list(results) == [Run("fine", seed=3)]
    assert list(group_by_settings(results)) == [Run("fine")]


def test_an_unknown_study_is_named(tmp_path):
    with pytest.raises(UserError, match="the study 'lossess', but there are only losses"):
        make_study_table(tmp_path, "lossess")
