import socket
import time

import pytest
from huggingface_hub import HfApi, constants
from transformers import ProcessorMixin

from processing_fgmm import FgmmProcessor, names_fgmm
from processing_fgmm.names_fgmm import explain_absence


def explain(name, repo_type="model"):
    return explain_absence(str(name), repo_type, "give another")


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working folder with some models and corpora."""
    for name in ("outputs/fgmm-tiny", "outputs/fgmm-small", "data/narrated/data", "videos"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "data/notes.txt").touch()
    (tmp_path / "outputs/lost").symlink_to(tmp_path / "elsewhere")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    return tmp_path


@pytest.fixture
def unreachable(monkeypatch):
    """A Hub that refuses connections."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        monkeypatch.setattr(constants, "ENDPOINT", f"http://localhost:{free.getsockname()[1]}")
        yield


def test_what_is_here_is_not_asked_for(here, unreachable):
    for name in ("outputs/fgmm-tiny", "outputs/", ".", here, here / "data", "hf://datasets/org/corpus"):
        assert explain(name) is None


@pytest.mark.parametrize(
    "name,meant",
    [
        ("./outputs/fgmm-tny", "outputs/fgmm-tiny"),
        ("./otputs/fgmm-tny", "outputs/fgmm-tiny"),
        ("outputs/fgmm_small/", "outputs/fgmm-small"),
        ("data/narrated/dta", "data/narrated/data"),
        ("../{here}/data/Narrated", "../{here}/data/narrated"),
        ("{path}/data/narated", "{path}/data/narrated"),
    ],
)
def test_a_path_that_is_misspelt_is_compared_with_what_is_there(here, name, meant):
    name, meant = (text.format(here=here.name, path=here) for text in (name, meant))
    assert explain(name) == f"{name!r} does not exist; did you mean {meant!r}?"


def test_a_path_that_is_like_nothing(here):
    for name in (
        "./zzz",
        "/nowhere/at/all",
        "data/narrated/data/x/y",
        "outputs/fgmm-tiny/zzz",
        "a b",
        "data/notes.txt/x",
    ):
        assert explain(name) == f"{name!r} does not exist; give another."
    assert explain("data/notes.txt") == "'data/notes.txt' is no folder; give another."
    assert (
        explain("outputs/lost")
        == f"'outputs/lost' is a link to {str(here / 'elsewhere')!r}, which does not exist; give another."
    )


def test_the_home_folder_is_meant_where_no_shell_put_it_in(here, monkeypatch):
    monkeypatch.setenv("HOME", str(here))
    assert explain("~/videos") == f"'~/videos' does not exist; did you mean {str(here / 'videos')!r}?"


def test_folders_that_cannot_be_listed_or_are_huge_suggest_nothing(here, monkeypatch):
    monkeypatch.setattr(names_fgmm, "MAX_ENTRIES", 1)
    assert explain("./outputs/fgmm-tny") == "'./outputs/fgmm-tny' does not exist; give another."
    monkeypatch.setattr(
        names_fgmm.os, "listdir", lambda path: (_ for _ in ()).throw(PermissionError(13, "no", str(path)))
    )
    assert explain("./outputs/fgmm-tny") == "'./outputs/fgmm-tny' does not exist; give another."


def test_a_name_that_the_hub_could_have_is_asked_for_once(here, hub_server, monkeypatch):
    HfApi().create_repo("org/model")
    HfApi().create_repo("org/corpus", repo_type="dataset")
    HfApi().create_repo("org/secret", private=True)
    assert explain("org/model") is None and explain("org/corpus", "dataset") is None and explain("org/secret") is None
    hub_server.requests.clear()
    assert explain("outputs/fgmm-tny") == (
        "'outputs/fgmm-tny' is no folder here, and no model on the Hub that you may read; did you mean "
        "'outputs/fgmm-tiny'?"
    )
    assert len(hub_server.requests) == 1
    assert "no dataset on the Hub that you may read; give another." in explain("org/model", "dataset")
    monkeypatch.delenv("HF_TOKEN")
    assert "no model on the Hub that you may read" in explain("org/secret")


def test_a_hub_that_cannot_be_reached_costs_no_time(here, unreachable):
    started = time.monotonic()
    assert explain("otputs/fgmm-tiny") == (
        "'otputs/fgmm-tiny' is no folder here, and the Hub cannot be reached (ConnectError); did you mean "
        "'outputs/fgmm-tiny'?"
    )
    assert explain("bert").endswith("cannot be reached (ConnectError); give another.")
    assert time.monotonic() - started < 2


def test_a_processor_of_nothing_is_said_at_once(here, unreachable):
    started = time.monotonic()
    with pytest.raises(
        OSError, match=r"The processor 'outputs/fgmm-tny' is no folder here, .* did you mean 'outputs/fgmm"
    ):
        FgmmProcessor.from_pretrained("outputs/fgmm-tny")
    assert time.monotonic() - started < 2


def test_a_processor_that_is_only_in_another_cache_is_left_to_transformers(here, unreachable, monkeypatch):
    loaded = []
    monkeypatch.setattr(
        ProcessorMixin, "from_pretrained", classmethod(lambda cls, name, **options: loaded.append(name))
    )
    FgmmProcessor.from_pretrained("org/model", cache_dir=str(here / "other"))
    FgmmProcessor.from_pretrained(here / "outputs")
    assert loaded == ["org/model", here / "outputs"]


def test_a_hub_that_does_not_answer_is_not_waited_for(here, monkeypatch):
    monkeypatch.setattr(names_fgmm, "TIMEOUT", 0.3)
    with socket.create_server(("localhost", 0)) as silent:
        monkeypatch.setattr(constants, "ENDPOINT", f"http://localhost:{silent.getsockname()[1]}")
        started = time.monotonic()
        assert "the Hub cannot be reached (ReadTimeout)" in explain("org/model")
        assert time.monotonic() - started < 2


def test_what_is_in_the_cache_needs_no_hub(here, unreachable, tmp_path):
    (tmp_path / "cache" / "datasets--org--corpus").mkdir(parents=True)
    assert explain("org/corpus", "dataset") is None and "cannot be reached" in explain("org/corpus")


def test_errors_of_the_hub_itself_are_left_to_its_client(here, hub_server, monkeypatch):
    monkeypatch.setattr("hub_server.ROUTES", ((("GET",), ".*", lambda handler: handler.send(b"", 503)),))
    assert explain("org/model") is None
