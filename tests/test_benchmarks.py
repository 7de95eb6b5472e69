"""The registry of benchmarks, and what all readers have in common."""

import subprocess
import sys
from importlib import import_module
from pkgutil import iter_modules

import pytest
from helpers import prepare_benchmark, read_benchmark

from fgmm_tools.cli import UserError
from fgmm_tools.corpora import benchmarks
from fgmm_tools.corpora.benchmarks import MODULES, load_benchmark
from fgmm_tools.corpora.benchmarks.layout import Benchmark
from fgmm_tools.corpora.parquet_shards import MEDIA


def test_every_benchmark_in_the_folder_is_registered_under_its_name():
    modules = {module.name for module in iter_modules(benchmarks.__path__)} - {"layout", "moment_queries"}
    assert modules == set(MODULES.values()) - {".own_files.folder", ".own_files.classes"}
    found = {
        value.name
        for module in MODULES.values()
        for value in vars(import_module(f".{module}", benchmarks.__name__)).values()
        if isinstance(value, Benchmark)
    }
    assert found == MODULES.keys()
    assert all(load_benchmark(name).name == name for name in MODULES)


def test_names_are_listed_without_importing_a_reader():
    code = "import sys; from fgmm_tools.corpora.benchmarks import BENCHMARKS; print('datasets' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"


def test_every_benchmark_names_its_medium_and_whether_it_may_be_redistributed():
    known = {name: load_benchmark(name) for name in MODULES}
    assert all(benchmark.text and (benchmark.is_own or benchmark.medium in MEDIA) for benchmark in known.values())
    assert {name for name, benchmark in known.items() if benchmark.is_own} == {"folder", "classes"}
    redistributable = {name for name, benchmark in known.items() if benchmark.redistributable}
    assert redistributable == {"esc10", "esc50", "speech_commands"}
    assert redistributable == {name for name, benchmark in known.items() if benchmark.license_id != "other"}


@pytest.mark.parametrize("name", MODULES)
def test_an_empty_folder_is_an_error_of_one_sentence(name, tmp_path):
    with pytest.raises(UserError, match=r"^[^\n]+\.$"):
        prepare_benchmark(name, tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "files", "named"),
    [
        ("msvd", ("YouTubeClips/a.avi", "AllVideoDescriptions.txt"), "AllVideoDescriptions.txt"),
        ("flickr8k", ("Flicker8k_Dataset/a.jpg", "Flickr8k_text/Flickr8k.token.txt"), "Flickr8k.token.txt"),
        ("speech_commands", ("yes/a.wav", "validation_list.txt"), "validation_list.txt"),
        ("hmdb51", ("hit_test_split1.txt",), "hit_test_split1.txt"),
    ],
)
def test_a_list_that_is_not_text_is_named(name, files, named, tmp_path):
    for file in files:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_bytes(b"\xff\xfe\x81")
    with pytest.raises(UserError, match=f"{named} is not a text in UTF-8"):
        read_benchmark(name, tmp_path)
