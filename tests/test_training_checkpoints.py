import json
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel, AutoProcessor

from fgmm_tools.cli import UserError
from fgmm_tools.training.checkpoints import Progress, read_progress


def test_each_process_has_its_own_progress(tmp_path):
    cost = {"seconds": 2.5, "core_seconds": 4.0, "operations_per_step": 6}
    saved = {"step": 7, "streams": [[0, 3], [1, 4]], "cost": cost}
    (tmp_path / "progress.json").write_text(json.dumps(saved))
    second = SimpleNamespace(num_processes=2, process_index=1)
    assert read_progress(tmp_path, second) == Progress(step=7, epoch=1, position=4, **cost)
    with pytest.raises(UserError, match="written by 2 processes; start as many"):
        read_progress(tmp_path, SimpleNamespace(num_processes=3, process_index=0))


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


def test_the_model_folder_loads_with_auto_classes(trained):
    folder, _ = trained
    model, processor = AutoModel.from_pretrained(folder), AutoProcessor.from_pretrained(folder)
    outputs = model.eval()(**processor(text=["a red circle"]))
    assert outputs.text_embeds.shape == (1, 16) and processor.clip_seconds == 5.0
    record = json.loads((folder / "training.json").read_text())
    assert record["clips_seen"] == 24 * 8 and record["seed"] == 0 and record["seconds"] > 0
