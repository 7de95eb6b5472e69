import importlib.util
import shutil
import subprocess
import sys
import zipfile
from configparser import ConfigParser

import pytest
import yaml
from helpers import ROOT

PACKAGES = {
    "modeling_fgmm": ROOT / "modeling_fgmm",
    "processing_fgmm": ROOT / "processing_fgmm",
    "fgmm_tools": ROOT / "scripts" / "fgmm_tools",
}


def test_every_package_folder_is_in_setup_cfg():
    config = ConfigParser()
    config.read(ROOT / "setup.cfg")
    listed = set(config["options"]["packages"].split())
    folders = {
        ".".join([package, *path.parent.relative_to(folder).parts])
        for package, folder in PACKAGES.items()
        for path in folder.rglob("__init__.py")
    }
    assert folders | {"fgmm_tools.metrics.fgmm_retrieval"} == listed


def test_the_wheel_holds_the_three_packages(tmp_path):
    if importlib.util.find_spec("setuptools") is None:
        pytest.skip("setuptools is not installed, which building a wheel without a network needs")
    source = tmp_path / "source"  # setuptools would leave its files in the checkout, and take stale ones from there
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        source.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, source)
    for folder in PACKAGES.values():
        shutil.copytree(folder, source / folder.relative_to(ROOT), ignore=shutil.ignore_patterns("__pycache__"))
    options = ["--no-deps", "--no-build-isolation", "-w", str(tmp_path)]
    command = [sys.executable, "-m", "pip", "wheel", str(source), *options]
    subprocess.run(command, check=True, capture_output=True, cwd=tmp_path)
    names = zipfile.ZipFile(next(tmp_path.glob("*.whl"))).namelist()
    expected = {
        f"{package}/{path.relative_to(folder)}"
        for package, folder in PACKAGES.items()
        for path in folder.rglob("*.*")
        if path.suffix in (".py", ".html")
    }
    assert {name for name in names if not name.startswith("fgmm-")} == expected
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_the_citation_names_this_version():
    config = ConfigParser()
    config.read(ROOT / "setup.cfg")
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["title"] == config["metadata"]["name"] and citation["version"] == config["metadata"]["version"]
    assert citation["license"] == config["metadata"]["license"] and citation["cff-version"] == "1.2.0"
    (paper,) = citation["references"]
    assert [author["family-names"] for author in paper["authors"]] == ["Wang", "Karout"]
    assert paper["url"] == "https://arxiv.org/abs/2112.12182" and paper["year"] == 2021
