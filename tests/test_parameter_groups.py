import copy

import pytest
import torch
from peft.tuners.lora import LoraLayer
from tiny_dual_encoders import CONFIGS
from tiny_encoders import make_inputs, make_model

from fgmm_tools.cli import UserError
from fgmm_tools.training.parameter_groups import add_adapters, layer_factors, make_parameter_groups, merge_adapters
from modeling_fgmm import FgmmModel


def rates(model, groups) -> dict[str, float]:
    """The learning rate of each parameter."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {names[id(parameter)]: group["lr"] for group in groups for parameter in group["params"]}


def test_without_options_there_are_two_groups_in_the_order_of_the_model(model):
    decayed, other = make_parameter_groups(model, 1e-3, 0.05)
    parameters = list(model.parameters())
    assert [id(p) for p in decayed["params"]] == [id(p) for p in parameters if p.ndim > 1]
    assert [id(p) for p in other["params"]] == [id(p) for p in parameters if p.ndim <= 1]
    assert (decayed["lr"], decayed["weight_decay"], other["lr"], other["weight_decay"]) == (1e-3, 0.05, 1e-3, 0.0)


def test_encoders_have_a_rate_of_their_own():
    model = make_model("vit", "wav2vec2", "bert", frozen=("text",))
    groups = make_parameter_groups(model, 1e-3, 0.05, encoder_learning_rate=1e-5)
    of = rates(model, groups)
    assert groups[0]["lr"] == 1e-3  # which is logged
    assert {name for name, rate in of.items() if rate == 1e-5} == {
        name for name, parameter in model.named_parameters() if name.startswith("encoders") and parameter.requires_grad
    }
    assert of["projections.text.weight"] == 1e-3 and not any(name.startswith("encoders.text") for name in of)


def test_projections_of_a_dual_encoder_are_not_new():
    model = FgmmModel.from_dual_encoder(CONFIGS["clip"], objective="fine")
    of = rates(model, make_parameter_groups(model, 1e-3, 0.05, encoder_learning_rate=1e-5))
    assert of["projections.video.weight"] == of["projections.text.weight"] == 1e-5
    assert {name.partition(".")[0] for name, rate in of.items() if rate == 1e-3} == {"objectives"}


@pytest.mark.parametrize("encoder", ["vit", "clip", "dinov2", "videomae", "vjepa2"])
def test_rates_fall_from_layer_to_layer_down_to_the_embeddings(encoder):
    model = make_model(encoder, "wav2vec2", "bert")
    factors = layer_factors(model, 0.5)
    assert factors.keys() == {name for name, _ in model.named_parameters() if name.startswith("encoders.")}
    for name, factor in factors.items():
        is_first = ".0." in name and "layer" in name.split(".0.")[0].rpartition(".")[2] and "conv_layers" not in name
        is_embedding = "embed" in name or "feature_" in name or "pre_layrnorm" in name
        assert factor == (0.25 if is_embedding else 0.5 if is_first else 1.0), name


def test_blocks_of_stages_are_counted_one_after_the_other():
    model = FgmmModel.from_dual_encoder(CONFIGS["clap"])
    factors = layer_factors(model, 0.5)
    tower = "encoders.audio.model.audio_encoder"
    blocks = [f"{tower}.layers.{place}.layernorm_before.weight" for place in ("0.blocks.0", "1.blocks.0", "1.blocks.1")]
    assert [factors[name] for name in blocks] == [0.25, 0.5, 1.0]
    assert factors[f"{tower}.patch_embed.proj.weight"] < 0.25 and factors[f"{tower}.norm.weight"] == 1.0
    assert factors[f"{tower}.batch_norm.weight"] == factors[f"{tower}.patch_embed.proj.weight"]


@pytest.mark.parametrize("name", ["clip", "siglip", "siglip2", "clap", "clap_fused", "pe_audio"])
def test_adapters_of_all_linear_layers_are_trained_and_merged(name):
    torch.manual_seed(0)
    model = FgmmModel.from_dual_encoder(CONFIGS[name], objective="fine")
    before = copy.deepcopy(model.state_dict())
    add_adapters(model, rank=2)
    trained = {key for key, parameter in model.named_parameters() if parameter.requires_grad}
    assert {key for key in trained if key.startswith("encoders")} == {key for key in trained if "lora_" in key}
    assert {key.split(".")[0] for key in trained} <= {"encoders", "projections", "objectives"}
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if "lora_B" in key:
                parameter.normal_(std=0.05)
    inputs = make_dual_inputs(name)
    model.gradient_checkpointing_enable()  # through layers whose inputs have no gradients
    model.train()(**inputs, return_loss=True).loss.backward()
    without = [key for key, parameter in model.named_parameters() if parameter.requires_grad and parameter.grad is None]
    assert without == []
    with torch.no_grad():
        expected = model.eval()(**inputs).logits_per_text
    merge_adapters(model)
    assert not any(isinstance(module, LoraLayer) for module in model.modules())
    assert list(model.state_dict()) == list(before) and not hasattr(model, "peft_config")
    with torch.no_grad():
        assert torch.allclose(model.eval()(**inputs).logits_per_text, expected, atol=1e-5)
    changed = {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
    assert changed and all(key.startswith("encoders.") for key in changed)


def make_dual_inputs(name) -> dict[str, torch.Tensor]:
    """Random inputs of three items."""
    generator = torch.Generator().manual_seed(0)
    text = {"input_ids": torch.randint(5, 119, (3, 6), generator=generator)}
    text["input_ids"][:, -1] = 3  # the end of CLIP's texts
    if name == "pe_audio":
        return {**text, "input_features": torch.randn(3, 2000, generator=generator)}
    if name.startswith("clap"):
        features = torch.randn(3, 101, 64 if name == "clap_fused" else 16, generator=generator)
        return {**text, "input_features": features}
    return {**text, "pixel_values_videos": torch.randn(3, 2, 3, 32, 32, generator=generator)}


def test_frozen_encoders_and_ours_get_no_adapters():
    model = make_model("vit", "wav2vec2", "bert", frozen=("text",))
    add_adapters(model, rank=2)
    adapted = {name.split(".")[1] for name, _ in model.named_parameters() if "lora_" in name}
    assert adapted == {"video", "audio"}
    assert all(parameter.requires_grad for parameter in model.projections.parameters())
    model.train()(**make_inputs(model), return_loss=True).loss.backward()
    with pytest.raises(UserError, match="nothing to adapt"):
        add_adapters(make_model("vit", None, "bert", frozen=("video", "text")), rank=2)


def test_our_encoders_are_trained_whole_beside_adapters(config):
    with pytest.raises(UserError, match="nothing to adapt"):
        add_adapters(FgmmModel(config), rank=2)
