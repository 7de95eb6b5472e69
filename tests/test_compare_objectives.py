import json

import compare_objectives
import numpy as np
import pytest
import update_cards
import yaml
from helpers import run_main
from PIL import Image

from fgmm_tools.cli import UserError
from fgmm_tools.publishing.studies import Run, Study


@pytest.fixture
def tiny_study(tmp_path, monkeypatch):
    """Two losses on slide shows of eight photographs, with a tiny model; everything is written below tmp_path."""
    source = tmp_path / "Flickr8k"
    (source / "Flicker8k_Dataset").mkdir(parents=True)
    (source / "Flickr8k_text").mkdir()
    names = [f"{index}.jpg" for index in range(12)]
    for index, name in enumerate(names):
        Image.fromarray(np.full((40, 40, 3), 20 * index, np.uint8)).save(source / "Flicker8k_Dataset" / name)
    lines = [f"{name}#{number}\tA grey photo number {name[:-4]} ." for name in names for number in range(5)]
    (source / "Flickr8k_text/Flickr8k.token.txt").write_text("\n".join(lines) + "\n")
    for part, chosen in (("train", names[:8]), ("dev", names[8:10]), ("test", names[10:])):
        (source / f"Flickr8k_text/Flickr_8k.{part}Images.txt").write_text("\n".join(chosen) + "\n")
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
    monkeypatch.setattr(compare_objectives, "START", Run("coarse", slides=0, chatter=0, batch_size=4, clips_seen=8))
    monkeypatch.setattr(compare_objectives, "START_PHOTOS", 4)
    varied = {"loss": ["fine", "mil_nce"], "slides": [2], "chatter": [1], "batch_size": [4], "clips_seen": [8]}
    monkeypatch.setattr(compare_objectives, "STUDIES", {"tiny": Study("Two losses", varied)})
    monkeypatch.setattr(compare_objectives, "CARDS", tmp_path / "cards")
    return source


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
    text = update_cards.fill("<!-- comparison: tiny -->\nold\n<!-- end of comparison -->", tmp_path)
    assert "old" not in text and "| fine |" in text and "| mil_nce |" in text
    with Image.open(tmp_path / "cards/pictures/comparison_tiny.png") as picture:
        assert len(picture.getcolors(2**24)) > 10
    assert {path.name for path in (tmp_path / "models").iterdir()} == {"start", "start_tokenizer"}
    start = json.loads((tmp_path / "models/start/training.json").read_text())
    assert start["clips_seen"] == 8 and "--model.objective coarse" in start["command"]

    written = [path.stat().st_mtime_ns for path in files]
    run_main(monkeypatch, compare_objectives, "tiny", *options)  # nothing is left to train
    run_main(monkeypatch, compare_objectives, "--figures")
    assert [path.stat().st_mtime_ns for path in files] == written


def test_a_run_that_fails_says_why(tiny_study, tmp_path, monkeypatch):
    varied = {"loss": ["fine"], "slides": [2], "chatter": [1], "batch_size": [400], "clips_seen": [800]}
    monkeypatch.setattr(compare_objectives, "STUDIES", {"tiny": Study("Too large a batch", varied)})
    options = ["--flickr8k", tiny_study, "--data", tmp_path / "data", "--output_dir", tmp_path / "models"]
    with pytest.raises(UserError, match="fewer than batch_size 400"):
        run_main(monkeypatch, compare_objectives, "tiny", *options)


@pytest.mark.parametrize("arguments", [[], ["losses"], ["losses", "--flickr8k", "/nowhere"], ["colour"]])
def test_wrong_arguments_are_refused(arguments, monkeypatch, capsys):
    with pytest.raises(SystemExit) as error:
        run_main(monkeypatch, compare_objectives, *arguments)
    assert error.value.code == 2 and "error:" in capsys.readouterr().err


def test_names_tell_every_run_of_every_study_apart():
    runs = {run for study in compare_objectives.STUDIES.values() for run in study.runs([0, 1])}
    assert len({run.name for run in runs}) == len(runs) > 50
    assert Run("fine", slides=0, chatter=0, swapped=0.4).corpus == "plain_swapped40"
