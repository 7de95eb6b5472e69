import errno
import json
import shutil

import pytest
import torch
import yaml
from accelerate import Accelerator
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers import AutoModel, AutoProcessor

from fgmm_tools.cli import UserError
from fgmm_tools.training.checkpoints import Progress, read_progress
from fgmm_tools.training.manifest import write_manifest
from processing_fgmm import FgmmProcessor
from processing_fgmm.orders_fgmm import StreamState


def test_progress_is_that_of_all_processes(tmp_path):
    cost = {"seconds": 2.5, "core_seconds": 4.0, "operations_per_step": 6}
    stream = {"number": 30, "positions": [[0, 9], [1, 4]]}
    (tmp_path / "progress.json").write_text(json.dumps({"step": 7, "stream": stream, "processes": 2, "cost": cost}))
    assert read_progress(tmp_path) == Progress(step=7, stream=StreamState(30, ((0, 9), (1, 4))), **cost)


def test_old_checkpoints_are_removed(narrated, pretrain_here, tmp_path):
    pretrain_here(narrated, tmp_path, max_steps=3, save_steps=1, save_total_limit=2)
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["step-0000002", "step-0000003"]


@pytest.mark.parametrize("num_workers", [0, 1])
def test_resuming_equals_not_having_stopped(trained, narrated, pretrain_here, tmp_path, num_workers):
    """Also of dropout's random numbers, though the run that was not stopped has evaluated in between."""
    folder, _ = trained
    checkpoint = folder / "checkpoints" / "step-0000008"
    pretrain_here(narrated, tmp_path, max_steps=24, num_workers=num_workers, resume_from=checkpoint)
    whole, resumed = (load_file(path / "model.safetensors") for path in (folder, tmp_path))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    earlier = json.loads((checkpoint / "progress.json").read_text())["cost"]
    whole, resumed = (json.loads((path / "training.json").read_text()) for path in (folder, tmp_path))
    for name in ("seconds", "core_seconds"):
        assert resumed[name] > round(earlier[name], 1) > 0
    assert resumed["operations"] == whole["operations"] == 24 * earlier["operations_per_step"] > 0


FULL = OSError(errno.ENOSPC, "No space left on device")
TORCH_WRITE_FAILED = RuntimeError("[enforce fail at inline_container.cc:664] . unexpected pos 704 vs 598")


@pytest.mark.parametrize("error", [FULL, TORCH_WRITE_FAILED, SafetensorError("I/O error: No space left (os error 28)")])
def test_a_checkpoint_that_cannot_be_written_leaves_the_earlier_ones(
    narrated, pretrain_here, tmp_path, monkeypatch, error
):
    save = Accelerator.save_state

    def fill_disk(accelerator, folder):
        save(accelerator, folder)
        if "step-0000004" in folder:
            raise error

    monkeypatch.setattr(Accelerator, "save_state", fill_disk)
    message = (
        r"step-0000004 could not be written \(.*; \d+ MB are free\); make room and continue by --resume_from latest"
    )
    with pytest.raises(UserError, match=message):
        pretrain_here(narrated, tmp_path, max_steps=6, save_steps=2)
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoints", "pretrain.yaml"}
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-0000002"]


def test_errors_that_are_none_of_the_disk_stay_what_they_are(narrated, pretrain_here, tmp_path, monkeypatch):
    def fail(*arguments):
        raise RuntimeError("shapes differ")

    monkeypatch.setattr(Accelerator, "save_state", fail)
    with pytest.raises(RuntimeError, match="shapes differ"):
        pretrain_here(narrated, tmp_path, max_steps=1)


def test_a_model_that_cannot_be_written_leaves_the_folder_as_it_was(narrated, pretrain_here, tmp_path, monkeypatch):
    def fill_disk(*arguments):
        raise FULL

    monkeypatch.setattr(FgmmProcessor, "save_pretrained", fill_disk)
    with pytest.raises(UserError, match=r"/model could not be written \(.*No space left on device"):
        pretrain_here(narrated, tmp_path, max_steps=2)
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoints", "pretrain.yaml"}
    monkeypatch.undo()
    pretrain_here(narrated, tmp_path, max_steps=2, resume_from="latest")
    assert AutoModel.from_pretrained(tmp_path).config.projection_dim == 16


