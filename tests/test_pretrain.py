import json
import os
import signal
import subprocess
import sys
import time

import pretrain
import pytest
import torch
from helpers import ROOT, write_video
from safetensors.torch import load_file
from transformers import AutoModel, AutoProcessor

from fgmm_tools.cli import UserError
from fgmm_tools.corpora.parquet_shards import corpus_features, write_shard
from fgmm_tools.training import configuration, setup

TINY = {
    "model.projection_dim": 16,
    "model.video_config": "{width_multiplier: 0.125, depths: [1, 1]}",
    "model.audio_config": "{embedding_size: 8, hidden_sizes: [8, 16], depths: [1, 1]}",
    "model.text_config": "{hidden_size: 32, intermediate_size: 64}",
    "video_processor": "{num_frames: 4, size: {shortest_edge: 32}, crop_size: {height: 32, width: 32}}",
    "feature_extractor": "{feature_size: 32, hop_length: 640}",
    "clip_seconds": 5.0,
    "batch_size": 8,
    "num_workers": 0,
    "warmup_steps": 2,
    "learning_rate": "3e-3",
    "log_steps": 2,
    "eval_steps": 0,
    "save_steps": 0,
}


def arguments(dataset, output, **options):
    values = {**TINY, "dataset": dataset, "output_dir": output, **options}
    return [part for name, value in values.items() for part in (f"--{name}", str(value))]


def pretrain_here(dataset, output, **options):
    pretrain.train(configuration.parse_config(arguments(dataset, output, **options)))


def script(*arguments):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": str(torch.get_num_threads())}
    return [sys.executable, str(ROOT / "scripts" / "pretrain.py"), *arguments], environment


@pytest.fixture(scope="module")
def trained(narrated, tmp_path_factory):
    """A run of 24 steps with checkpoints at 8, 16 and 24, and its losses."""
    folder = tmp_path_factory.mktemp("trained") / "model"
    losses = []
    log = pretrain.Accelerator.log
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            pretrain.Accelerator, "log", lambda self, values, step: losses.append(values) or log(self, values, step)
        )
        pretrain_here(narrated, folder, max_steps=24, save_steps=8, save_total_limit=3, eval_steps=24)
    return folder, losses


def test_loss_falls(trained):
    losses = [values["loss"] for values in trained[1] if "loss" in values]
    assert len(losses) == 12 and sum(losses[-3:]) < sum(losses[:3]) - 0.3


def test_periodic_evaluation_is_logged(trained):
    scores = [values for values in trained[1] if "text_to_video/R@10" in values]
    assert len(scores) == 1 and scores[0]["text_to_video/num_items"] == 8


def test_every_weight_moved(trained):
    folder, _ = trained
    config = configuration.parse_config(["--config", str(folder / "pretrain.yaml")])
    pretrain.set_seed(config.seed)
    start = dict(setup.make_model(config, AutoProcessor.from_pretrained(folder)).named_parameters())
    trained_weights = AutoModel.from_pretrained(folder).named_parameters()
    moves = {name: (weight - start[name]).abs().max().item() for name, weight in trained_weights}
    assert [name for name, move in moves.items() if move == 0] == []
    # From the very weights that this seed begins with: in 24 steps AdamW moves none of them far.
    assert max(moves.values()) < 0.2


def test_folder_loads_with_auto_classes(trained):
    folder, _ = trained
    model, processor = AutoModel.from_pretrained(folder), AutoProcessor.from_pretrained(folder)
    outputs = model.eval()(**processor(text=["a red circle"]))
    assert outputs.text_embeds.shape == (1, 16) and processor.clip_seconds == 5.0
    record = json.loads((folder / "training.json").read_text())
    assert record["clips_seen"] == 24 * 8 and record["seed"] == 0 and record["seconds"] > 0


def test_resuming_equals_not_having_stopped(trained, narrated, tmp_path):
    folder, _ = trained
    checkpoint = folder / "checkpoints" / "step-0000008"
    pretrain_here(narrated, tmp_path / "resumed", max_steps=24, num_workers=1, resume_from=checkpoint)
    whole, resumed = (load_file(path / "model.safetensors") for path in (folder, tmp_path / "resumed"))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_killed_run_goes_on_from_its_last_whole_checkpoint(trained, narrated, tmp_path):
    folder, _ = trained
    output = tmp_path / "killed"
    options = {"max_steps": 24, "save_steps": 2, "save_total_limit": 3}
    command, environment = script(*arguments(narrated, output, **options))
    with open(tmp_path / "log", "w") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    deadline = time.monotonic() + 240
    while not (output / "checkpoints" / "step-0000004").exists() and time.monotonic() < deadline:
        assert process.poll() is None, (tmp_path / "log").read_text()
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (output / "model.safetensors").exists()
    pretrain_here(narrated, output, **options, resume_from="latest")
    whole, resumed = (load_file(path / "model.safetensors") for path in (folder, output))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert not list((output / "checkpoints").glob("*.partial")) or (output / "model.safetensors").exists()


