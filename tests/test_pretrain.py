import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from helpers import ROOT, training_arguments, write_corpus, write_video
from safetensors.torch import load_file
from transformers import AutoModel, AutoProcessor

from fgmm_tools.cli import UserError
from fgmm_tools.corpora.narrated import render_corpus
from fgmm_tools.training import setup
from fgmm_tools.training.configuration import parse_config
from modeling_fgmm import FgmmModel
from processing_fgmm.corpora_fgmm import CorpusError


def test_loss_falls(trained):
    losses = [values["loss"] for values in trained[1] if "loss" in values]
    assert len(losses) == 12 and sum(losses[-3:]) < sum(losses[:3]) - 0.3


def test_evaluations_are_logged(trained):
    scores = [values for values in trained[1] if "text_to_video/R@10" in values]
    assert len(scores) == 2 and all(values["text_to_video/num_items"] == 8 for values in scores)


def test_every_weight_moved(trained):
    folder, _ = trained
    config = parse_config(["--config", str(folder / "pretrain.yaml")])
    set_seed(config.seed)
    start = dict(setup.make_model(config, AutoProcessor.from_pretrained(folder)).named_parameters())
    trained_weights = AutoModel.from_pretrained(folder).named_parameters()
    moves = {name: (weight - start[name]).abs().max().item() for name, weight in trained_weights}
    assert [name for name, move in moves.items() if move == 0] == []
    # From the very weights that this seed begins with: in 24 steps AdamW moves none of them far.
    assert max(moves.values()) < 0.2


def test_a_killed_run_resumes_from_its_last_whole_checkpoint(trained, narrated, pretrain_here, tmp_path):
    fields = {"max_steps": 24, "save_steps": 2, "save_total_limit": 3}
    command = [sys.executable, str(ROOT / "scripts/pretrain.py"), *training_arguments(narrated, tmp_path, **fields)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    with open(tmp_path / "run.log", "w") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    deadline = time.monotonic() + 240
    while not (tmp_path / "checkpoints" / "step-0000004").exists() and time.monotonic() < deadline:
        assert process.poll() is None, (tmp_path / "run.log").read_text()
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "model.safetensors").exists()
    pretrain_here(narrated, tmp_path, **fields, resume_from="latest")
    whole, resumed = (load_file(path / "model.safetensors") for path in (trained[0], tmp_path))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert names == ["step-0000020", "step-0000022", "step-0000024"]  # what was half written is whole or gone


@pytest.mark.parametrize(
    "fields,named",
    [
        ({"batch_size": 64}, "32 clips in its split 'train', fewer than batch_size 64"),
        ({"model.video_config": "{depths: [9]}"}, "depths"),
        ({"resume_from": "nowhere"}, "not a checkpoint"),
        ({"train_split": "training"}, "training"),
        ({"eval_split": "training", "eval_steps": 1}, "no split 'training', only train, test"),
        ({"model.projection_dim": 0}, "cannot encode a clip with these settings"),
        ({"model.audio_config.embedding_size": -3}, "model of this configuration cannot be made"),
        ({"video_processor": "{num_frames: 2.5}"}, "processor cannot make inputs with these settings"),
        ({"video_processor": "{size: {shortest_edge: 0}}"}, "processor cannot make inputs with these settings"),
        ({"feature_extractor": "{hop_length: 0}"}, "processor cannot make inputs with these settings"),
        ({"feature_extractor": "{feature_size: 0}"}, "cannot encode a clip with these settings"),
    ],
)
def test_errors_come_before_the_first_step(narrated, pretrain_here, tmp_path, fields, named):
    with pytest.raises((UserError, CorpusError)) as caught:
        pretrain_here(narrated, tmp_path, max_steps=2, **fields)
    assert named in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "checkpoints").exists()


def test_trackers_write_down_loss_and_speed(narrated, pretrain_here, tmp_path):
    pretrain_here(narrated, tmp_path, max_steps=2, trackers="[tensorboard]")
    events = b"".join(path.read_bytes() for path in tmp_path.rglob("events.out.tfevents.*"))
    assert b"loss" in events and b"clips_per_s" in events and b"learning_rate" in events


