"""The Auto classes in processes outside the repository, with the packages and with a saved folder alone."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from helpers import ROOT
from PIL import Image

REPO, REVISION = "org/fgmm-test", "0123456789abcdef0123456789abcdef01234567"

# Loads everything by its Auto class and says what it got, and what the model makes of a picture, a sound and two texts.
SCRIPT = """
import json
from transformers import (
    AutoConfig, AutoFeatureExtractor, AutoModel, AutoModelForAudioClassification, AutoModelForVideoClassification,
    AutoProcessor,
)
from transformers.models.auto.video_processing_auto import AutoVideoProcessor

loaded = {
    auto.__name__: auto.from_pretrained(WHERE, **OPTIONS)
    for auto in (
        AutoConfig, AutoModel, AutoModelForVideoClassification, AutoModelForAudioClassification, AutoProcessor,
        AutoVideoProcessor, AutoFeatureExtractor,
    )
}
samples = [0.5, -0.5] * 8000
inputs = loaded["AutoProcessor"](images=["photo.png"], audio=[numpy.array(samples)], text=["two eggs", "a red ball"])
logits = loaded["AutoModel"].eval()(**inputs).logits_per_text.flatten().tolist()
print(json.dumps([{name: type(value).__name__ for name, value in loaded.items()}, logits]))
"""
# A name that is None in sys.modules cannot be imported.
WITHOUT = "import sys\nimport numpy\nfor name in {}:\n    sys.modules[name] = None\n"
# Without trust the code is not run, and the error says what is missing.
UNTRUSTED = """
from transformers import AutoModel
try:
    AutoModel.from_pretrained({!r})
except ValueError as error:
    assert "trust_remote_code" in str(error), error
    print()  # after the question whether to trust
else:
    raise AssertionError("the code was run without trust")
"""
PACKAGES = ("modeling_fgmm", "processing_fgmm")
CLASSES = {
    "AutoConfig": "FgmmConfig",
    "AutoModel": "FgmmModel",
    "AutoModelForVideoClassification": "FgmmForVideoClassification",
    "AutoModelForAudioClassification": "FgmmForAudioClassification",
    "AutoProcessor": "FgmmProcessor",
    "AutoVideoProcessor": "FgmmVideoProcessor",
    "AutoFeatureExtractor": "FgmmFeatureExtractor",
}


@pytest.fixture
def saved(model, processor, tmp_path):
    """The folder `saved` with a model and its processor, and the same in the Hub's cache under `home`."""
    folder = tmp_path / "saved"
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    cache = tmp_path / "home" / "hub" / f"models--{REPO.replace('/', '--')}"
    for path in [path for path in folder.rglob("*") if path.is_file()]:
        blob = cache / "blobs" / str(path.relative_to(folder)).replace("/", "-")
        link = cache / "snapshots" / REVISION / path.relative_to(folder)
        blob.parent.mkdir(parents=True, exist_ok=True)
        link.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, blob)
        link.symlink_to(blob)
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text(REVISION)
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 56, 3), dtype=np.uint8)).save(tmp_path / "photo.png")
    return folder


def run(tmp_path, begin: str, where: str, python_path: str = "", **options) -> list:
    """What the script prints, run in `tmp_path`."""
    code = f"{begin}WHERE, OPTIONS = {where!r}, {options!r}\n{SCRIPT}"
    environment = {"HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1", "PYTHONPATH": python_path}
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert answer.returncode == 0, answer.stderr
    return json.loads(answer.stdout.splitlines()[-1])


@pytest.fixture
def expected(model, processor, saved, tmp_path):
    inputs = processor(
        images=[tmp_path / "photo.png"], audio=[np.array([0.5, -0.5] * 8000)], text=["two eggs", "a red ball"]
    )
    return [CLASSES, pytest.approx(model(**inputs).logits_per_text.flatten().tolist(), abs=1e-4)]


def test_the_imported_packages_register_their_classes(saved, expected, tmp_path):
    begin = "import numpy\nimport modeling_fgmm, processing_fgmm\n"
    assert run(tmp_path, begin, str(saved), python_path=str(ROOT)) == expected
    assert not (tmp_path / "home" / "modules").exists()  # no code was copied from the folder


def test_the_processing_package_alone_loads_a_processor_without_asking(saved, tmp_path):
    """Beside the processor lies a model, whose code is none of its business."""
    code = f"""
from processing_fgmm import FgmmProcessor
from transformers import AutoProcessor
for kind in (FgmmProcessor, AutoProcessor):
    assert type(kind.from_pretrained({str(saved)!r})) is FgmmProcessor
encoder = FgmmProcessor.from_encoders(text={str(saved)!r})
assert encoder.tokenizer.get_vocab() == FgmmProcessor.from_pretrained({str(saved)!r}).tokenizer.get_vocab()
"""
    environment = {"HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
    answer = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment,
        stdin=subprocess.DEVNULL,
    )
    assert answer.returncode == 0, answer.stderr
    assert "custom code" not in answer.stdout and "model of type" not in answer.stderr
    assert not (tmp_path / "home" / "modules").exists()


# A folder, and the Hub without triton: a guard that does not travel passes from a folder and fails from the Hub.
@pytest.mark.parametrize(("where", "missing"), [("saved", PACKAGES), (REPO, (*PACKAGES, "triton"))])
def test_the_code_in_the_folder_and_on_the_hub_is_enough(saved, expected, tmp_path, where, missing):
    assert run(tmp_path, WITHOUT.format(missing) + UNTRUSTED.format(where), where, trust_remote_code=True) == expected
