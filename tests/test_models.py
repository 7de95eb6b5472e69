import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertModel

from fgmm_tools.cli import UserError
from fgmm_tools.models import load_model, with_random_weights


def test_a_saved_model_is_loaded_for_evaluation(small_model):
    model, processor = load_model(str(small_model))
    assert not model.training and processor.clip_seconds == 0.5
    weights = load_file(small_model / "model.safetensors")
    assert weights and all(torch.equal(model.state_dict()[name], value) for name, value in weights.items())


def remove_weights(folder):
    weights = load_file(folder / "model.safetensors")
    for name in sorted(weights)[:2]:
        weights.pop(name)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def change_config(folder, **values):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | values))


@pytest.mark.parametrize(
    "damage,message",
    [
        (lambda folder: (folder / "model.safetensors").write_bytes(b"nothing"), "SafetensorError"),
        (lambda folder: (folder / "model.safetensors").unlink(), "no file named model.safetensors"),
        (lambda folder: (folder / "config.json").write_text("{"), "not a valid JSON file"),
        (lambda folder: change_config(folder, projection_dim=32), "RuntimeError"),
        (lambda folder: change_config(folder, projection_dim="many"), "projection_dim"),
        (lambda folder: (folder / "processor_config.json").unlink(), "video processor"),
        (lambda folder: (folder / "tokenizer.json").write_text("{}"), "KeyError"),
    ],
)
def test_damaged_models_are_named(small_model, tmp_path, damage, message):
    shutil.copytree(small_model, tmp_path / "damaged")
    damage(tmp_path / "damaged")
    with pytest.raises(UserError, match=r"The model '.*damaged' cannot be loaded \(.*\); its files are") as error:
        load_model(str(tmp_path / "damaged"))
    assert message in str(error.value) and "\n" not in str(error.value)


def test_what_its_configuration_refuses_is_not_called_damage(small_model, tmp_path):
    shutil.copytree(small_model, tmp_path / "old")
    change_config(tmp_path / "old", whole_caption_weight=0.5, whole_captions=None)
    with pytest.raises(UserError, match=r"old' cannot be loaded: The model was trained with whole_caption_weight=0.5"):
        load_model(str(tmp_path / "old"))


def test_missing_weights_are_named(small_model, tmp_path):
    shutil.copytree(small_model, tmp_path / "partial")
    remove_weights(tmp_path / "partial")
    with pytest.raises(UserError, match=r"partial' has no weights for encoders\.audio.* and 1 more; give one"):
        load_model(str(tmp_path / "partial"))


def test_models_of_another_kind_are_named(tmp_path):
    BertModel(
        BertConfig(vocab_size=16, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)
    ).save_pretrained(tmp_path / "bert")
    with pytest.raises(UserError, match="bert' is a model of the kind bert, not fgmm"):
        load_model(str(tmp_path / "bert"))


def test_a_model_that_does_not_exist_is_named(small_model, tmp_path):
    (tmp_path / "fgmm-tiny").symlink_to(small_model)
    with pytest.raises(UserError, match=r"^The model '.*/nothing' does not exist; give a folder that scripts/"):
        load_model(str(tmp_path / "nothing"))
    with pytest.raises(UserError, match=r"^The model '.*/fgmm-tny' does not exist; did you mean '.*/fgmm-tiny'\?$"):
        load_model(str(tmp_path / "fgmm-tny"))


def test_random_weights_are_those_of_their_seed(small_model):
    model, _ = load_model(str(small_model))
    first, again, other = (with_random_weights(model, seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(value, again[name]) for name, value in first.items())
    names = [name for name, value in first.items() if value.is_floating_point() and value.std() > 0]
    assert names and not any(torch.equal(first[name], other[name]) for name in names)
    assert not with_random_weights(model, 0).training
