"""Commands on a dual encoder by its name: evaluation as it is, and training that goes on from it."""

import json

import check_dual_encoder
import evaluate_classification
import evaluate_retrieval
import numpy as np
import pretrain
import pytest
import torch
from datasets import ClassLabel
from helpers import encode_sound, run_main, write_labelled_corpus, write_sound
from safetensors.torch import load_file
from tiny_dual_encoders import CONFIGS, LOGIT_SCALE, WITH_SOUNDS, make_images
from transformers import AutoModel, AutoProcessor

from fgmm_tools.classification.evaluation import PROMPTS
from fgmm_tools.cli import UserError
from fgmm_tools.models import load_model
from fgmm_tools.training.configuration import parse_config
from modeling_fgmm import FgmmModel


@pytest.mark.parametrize("name", CONFIGS)
def test_a_published_model_is_compared_on_files(dual_at, name, tmp_path, monkeypatch, capsys):
    if name in WITH_SOUNDS:
        files = ["--audio", *(write_sound(tmp_path / f"{pitch}.wav", 0.5, pitch) for pitch in (440, 900))]
    else:
        files = ["--images"]
        for row, image in enumerate(make_images()):
            image.save(tmp_path / f"{row}.png")
            files.append(tmp_path / f"{row}.png")
    run_main(monkeypatch, check_dual_encoder, dual_at[name], *files, "--text", "two eggs", "a small dog")
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "Equal to transformers within 1e-05."
    names = [line.split()[1] for line in lines[:-1] if line.startswith(("images", "sounds"))]
    assert names == (["cosines", "logits"] if name == "pe_audio" else ["embeddings", "texts", "cosines", "logits"])


def test_a_model_that_differs_is_named(dual_at, small_model, tmp_path, monkeypatch):
    make_images()[0].save(tmp_path / "0.png")
    with pytest.raises(UserError, match="is an fgmm model"):
        run_main(monkeypatch, check_dual_encoder, small_model, "--images", tmp_path / "0.png")
    load = FgmmModel.from_dual_encoder

    def load_wrongly(*args, **options):
        model = load(*args, **options)
        model.projections["text"].weight.data[0] += 0.01
        return model

    monkeypatch.setattr(FgmmModel, "from_dual_encoder", load_wrongly)
    with pytest.raises(UserError, match="differs from transformers by"):
        run_main(monkeypatch, check_dual_encoder, dual_at["clip"], "--images", tmp_path / "0.png")
    with pytest.raises(UserError, match="has no encoder of sounds"):
        run_main(monkeypatch, check_dual_encoder, dual_at["clip"], "--audio", tmp_path / "0.wav")


def test_retrieval_by_name_ranks_as_transformers(dual_at, narrated, tmp_path, monkeypatch):
    output = tmp_path / "results.json"
    words = ["--model", dual_at["clip"], "--dataset", narrated, "--num_workers", "0", "--output", output]
    run_main(monkeypatch, evaluate_retrieval, *words)
    record = json.loads(output.read_text())
    assert set(record["metrics"]) == {"text_to_video", "video_to_text"} and record["training"] is None
    run_main(monkeypatch, evaluate_retrieval, *words, "--score", "coarse")
    assert json.loads(output.read_text())["metrics"] == record["metrics"]  # it trains pooled embeddings
    run_main(monkeypatch, evaluate_retrieval, *words, "--score", "fine")
    assert json.loads(output.read_text())["metrics"] != record["metrics"]


@pytest.fixture
def tones(tmp_path):
    """A corpus of sounds of three pitches."""
    generator = np.random.default_rng(0)
    rows = [
        {
            "video_id": f"{label}-{index}",
            "audio": {"bytes": encode_sound(300 * (1 + label), 0.5, generator), "path": None},
            "captions": [],
            "label": label,
        }
        for index in range(4)
        for label in range(3)
    ]
    configs = {"default": {"train": ["train"], "test": ["test"]}}
    return write_labelled_corpus(
        tmp_path / "tones",
        {"train": rows[:6], "test": rows[6:]},
        configs,
        label=ClassLabel(names=["low", "middle", "high"]),
    )


