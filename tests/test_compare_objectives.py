import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import compare_objectives
import pytest
import yaml
from helpers import run_main, write_flickr8k

from fgmm_tools.cli import UserError
from fgmm_tools.corpora.options import TrainingNoise
from fgmm_tools.publishing import cards, study_runs
from fgmm_tools.publishing.studies import STUDIES, Run, Study
from fgmm_tools.publishing.study_corpora import CORPORA


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
        "eval_steps": 0,
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    plain = replace(CORPORA["photographs"], config=str(tmp_path / "config"), batch_size=4, clips_seen=8)
    noise = TrainingNoise(slides=2, slide_size=32, chatter=1)
    fields = (("num_captions", 3), ("video_processor.num_frames", 2))
    shows = replace(plain, noise=noise, skip=4, join_captions=True, start="photographs_2000", fields=fields)
    monkeypatch.setitem(CORPORA, "photographs", plain)
    monkeypatch.setitem(CORPORA, "photographs_2000", replace(plain, limit=4))
    monkeypatch.setitem(CORPORA, "tiny_shows", shows)
    monkeypatch.setattr(study_runs, "START_WORDS", ("photographs",))
    losses = ("fine", "mil_nce")
    study = Study("Two losses", lambda seed, results: [Run("tiny_shows", loss, seed=seed) for loss in losses], (0,))
    monkeypatch.setitem(STUDIES, "tiny", study)
    monkeypatch.setattr(compare_objectives, "CARDS", tmp_path / "cards")
    write_flickr8k(tmp_path / "sources" / "flickr8k")
    return ["--sources", tmp_path / "sources", "--data", tmp_path / "data", "--output_dir", tmp_path / "models"]


def run_here(runs, folders, jobs, keep_models):
    """As `run_studies` with one job, in this process, in which the corpora are those of the test."""
    folders.results.mkdir(parents=True, exist_ok=True)
    for corpus in ("photographs", "photographs_2000", "tiny_shows"):
        study_runs.make_corpus(corpus, folders)
    study_runs.make_start("photographs_2000", folders)
    for run in runs:
        study_runs.write_record(folders.results / f"{run.name}.json", study_runs.train_and_measure(run, folders, 1))


def test_a_study_is_run_measured_and_reported_once(tiny_study, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(study_runs, "run_studies", None)
    run_main(monkeypatch, compare_objectives, "tiny", *tiny_study, "--corpora", "grid")  # has no run of this study
    monkeypatch.setattr(study_runs, "run_studies", run_here)
    run_main(monkeypatch, compare_objectives, "tiny", *tiny_study)
    assert "There are 3 results files" in capsys.readouterr().out
    files = sorted((tmp_path / "cards/results/comparison").glob("tiny*"))
    assert [path.name for path in files] == [
        f"tiny_shows-{loss}-batch4-clips8-rate1-seed0.json" for loss in ("fine", "mil_nce")
    ]
    for path, loss in zip(files, ("fine", "mil_nce"), strict=True):
        record = json.loads(path.read_text())
        assert record["settings"]["loss"] == loss and record["settings"]["slides"] == 2 and record["seed"] == 0
        assert record["metrics"]["text_to_image"]["num_queries"] == 10
        assert record["metrics_on_validation"]["text_to_image"]["num_items"] == 2
        assert record["metrics_of_joined_captions"]["text_to_image"]["num_queries"] == 2
        assert record["parameters"] > 0
        assert loss == "fine" or record["metrics"] == record["metrics_of_pooled_vectors"]
        training = record["training"]
        assert f"--model.objective {loss}" in training["command"] and "start_photographs_2000" in training["command"]
        assert training["operations"] > 0 and training["core_seconds"] > 0
    text = cards.fill("<!-- comparison: tiny -->\nold\n<!-- end of comparison -->", tmp_path / "cards" / "results")
    assert "old" not in text and "| fine |" in text and "| mil_nce |" in text
    start = json.loads((tmp_path / "cards/results/comparison/start_photographs_2000.json").read_text())
    assert start["settings"]["loss"] == "coarse" and start["metrics"]["text_to_image"]["num_items"] == 2

    monkeypatch.setattr(study_runs, "run_studies", None)  # nothing is left to run
    run_main(monkeypatch, compare_objectives, "tiny", *tiny_study)


def test_a_run_that_fails_says_why(tiny_study, tmp_path, monkeypatch):
    """With worker processes, which know only the corpora that there are."""
    monkeypatch.setitem(
        STUDIES, "tiny", Study("One run", lambda seed, results: [Run("photographs", "fine", options=(("x", 1),))], (0,))
    )
    (tmp_path / "data/photographs").mkdir(parents=True)
    (tmp_path / "data/photographs/README.md").touch()  # the corpus is taken for made
    message = r"1 of 1 runs failed; the first: photographs-fine-.*pretrain\.py .*failed:\n.*'x'"
    with pytest.raises(UserError, match=message):
        run_main(monkeypatch, compare_objectives, "tiny", *tiny_study)


WORKING = """
import sys
from pathlib import Path
from fgmm_tools.publishing import study_runs
from fgmm_tools.publishing.studies import Run

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    study_runs.run_studies([Run("photographs", "fine")], study_runs.Folders(*[folder] * 4), 1, False)
"""


def list_children(process: int) -> list[int]:
    children = [path.read_text().split() for path in Path(f"/proc/{process}/task").glob("*/children")]
    return [int(child) for of_thread in children for child in of_thread]


def has_ended(process: int) -> bool:
    path = Path(f"/proc/{process}/stat")
    return not path.exists() or path.read_text().rpartition(")")[2].split()[0] == "Z"


def test_a_study_that_is_terminated_leaves_no_process_behind(tmp_path):
    """Neither the worker nor the training that it has started."""
    (tmp_path / "photographs").mkdir()
    (tmp_path / "photographs/README.md").touch()  # the corpus is taken for made
    (tmp_path / "work.py").write_text(WORKING)
    study = subprocess.Popen([sys.executable, tmp_path / "work.py", tmp_path], stderr=subprocess.DEVNULL)
    deadline, trainings = time.monotonic() + 120, []
    while not trainings and time.monotonic() < deadline:
        assert study.poll() is None
        workers = list_children(study.pid)
        trainings = [
            child for worker in workers for child in list_children(worker) if b"pretrain.py" in read_command(child)
        ]
        time.sleep(0.01)
    study.terminate()
    study.wait()
    while not all(map(has_ended, workers + trainings)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert trainings and all(map(has_ended, workers + trainings))


def read_command(process: int) -> bytes:
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes()
    except OSError:  # it has ended
        return b""


@pytest.mark.parametrize("arguments", [[], ["noise"], ["noise", "--sources", "/nowhere"], ["colour", "--sources", "/"]])
def test_wrong_arguments_are_refused(arguments, monkeypatch, capsys):
    with pytest.raises(SystemExit) as error:
        run_main(monkeypatch, compare_objectives, *arguments)
    assert error.value.code == 2 and "error:" in capsys.readouterr().err
