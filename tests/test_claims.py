import json
from dataclasses import asdict, replace

import numpy as np
import pytest
from PIL import Image

from fgmm_tools.cli import UserError
from fgmm_tools.publishing.claims import CLAIMS, CLEAN_SHOWS, START, describe_claim
from fgmm_tools.publishing.claims_picture import draw_claims
from fgmm_tools.publishing.studies import MAIN_LOSSES, RATES, Run, model_options
from fgmm_tools.publishing.study_corpora import CORPORA, PROBES
from fgmm_tools.publishing.study_results import read_runs

SMALL = model_options(**{"video_config.width_multiplier": 0.25, "video_config.depths": "[1,1]"})
LARGE = model_options(**{"video_config.width_multiplier": 1.0, "video_config.depths": "[1,1]"})


def write_run(folder, run, score, operations=1e12, core_seconds=60.0, parameters=1_000_000):
    corpus = CORPORA[run.corpus]
    metrics = {corpus.direction: dict.fromkeys(("R@1", "R@5", "R@10"), score)}
    record = {
        "metrics": metrics,
        "metrics_on_validation": metrics,
        "run": asdict(run),
        "training": {"operations": operations, "core_seconds": core_seconds},
        "parameters": parameters,
        "metrics_of_joined_captions": metrics,
    }
    (folder / f"{run.name}.json").write_text(json.dumps(record))


def test_noise_is_decided_by_whether_seeds_overlap(tmp_path):
    scores = {
        "narrated50": {"fine": (40.0, 38.0), "coarse": (18.0, 17.0), "mil_nce": (20.0, 18.0)},
        "grid": {"fine": (88.0, 84.0), "coarse": (86.0, 80.0)},
        "photographs": {"fine": (20.0, 21.0), "siglip": (22.0, 23.0)},
        "exercises": {"fine": (20.0,), "coarse": (2.0,)},
    }
    for corpus, losses in scores.items():
        for loss, values in losses.items():
            for seed, value in enumerate(values):
                write_run(tmp_path, Run(corpus, loss, seed=seed), value)
    lines = describe_claim("noise", tmp_path).splitlines()
    assert [line.rpartition(" ")[2] for line in lines] == ["ahead", "level", "verdict", "verdict", "behind"]
    assert "R@10: `fine` 39.0 ± 1.0, best baseline `mil_nce` 19.0 ± 1.0; 2.05 times, ahead" in lines[0]


def test_the_learning_rate_with_the_best_validation_result_counts(tmp_path):
    for rate, value in zip(RATES, (30.0, 40.0, 35.0), strict=True):
        write_run(tmp_path, Run("narrated50", "fine", rate=rate), value)
    write_run(tmp_path, Run("narrated50", "coarse"), 20.0)
    assert "`fine` 40.0, best baseline `coarse` 20.0" in describe_claim("noise", tmp_path)


def test_the_surviving_share_is_of_the_gain_over_the_start(tmp_path):
    (tmp_path / f"{START}.json").write_text(json.dumps({"metrics": {"text_to_image": {"R@10": 6.0}}}))
    for loss, clean, noisy in (("fine", 16.0, 11.0), ("coarse", 16.0, 8.0), ("mil_nce", 14.0, 8.0)):
        write_run(tmp_path, Run(CLEAN_SHOWS, loss), clean)
        write_run(tmp_path, Run("slides4_chatter2", loss), noisy)
    found = describe_claim("surviving", tmp_path)
    assert "`fine` 50 %, `coarse` 20 %, `mil_nce` 25 % (2.0 times the best baseline's)" in found


def test_the_smallest_batch_that_reaches_the_best_baseline(tmp_path):
    for batch, fine, coarse in ((16, 15.0, 12.0), (32, 21.0, 16.0), (128, 25.0, 20.0)):
        write_run(tmp_path, Run("narrated50", "fine", batch), fine)
        write_run(tmp_path, Run("narrated50", "coarse", batch), coarse)
    assert "best baseline `coarse` 20.0 at batch 128; `fine` reaches it at 32" in describe_claim("batch", tmp_path)


