import importlib.util
import shutil
import subprocess
import sys
import zipfile

import pytest
import update_cards
from helpers import ROOT, run_main

from fgmm_tools.cli import UserError
from fgmm_tools.publishing import cards

PACKAGES = {"modeling_fgmm": "modeling_fgmm", "processing_fgmm": "processing_fgmm", "fgmm_tools": "scripts/fgmm_tools"}


def test_the_wheel_holds_the_three_packages(tmp_path):
    if importlib.util.find_spec("setuptools") is None:
        pytest.skip("setuptools is not installed, which building a wheel without a network needs")
    source = tmp_path / "source"  # setuptools would leave its files in the checkout, and take stale ones from there
    source.mkdir()
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for folder in PACKAGES.values():
        shutil.copytree(ROOT / folder, source / folder, ignore=shutil.ignore_patterns("__pycache__"))
    options = ["--no-deps", "--no-build-isolation", "-w", str(tmp_path)]
    command = [sys.executable, "-m", "pip", "wheel", str(source), *options]
    subprocess.run(command, check=True, capture_output=True, cwd=tmp_path)
    names = zipfile.ZipFile(next(tmp_path.glob("*.whl"))).namelist()
    expected = {
        f"{package}/{path.relative_to(ROOT / folder)}"
        for package, folder in PACKAGES.items()
        for path in (ROOT / folder).rglob("*.py")
    }
    assert "fgmm_tools/metrics/fgmm_retrieval/fgmm_retrieval.py" in expected
    assert {name for name in names if not name.startswith("fgmm-")} == expected
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_every_table_agrees_with_its_results(monkeypatch):
    run_main(monkeypatch, update_cards, "--check")


def test_a_changed_number_is_noticed(tmp_path, monkeypatch):
    results = tmp_path / "model_cards" / "results"
    results.mkdir(parents=True)
    (tmp_path / "README.md").write_text("<!-- results: one -->\n<!-- end of results -->\n")
    values = {"R@1": 1.0, "R@5": 2.0, "R@10": 3.0, "MedR": 4.0, "MnR": 5.0, "num_queries": 50, "num_items": 10}
    run = '"command": "c", "seconds": 60, "device": "d", "date": "2026-01-01"'
    text = (
        f'{{"dataset": "data/x", "protocol": "p", "seed": 0, {run}, "training": {{{run}, "clips_seen": 7}}, "metrics": '
    )
    (results / "one.json").write_text(text + f'{{"text_to_video": {values}}}}}'.replace("'", '"'))
    monkeypatch.setattr(cards, "ROOT", tmp_path)
    run_main(monkeypatch, update_cards)
    assert "| x | text to video | p | 1.0 | 2.0 | 3.0 | 4.0 | 100.0 | 50, 10 |" in (tmp_path / "README.md").read_text()
    (tmp_path / "README.md").write_text((tmp_path / "README.md").read_text().replace("3.0", "93.0"))
    with pytest.raises(UserError, match=r"README\.md"):
        run_main(monkeypatch, update_cards, "--check")
    (results / "one.json").unlink()
    with pytest.raises(UserError, match=r"one\.json"):
        run_main(monkeypatch, update_cards, "--check")


@pytest.mark.parametrize(
    "right,queries,items,expected", [(1, 1000, 1000, 1.0), (1, 50, 10, 100.0), (5, 1000, 5000, 1.0), (1, 200, 200, 5.0)]
)
def test_chance_recall(right, queries, items, expected):
    values = {"num_queries": queries, "num_items": items}
    assert cards.chance_recall(values, 10) == pytest.approx(expected, abs=0.01)
