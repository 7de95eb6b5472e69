from pathlib import Path

import yaml
from helpers import ROOT

from fgmm_tools.publishing.studies import RETIRED_OPTIONS, START, STUDIES, Run
from modeling_fgmm import FgmmConfig

RUNS = {run for study in STUDIES.values() for run in study.runs([0, 1])}


def test_names_tell_every_run_of_every_study_apart():
    assert len({run.name for run in RUNS}) == len(RUNS) > 50
    assert Run("fine", slides=0, chatter=0, swapped=0.4).corpus == "plain_swapped40"


def test_every_run_is_described_within_its_study():
    for study in STUDIES.values():
        runs = study.runs([0])
        assert len({study.describe(run) for run in runs}) == len(runs)


def test_only_runs_with_options_that_left_the_code_are_retired():
    """Of each run, the training configuration is read with what the run sets in it."""
    config_of_now = FgmmConfig()
    assert not any(hasattr(config_of_now, name) for name in RETIRED_OPTIONS)
    for run in {*RUNS, START}:
        assert (ROOT / run.config).exists()
        config = yaml.safe_load((ROOT / run.config).read_text()).get("model", {})
        for name, value in run.training_fields(Path("c"), Path("o"), Path("s")).items():
            if name.startswith("model."):
                config[name.removeprefix("model.")] = value
        known = all(hasattr(config_of_now, name) for name in config)
        assert known != run.is_retired
    assert sum(run.is_retired for run in RUNS) == 2 * (6 + 6)  # robust and ablation, two seeds


def test_the_learning_rate_grows_with_the_root_of_the_batch():
    rates = [
        Run("fine", batch_size=size).training_fields(Path("c"), Path("o"), Path("s"))["learning_rate"]
        for size in (32, 128)
    ]
    assert rates == [4e-4, 8e-4]
    assert "learning_rate" not in START.training_fields(Path("c"), Path("o"), Path("s"))
