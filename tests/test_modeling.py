import numpy as np
import pytest
import torch
from helpers import TEXTS
from tiny_encoders import PADDED_TEXTS
from transformers import AutoModel, Trainer, TrainingArguments

from modeling_fgmm import FgmmModel


@pytest.fixture
def inputs(processor):
    """Four items; the second has no video, the third no sound, the last no text."""
    generator = torch.Generator().manual_seed(0)
    text = processor(text=[[TEXTS[0], TEXTS[1]], [TEXTS[2]], [TEXTS[3]], [""]])
    return {
        "pixel_values_videos": torch.randn(4, 4, 3, 32, 32, generator=generator),
        "video_mask": torch.tensor([True, False, True, True]),
        "input_features": torch.randn(4, 48, 32, generator=generator),
        "input_features_mask": torch.tensor([[True] * 48, [True] * 30 + [False] * 18, [False] * 48, [True] * 48]),
        **text,
    }


def test_outputs_have_the_documented_shapes(model, inputs):
    outputs = model(**inputs)
    regions, sounds = outputs.video_regions.shape[1], outputs.audio_regions.shape[1]
    assert outputs.logits_per_video.shape == outputs.logits_per_text.shape == (4, 4)
    assert outputs.logits_per_audio.shape == outputs.logits_per_audio_video.shape == (4, 4)
    assert torch.equal(outputs.logits_per_text, outputs.logits_per_video.T)
    assert outputs.video_embeds.shape == outputs.audio_embeds.shape == outputs.text_embeds.shape == (4, 16)
    assert regions == torch.tensor(outputs.video_output.grid).prod() and sounds > 1
    assert outputs.phrases.shape == (4, inputs["phrase_mask"].shape[1], 16)
    assert torch.allclose(outputs.video_embeds[[0, 2, 3]].norm(dim=-1), torch.ones(3), atol=1e-5)
    assert outputs.loss is None


def test_items_without_a_modality_have_the_lowest_logit(model, inputs):
    outputs = model(**inputs)
    lowest = -model.objectives["text_video"].logit_scale.exp()
    assert torch.allclose(outputs.logits_per_text[3], lowest.expand(4))  # no text
    assert torch.allclose(outputs.logits_per_text[:, 1], lowest.expand(4))  # no video
    assert (outputs.logits_per_text[:3, [0, 2, 3]] > lowest).all()


def test_missing_modalities_are_left_out_of_the_call(model, inputs):
    text = {name: inputs[name] for name in inputs if name.startswith(("input_ids", "attention", "phrase"))}
    video = {"pixel_values_videos": inputs["pixel_values_videos"]}
    assert model(**video).video_embeds.shape == (4, 16)
    assert model(**text).text_embeds.shape == (4, 16)
    assert model(**video, **text).logits_per_audio is None
    both = model(**text, input_features=inputs["input_features"])
    assert torch.equal(both.logits_per_text, both.logits_per_audio.T)
    with pytest.raises(ValueError, match="at least one"):
        model()
    with pytest.raises(ValueError, match="two modalities"):
        model(**video, return_loss=True)
    with pytest.raises(ValueError, match="as many items"):
        model(pixel_values_videos=inputs["pixel_values_videos"][:2], **text, return_loss=True)


def test_absent_items_do_not_count(model, inputs):
    model.train()
    before = model(**inputs, return_loss=True).loss
    changed = {name: value.clone() for name, value in inputs.items()}
    changed["pixel_values_videos"][1] = 1e3
    changed["input_features"][2] = 1e3
    changed["input_features"][1, 30:] = -1e3
    changed["input_ids"][inputs["attention_mask"] == 0] = 5
    changed["phrase_spans"][~inputs["phrase_mask"]] = 2
    changed["phrase_captions"][~inputs["phrase_mask"]] = 3
    assert torch.equal(before, model(**changed, return_loss=True).loss)


