import json

import pytest
import update_cards
from helpers import run_main

from fgmm_tools.cli import UserError


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project with a README of one table, and its results file."""
    results = tmp_path / "model_cards" / "results"
    results.mkdir(parents=True)
    (tmp_path / "README.md").write_text("<!-- results: one -->\n<!-- end of results -->\n")
    values = {"R@1": 1.0, "R@5": 2.0, "R@10": 3.0, "MedR": 4.0, "MnR": 5.0, "num_queries": 50, "num_items": 10}
    run = {"command": "c", "seconds": 60, "device": "d", "date": "2026-01-01"}
    record = {"dataset": "data/x", "protocol": "p", "seed": 0, **run, "training": {**run, "clips_seen": 7}}
    (results / "one.json").write_text(json.dumps({**record, "metrics": {"text_to_video": values}}))
    monkeypatch.setattr(update_cards, "ROOT", tmp_path)
    return tmp_path


def test_every_table_agrees_with_its_results(monkeypatch):
    run_main(monkeypatch, update_cards, "--check")


def test_a_changed_number_is_noticed(project, monkeypatch):
    run_main(monkeypatch, update_cards)
    text = (project / "README.md").read_text()
    assert "| x | text to video | p | 1.0 | 2.0 | 3.0 | 4.0 | 100.0 | 50, 10 |" in text
    (project / "README.md").write_text(text.replace("3.0", "93.0"))
    with pytest.raises(UserError, match=r"README\.md differ from the results files"):
        run_main(monkeypatch, update_cards, "--check")
    assert "93.0" in (project / "README.md").read_text()  # --check changes nothing
    run_main(monkeypatch, update_cards)
    assert (project / "README.md").read_text() == text


def test_a_missing_results_file_is_named(project, monkeypatch):
    (project / "model_cards/results/one.json").unlink()
    with pytest.raises(UserError, match=r"one\.json, which does not exist"):
        run_main(monkeypatch, update_cards, "--check")


def test_a_number_in_the_text_of_a_published_card_is_refused(project, monkeypatch):
    card = project / "model_cards" / "mine.md"
    card.write_text("---\nlicense: mit\n---\n# mine\nIt finds 47 % of the clips.\n")
    with pytest.raises(UserError, match=r"mine\.md is published and has the number '47 %' in its text"):
        run_main(monkeypatch, update_cards)