def test_old_checkpoints_are_removed(trained):
    names = sorted(path.name for path in (trained[0] / "checkpoints").iterdir())
    assert names == ["step-0000008", "step-0000016", "step-0000024"]


@pytest.mark.parametrize(
    "options,named",
    [
        ({"learning_rat": 1}, "did you mean 'learning_rate'"),
        ({"max_steps": "many"}, "max_steps"),
        ({"batch_size": 1}, "at least 2"),
        ({"max_steps": 0}, "max_steps"),
        ({"mixed_precision": "fp8"}, "mixed_precision"),
        ({"min_crop_area": 0}, "min_crop_area"),
        ({"model.projection_dims": 8}, "did you mean 'projection_dim'"),
        ({"model.video_config": "{width: 2}"}, "'model.video_config.width'"),
        ({"video_processor": "{frames: 2}"}, "'video_processor.frames'"),
        ({"model": "small"}, "'model' must hold"),
        ({"trackers": "[wandbx]"}, "'wandbx'"),
        ({"config": "nowhere.yaml"}, "nowhere.yaml"),
    ],
)
def test_configuration_errors_are_one_sentence(options, named):
    with pytest.raises(UserError) as caught:
        configuration.parse_config(arguments("corpus", "out", **options))
    assert named in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "options,named",
    [
        ({"batch_size": 64}, "32 clips, fewer than batch_size 64"),
        ({"model.video_config": "{depths: [9]}"}, "depths"),
        ({"resume_from": "nowhere"}, "not a checkpoint"),
        ({"train_split": "training"}, "training"),
        ({"output": "/proc/nothing"}, "/proc/nothing"),
    ],
)
def test_errors_come_before_the_first_step(narrated, tmp_path, options, named):
    with pytest.raises((UserError, pretrain.CorpusError)) as caught:
        pretrain_here(narrated, **{"output": tmp_path / "out", "max_steps": 2, **options})
    assert named in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "out" / "model.safetensors").exists()


def write_corpus(folder, rows):
    (folder / "data").mkdir(parents=True)
    write_shard(folder / "data" / "train-00000-of-00001.parquet", rows, corpus_features("video"))
    return folder


def row(name, data, text="a red ball"):
    caption = {"text": text, "start": 0.0, "end": 1.0}
    return {"video_id": name, "video": {"bytes": data, "path": None}, "captions": [caption]}


def test_trackers_write_down_loss_and_speed(narrated, tmp_path):
    pretrain_here(narrated, tmp_path / "out", max_steps=2, trackers="[tensorboard]")
    events = b"".join(path.read_bytes() for path in (tmp_path / "out").rglob("events.out.tfevents.*"))
    assert b"loss" in events and b"clips_per_s" in events and b"learning_rate" in events


def test_corpus_without_captions_is_refused(tmp_path):
    corpus = write_corpus(tmp_path / "corpus", [row(str(index), b"x", " ") for index in range(8)])
    with pytest.raises(UserError, match="no caption anywhere"):
        pretrain_here(corpus, tmp_path / "out")


def test_training_stops_when_too_many_clips_fail(tmp_path):
    data = write_video(tmp_path / "a.mp4", seconds=1, sound=1.0).read_bytes()
    rows = [row(str(index), data if index % 2 else b"broken") for index in range(40)]
    corpus = write_corpus(tmp_path / "corpus", rows)
    with pytest.raises(UserError, match="more than max_failed_share"):
        pretrain_here(corpus, tmp_path / "out", max_steps=30)
    pretrain_here(corpus, tmp_path / "out", max_steps=2, max_failed_share=0.6)
    assert (tmp_path / "out" / "model.safetensors").exists()


def test_command_line_ends_in_one_sentence(narrated, tmp_path):
    command, environment = script(*arguments(tmp_path / "nowhere", tmp_path / "out"))
    answer = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert answer.returncode == 1 and "nowhere" in answer.stderr
    assert "Traceback" not in answer.stderr and len(answer.stderr.strip().splitlines()) == 1


def test_a_dataset_must_be_named():
    with pytest.raises(UserError, match="'dataset' is not set"):
        configuration.parse_config(["--output_dir", "out"])