def test_the_least_compute_that_reaches_four_times_the_clips(tmp_path):
    write_run(tmp_path, Run("narrated50", "coarse"), 18.0)
    assert describe_claim("compute", tmp_path) == "Not measured yet."
    write_run(tmp_path, Run("narrated50", "coarse", clips_seen=51_200), 26.0, 4e12, 240.0)
    write_run(tmp_path, Run("narrated50", "fine", clips_seen=6_400), 27.0, 1e12, 48.0)
    write_run(tmp_path, Run("narrated50", "fine"), 30.0, 2e12, 96.0)
    found = describe_claim("compute", tmp_path)
    assert "26.0 with 51,200 clips; `fine` 27.0 with 6,400 clips, 0.25 of the operations, 0.20 of the core" in found


def test_the_smallest_model_that_reaches_the_largest(tmp_path):
    for size, parameters, fine, coarse in ((SMALL, 400_000, 22.0, 10.0), (LARGE, 2_000_000, 40.0, 20.0)):
        write_run(tmp_path, Run("narrated50", "fine", options=size), fine, 1e12, parameters=parameters)
        write_run(tmp_path, Run("narrated50", "coarse", options=size), coarse, 4e12, parameters=parameters)
    found = describe_claim("size", tmp_path)
    assert "with 2.00 M parameters; `fine` 22.0 with 0.40 M, 0.20 of them and 0.25 of the operations" in found


def test_downstream_stands_beside_random_weights(tmp_path):
    for loss, accuracy in (("fine", 80.0), ("coarse", 70.0)):
        for seed in (0, 1):
            run = Run("mixed", loss, seed=seed)
            write_run(tmp_path, run, 1.0)
            path = tmp_path / f"{run.name}.json"
            probes = {name: {"top1": accuracy + 2 * seed} for name in PROBES}
            random_weights = {name: {"top1": 50.0} for name in PROBES}
            record = {**json.loads(path.read_text()), "probes": probes, "probes_of_random_weights": random_weights}
            path.write_text(json.dumps(record))
    found = describe_claim("downstream", tmp_path).splitlines()
    assert len(found) == len(PROBES)
    assert found[0].endswith(": `fine` 81.0 ± 1.0, `coarse` 71.0 ± 1.0, random weights 50.0 ± 0.0")


def test_what_falls_short_is_said(tmp_path):
    for batch in (16, 32):
        write_run(tmp_path, Run("narrated50", "fine", batch), 10.0)
        write_run(tmp_path, Run("narrated50", "coarse", batch), 20.0)
    assert describe_claim("batch", tmp_path).endswith("`fine` does not reach it")


def test_nothing_measured_is_said_and_an_unknown_claim_refused(tmp_path):
    assert {describe_claim(name, tmp_path) for name in CLAIMS} == {"Not measured yet."}
    with pytest.raises(UserError, match="the claim 'noises', but there are only noise"):
        describe_claim("noises", tmp_path)


def test_the_picture_has_a_panel_for_each_claim_that_was_measured(tmp_path):
    with pytest.raises(UserError, match="no results of studies"):
        draw_claims({}, tmp_path / "claims.png")
    widths = []
    for batches in ((64,), (32, 64)):
        for loss in MAIN_LOSSES:
            for batch in batches:
                run = Run("narrated50", loss, None if batch == 64 else batch)
                for seed in (0, 1):
                    write_run(tmp_path, replace(run, seed=seed), 20.0 + seed)
        draw_claims(read_runs(tmp_path), tmp_path / "claims.png")
        picture = np.asarray(Image.open(tmp_path / "claims.png").convert("L"))
        assert picture.std() > 0
        widths.append(picture.shape[1])
    assert widths[1] == 2 * widths[0]
