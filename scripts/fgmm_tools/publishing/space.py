"""The folder of a Hugging Face Space that serves the demo page with a model: code, weights, requirements."""

import shutil
from configparser import ConfigParser
from importlib.metadata import version
from pathlib import Path

import yaml

from ..cli import UserError
from ..paths import ROOT
from .model_push import SUFFIXES, check_model, find_results

# The packages of which the page is made, by where they are in the checkout.
PACKAGES = {
    "modeling_fgmm": "modeling_fgmm",
    "processing_fgmm": "processing_fgmm",
    "fgmm_tools": "scripts/fgmm_tools",
}
# The folder of the model in the Space.
MODEL = "model"
APP = '''"""Serves the page: python app.py, then open http://127.0.0.1:7860."""

import os
from pathlib import Path

from fgmm_tools.grounding.demo import Demo, serve
from fgmm_tools.models import load_model

if __name__ == "__main__":
    host = "0.0.0.0" if os.environ.get("SPACE_ID") else "127.0.0.1"
    model, processor = load_model(str(Path(__file__).parent / "model"))
    serve(Demo(model, processor), host, int(os.environ.get("GRADIO_SERVER_PORT", "7860")))
'''


def write_space(model: Path, output: Path, license_id: str | None) -> None:
    """Writes the folder of a Space; it runs where it is, too.

    Args:
        model: folder of the model.
        output: folder for the Space, which does not exist or is empty.
        license_id: of the weights, as the Hub names it; None: that of this code.

    Raises:
        UserError: when there is no model in the folder, or the other folder holds something.
    """
    check_model(model)
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise UserError(f"--space {output} holds something already; give a new folder.")
    output.mkdir(parents=True, exist_ok=True)
    ignored = shutil.ignore_patterns("__pycache__", "*.pyc")
    for package, folder in PACKAGES.items():
        shutil.copytree(ROOT / folder, output / package, ignore=ignored)
    (output / MODEL).mkdir()
    measured = find_results(model)
    for path in sorted(model.iterdir()):
        if path.is_file() and path.suffix in SUFFIXES and path.stem not in measured:
            shutil.copy(path, output / MODEL)
    (output / "app.py").write_text(APP)
    (output / "requirements.txt").write_text("\n".join(list_requirements()) + "\n")
    (output / "README.md").write_text(describe(model.resolve().name, license_id or "apache-2.0"))


def list_requirements() -> list[str]:
    """What the page needs installed, from setup.cfg."""
    config = ConfigParser()
    config.read(ROOT / "setup.cfg")
    extras = config["options.extras_require"]
    lines = [config["options"]["install_requires"], extras["eval"], extras["demo"]]
    return sorted({line for text in lines for line in text.split("\n") if line and not line.startswith("fgmm[")})


def describe(name: str, license_id: str) -> str:
    """The README of the Space, whose header tells the Hub what it is."""
    header = {
        "title": f"{name}: where and when",
        "emoji": "🔎",
        "colorFrom": "blue",
        "colorTo": "yellow",
        "sdk": "gradio",
        "sdk_version": version("gradio"),
        "app_file": "app.py",
        "license": license_id,
        "short_description": "Where and when a clip shows each phrase of a text",
    }
    return (
        f"---\n{yaml.safe_dump(header, sort_keys=False, allow_unicode=True)}---\n\n# {name}: where and when\n\n"
        "Give a video, a sound or a picture and a text about it: each phrase is shown where and when the model finds "
        "it. It runs here with `python app.py`, and on the Hub after `hf upload ORG/NAME . --repo-type space`.\n"
    )
