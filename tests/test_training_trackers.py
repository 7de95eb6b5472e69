import numpy as np
import pytest
import torch
from accelerate import Accelerator
from PIL import Image
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fgmm_tools.cli import UserError
from fgmm_tools.training import checks
from fgmm_tools.training.checks import check_config
from fgmm_tools.training.configuration import parse_config

PAIRS = ("text_video", "text_audio", "audio_video")
OF_PAIRS = ("loss", "logit_scale", "sharpness", "attention_entropy", "whole_caption_weight", "gate_spread")
OTHERS = (
    "gradient_norm",
    "gradient_norm_max",
    "memory_gb",
    "data_wait",
    "clips_per_s",
    "failed_clips",
    "skipped_steps",
)


@pytest.fixture(scope="module")
def tracked(narrated, pretrain_here, tmp_path_factory):
    """The folders of the same 12 steps without trackers, and with both of them and pictures; and of Trackio."""
    pytest.importorskip("trackio", reason="trackio is not installed (extra trackers)")
    from trackio import utils

    folder = tmp_path_factory.mktemp("tracked")
    pretrain_here(narrated, folder / "plain", max_steps=12)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("trackio.utils", "trackio.sqlite_storage", "trackio.media.utils"):
            patch.setattr(f"{name}.TRACKIO_DIR", folder / "trackio", raising=False)
            patch.setattr(f"{name}.MEDIA_DIR", folder / "trackio" / "media", raising=False)
        assert folder / "trackio" == utils.TRACKIO_DIR
        pretrain_here(narrated, folder / "tracked", max_steps=12, picture_steps=6, trackers="[tensorboard, trackio]")
    return folder


def test_trackers_change_no_number(tracked):
    weights, of_plain = (load_file(tracked / name / "model.safetensors") for name in ("tracked", "plain"))
    assert weights.keys() == of_plain.keys() and all(torch.equal(weights[name], of_plain[name]) for name in weights)
    states = [torch.load(tracked / name / "checkpoints/step-0000012/optimizer.bin") for name in ("tracked", "plain")]
    assert all(torch.equal(states[0]["state"][n]["exp_avg"], s["exp_avg"]) for n, s in states[1]["state"].items())


def test_trackers_are_told_what_the_objectives_do(tracked):
    events = EventAccumulator(str(tracked / "tracked" / "fgmm"))
    events.Reload()
    names = [f"{name}/{pair}" for name in OF_PAIRS for pair in PAIRS] + list(OTHERS)
    assert set(names) <= set(events.Tags()["scalars"])
    values = {name: [event.value for event in events.Scalars(name)] for name in ("loss", *names)}
    assert all(len(of_name) == 6 and np.isfinite(of_name).all() for of_name in values.values())
    of_pairs = np.mean([values[f"loss/{pair}"] for pair in PAIRS], axis=0)
    assert of_pairs == pytest.approx(values["loss"], rel=1e-4)
    assert (np.array(values["gradient_norm"]) <= values["gradient_norm_max"]).all() and min(values["memory_gb"]) > 0.1
    [first, second] = events.Images("attention")
    assert (first.step, second.step) == (6, 12)


def test_pictures_are_kept_in_the_folder_of_the_run(tracked):
    paths = sorted((tracked / "tracked" / "attention").iterdir())
    assert [path.name for path in paths] == ["step-0000006.png", "step-0000012.png"]
    first, second = (np.asarray(Image.open(path).convert("RGB")) for path in paths)
    assert min(first.shape[:2]) > 300 and first.std() > 20
    assert first.shape != second.shape or (first != second).any()  # the model has learned meanwhile
    assert not (tracked / "plain" / "attention").exists()


def test_trackio_has_the_numbers_and_pictures(tracked):
    files = [path for path in (tracked / "trackio").rglob("*") if path.is_file()]
    content = b"".join(path.read_bytes() for path in files if ".db" in path.name)
    assert all(f"{name}/{pair}".encode() in content for name in OF_PAIRS for pair in PAIRS)
    assert [path for path in files if path.suffix == ".png"]


def test_pictures_want_an_extra(monkeypatch):
    arguments = ["--dataset", "a", "--output_dir", "b", "--eval_steps", "0", "--trackers", "[tensorboard]"]
    check_config(parse_config(arguments))
    monkeypatch.setattr(checks, "find_spec", lambda name: None if name == "matplotlib" else name)
    with pytest.raises(UserError, match=r"Pictures need the extra eval .*--picture_steps 0"):
        check_config(parse_config(arguments))
    check_config(parse_config([*arguments, "--picture_steps", "0"]))
    with pytest.raises(UserError, match=r"'colour' is not installed or unknown; .*fgmm\[trackers\]"):
        check_config(parse_config([*arguments[:-1], "[colour]"]))


def test_a_run_without_trackers_is_not_watched(narrated, pretrain_here, tmp_path, monkeypatch):
    logged = []
    monkeypatch.setattr(Accelerator, "log", lambda self, values, step: logged.append(values))
    pretrain_here(narrated, tmp_path, max_steps=2, picture_steps=1)
    assert "loss/text_video" not in logged[-1] and not (tmp_path / "attention").exists()