def test_values_from_file_and_command_line(tmp_path):
    (tmp_path / "c.yaml").write_text(
        "dataset: a\noutput_dir: b\nlearning_rate: 1e-3\nmixed_precision: no\nmodel: {projection_dim: 8}\n"
    )
    config = configuration.parse_config(
        ["--config", str(tmp_path / "c.yaml"), "--seed=3", "--model.projection_dim", "9"]
    )
    assert (config.learning_rate, config.mixed_precision, config.seed) == (1e-3, "no", 3)
    assert config.model == {"projection_dim": 9}


@pytest.mark.parametrize("name", ["fgmm-tiny", "fgmm-small", "flickr8k", "grid"])
def test_shipped_configurations_are_valid(name, tokenizer):
    config = configuration.parse_config(["--config", str(ROOT / "scripts" / "configs" / f"{name}.yaml")])
    processor = setup.FgmmProcessor(
        setup.FgmmVideoProcessor(**config.video_processor),
        setup.FgmmFeatureExtractor(**config.feature_extractor),
        tokenizer,
    )
    with torch.device("meta"):
        model = setup.make_model(config, processor)
    assert set(model.encoders) == set(model.config.modalities)


def test_going_on_from_a_model_takes_its_encoders_and_words_but_not_its_objective(trained, narrated, tmp_path):
    """With a learning rate of next to nothing, and without any of the first run's model fields."""
    source, folder = trained[0], tmp_path / "more"
    fields = {name: value for name, value in TINY.items() if not name.startswith("model.")}
    words = [part for name, value in fields.items() for part in (f"--{name}", str(value))]
    command = ["--dataset", str(narrated), "--output_dir", str(folder), "--init_from", str(source), "--max_steps", "1"]
    changes = ["--learning_rate", "1e-9", "--model.learnable_sharpness", "false", "--model.sharpness_init_value", "3"]
    pretrain.train(configuration.parse_config([*words, *command, *changes]))
    before, after = load_file(source / "model.safetensors"), load_file(folder / "model.safetensors")
    encoders = [name for name in after if not name.startswith("objectives.")]
    weights = [name for name in encoders if "running" not in name and "num_batches" not in name]
    assert all(torch.allclose(after[name], before[name], atol=1e-6) for name in weights) and len(weights) > 90
    assert after["objectives.text_video.log_sharpness"].exp().item() == pytest.approx(3)
    assert before["objectives.text_video.log_sharpness"].exp().item() != pytest.approx(3, abs=0.5)
    tokenizers = [AutoProcessor.from_pretrained(model).tokenizer.get_vocab() for model in (source, folder)]
    assert tokenizers[0] == tokenizers[1]
    with pytest.raises(UserError, match=r"projections\.video\.weight of the model .* asks for"):
        pretrain.train(configuration.parse_config([*words, *command, "--model.projection_dim", "8"]))
    (tmp_path / "other").mkdir()
    (tmp_path / "other/config.json").write_text('{"model_type": "bert"}')
    command[command.index("--init_from") + 1] = str(tmp_path / "other")
    with pytest.raises(UserError, match="is of type 'bert', not fgmm"):
        pretrain.train(configuration.parse_config([*words, "--tokenizer", str(source), *command]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"init_from": "/nowhere"}, "'/nowhere' could not be loaded"),
        ({"encoder_chunk_size": -1}, "encoder_chunk_size is -1"),
        ({"gradient_accumulation_steps": 0}, "gradient_accumulation_steps is 0"),
        ({"model.objective": "clip"}, "objective='clip' is none of"),
        ({"model.contrast_unit": "phrase", "model.attention_direction": "both"}, "contrast_unit='phrase' needs"),
    ],
)
def test_wrong_training_options_are_named(narrated, tmp_path, options, message):
    with pytest.raises(UserError, match=message):
        pretrain_here(narrated, tmp_path / "model", **options)


def test_accumulated_batches_stand_in_one_contrast(narrated, tmp_path, monkeypatch):
    """Two batches of four clips, encoded three at a time, are contrasted as eight."""
    sizes = []
    contrast = setup.FgmmModel.contrast
    monkeypatch.setattr(
        setup.FgmmModel,
        "contrast",
        lambda self, outputs: sizes.append(len(outputs["video"][0])) or contrast(self, outputs),
    )
    options = {"batch_size": 4, "gradient_accumulation_steps": 2, "encoder_chunk_size": 3, "max_steps": 3}
    pretrain_here(narrated, tmp_path / "model", **options)
    assert sizes == [8, 8, 8]
    assert json.loads((tmp_path / "model/training.json").read_text())["clips_seen"] == 24
    progress = json.loads((tmp_path / "model/checkpoints/step-0000003/progress.json").read_text())
    assert progress["streams"] == [[0, 6]]
