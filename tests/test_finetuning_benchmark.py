"""The recipe for fine-tuning a dual encoder, and the benchmark that trains by it."""

import json

import benchmark_finetuning
import pytest
import yaml
from helpers import run_main

from fgmm_tools import finetuning_benchmark
from fgmm_tools.cli import UserError
from fgmm_tools.finetuning_benchmark import CONFIGS, RECIPE, VARIANTS
from fgmm_tools.publishing.tables import make_finetuning_table
from fgmm_tools.training.configuration import parse_config


def test_the_recipe_is_a_configuration_of_pretrain():
    config = parse_config(["--config", str(RECIPE)])
    assert config.init_from == "openai/clip-vit-base-patch32" and config.lora_rank == 8
    assert yaml.safe_load(RECIPE.read_text())["video_processor"] == {"num_frames": 8}
    assert tuple(CONFIGS) == benchmark_finetuning.MODELS and tuple(VARIANTS) == benchmark_finetuning.VARIANTS


def test_variants_are_trained_and_recorded(narrated, tmp_path, monkeypatch, capsys):
    pytest.importorskip("tensorboard", reason="the extra dev is not installed")
    output = tmp_path / "results.json"
    words = ["--dataset", narrated, "--model", "tiny", "--num_frames", "2", "--batch_size", "4", "--output", output]
    run_main(monkeypatch, benchmark_finetuning, *words, "--variants", "adapters", "projections")
    record = json.loads(output.read_text())
    assert list(record["results"]) == ["adapters", "projections"] and record["settings"]["steps"] == 3
    for values in record["results"].values():
        assert len(values["losses"]) == 3 and all(loss > 0 for loss in values["losses"])
        assert values["clips_per_s"] == pytest.approx(4 / values["seconds_per_step"], rel=0.01)
        assert 0.1 < values["peak_gb"] < 10
    # The first loss is of the same weights and clips, the last is not.
    first, second = (values["losses"] for values in record["results"].values())
    assert first[0] == second[0] and first[-1] != second[-1]
    assert "s/step" in capsys.readouterr().out
    table = make_finetuning_table([record])
    assert "| tiny | adapters | 2 | 3 |" in table and table.count("\n") == 5


def test_a_training_that_fails_is_named(tmp_path, narrated, monkeypatch):
    monkeypatch.setattr(finetuning_benchmark, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"fgmm\[dev\]"):
        run_main(monkeypatch, benchmark_finetuning, "--dataset", narrated)
    monkeypatch.setattr(finetuning_benchmark, "find_spec", lambda name: name)
    monkeypatch.setattr(finetuning_benchmark, "RECIPE", tmp_path / "none.yaml")
    words = ["--dataset", narrated, "--model", "tiny", "--variants", "projections"]
    with pytest.raises(UserError, match="training of projections failed"):
        run_main(monkeypatch, benchmark_finetuning, *words)