def test_a_damaged_checkpoint_is_named(trained, narrated, pretrain_here, tmp_path):
    checkpoint = shutil.copytree(trained[0] / "checkpoints" / "step-0000008", tmp_path / "step-0000008")
    (checkpoint / "optimizer.bin").write_bytes(b"half")
    with pytest.raises(
        UserError, match=r"step-0000008 is damaged: its optimizer.bin has 4 bytes, not \d+; resume from"
    ):
        pretrain_here(narrated, tmp_path / "out", max_steps=24, resume_from=checkpoint)


def test_the_latest_checkpoint_that_is_not_damaged_is_resumed_from(trained, narrated, pretrain_here, tmp_path, capsys):
    shutil.copytree(trained[0] / "checkpoints", tmp_path / "checkpoints")
    weights = tmp_path / "checkpoints" / "step-0000024" / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    (tmp_path / "checkpoints" / "step-0000016" / "random_states_0.pkl").unlink()
    pretrain_here(narrated, tmp_path, max_steps=24, resume_from="latest")
    printed = capsys.readouterr()
    assert "step-0000024 is damaged: its model.safetensors has been changed. It is left out." in printed.err
    assert "step-0000016 is damaged: its random_states_0.pkl is missing." in printed.err
    assert "step-0000008 at step 8" in printed.out
    whole, resumed = (load_file(path / "model.safetensors") for path in (trained[0], tmp_path))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_without_a_whole_checkpoint_no_run_is_resumed(trained, narrated, pretrain_here, tmp_path):
    shutil.copytree(trained[0] / "checkpoints" / "step-0000008", tmp_path / "checkpoints" / "step-0000008")
    (tmp_path / "checkpoints" / "step-0000008" / "files.json").unlink()
    with pytest.raises(UserError, match=r"All checkpoints in .* are damaged"):
        pretrain_here(narrated, tmp_path, max_steps=24, resume_from="latest")


class Payload:
    """What writes a file where it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize("name", ["optimizer.bin", "random_states_0.pkl"])
def test_nothing_in_a_checkpoint_is_executed(trained, narrated, pretrain_here, tmp_path, name):
    checkpoint = shutil.copytree(trained[0] / "checkpoints" / "step-0000008", tmp_path / "step-0000008")
    assert not list(checkpoint.glob("custom_checkpoint_*"))  # accelerate loads these by pickle
    torch.save(Payload(tmp_path / "executed"), checkpoint / name)
    write_manifest(checkpoint)
    with pytest.raises(UserError, match="step-0000008 cannot be loaded"):
        pretrain_here(narrated, tmp_path / "out", max_steps=24, resume_from=checkpoint)
    assert not (tmp_path / "executed").exists()


def test_more_steps_on_resuming_are_taken_over_and_recorded(trained, narrated, pretrain_here, tmp_path, capsys):
    checkpoint = trained[0] / "checkpoints" / "step-0000008"
    with pytest.raises(UserError, match="step-0000008 is of another run: seed was 0 and is 1"):
        pretrain_here(narrated, tmp_path, max_steps=24, seed=1, resume_from=checkpoint)
    pretrain_here(narrated, tmp_path, max_steps=10, resume_from=checkpoint)
    assert "max_steps was 24 and is 10: the learning rate is that of a run of 10 steps" in capsys.readouterr().out
    change = {"step": 8, "field": "max_steps", "old": 24, "new": 10}
    assert json.loads((tmp_path / "training.json").read_text())["changes"] == [change]
    assert yaml.safe_load((tmp_path / "pretrain.yaml").read_text())["max_steps"] == 10
    state = torch.load(tmp_path / "checkpoints/step-0000010/optimizer.bin")
    assert state["param_groups"][0]["lr"] == pytest.approx(0, abs=1e-9)  # the end of the new schedule


def test_the_model_folder_loads_with_auto_classes(trained):
    folder, _ = trained
    model, processor = AutoModel.from_pretrained(folder), AutoProcessor.from_pretrained(folder)
    outputs = model.eval()(**processor(text=["a red circle"]))
    assert outputs.text_embeds.shape == (1, 16) and processor.clip_seconds == 5.0
    record = json.loads((folder / "training.json").read_text())
    assert record["clips_seen"] == 24 * 8 and record["seed"] == 0 and record["seconds"] > 0
