import json

import benchmark_monitoring
import pytest
import yaml
from helpers import TINY_RUN, run_main

from fgmm_tools.cli import UserError
from fgmm_tools.training import tracking_benchmark
from fgmm_tools.training.trackers import Tracking


@pytest.fixture
def arguments(narrated, tmp_path):
    config = {"model": {}, "output_dir": "unused", "dataset": "unused", "picture_steps": 100}
    for name, value in TINY_RUN.items():
        parent, _, field = name.rpartition(".")
        (config[parent] if parent else config)[field] = yaml.safe_load(str(value))
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(config))
    fixed = ["--config", tmp_path / "tiny.yaml", "--dataset", narrated, "--blocks", 2, "--log_steps", 2]
    return [*fixed, "--output", tmp_path / "results.json"]


def test_steps_with_and_without_trackers_are_compared(arguments, tmp_path, monkeypatch):
    monkeypatch.setattr(tracking_benchmark, "NUM_PICTURES", 1)
    run_main(monkeypatch, benchmark_monitoring, *arguments)
    metrics = json.loads((tmp_path / "results.json").read_text())["metrics"]
    assert metrics["same_weights"] is True and metrics["step_seconds"] > 0
    low, high = metrics["quartiles_of_ratio"]
    assert low <= metrics["ratio_of_step"] <= high
    share = metrics["picture_seconds"] / 100 / metrics["step_seconds"]
    assert share < metrics["cost"] < share + 1


def test_trackers_that_change_the_training_are_noticed(arguments, monkeypatch):
    monkeypatch.setattr(tracking_benchmark, "NUM_PICTURES", 1)
    monkeypatch.setattr(Tracking, "add_gradient_norm", lambda self, norm: self.is_on and self.parameter.add_(1e-3))
    made = Tracking.__init__

    def make(self, accelerator, model, *others):
        made(self, accelerator, model, *others)
        self.parameter, self.gradient_norms = next(model.parameters()).data, []

    monkeypatch.setattr(Tracking, "__init__", make)
    with pytest.raises(UserError, match="The weights with and without trackers differ"):
        run_main(monkeypatch, benchmark_monitoring, *arguments)