def test_zero_shot_classification_has_the_usual_templates(dual_at, tones, tmp_path, monkeypatch):
    output = tmp_path / "results.json"
    words = ["--model", dual_at["clap"], "--dataset", tones, "--protocol", "zero_shot"]
    run_main(monkeypatch, evaluate_classification, *words, "--num_workers", "0", "--output", output)
    record = json.loads(output.read_text())
    assert PROMPTS["audio"][0] in record["protocol"] and record["metrics"]["num_clips"] == 6


def test_a_dual_encoder_is_fine_tuned_to_classify(dual_at, tones, monkeypatch, capsys):
    words = ["--model", dual_at["clap"], "--dataset", tones, "--protocol", "finetune", "--epochs", "1"]
    run_main(monkeypatch, evaluate_classification, *words, "--num_workers", "0", "--num_windows", "1")
    assert "mean" in capsys.readouterr().out


# Training


def train(narrated, output, start, **fields):
    options = {"dataset": narrated, "output_dir": output, "init_from": start, "clip_seconds": 2.0, "batch_size": 8}
    options |= {"num_workers": 0, "warmup_steps": 1, "max_steps": 2, "eval_clips": 4, "learning_rate": 0.01, **fields}
    words = [part for name, value in options.items() for part in (f"--{name}", str(value))]
    pretrain.main(parse_config([*words, "--video_processor.num_frames", "2"]))
    return load_file(output / "model.safetensors")


def towers(state: dict) -> dict[str, torch.Tensor]:
    return {key: value for key, value in state.items() if key.startswith("encoders.")}


def equal(first: dict, second: dict) -> bool:
    return first.keys() == second.keys() and all(torch.equal(value, second[key]) for key, value in first.items())


def test_training_goes_on_from_a_dual_encoder_with_frozen_towers(dual_at, narrated, tmp_path):
    start = FgmmModel.from_dual_encoder(dual_at["clip"], objective="fine").state_dict()
    trained = train(narrated, tmp_path / "model", dual_at["clip"], **{"model.frozen": "[video, text]"})
    assert equal(towers(trained), towers(start))
    assert not torch.equal(trained["projections.text.weight"], start["projections.text.weight"])
    model, processor = load_model(str(tmp_path / "model"))
    assert model.config.dual_encoder == "clip" and model.config.objective == "fine"
    assert model.objectives["text_video"].coarse_logit_scale.item() == pytest.approx(LOGIT_SCALE, abs=0.1)
    assert model.objectives["text_video"].logit_scale.item() == pytest.approx(2.66, abs=0.1)
    assert processor.video_processor.num_frames == 2 and processor.video_processor.resize_backend == "pillow"


def test_adapters_are_trained_resumed_and_merged(dual_at, narrated, tmp_path):
    fields = {"lora_rank": 2, "save_steps": 1, "max_steps": 2}
    start = FgmmModel.from_dual_encoder(dual_at["siglip"], objective="fine").state_dict()
    whole = train(narrated, tmp_path / "whole", dual_at["siglip"], **fields)
    assert whole.keys() == start.keys()  # as without adapters
    changed = {key for key, value in towers(whole).items() if not torch.equal(value, start[key])}
    assert changed and all(start[key].ndim == 2 for key in changed)
    checkpoint = tmp_path / "whole" / "checkpoints" / "step-0000001"
    resumed = train(narrated, tmp_path / "resumed", dual_at["siglip"], **fields, resume_from=checkpoint)
    assert equal(whole, resumed)
    assert AutoModel.from_pretrained(tmp_path / "whole").config.text_padding_side == "right"
    assert AutoProcessor.from_pretrained(tmp_path / "whole").tokenizer.model_max_length == 24


def test_towers_learn_more_slowly_than_new_weights(dual_at, narrated, tmp_path):
    start = FgmmModel.from_dual_encoder(dual_at["siglip2"], objective="fine").state_dict()
    fields = {"encoder_learning_rate": 1e-6, "layer_decay": 0.5}
    trained = train(narrated, tmp_path / "model", dual_at["siglip2"], **fields)
    of_towers = max((value - start[key]).abs().max().item() for key, value in towers(trained).items())
    assert 0 < of_towers < 1e-5 < (trained["objectives.text_video.phrase_gate"]).abs().max()


def test_sounds_and_texts_go_on_from_clap(dual_at, narrated, tmp_path):
    trained = train(narrated, tmp_path / "model", dual_at["clap_fused"], **{"gradient_checkpointing": True})
    assert {key.split(".")[1] for key in towers(trained)} == {"audio", "text"}
