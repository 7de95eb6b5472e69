import json
import subprocess
import sys

import pytest

from fgmm_tools import records
from fgmm_tools.cli import UserError


def test_a_run_is_described(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/somewhere/scripts/evaluate_retrieval.py", "--model", "a b"])
    record = records.describe_run(1.26)
    assert record["command"] == "python scripts/evaluate_retrieval.py --model 'a b'"
    monkeypatch.setenv("ACCELERATE_DYNAMO_BACKEND", "no")  # which the launcher sets
    assert records.describe_run(0)["command"].startswith("accelerate launch scripts/")
    assert record["seconds"] == 1.3 and record["device"] and len(record["date"].split("-")) == 3


def test_the_commit_says_whether_files_differ_from_it(tmp_path, monkeypatch):
    def git(*words):
        answer = subprocess.run(["git", *words], cwd=tmp_path, check=True, capture_output=True, text=True)
        return answer.stdout.strip()

    monkeypatch.setattr(records, "__file__", str(tmp_path / "records.py"))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert records.current_commit() is None
    git("init")
    (tmp_path / "records.py").write_text("")
    git("add", ".")
    git("-c", "user.name=a", "-c", "user.email=a@b", "commit", "-m", "one")
    assert git("rev-parse", "HEAD").startswith(records.current_commit())
    (tmp_path / "records.py").write_text("changed")
    assert records.current_commit().endswith("-dirty")
    git("-c", "user.name=a", "-c", "user.email=a@b", "commit", "-am", "two")
    clean = records.current_commit()
    assert git("rev-parse", "HEAD").startswith(clean)
    results = tmp_path / "model_cards" / "results" / "deep" / "one.json"
    results.parent.mkdir(parents=True)
    results.write_text("1")
    git("add", ".")
    assert records.current_commit() == clean  # results do not change what is measured
    (tmp_path / "model_cards" / "card.md").write_text("1")
    git("add", ".")
    assert records.current_commit() == f"{clean}-dirty"


def test_a_record_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "results.json"
    records.write_record(path, {"seed": 1})
    with pytest.raises(TypeError):
        records.write_record(path, {"seed": {1, 2}})
    assert json.loads(path.read_text()) == {"seed": 1} and list(tmp_path.iterdir()) == [path]


def test_files_are_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "picture.png"
    path.write_text("old")
    with pytest.raises(OSError), records.whole_file(path) as partial:
        assert partial.suffix == ".png" and partial.parent == tmp_path
        partial.write_text("half")
        raise OSError
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
    with records.whole_file(path) as partial:
        partial.write_text("new")
    assert path.read_text() == "new" and list(tmp_path.iterdir()) == [path]


def test_folders_are_written_whole_or_not_at_all(tmp_path):
    folder = tmp_path / "deep" / "tokenizer"
    with pytest.raises(OSError), records.whole_files(folder) as partial:
        (partial / "a.json").write_text("half")
        raise OSError
    assert list(folder.parent.iterdir()) == []
    folder.mkdir()
    (folder / "other").write_text("stays")
    with records.whole_files(folder) as partial:
        (partial / "a.json").write_text("whole")
    assert {path.name: path.read_text() for path in folder.iterdir()} == {"a.json": "whole", "other": "stays"}
    assert list(folder.parent.iterdir()) == [folder]


def test_folders_of_outputs_are_made_or_named(tmp_path):
    records.claim_output(tmp_path / "deep" / "er" / "results.json")
    assert (tmp_path / "deep" / "er").is_dir()
    with pytest.raises(UserError, match="is a folder"):
        records.claim_output(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be made"):
        records.claim_output(tmp_path / "file" / "results.json")


RESULTS = {"model": "m", "dataset": "d", "split": "test", "protocol": "p", "metrics": {}, "seed": 0}


def test_results_files_are_overwritten_and_nothing_else_is(tmp_path):
    path, picture = tmp_path / "deep" / "results.json", tmp_path / "deep" / "results.png"
    records.claim_results(path, ".png")
    records.write_record(path, RESULTS)
    picture.write_bytes(b"png")
    records.claim_results(path, ".png")
    for content in ('{"model_type": "fgmm"}', "[1]", "not json", json.dumps(RESULTS)[:-9]):
        path.write_text(content)
        with pytest.raises(UserError, match=r"results.json exists and is no results file"):
            records.claim_results(path, ".png")
        assert path.read_text() == content
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match=r"is no results file"):
        records.claim_results(path)
    path.unlink()
    with pytest.raises(UserError, match=r"results.png, which is drawn beside .* exists already"):
        records.claim_results(path, ".png")
    assert picture.read_bytes() == b"png"


def test_folders_that_allow_no_writing_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr(records.os, "access", lambda *_: False)  # for root every folder allows it
    with pytest.raises(UserError, match="its folder allows no writing"):
        records.claim_output(tmp_path / "results.json")


def test_training_records_are_read_where_they_are(tmp_path):
    assert records.read_training_record(str(tmp_path)) is None
    (tmp_path / "training.json").write_text('{"seed": 7}')
    assert records.read_training_record(str(tmp_path)) == {"seed": 7}
