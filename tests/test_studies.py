from dataclasses import replace

import pytest
import yaml
from helpers import ROOT

from fgmm_tools.publishing.studies import (
    CORPORA,
    MAIN_LOSSES,
    RATES,
    STUDIES,
    VARIED_LOSSES,
    Run,
    best_rate,
    list_rates_of,
)
from modeling_fgmm import FgmmConfig

RUNS = {run for study in STUDIES.values() for run in study.runs(study.seeds, {})}


def test_names_tell_every_run_of_every_study_apart():
    assert len({run.name for run in RUNS}) == len(RUNS) > 300
    assert all("/" not in run.name and " " not in run.name for run in RUNS)


def test_every_run_is_compared_with_its_baselines():
    """On the same corpus, with the same batch, clips and seed; learning rates are each one's own."""
    for name, losses in {"noise": MAIN_LOSSES, "batch": VARIED_LOSSES, "size": VARIED_LOSSES}.items():
        runs = STUDIES[name].runs((0, 1, 2), {})
        settings = {replace(run, loss="fine", rate=1.0) for run in runs}
        for run in settings:
            compared = {other.loss for other in runs if replace(other, loss="fine", rate=1.0) == run}
            assert compared >= set(losses)


def test_every_configuration_takes_the_fields_of_its_runs():
    for run in RUNS:
        config = yaml.safe_load((ROOT / f"scripts/configs/{run.trained_on.config}.yaml").read_text())
        values = dict(config.get("model", {}))
        for name, value in run.training_fields().items():
            if name.startswith("model.") and name.count(".") == 1:
                values[name.removeprefix("model.")] = value
        values = {name: value for name, value in values.items() if not name.endswith("_config")}
        assert FgmmConfig(**values).objective == run.loss


def test_the_learning_rate_grows_with_the_root_of_the_batch():
    assert [Run("slides4_chatter2", "fine", batch).learning_rate for batch in (32, 128)] == [4e-4, 8e-4]
    assert Run("grid", "fine", rate=0.5).learning_rate == 1e-3


def record(recall):
    return {"metrics_on_validation": {"text_to_video": {"R@10": recall}}}


@pytest.mark.parametrize("corpus", ["narrated50", "narrated80"])
def test_rates_are_chosen_on_validation_for_all_corpora_of_a_kind(corpus):
    recalls = dict(zip(RATES, (7.0, 5.0, 6.0), strict=True))
    results = {Run("narrated50", "fine", rate=rate): record(recall) for rate, recall in recalls.items()}
    assert best_rate(Run(corpus, "fine", seed=2), results).rate == 0.5
    assert best_rate(Run(corpus, "coarse"), results).rate == 1.0  # nothing was tried
    assert best_rate(Run(corpus, "fine", clips_seen=99), results) == Run(corpus, "fine", clips_seen=99, rate=0.5)


def test_rates_are_chosen_for_each_batch_size_where_they_were_tried():
    results = {Run("narrated50", "fine", rate=rate): record(rate) for rate in RATES}
    results |= {Run("narrated50", "fine", 16, rate=rate): record(-rate) for rate in RATES}
    assert best_rate(Run("narrated50", "fine", 16, seed=1), results).rate == 0.5
    assert best_rate(Run("narrated50", "fine", 32, seed=1), results).rate == 2.0


def test_rates_are_chosen_by_the_mean_of_the_seeds_that_tried_all():
    results = {Run("grid", "fine", rate=rate): grid_record(recall) for rate, recall in ((0.5, 9.0), (1.0, 8.0))}
    results[Run("grid", "fine", rate=1.0, seed=1)] = grid_record(9.0)
    assert best_rate(Run("grid", "fine", seed=2), results).rate == 0.5  # seed 1 has not tried all
    results[Run("grid", "fine", rate=0.5, seed=1)] = grid_record(1.0)
    assert best_rate(Run("grid", "fine", seed=2), results).rate == 1.0


def grid_record(recall):
    return {"metrics_on_validation": {"text_to_audio": {"R@1": recall}}}


def test_other_seeds_try_the_rates_of_the_first():
    results = {}
    for _ in range(2):
        results |= {run: record(-run.rate) for run in STUDIES["rates"].runs([0], results) if run.corpus == "narrated50"}
    runs = [{run for run in STUDIES["rates"].runs([seed], results) if run.corpus == "narrated50"} for seed in (0, 1)]
    assert {replace(run, seed=0) for run in runs[1]} == runs[0]
    assert min(run.rate for run in runs[1]) == 0.125


def test_rates_go_on_for_as_long_as_the_best_is_at_an_end():
    run, results = Run("narrated50", "coarse"), {}
    for expected in (
        (0.5, 1.0, 2.0),
        (0.25, 0.5, 1.0, 2.0),
        (0.125, 0.25, 0.5, 1.0, 2.0),
        (0.125, 0.25, 0.5, 1.0, 2.0),
    ):
        runs = list_rates_of(run, results)
        assert tuple(tried.rate for tried in runs) == expected
        results |= {tried: record(-tried.rate) for tried in runs}
    assert best_rate(Run("narrated80", "coarse", seed=1), results).rate == 0.125
    results = {tried: record(-abs(tried.rate - 4)) for tried in list_rates_of(run, {})}
    results |= {tried: record(-abs(tried.rate - 4)) for tried in list_rates_of(run, results)}
    assert [tried.rate for tried in list_rates_of(run, results)] == [0.5, 1.0, 2.0, 4.0, 8.0]


def test_other_seeds_of_the_batch_study_run_the_chosen_rate_alone():
    runs = [STUDIES["batch"].runs([seed], {}) for seed in (0, 1)]
    assert len(runs[0]) == len(RATES) * len(runs[1])


def test_corpora_are_initialised_from_corpora():
    assert {corpus.start for corpus in CORPORA.values()} - {None} <= CORPORA.keys()
