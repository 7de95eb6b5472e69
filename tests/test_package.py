"""What the project consists of: the packages of the wheel, and which of them may import which."""

import ast
import importlib.util
import shutil
import subprocess
import sys
import zipfile
from configparser import ConfigParser
from graphlib import TopologicalSorter

import pytest
import yaml
from helpers import ROOT

# Each package's folder, and the packages that it may import.
PACKAGES = {
    "modeling_fgmm": (ROOT / "modeling_fgmm", set()),
    "processing_fgmm": (ROOT / "processing_fgmm", set()),
    "fgmm_tools": (ROOT / "scripts" / "fgmm_tools", {"modeling_fgmm", "processing_fgmm"}),
}
COMMANDS = sorted((ROOT / "scripts").glob("*.py"))
MODULES = {
    ".".join([package, *path.relative_to(folder).with_suffix("").parts]).removesuffix(".__init__"): path
    for package, (folder, _) in PACKAGES.items()
    for path in folder.rglob("*.py")
    if "metrics" not in path.parts  # read by evaluate, not imported
}


def find_imports(module: str, path) -> set[str]:
    """The full names of what a module imports, anywhere in it."""
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            names |= {base, *(f"{base}.{alias.name}" for alias in node.names)}
    return names


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_imports_only_those_below_it(package):
    allowed = PACKAGES[package][1] | {package}
    forbidden = {*PACKAGES, *(path.stem for path in COMMANDS)} - allowed
    modules = {module: path for module, path in MODULES.items() if module.split(".")[0] == package}
    assert len(modules) > 5
    for module, path in modules.items():
        found = {name.split(".")[0] for name in find_imports(module, path)} & forbidden
        assert not found, f"{module} imports {found}"


def test_no_command_imports_a_command():
    names = {path.stem for path in COMMANDS}
    assert len(names) > 10
    for path in COMMANDS:
        assert not {name.split(".")[0] for name in find_imports(path.stem, path)} & names, path.name


def test_modules_import_in_no_circle():
    graph = {
        # Importing from a package is importing a module of it, where there is one of that name.
        module: {name for name in find_imports(module, path) if name in MODULES} - {module, module.rpartition(".")[0]}
        for module, path in MODULES.items()
    }
    assert sum(map(len, graph.values())) > 50
    TopologicalSorter(graph).prepare()  # raises CycleError


def test_no_file_is_longer_than_500_lines():
    paths = [*MODULES.values(), *COMMANDS, *(ROOT / "tests").glob("*.py")]
    lengths = {path.name: len(path.read_text().splitlines()) for path in paths}
    assert not {name: length for name, length in lengths.items() if length > 500}


def test_every_package_folder_is_in_setup_cfg():
    config = ConfigParser()
    config.read(ROOT / "setup.cfg")
    listed = set(config["options"]["packages"].split())
    folders = {module for module, path in MODULES.items() if path.name == "__init__.py"}
    assert folders | {"fgmm_tools.metrics.fgmm_retrieval"} == listed


def test_the_wheel_holds_the_three_packages(tmp_path):
    if importlib.util.find_spec("setuptools") is None:
        pytest.skip("setuptools is not installed, which building a wheel without a network needs")
    source = tmp_path / "source"  # setuptools would leave its files in the checkout, and take stale ones from there
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        source.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, source)
    for folder, _ in PACKAGES.values():
        shutil.copytree(folder, source / folder.relative_to(ROOT), ignore=shutil.ignore_patterns("__pycache__"))
    options = ["--no-deps", "--no-build-isolation", "-w", str(tmp_path)]
    command = [sys.executable, "-m", "pip", "wheel", str(source), *options]
    subprocess.run(command, check=True, capture_output=True, cwd=tmp_path)
    names = zipfile.ZipFile(next(tmp_path.glob("*.whl"))).namelist()
    expected = {
        f"{package}/{path.relative_to(folder)}"
        for package, (folder, _) in PACKAGES.items()
        for path in folder.rglob("*.py")
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
