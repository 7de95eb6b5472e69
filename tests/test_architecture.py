"""Who may import whom, and what must be installed for it: read from the syntax trees of all files."""

import ast
import importlib.metadata
import re
import sys
from configparser import ConfigParser
from graphlib import CycleError, TopologicalSorter
from importlib.util import resolve_name
from pathlib import Path

import pytest
from helpers import ROOT

LIBRARIES = {"modeling_fgmm": "modeling_fgmm", "processing_fgmm": "processing_fgmm", "fgmm_tools": "scripts/fgmm_tools"}
# What each library knows of the others; commands know all.
KNOWN = {"modeling_fgmm": set(), "processing_fgmm": set(), "fgmm_tools": {"modeling_fgmm", "processing_fgmm"}}
COMMANDS = {path.stem: path for path in (ROOT / "scripts").glob("*.py")}


def library_modules() -> dict[str, str]:
    """The full name of every module of the libraries, with its text."""
    modules = {}
    for library, folder in LIBRARIES.items():
        for path in (ROOT / folder).rglob("*.py"):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            package = ".__init__" if path.name == "__init__.py" else ""
            modules[".".join((library, *parts)).removesuffix(".__init__") + package] = path.read_text()
    return modules


def find_imports(module: str, text: str) -> set[str]:
    """The full names of all that a module imports, in functions too; `from a import b` gives `a.b`."""
    package = module.rpartition(".")[0]
    names = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = resolve_name("." * node.level + (node.module or ""), package)
            names |= {f"{base}.{alias.name}" for alias in node.names}
    return names


def wrong_imports(modules: dict[str, str], commands: set[str]) -> list[str]:
    """What the direction of the architecture forbids, as `importer -> imported`."""
    wrong = []
    for module, text in modules.items():
        library = module.partition(".")[0]
        allowed = KNOWN[library] | {library} if library in KNOWN else set(KNOWN)
        imported = {name.partition(".")[0] for name in find_imports(module, text)}
        wrong += [f"{module} -> {name}" for name in imported & (KNOWN.keys() | commands) - allowed]
    return wrong


def find_circle(modules: dict[str, str]) -> list[str]:
    """Modules that import each other in a circle."""

    def holder(name: str) -> str | None:
        """The module that a full name is, or is defined in."""
        candidates = (name, f"{name}.__init__", name.rpartition(".")[0], f"{name.rpartition('.')[0]}.__init__")
        return next((candidate for candidate in candidates if candidate in modules), None)

    graph = {
        module: {holder(name) for name in find_imports(module, text)} - {module, None}
        for module, text in modules.items()
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1]
    return []


def test_imports_go_downwards():
    modules = library_modules()
    assert {module.partition(".")[0] for module in modules} == KNOWN.keys() and len(modules) > 50
    assert wrong_imports(modules, set(COMMANDS)) == []


def test_no_command_imports_a_command():
    assert len(COMMANDS) > 10
    assert wrong_imports({name: path.read_text() for name, path in COMMANDS.items()}, set(COMMANDS)) == []


def test_modules_import_in_no_circle():
    assert find_circle(library_modules()) == []


@pytest.mark.parametrize(
    "module,text,wrong",
    [
        ("modeling_fgmm.a", "import processing_fgmm.b", "processing_fgmm"),
        ("processing_fgmm.a", "def f():\n    from modeling_fgmm import b", "modeling_fgmm"),
        ("processing_fgmm.a", "from fgmm_tools.cli import UserError", "fgmm_tools"),
        ("fgmm_tools.a.b", "from pretrain import main", "pretrain"),
        ("evaluate_retrieval", "import pretrain", "pretrain"),
        ("fgmm_tools.a.b", "from ..cli import UserError\nimport modeling_fgmm, numpy", None),
        ("pretrain", "from fgmm_tools.cli import UserError\nimport modeling_fgmm", None),
    ],
)
def test_wrong_directions_are_found(module, text, wrong):
    assert wrong_imports({module: text}, {"pretrain", "evaluate_retrieval"}) == ([f"{module} -> {wrong}"] * bool(wrong))


def test_circles_are_found():
    modules = {"p.__init__": "from .a import x", "p.a": "from .b import y", "p.b": "def f():\n    from .c.d import z"}
    assert find_circle({**modules, "p.c.d": "import numpy", "p.c.__init__": ""}) == []
    assert set(find_circle({**modules, "p.c.d": "from .. import a", "p.c.__init__": ""})) == {"p.a", "p.b", "p.c.d"}
    assert set(find_circle({"p.a": "import q.b", "q.b": "from p.a import x"})) == {"p.a", "q.b"}


def test_no_file_is_longer_than_500_lines():
    folders = [ROOT / name for name in ("modeling_fgmm", "processing_fgmm", "scripts", "tests")]
    lengths = {path: len(path.read_text().splitlines()) for folder in folders for path in folder.rglob("*.py")}
    assert len(lengths) > 100
    assert {path.name: length for path, length in lengths.items() if length > 500} == {}


def imported_distributions(files: list[Path]) -> set[str]:
    """The distributions from which files import, but for Python's own and ours; commas and guards do not matter."""
    tops = {name.partition(".")[0] for path in files for name in find_imports("scripts.x.y.z", path.read_text())}
    known = importlib.metadata.packages_distributions()
    foreign = tops - sys.stdlib_module_names - KNOWN.keys() - {"scripts"}
    return {normalise(known.get(top, [top])[0]) for top in foreign}


def normalise(name: str) -> str:
    """A distribution's name as it is compared."""
    return re.sub(r"[-_.]+", "-", name).lower()


def required(*extras: str) -> set[str]:
    """The distributions that setup.cfg requires, always and by some of its extras."""
    config = ConfigParser()
    config.read(ROOT / "setup.cfg")
    lines = [config["options"]["install_requires"], *(config["options.extras_require"][extra] for extra in extras)]
    return {normalise(re.match(r"[\w.-]+", line)[0]) for text in lines for line in text.split("\n") if line}


# They come with distributions that are required: transformers, datasets, accelerate.
CARRIED = {"tokenizers", "safetensors", "pyarrow", "fsspec", "aiohttp"}


def test_models_and_training_need_no_extra():
    tools = ROOT / "scripts" / "fgmm_tools"
    files = [*(ROOT / "modeling_fgmm").glob("*.py"), *(ROOT / "processing_fgmm").glob("*.py")]
    files += [ROOT / "scripts/pretrain.py", tools / "cli.py", tools / "records.py", *(tools / "training").glob("*.py")]
    # triton comes with CUDA's torch; peft and trackio are asked for by name where adapters or that tracker are wanted
    assert imported_distributions(files) - required() - CARRIED - {"triton", "peft", "trackio"} == set()


def test_commands_need_no_more_than_the_extras():
    files = [*(ROOT / "scripts").glob("*.py"), *(ROOT / "scripts" / "fgmm_tools").rglob("*.py")]
    found = imported_distributions(files)
    assert {"scikit-learn", "matplotlib", "ijson"} <= found  # of the extras
    # Measured where they are installed.
    optional = {"late-interaction-kernels", "flash-maxsim", "torchcodec"}
    extras = ("data", "demo", "eval", "export", "hub", "lora", "ray", "search", "serve", "trackers")
    assert found - required(*extras) - CARRIED - optional == set()