def test_gradients_reach_every_weight_and_no_padding(model, inputs):
    model.train()
    pixels = inputs["pixel_values_videos"].requires_grad_()
    sounds = inputs["input_features"].requires_grad_()
    model(**inputs, return_loss=True).loss.backward()
    # Convolutions before a batch normalisation have no influence on their scale, but the gradient is not None.
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []
    moved = [name for name, parameter in model.named_parameters() if parameter.grad.abs().max() == 0]
    assert moved == [], f"no gradient in {moved}"
    assert (pixels.grad[1] == 0).all() and pixels.grad[0].abs().max() > 0
    assert (sounds.grad[2] == 0).all() and (sounds.grad[1, 30:] == 0).all()


def test_gradient_checkpointing_gives_the_same(model, inputs):
    model.train()
    gradients = []
    for enabled in (False, True):
        model.zero_grad()
        if enabled:
            model.gradient_checkpointing_enable()
        state = {name: value.clone() for name, value in model.state_dict().items()}
        model(**inputs, return_loss=True).loss.backward()
        gradients.append([parameter.grad.clone() for parameter in model.parameters()])
        model.load_state_dict(state)
    assert model.is_gradient_checkpointing
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(*gradients, strict=True))


def test_features_of_one_modality_are_those_of_the_whole_call(model, inputs):
    outputs = model(**inputs)
    video = model.get_video_features(inputs["pixel_values_videos"], inputs["video_mask"])
    audio = model.get_audio_features(inputs["input_features"], inputs["input_features_mask"])
    text = model.get_text_features(
        **{n: inputs[n] for n in ("input_ids", "attention_mask", "phrase_spans", "phrase_captions", "phrase_mask")}
    )
    assert torch.equal(video.pooler_output, outputs.video_embeds)
    assert torch.equal(audio.regions, outputs.audio_regions)
    assert torch.equal(text.phrases, outputs.phrases)
    assert (video.pooler_output[1] == 0).all() and not video.region_mask[1].any()
    image = model.get_image_features(inputs["pixel_values_videos"][:, 0])
    still = model.get_video_features(inputs["pixel_values_videos"][:, :1].expand(-1, 4, -1, -1, -1))
    assert torch.allclose(image.pooler_output, still.pooler_output, atol=1e-4)


@pytest.mark.parametrize("temporal_padding", ["replicate", "zeros"])
def test_an_image_has_the_same_vector_beside_videos(config, processor, temporal_padding):
    config.video_config.temporal_padding = temporal_padding
    model = FgmmModel(config).eval()
    processor.video_processor.num_frames = 32
    clip = np.random.default_rng(0).integers(0, 256, (32, 32, 32, 3), dtype=np.uint8)
    with torch.no_grad():
        alone = model.get_video_features(**processor(images=[clip[0]])).pooler_output
        beside = model.get_video_features(**processor(videos=[clip, clip[0]])).pooler_output
    assert torch.allclose(beside[1], alone[0], atol=1e-5)


def test_text_without_spans_is_one_phrase(model, processor):
    encoded = processor.tokenizer(["crack two eggs", "dog"], padding=True, return_tensors="pt")
    text = model.get_text_features(encoded["input_ids"], encoded["attention_mask"])
    assert text.phrase_mask.tolist() == [[True], [True]]
    alone = model.get_text_features(torch.tensor([[processor.tokenizer.convert_tokens_to_ids("dog")]]))
    assert torch.allclose(text.phrases[1], alone.phrases[0], atol=1e-6)


def test_save_and_load(model, inputs, tmp_path):
    model.save_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors").exists()
    loaded, report = AutoModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"] and isinstance(loaded, FgmmModel)
    assert torch.equal(loaded(**inputs).logits_per_text, model(**inputs).logits_per_text)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(model, inputs, tmp_path, dtype):
    model.save_pretrained(tmp_path)
    half = AutoModel.from_pretrained(tmp_path, dtype=dtype)
    floats = {name: value.to(dtype) if value.is_floating_point() else value for name, value in inputs.items()}
    outputs = half(**floats)
    assert outputs.video_embeds.dtype == dtype and outputs.logits_per_text.dtype == torch.float32
    assert torch.allclose(outputs.logits_per_text, model(**inputs).logits_per_text, atol=0.5)


def test_autocast_loss_is_close_to_the_exact_one(model, inputs):
    exact = model(**inputs, return_loss=True).loss
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = model(**inputs, return_loss=True).loss
    assert rough.dtype == torch.float32 and rough.item() == pytest.approx(exact.item(), abs=0.1)


