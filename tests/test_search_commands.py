"""The commands index_videos and search_videos, and what they write."""

import html.parser
import json
import urllib.parse
from configparser import ConfigParser
from importlib import import_module
from pathlib import Path

import index_videos  # noqa: F401
import pytest
from helpers import ROOT, TEXTS
from test_search_indexing import ODD, few_foreign_texts, videos  # noqa: F401

from fgmm_tools.cli import UserError
from fgmm_tools.search import index_command, search_command


def run(monkeypatch, command, *arguments):
    monkeypatch.setattr("sys.argv", ["command", *map(str, arguments)])
    command.main(command.parse_arguments())


@pytest.fixture
def index(videos, small_model, tmp_path, monkeypatch, capsys):  # noqa: F811
    arguments = ["--model", small_model, "--videos", videos, "--index", tmp_path / "index", "--num_workers", 0]
    run(monkeypatch, index_command, *arguments)
    printed = capsys.readouterr().out
    assert "Files: 4 embedded" in printed and "x real time" in printed
    assert "1 of the files cannot be searched" in printed and "The index is complete: 4 files" in printed
    return tmp_path / "index"


class Page(html.parser.HTMLParser):
    """The links and pictures of a page, and its text."""

    def __init__(self, path):
        super().__init__()
        self.links, self.pictures, self.loaded, self.text = [], [], [], ""
        self.feed(path.read_text())

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if tag == "a":
            self.links.append(attributes["href"])
        if tag == "img":
            self.pictures.append(attributes["src"])
        if tag in ("script", "link", "iframe"):
            self.loaded.append(attributes)

    def handle_data(self, data):
        self.text += data


def test_a_search_on_the_screen_and_everything_it_writes(index, monkeypatch, capsys, tmp_path):
    out = tmp_path / "out"
    outputs = ["--html", out / "page.html", "--edl", out / "f.edl", "--otio", out / "f.otio"]
    run(monkeypatch, search_command, "--index", index, TEXTS[0], *outputs, "--export_clips", out / "clips")
    printed = capsys.readouterr()
    assert "a.mp4" in printed.out and "“crack two eggs”" in printed.out
    assert all(f"Wrote {out / name}." in printed.err for name in ("page.html", "f.edl", "f.otio", "clips"))
    assert len(list((out / "clips").iterdir())) == 4
    page = Page(out / "page.html")
    assert page.loaded == [] and all(uri.startswith("data:image/jpeg;base64,") for uri in page.pictures)
    assert len(page.links) == 4 and len(page.pictures) > 4  # heat maps, too
    addresses = [urllib.parse.urlsplit(link) for link in page.links]
    assert {address.scheme for address in addresses} == {"file"}
    names = [Path(urllib.parse.unquote(address.path)) for address in addresses]
    assert all(name.is_file() for name in names) and ODD in [name.name for name in names]
    fragments = {name.name: address.fragment for name, address in zip(names, addresses, strict=True)}
    assert fragments["c.png"] == "" and fragments["a.mp4"].startswith("t=") and "eggs" in page.text


def test_a_search_as_json(index, monkeypatch, capsys):
    run(monkeypatch, search_command, "--index", index, TEXTS[0] + " xyzzy", "--json", "--top", 2, "--in", "trips")
    result = json.loads(capsys.readouterr().out)
    assert [Path(moment["path"]).name for moment in result["moments"]][:1] == ["a.mp4"]
    assert result["unknown_words"] == ["xyzzy"] and result["complete"]


def test_other_queries(index, monkeypatch, capsys, videos):  # noqa: F811
    for query in (["--picture", videos / "c.png"], ["--sound", videos / "b.wav"]):
        run(monkeypatch, search_command, "--index", index, *query)
        assert "1. " in capsys.readouterr().out
    clip = ["--clip", videos / "trips" / "a.mp4", "--start", 0.5, "--end", 1.0]
    run(monkeypatch, search_command, "--index", index, *clip)
    printed = capsys.readouterr().out
    assert "a.mp4" in printed and "😀" in printed and ";\n" not in printed  # the line break of a name


def test_nothing_matches(index, monkeypatch, capsys):
    run(monkeypatch, search_command, "--index", index, "xyzzy")
    assert capsys.readouterr().out == "The model does not know: xyzzy.\nNothing matches.\n"


def test_mistakes_are_found_before_the_work(monkeypatch, tmp_path):
    with pytest.raises(UserError, match="Give one of a text, --sound, --picture and --clip, not none"):
        run(monkeypatch, search_command, "--index", tmp_path)
    with pytest.raises(UserError, match="not text and sound"):
        run(monkeypatch, search_command, "--index", tmp_path, "eggs", "--sound", "f.wav")
    with pytest.raises(UserError, match="is a folder; give the name of a file"):
        run(monkeypatch, search_command, "--index", tmp_path, "eggs", "--html", tmp_path)
    with pytest.raises(UserError, match="is not there; connect its drive"):
        run(monkeypatch, index_command, "--index", tmp_path / "i", "--videos", tmp_path / "nowhere")


def test_an_installation_has_the_commands():
    config = ConfigParser()
    config.read(ROOT / "setup.cfg")
    lines = config["options.entry_points"]["console_scripts"].split("\n")
    commands = dict(line.split(" = ") for line in lines if line)
    assert {"fgmm-index", "fgmm-search"} <= commands.keys()
    for name in ("fgmm-index", "fgmm-search"):
        module, function = commands[name].split(":")
        assert callable(getattr(import_module(module), function))