def test_training_goes_on_without_clips_that_cannot_be_decoded_until_they_are_too_many(pretrain_here, tmp_path, capsys):
    data = write_video(tmp_path / "a.mp4", seconds=1, sound=1.0).read_bytes()
    caption = {"text": "a red ball", "start": 0.0, "end": 1.0}
    rows = [
        {"video_id": str(n), "video": {"bytes": data if n % 2 else b"broken", "path": None}, "captions": [caption]}
        for n in range(40)
    ]
    corpus = write_corpus(tmp_path / "corpus", rows)
    with pytest.raises(UserError, match="more than max_failed_share"):
        pretrain_here(corpus, tmp_path / "out", max_steps=30)
    assert not (tmp_path / "out" / "model.safetensors").exists()
    pretrain_here(corpus, tmp_path / "out", max_steps=2, max_failed_share=0.6)
    assert (tmp_path / "out" / "model.safetensors").exists()
    assert "could not be decoded" in capsys.readouterr().out


def test_a_step_without_a_loss_leaves_the_weights_and_statistics_as_they_are(
    narrated, pretrain_here, tmp_path, monkeypatch, capsys
):
    contrast, steps = FgmmModel.contrast, []

    def fail(model, outputs):
        steps.append({name: value.clone() for name, value in model.state_dict().items()})
        loss = contrast(model, outputs)
        if len(steps) == 2:
            for module in model.modules():
                if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
                    module.running_mean.data.fill_(float("nan"))
            return loss * float("nan")
        return loss

    monkeypatch.setattr(FgmmModel, "contrast", fail)
    pretrain_here(narrated, tmp_path, max_steps=3)
    [line] = (tmp_path / "skipped_steps.jsonl").read_text().splitlines()
    assert json.loads(line)["step"] == 2 and len(json.loads(line)["video_ids"]) == 8
    assert "The loss is not a number at step 2, of the clips 'train-" in capsys.readouterr().out
    weights = load_file(tmp_path / "model.safetensors")
    assert all(torch.isfinite(value).all() for value in weights.values())
    parameters = {name for name in steps[1] if "running" not in name and "num_batches" not in name}
    assert all(torch.equal(steps[1][name], steps[2][name]) for name in parameters)
    steps.clear()
    with pytest.raises(UserError, match=r"not a number at step 2, of the clips .* Remove them if they are wrong, or"):
        pretrain_here(narrated, tmp_path / "strict", max_steps=3, max_skipped_steps=0)


def test_several_corpora_are_counted_and_measured_apart(narrated, pretrain_here, tmp_path, monkeypatch):
    logged = []
    monkeypatch.setattr(Accelerator, "log", lambda self, values, step: logged.append(values))
    render_corpus(tmp_path / "second", num_train=8, num_test=1, noise=0.0, seed=1, num_proc=1)
    corpora = f"[{{dataset: {narrated}, weight: 3}}, {{dataset: {tmp_path / 'second'}}}]"
    pretrain_here("", tmp_path / "out", datasets=corpora, max_steps=6, gradient_accumulation_steps=2)
    last = logged[-1]
    assert last["clips/corpus"] + last["clips/second"] == 6 * 2 * 8
    assert 0 < last["clips/second"] < last["clips/corpus"]
    assert last["loss/corpus"] > 0 and 0 <= last["data_wait"] <= 1
    pretrain_here("", tmp_path / "plain", datasets=corpora, max_steps=6)
    assert "loss/corpus" in logged[-1]


def test_accumulated_batches_stand_in_one_contrast(narrated, pretrain_here, tmp_path, monkeypatch):
    """Two batches of four clips, encoded three at a time, are contrasted as eight."""
    sizes = []
    contrast = FgmmModel.contrast
    monkeypatch.setattr(
        FgmmModel, "contrast", lambda self, outputs: sizes.append(len(outputs["video"][0])) or contrast(self, outputs)
    )
    fields = {"batch_size": 4, "gradient_accumulation_steps": 2, "encoder_chunk_size": 3, "max_steps": 3}
    pretrain_here(narrated, tmp_path, **fields)
    assert sizes == [8, 8, 8]
    assert json.loads((tmp_path / "training.json").read_text())["clips_seen"] == 24
    progress = json.loads((tmp_path / "checkpoints/step-0000003/progress.json").read_text())
    assert progress["stream"] == {"number": 24, "positions": [[0, 24]]}
