import json
import subprocess
import sys

import evaluate_classification as command
import numpy as np
import pytest
from helpers import CLASS_NAMES, FOLDS, ROOT, run_main
from PIL import Image

from fgmm_tools.cli import UserError
from processing_fgmm.corpora_fgmm import CorpusError


def test_results_file(small_model, sounds, monkeypatch, tmp_path, capsys):
    output = tmp_path / "deep" / "results.json"
    options = ["--protocol", "linear", "--few_shot", "--seed", 3, "--num_workers", 0, "--output", output]
    run_main(monkeypatch, command, "--model", small_model, "--dataset", sounds, *options)
    record = json.loads(output.read_text())
    assert list(record) == [
        *("model", "dataset", "split", "protocol", "metrics", "spread", "runs", "draws", "seed"),
        *("command", "commit", "device", "seconds", "date", "training"),
    ]
    assert record["split"] == "test" and record["seed"] == 3 and record["training"] is None
    assert "few-shot logistic regression on audio embeddings" in record["protocol"]
    assert "scripts/evaluate_classification.py" in record["command"]
    assert set(record["runs"]) == set(FOLDS)
    top1 = [run["top1"] for run in record["runs"].values()]
    assert record["metrics"]["top1"] == pytest.approx(sum(top1) / 2)
    assert record["spread"]["top1"] == pytest.approx(np.std(top1, ddof=1))
    assert set(record["metrics"]["per_class"]) == set(CLASS_NAMES)
    assert all(len(draws) == 10 for draws in record["draws"].values())
    picture = np.asarray(Image.open(output.with_suffix(".png")).convert("RGB")).astype(int)
    assert picture.shape[0] > 300 and picture.std() > 20
    printed = capsys.readouterr().out
    assert "Between draws of the same split top1 varies by" in printed and f"Wrote {output}." in printed
    assert sorted(path.name for path in output.parent.iterdir()) == ["results.json", "results.png"]


def test_without_an_output_the_table_is_printed(small_model, sounds, monkeypatch, capsys):
    options = ["--protocol", "knn", "--dataset_config", "fold2", "--num_workers", 0]
    run_main(monkeypatch, command, "--model", small_model, "--dataset", sounds, *options)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["top1", "fold2", "mean", "spread"]


@pytest.mark.parametrize(
    "options,error,message",
    [
        (["--output", "/"], UserError, "--output / is a folder"),
        (["--model", "/nowhere/model"], UserError, "/nowhere/model"),
        (["--dataset", "/nowhere/corpus"], CorpusError, "/nowhere/corpus"),
        (["--few_shot"], UserError, "the protocol must be linear"),
        (["--template", "a sound"], UserError, "must hold {}"),
    ],
)
def test_mistakes_are_one_sentence(small_model, sounds, monkeypatch, options, error, message):
    with pytest.raises(error, match=message) as caught:
        run_main(monkeypatch, command, "--model", small_model, "--dataset", sounds, "--protocol", "knn", *options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "options,message",
    [
        (["--protocol", "guess"], "invalid choice"),
        (["--protocol", "finetune", "--epochs", "0"], "less than 1"),
        (["--protocol", "knn", "--output", "results.png"], "is the JSON file"),
    ],
)
def test_options_out_of_range_are_refused(monkeypatch, capsys, options, message):
    with pytest.raises(SystemExit) as caught:
        run_main(monkeypatch, command, "--model", "a", "--dataset", "b", *options)
    assert caught.value.code == 2 and message in capsys.readouterr().err


def test_settings_that_do_not_fit_end_with_one_sentence_at_once(tmp_path):
    words = ["--model", "a", "--dataset", "b", "--protocol", "zero_shot", "--random_init"]
    answer = subprocess.run(
        [sys.executable, ROOT / "scripts" / "evaluate_classification.py", *words],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert answer.returncode == 2 and answer.stdout == ""
    assert answer.stderr.startswith("zero_shot trains nothing") and answer.stderr.count("\n") == 1
