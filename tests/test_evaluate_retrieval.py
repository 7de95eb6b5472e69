import json
import shutil
import subprocess
import sys

import evaluate_retrieval as command
import pytest
from helpers import ROOT, run_main

from fgmm_tools.cli import UserError
from processing_fgmm.corpora_fgmm import CorpusError

DIRECTIONS = {f"{a}_to_{b}" for a in ("text", "video", "audio") for b in ("text", "video", "audio") if a != b}


def test_results_file(narrated_model, narrated, tmp_path):
    """From another directory than the project's."""
    output = tmp_path / "deep" / "results.json"
    words = ["--model", str(narrated_model[0]), "--dataset", str(narrated), "--output", str(output)]
    script = ROOT / "scripts" / "evaluate_retrieval.py"
    answer = subprocess.run([sys.executable, script, *words], cwd=tmp_path, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    record = json.loads(output.read_text())
    assert set(record) >= {"model", "dataset", "split", "protocol", "metrics", "seed", "training"}
    assert set(record) >= {"command", "commit", "device", "seconds", "date"}
    assert set(record["metrics"]) == DIRECTIONS and record["dataset_config"] is None
    values = record["metrics"]["text_to_video"]
    assert set(values) == {"R@1", "R@5", "R@10", "nDCG@10", "MedR", "MnR", "num_queries", "num_items"}
    assert (values["num_queries"], values["num_items"]) == (48, 8)
    assert "text_to_video" in answer.stdout and "nDCG@10" in answer.stdout and "Traceback" not in answer.stderr
    assert record["protocol"] == (
        "retrieval, trained score, the middle 5 s of each item, "
        "clips without sound count as errors (AVLnet's convention)"
    )
    stages = record["seconds_of_stages"]
    assert set(stages) == {"encoding", "coarse_scoring", "fine_scoring"} and stages["coarse_scoring"] == 0
    assert stages["encoding"] > 0 and stages["fine_scoring"] > 0 and sum(stages.values()) <= record["seconds"] + 0.1
    assert sorted(path.name for path in output.parent.iterdir()) == ["results.json"]


def test_every_option_is_in_the_protocol(narrated_model, kitchen, tmp_path, monkeypatch):
    output = tmp_path / "results.json"
    options = ["--score", "coarse_then_fine", "--rerank_k", "2", "--num_windows", "2", "--each_caption"]
    options += ["--skip_silent", "--dataset_config", "default", "--num_workers", "0", "--output", str(output)]
    run_main(monkeypatch, command, "--model", narrated_model[0], "--dataset", kitchen, *options)
    record = json.loads(output.read_text())
    assert record["protocol"] == (
        "retrieval, coarse_then_fine score (the best 2 finely), 2 x 5 s of each caption, "
        "clips without sound are left out"
    )
    assert record["dataset_config"] == "default" and record["seconds_of_stages"]["fine_scoring"] > 0
    sizes = {name: (values["num_queries"], values["num_items"]) for name, values in record["metrics"].items()}
    assert all(values["num_undecodable"] == 1 for values in record["metrics"].values())  # the damaged one
    assert sizes["text_to_video"] == sizes["video_to_text"] == (4, 4)
    assert sizes["text_to_audio"] == sizes["audio_to_video"] == (2, 2)


def test_random_init_forgets_the_weights(narrated_model, kitchen, tmp_path, monkeypatch):
    shutil.copytree(narrated_model[0], tmp_path / "model")
    (tmp_path / "model" / "training.json").write_text('{"seed": 7}')
    options = ["--model", tmp_path / "model", "--dataset", kitchen, "--num_workers", "0"]
    options += ["--output", tmp_path / "results.json"]
    records = []
    for seed in (3, 3, 4):
        run_main(monkeypatch, command, *options, "--random_init", "--seed", seed)
        records.append(json.loads((tmp_path / "results.json").read_text()))
        assert records[-1]["protocol"].startswith("retrieval, trained score of random weights, the middle 5 s")
        assert records[-1]["seed"] == seed and records[-1]["training"] is None
    run_main(monkeypatch, command, *options)
    records.append(json.loads((tmp_path / "results.json").read_text()))
    assert records[-1]["seed"] == 7
    first, again, other, trained = ([values["MnR"] for values in record["metrics"].values()] for record in records)
    assert first == again and first != other and trained not in (first, other)


@pytest.mark.parametrize(
    ("option", "value"), [("--rerank_k", 0), ("--num_windows", 0), ("--batch_size", 0), ("--num_workers", -1)]
)
def test_too_small_numbers_are_refused(option, value, monkeypatch, capsys):
    with pytest.raises(SystemExit) as error:
        run_main(monkeypatch, command, "--model", "a", "--dataset", "b", option, value)
    assert error.value.code == 2 and f"{option}: {value} is less than" in capsys.readouterr().err


@pytest.mark.parametrize("wrong", ["--model", "--dataset"])
def test_wrong_paths_are_one_sentence(narrated_model, narrated, tmp_path, monkeypatch, wrong):
    paths = {"--model": narrated_model[0], "--dataset": narrated} | {wrong: tmp_path / "nothing"}
    words = [str(word) for option in paths.items() for word in option]
    with pytest.raises((UserError, CorpusError), match=f"'{tmp_path}/nothing' ") as error:
        run_main(monkeypatch, command, *words)
    assert "\n" not in str(error.value)


def test_results_that_cannot_be_written_are_named_before_the_work(narrated_model, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    words = ["--model", narrated_model[0], "--dataset", tmp_path / "nothing", "--output"]
    for output, message in ((tmp_path, "is a folder"), (tmp_path / "file" / "deep" / "a.json", "cannot be made")):
        with pytest.raises(UserError, match=message):
            run_main(monkeypatch, command, *words, output)
