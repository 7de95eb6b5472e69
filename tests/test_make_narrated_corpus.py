import make_narrated_corpus
import pytest
from helpers import run_main
from PIL import Image

from fgmm_tools.cli import UserError


@pytest.fixture
def make(monkeypatch):
    """Runs the command in this process."""
    return lambda *arguments: run_main(monkeypatch, make_narrated_corpus, *arguments)


def test_a_second_run_renders_nothing_and_other_arguments_are_refused(make, narrated):
    shards = {path: path.stat().st_mtime_ns for path in (narrated / "data").iterdir()}
    make("--output", narrated, "--num_train", 32, "--num_test", 8)
    assert shards and shards == {path: path.stat().st_mtime_ns for path in (narrated / "data").iterdir()}
    with pytest.raises(UserError, match="other arguments"):
        make("--output", narrated, "--num_train", 33, "--num_test", 8)


def test_a_preview_is_drawn_and_nothing_else(make, tmp_path):
    make("--preview", tmp_path / "preview.png")
    with Image.open(tmp_path / "preview.png") as picture:
        assert min(picture.size) > 500
    assert len(list(tmp_path.iterdir())) == 1
    with pytest.raises(UserError, match=r"nowhere/preview\.png cannot be written"):
        make("--preview", tmp_path / "nowhere" / "preview.png")


@pytest.mark.parametrize("wrong", [("--noise", 1.5), ("--num_train", 0), ("--seed", -1), ("--preview", "a.png")])
def test_wrong_options_are_one_sentence(make, tmp_path, capsys, wrong):
    with pytest.raises(SystemExit) as answer:
        make("--output", tmp_path / "corpus", *wrong)
    assert answer.value.code == 2 and wrong[0] in capsys.readouterr().err
    assert not (tmp_path / "corpus").exists()
