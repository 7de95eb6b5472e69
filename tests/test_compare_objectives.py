import json

import compare_objectives
import pytest
import yaml
from helpers import run_main, write_flickr8k
from PIL import Image

from fgmm_tools.cli import UserError
from fgmm_tools.publishing import cards, study_runs
from fgmm_tools.publishing.studies import STUDIES, Run, Study


@pytest.fixture
def tiny_study(tmp_path, monkeypatch):
    """The study "tiny": two losses on slide shows of eight photographs; everything is written below tmp_path."""
    config = {
        "model": {
            "modalities": ["video", "text"],
            "projection_dim": 16,
            "video_config": {"width_multiplier": 0.125, "depths": [1], "frame_by_frame": True},
            "text_config": {"hidden_size": 16, "intermediate_size": 32},
        },
        "video_processor": {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}},
        "num_workers": 0,
        "warmup_steps": 1,
        "eval_steps": 0,
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    monkeypatch.setattr(Run, "config", str(tmp_path / "config.yaml"))
    monkeypatch.setattr(study_runs, "START", Run("coarse", slides=0, chatter=0, batch_size=4, clips_seen=8))
    monkeypatch.setattr(study_runs, "START_PHOTOS", 4)
    varied = {"loss": ["fine", "mil_nce"], "slides": [2], "chatter": [1], "batch_size": [4], "clips_seen": [8]}
    monkeypatch.setitem(STUDIES, "tiny", Study("Two losses", varied))
    monkeypatch.setattr(compare_objectives, "CARDS", tmp_path / "cards")
    return write_flickr8k(tmp_path / "Flickr8k")


def test_a_study_is_run_measured_and_reported_once(tiny_study, tmp_path, monkeypatch, capsys):
    options = ["--flickr8k", tiny_study, "--data", tmp_path / "data", "--output_dir", tmp_path / "models", "--jobs", 2]
    run_main(monkeypatch, compare_objectives, "tiny", *options)
    assert "from 2 results files" in capsys.readouterr().out
    files = sorted((tmp_path / "cards/results/comparison").iterdir())
    assert [path.name for path in files] == [
        f"slides2_chatter1-{loss}-batch4-clips8-seed0.json" for loss in ("fine", "mil_nce")
    ]
    for path, loss in zip(files, ("fine", "mil_nce"), strict=True):
        record = json.loads(path.read_text())
        expected = {"loss": loss, "slides": 2, "chatter": 1, "batch_size": 4, "clips_seen": 8}
        assert record["settings"] == {**expected, "steps": 2} and record["seed"] == 0
        assert record["metrics"]["text_to_image"]["num_queries"] == 10
        assert record["metrics_on_validation"]["text_to_image"]["num_items"] == 2
        assert loss == "fine" or record["metrics"] == record["metrics_of_pooled_vectors"]
        assert f"--model.objective {loss}" in record["training"]["command"]
    place = "<!-- comparison: tiny -->\nold\n<!-- end of comparison -->"
    text = cards.fill(place, tmp_path / "cards" / "results")
    assert "old" not in text and "| fine |" in text and "| mil_nce |" in text
    with Image.open(tmp_path / "cards/pictures/comparison_tiny.png") as picture:
        assert len(picture.getcolors(2**24)) > 10
    assert {path.name for path in (tmp_path / "models").iterdir()} == {"start", "start_tokenizer"}
    start = json.loads((tmp_path / "models/start/training.json").read_text())
    assert start["clips_seen"] == 8 and "--model.objective coarse" in start["command"]

    written = [path.stat().st_mtime_ns for path in files]
    monkeypatch.setattr(study_runs, "run_studies", None)  # nothing is left to run
    run_main(monkeypatch, compare_objectives, "tiny", *options)
    run_main(monkeypatch, compare_objectives, "--figures")
    assert [path.stat().st_mtime_ns for path in files] == written


def test_a_run_that_fails_says_why(tiny_study, tmp_path, monkeypatch):
    monkeypatch.setattr(Run, "config", str(tmp_path / "nothing.yaml"))
    monkeypatch.setitem(STUDIES, "tiny", Study("One run", {"loss": ["fine"], "slides": [0], "chatter": [0]}))
    (tmp_path / "data/plain").mkdir(parents=True)
    (tmp_path / "data/plain/README.md").touch()  # the corpus is taken for made
    options = ["--flickr8k", tiny_study, "--data", tmp_path / "data", "--output_dir", tmp_path / "models"]
    message = r"1 of 1 runs failed; the first: plain-fine-.*pretrain\.py .*failed:\n.*nothing\.yaml"
    with pytest.raises(UserError, match=message):
        run_main(monkeypatch, compare_objectives, "tiny", *options)


def test_a_retired_run_is_not_run(tiny_study, tmp_path, monkeypatch, capsys):
    varied = {"loss": ["fine"], "options": [(("model.contrast_bag", False),)]}
    monkeypatch.setitem(STUDIES, "tiny", Study("Retired", varied))
    monkeypatch.setattr(study_runs, "run_studies", None)
    run_main(monkeypatch, compare_objectives, "tiny", "--flickr8k", tiny_study)
    assert "1 runs have options that are no longer in the code" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [[], ["losses"], ["losses", "--flickr8k", "/nowhere"], ["colour"]])
def test_wrong_arguments_are_refused(arguments, monkeypatch, capsys):
    with pytest.raises(SystemExit) as error:
        run_main(monkeypatch, compare_objectives, *arguments)
    assert error.value.code == 2 and "error:" in capsys.readouterr().err