def test_modalities_choose_the_encoders(config, inputs):
    config.modalities = ["audio", "text"]
    model = FgmmModel(config).eval()
    assert set(model.encoders) == {"audio", "text"} and set(model.objectives) == {"text_audio"}
    with pytest.raises(ValueError, match="no video encoder"):
        model(**inputs)


def test_initial_scales_are_those_of_the_configuration(model, config):
    objective = model.objectives["text_video"]
    assert float(objective.log_sharpness.exp()) == pytest.approx(config.sharpness_init_value)
    assert float(objective.logit_scale) == pytest.approx(config.logit_scale_init_value)


def test_tuple_output(model, inputs):
    outputs = model(**inputs)
    assert torch.equal(outputs.to_tuple()[0], outputs.logits_per_video)
    as_tuple = model(**inputs, return_dict=False)
    assert isinstance(as_tuple, tuple) and torch.equal(as_tuple[0], outputs.logits_per_video)


def test_the_trainer_predicts(model, inputs, tmp_path):
    rows = [{name: value[row] for name, value in inputs.items()} for row in range(4)]
    arguments = TrainingArguments(tmp_path, per_device_eval_batch_size=2, report_to="none", use_cpu=True)
    predicted = Trainer(model, arguments).predict(rows).predictions
    expected = model(**inputs)
    assert predicted[0].shape == (4, 2)  # logits of each batch
    assert all(isinstance(value, np.ndarray) for value in predicted)
    assert np.allclose(predicted[4], expected.video_embeds.detach(), atol=1e-5)


def test_hidden_states_are_the_maps_between_stages(model):
    pixels, sounds = torch.randn(2, 4, 3, 32, 32), torch.randn(2, 48, 32)
    video = model.get_video_features(pixels, output_hidden_states=True)
    assert [tuple(state.shape[2:]) for state in video.hidden_states] == [(2, 8, 8), (2, 4, 4), (1, 2, 2)]
    audio = model.get_audio_features(sounds, output_hidden_states=True)
    assert [tuple(state.shape[1:]) for state in audio.hidden_states] == [(8, 8, 12), (8, 8, 12), (16, 4, 6)]
    for output in (video, audio):
        assert torch.equal(output.hidden_states[-1].flatten(2).transpose(1, 2), output.last_hidden_state)
    outputs = model(pixel_values_videos=pixels, input_features=sounds, output_hidden_states=True)
    assert torch.equal(outputs.video_output.hidden_states[1], video.hidden_states[1])
    outputs.logits_per_audio_video.sum().backward()
    assert model(pixel_values_videos=pixels).video_output.hidden_states is None
    model.config.output_hidden_states = True
    assert len(model(input_features=sounds).audio_output.hidden_states) == 3


def test_new_words_do_not_change_the_old_ones(model):
    before = model.get_text_features(**PADDED_TEXTS).pooler_output
    size = model.config.text_config.vocab_size
    model.resize_token_embeddings(size + 3)
    assert model.config.text_config.vocab_size == size + 3 == model.get_input_embeddings().weight.shape[0]
    assert torch.equal(model.get_text_features(**PADDED_TEXTS).pooler_output, before)
    assert torch.isfinite(model.get_text_features(torch.tensor([[size + 2]])).pooler_output).all()


def test_offloaded_modules_give_the_same_logits(model, tmp_path):
    model.save_pretrained(tmp_path / "model")
    inputs = {
        "pixel_values_videos": torch.randn(2, 4, 3, 32, 32),
        "input_features": torch.randn(2, 48, 32),
        **PADDED_TEXTS,
    }
    expected = model(**inputs)
    places = {"encoders.video": "disk", "encoders.audio": "cpu", "encoders.text": "disk", "projections": "cpu"}
    loaded = FgmmModel.from_pretrained(
        tmp_path / "model", device_map={**places, "objectives": "disk"}, offload_folder=tmp_path / "offloaded"
    )
    assert next(loaded.encoders["video"].parameters()).device.type == "meta"
    outputs = loaded(**inputs)
    for name in ("logits_per_text", "logits_per_audio", "logits_per_audio_video"):
        assert torch.allclose(outputs[name], expected[name], atol=1e-5)
