"""Tiny random encoders of transformers in place of ours."""

import subprocess
import sys

import numpy as np
import pretrain
import pytest
import torch
from accelerate import Accelerator
from helpers import run_processes, write_video
from peft import LoraConfig, PeftModel, get_peft_model
from tiny_encoders import AUDIO, PER_FRAME, TEXT, VIDEO, make_clips, make_inputs, make_model, make_sounds, make_texts
from transformers import (
    AutoModel,
    AutoProcessor,
    WhisperFeatureExtractor,
)

from fgmm_tools.training import configuration
from fgmm_tools.training.gradient_cache import cached_backward, split_batch
from modeling_fgmm import FgmmConfig, FgmmForAudioClassification, FgmmForVideoClassification, FgmmModel
from processing_fgmm import FgmmProcessor

PHRASES = ("phrase_spans", "phrase_captions", "phrase_mask", "caption_lengths")

# Regions, words and grids are those of the encoder itself


@pytest.mark.parametrize("name", VIDEO)
def test_video_regions_are_the_encoders_own_tokens(name):
    model = make_model(video=name, audio=None)
    inputs = make_clips()
    clips, encoder = inputs["pixel_values_videos"][[0, 2]], model.encoders["video"].model
    with torch.no_grad():
        output = model.get_video_features(**inputs)
        if name in PER_FRAME:
            tokens = encoder(clips.flatten(0, 1)).last_hidden_state
            expected = torch.stack([torch.cat([frame[-4:] for frame in clip]) for clip in tokens.view(2, 4, -1, 32)])
        elif name == "timesformer":
            tokens = encoder(clips).last_hidden_state[:, 1:]  # first through the frames of a place
            order = [4 * place + frame for frame in range(4) for place in range(4)]
            expected = tokens[:, order]
        else:
            options = {"skip_predictor": True} if name == "vjepa2" else {}
            expected = encoder(clips, **options).last_hidden_state[:, 1 if name == "vivit" else 0 :]
    assert output.grid == ((4 if name in (*PER_FRAME, "timesformer") else 2), 2, 2)
    assert output.last_hidden_state.shape[1] == np.prod(output.grid) == expected.shape[1]
    assert torch.allclose(output.last_hidden_state[[0, 2]], expected, atol=1e-5)
    assert output.region_mask.any(1).tolist() == [True, False, True]
    assert (output.pooler_output[1] == 0).all()


def test_time_and_place_of_timesformer_are_not_mixed_up():
    """Tokens of a frame change most where that frame's picture changes, when nothing else has been mixed in."""
    model = make_model(video="timesformer", audio=None)
    for layer in model.encoders["video"].model.encoder.layer:
        torch.nn.init.zeros_(layer.temporal_dense.weight)
        torch.nn.init.zeros_(layer.attention.output.dense.weight)
    clips = make_clips()["pixel_values_videos"]
    changed = clips.clone()
    changed[0, 2, :, :16, 16:] += 3.0  # third frame, above, right
    with torch.no_grad():
        difference = (model.get_video_features(changed).last_hidden_state - model.get_video_features(clips)[0])[0]
    assert difference.norm(dim=-1).view(4, 2, 2).gt(1e-5).nonzero().tolist() == [[2, 0, 1]]


@pytest.mark.parametrize("name", VIDEO)
def test_an_image_is_a_clip_that_stands_still(name):
    model = make_model(video=name, audio=None)
    image = make_clips()["pixel_values_videos"][:, 0]
    with torch.no_grad():
        output = model.get_image_features(image)
        needed = {"vjepa2": 2}.get(name, 1 if name in PER_FRAME else 4)
        still = model.get_video_features(image.unsqueeze(1).repeat(1, needed, 1, 1, 1))
    assert output.grid == still.grid and torch.equal(output.regions, still.regions)


def test_clips_of_a_wrong_size_are_refused():
    clips = make_clips()["pixel_values_videos"]
    for name, wrong, message in (
        ("videomae", clips[:, :3], "1 frame .* or 4, not 3"),
        ("vjepa2", clips[:, :3], "multiple of 2, not 3"),
        ("clip", clips[..., :16], r"\(32, 32\) pixels, not \(32, 16\)"),
        ("dinov2", clips[..., :20], "multiples of"),
        ("vit", clips[0], "clip of one frame"),
    ):
        with pytest.raises(ValueError, match=message):
            make_model(video=name, audio=None).get_video_features(wrong)


def test_dinov2_takes_frames_of_other_sizes():
    output = make_model(video="dinov2", audio=None).get_video_features(torch.randn(1, 2, 3, 32, 64))
    assert output.grid == (2, 2, 4) and output.regions.shape[1] == 16


@pytest.mark.parametrize("name", AUDIO)
def test_audio_regions_are_the_encoders_own_tokens(name):
    model = make_model(video=None, audio=name)
    inputs = make_sounds(model.config.audio_config)
    encoder, sounds = model.encoders["audio"].model, inputs["input_features"]
    with torch.no_grad():
        output = model.get_audio_features(**inputs)
        if name == "ast":
            expected, grid = encoder(sounds[:1]).last_hidden_state[:, 2:], (3, 9)
        elif name == "whisper":
            expected, grid = encoder(sounds[:1].transpose(1, 2)).last_hidden_state, (1, 50)
        else:
            expected, grid = encoder(sounds[:1]).last_hidden_state, (1, 199)
            short = encoder(sounds[1:2, :2000]).last_hidden_state
            assert torch.allclose(output.last_hidden_state[1, : short.shape[1]], short[0], atol=1e-5)
            assert output.region_mask.sum(1).tolist() == [199, short.shape[1], 0]
    assert output.grid == grid and output.last_hidden_state.shape[1] == np.prod(grid)
    assert torch.allclose(output.last_hidden_state[:1], expected, atol=1e-5)
    assert output.region_mask[0].all() and not output.region_mask[2].any()
    assert 0 < output.region_mask[1].sum() < np.prod(grid) * 0.7 and (output.pooler_output[2] == 0).all()


def test_a_sound_shorter_than_the_first_region_has_one():
    output = make_model(video=None).get_audio_features(torch.randn(2, 7), torch.tensor([[True] * 7, [False] * 7]))
    assert output.region_mask.tolist() == [[True], [False]] and torch.isfinite(output.regions).all()


@pytest.mark.parametrize("name", TEXT)
def test_phrases_are_maxima_over_the_encoders_own_words(name):
    model = make_model(video="vit", audio=None, text=name)
    inputs = make_texts()
    with torch.no_grad():
        output = model.get_text_features(**inputs)
        second = model.encoders["text"].model(inputs["input_ids"][:1, 6:]).last_hidden_state[0]
        last = model.encoders["text"].model(inputs["input_ids"][2:, 3:]).last_hidden_state[0]
        whole = torch.cat([last[1:3], last[4:6]]).amax(0)
        caption = torch.nn.functional.normalize(model.projections["text"](whole), dim=-1)
    assert torch.allclose(output.last_hidden_state[0, 2], second[1:4].amax(0), atol=1e-5)
    assert torch.allclose(output.last_hidden_state[2, 2], last[4:6].amax(0), atol=1e-5)
    assert torch.allclose(output.caption_embeds[2, 1], caption, atol=1e-5)
    assert (output.last_hidden_state[1, 2] == 0).all() and (output.caption_embeds[1, 1] * 0 == 0).all()


@pytest.mark.parametrize("name", TEXT)
def test_captions_of_an_item_do_not_see_each_other(name):
    model = make_model(video="vit", audio=None, text=name)
    inputs = make_texts()
    with torch.no_grad():
        before = model.get_text_features(**inputs)
        inputs["input_ids"][0, :6] = 60  # another first caption
        after = model.get_text_features(**inputs)
    assert torch.allclose(before.phrases[0, 2], after.phrases[0, 2], atol=1e-6)
    assert not torch.allclose(before.phrases[0, 0], after.phrases[0, 0], atol=1e-3)
    assert torch.allclose(before.caption_embeds[0, 1], after.caption_embeds[0, 1], atol=1e-6)


def test_own_transformer_layers_keep_captions_apart_too():
    torch.manual_seed(0)
    text = {"vocab_size": 120, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2}
    model = FgmmModel(FgmmConfig(text_config=text, video_config=VIDEO["vit"], modalities=["video", "text"])).eval()
    inputs = make_texts()
    with torch.no_grad():
        before = model.get_text_features(**inputs)
        alone = model.get_text_features(inputs["input_ids"][:1, 6:], phrase_spans=torch.tensor([[[1, 4]]]))
        inputs["input_ids"][0, :6] = 60
        after = model.get_text_features(**inputs)
    assert torch.allclose(before.phrases[0, 2], after.phrases[0, 2], atol=1e-6)
    assert torch.allclose(before.phrases[0, 2], alone.phrases[0, 0], atol=1e-6)


# Masks


@pytest.mark.parametrize(("audio", "text"), [*((name, "bert") for name in AUDIO), *(("ast", name) for name in TEXT)])
def test_padding_and_absent_items_change_nothing(audio, text):
    model = make_model(audio=audio, text=text)
    inputs = make_inputs(model)
    changed = {name: value.clone() for name, value in inputs.items()}
    changed["pixel_values_videos"][1] = 1e3
    changed["input_features"][~inputs["input_features_mask"]] = -1e3
    changed["input_ids"][inputs["attention_mask"] == 0] = 7
    changed["phrase_spans"][~inputs["phrase_mask"]] = 2
    changed["phrase_captions"][~inputs["phrase_mask"]] = 1
    with torch.no_grad():
        expected, outputs = model(**inputs), model(**changed)
    for name in ("logits_per_text", "logits_per_audio", "audio_regions", "text_embeds"):
        assert torch.equal(getattr(expected, name), getattr(outputs, name)), name


def test_a_batch_is_its_items_one_by_one():
    for audio, text in (("wav2vec2", "bert"), ("whisper", "clip"), ("ast", "roberta")):
        model = make_model(video="clip", audio=audio, text=text)
        inputs = make_inputs(model)
        with torch.no_grad():
            together = model(**inputs)
            for row in (0, 1):
                alone = model(**{name: value[row : row + 1] for name, value in inputs.items()})
                assert torch.allclose(alone.audio_embeds[0], together.audio_embeds[row], atol=1e-5)
                assert torch.allclose(alone.text_embeds[0], together.text_embeds[row], atol=1e-5)


@pytest.mark.parametrize("name", TEXT)
def test_items_without_text_are_numbers(name):
    model = make_model(text=name, audio=None).train()
    nothing = {"phrase_mask": torch.zeros(3, 3, dtype=torch.bool), "attention_mask": torch.zeros(3, 12)}
    for lengths in (torch.zeros(3, 2, dtype=torch.long), None):
        model.zero_grad()
        inputs = {**make_texts(), **nothing, "caption_lengths": lengths}
        loss = model(**make_clips(), **inputs, return_loss=True).loss
        loss.backward()
        assert torch.isfinite(loss)
        assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.requires_grad and p.grad is not None)


# Training


@pytest.mark.parametrize(
    ("video", "audio", "text"),
    [
        ("videomae", "ast", "bert"),
        ("vivit", "wav2vec2", "distilbert"),
        ("timesformer", "wav2vec2_layer", "roberta"),
        ("vjepa2", "hubert", "mpnet"),
        ("clip", "wavlm", "clip"),
        ("siglip", "whisper", "bert"),
        ("vit", "wav2vec2", "bert"),
        ("dinov2", "ast", "bert"),
        ("dinov2_with_registers", "ast", "bert"),
    ],
)
def test_gradients_reach_every_trained_weight_and_saved_models_are_equal(video, audio, text, tmp_path):
    model = make_model(video, audio, text).train()
    inputs = make_inputs(model)
    model(**inputs, return_loss=True).loss.backward()
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert [name for name in trained if model.get_parameter(name).grad is None] == []
    assert trained == [name for name, _ in model.named_parameters()]
    model.eval().save_pretrained(tmp_path)
    loaded, report = AutoModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    assert trained == [name for name, parameter in loaded.named_parameters() if parameter.requires_grad]
    with torch.no_grad():
        expected, outputs = model(**inputs), loaded(**inputs)
        half = AutoModel.from_pretrained(tmp_path, dtype=torch.bfloat16)
        rough = half(**{n: v.bfloat16() if v.is_floating_point() else v for n, v in inputs.items()})
    assert torch.equal(expected.logits_per_text, outputs.logits_per_text)
    assert torch.equal(expected.logits_per_audio, outputs.logits_per_audio)
    assert torch.allclose(rough.logits_per_text, expected.logits_per_text, atol=1.0)
    for part in ("video_config", "audio_config", "text_config"):
        first, second = (getattr(one.config, part).to_dict() for one in (model, loaded))
        assert {name for name in first if first[name] != second[name]} <= {"dtype", "transformers_version"}, part


def test_training_is_repeatable_where_encoders_drop_layers_and_inputs_at_random():
    config = make_model(audio="wav2vec2").config.audio_config
    assert (config.layerdrop, config.mask_time_prob, config.mask_feature_prob) == (0.0, 0.0, 0.0)


def test_frozen_encoders_stay_as_they_are(tmp_path):
    made = make_model("videomae", "wav2vec2", "bert", frozen=("video", "text"))
    made.save_pretrained(tmp_path)
    for model in (made, FgmmModel.from_pretrained(tmp_path), FgmmModel(made.config)):
        model.train()
        modes = {name: {part.training for part in encoder.modules()} for name, encoder in model.encoders.items()}
        assert modes == {"video": {False}, "audio": {True}, "text": {False}} and model.projections.training
        before = {name: value.clone() for name, value in model.state_dict().items()}
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.01)
        model(**make_inputs(model), return_loss=True).loss.backward()
        assert all(p.grad is None for name in ("video", "text") for p in model.encoders[name].parameters())
        optimizer.step()
        moved = {".".join(n.split(".")[:2]) for n, value in model.state_dict().items() if not value.equal(before[n])}
        assert {"encoders.audio", "projections.video", "projections.text"} <= moved
        assert not {"encoders.video", "encoders.text"} & moved
        assert not model.encoders["video"](
            make_clips()["pixel_values_videos"]
        ).features.requires_grad  # no graph at all
    with pytest.raises(Exception, match="frozen"):
        FgmmConfig(modalities=["video", "text"], frozen=["audio"])


def test_classifiers_train_encoders_that_the_joint_model_left_frozen(tmp_path):
    model = make_model("videomae", "wav2vec2", "bert", frozen=("video",))
    model.save_pretrained(tmp_path)
    classifier = FgmmForVideoClassification.from_pretrained(tmp_path, num_labels=3)
    loss = classifier(make_clips()["pixel_values_videos"], labels=torch.tensor([0, 1, 2])).loss
    loss.backward()
    assert all(p.grad is not None for p in classifier.parameters())
    sounds = FgmmForAudioClassification.from_pretrained(tmp_path, num_labels=3)
    assert sounds(**make_sounds(model.config.audio_config)).logits.shape == (3, 3)


def test_gradient_checkpointing_gives_the_same():
    model = make_model("videomae", "wav2vec2", "bert").train()
    gradients = []
    for enabled in (False, True):
        if enabled:
            model.gradient_checkpointing_enable()
        model.zero_grad()
        torch.manual_seed(0)  # of dropout
        model(**make_inputs(model), return_loss=True).loss.backward()
        gradients.append({name: parameter.grad.clone() for name, parameter in model.named_parameters()})
    assert all(torch.allclose(gradients[0][name], gradients[1][name], atol=1e-5) for name in gradients[0])


def test_chunks_with_cached_gradients_give_the_same():
    model = make_model("clip", "wav2vec2", "bert", frozen=("video",))  # in evaluation mode, without dropout
    inputs = make_inputs(model)
    loss = model(**inputs, return_loss=True).loss
    loss.backward()
    expected = {name: parameter.grad for name, parameter in model.named_parameters()}
    model.zero_grad()
    cached = cached_backward(Accelerator(), model, split_batch(inputs, 2))
    assert cached == pytest.approx(loss.item(), abs=1e-5)
    for name, parameter in model.named_parameters():
        if name.startswith("encoders.video."):
            assert parameter.grad is None and expected[name] is None
        else:
            assert torch.allclose(parameter.grad, expected[name], atol=1e-5), name


def run_process(rank, world, port, bounds, folder):
    """One process of two: its share of the items, and the gradients that DistributedDataParallel makes of all."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"tcp://localhost:{port}", rank=rank, world_size=world)
    model = make_model("videomae", "whisper", "bert", frozen=("text",))
    inputs = {name: value[bounds[rank] : bounds[rank + 1]] for name, value in make_inputs(model).items()}
    parallel = torch.nn.parallel.DistributedDataParallel(model)  # which refuses weights without a gradient
    for _ in range(2):
        model.zero_grad()
        parallel(**inputs, return_loss=True).loss.backward()
    torch.save({name: p.grad for name, p in model.named_parameters() if p.requires_grad}, f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


def test_two_processes_have_the_gradients_of_one(tmp_path):
    model = make_model("videomae", "whisper", "bert", frozen=("text",))
    model(**make_inputs(model), return_loss=True).loss.backward()
    expected = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.requires_grad}
    for gradients in run_processes(run_process, [0, 2, 3], tmp_path):
        assert gradients.keys() == expected.keys()
        assert all(torch.allclose(gradients[name], expected[name], atol=1e-5) for name in expected)


def test_pretraining_goes_on_from_given_encoders(narrated, encoders_at, tmp_path):
    encoders = {
        "video": encoders_at / "clip",
        "audio": encoders_at / "whisper",
        "text": encoders_at / "bert",
    }
    start = FgmmModel.from_encoders(**encoders, projection_dim=16, frozen=("video", "text"))
    start.save_pretrained(tmp_path / "start")
    processor = FgmmProcessor.from_encoders(**encoders)
    processor.video_processor.num_frames = 2
    processor.save_pretrained(tmp_path / "start")
    options = {"dataset": narrated, "output_dir": tmp_path / "model", "init_from": tmp_path / "start"}
    options.update({"clip_seconds": 2.0, "batch_size": 8, "num_workers": 0, "warmup_steps": 1, "max_steps": 3})
    options.update({"encoder_chunk_size": 4, "eval_clips": 4, "learning_rate": 0.01})
    words = [part for name, value in options.items() for part in (f"--{name}", str(value))]
    pretrain.main(configuration.parse_config(words))
    trained = AutoModel.from_pretrained(tmp_path / "model")
    assert trained.config.frozen == ["video", "text"] and trained.config.video_config.model_type == "clip_vision_model"
    before, after = start.state_dict(), trained.state_dict()
    moved = {".".join(name.split(".")[:2]) for name in before if not torch.equal(before[name], after[name])}
    assert {"encoders.audio", "projections.video"} <= moved and not {"encoders.video", "encoders.text"} & moved
    states = torch.load(tmp_path / "model/checkpoints/step-0000003/optimizer.bin")["state"]
    assert len(states) == sum(parameter.requires_grad for parameter in trained.train().parameters())
    saved = AutoProcessor.from_pretrained(tmp_path / "model")
    assert (
        isinstance(saved.feature_extractor.wrapped, WhisperFeatureExtractor) and saved.video_processor.num_frames == 2
    )


def eager_model(video, audio, text):
    """A model whose attention weights can be returned."""
    model = make_model(video, audio, text)
    model.set_attn_implementation("eager")
    return model


@pytest.mark.parametrize(
    ("video", "audio", "text"),
    [("videomae", "ast", "bert"), ("clip", "wav2vec2", "clip"), ("vivit", "whisper", "distilbert")],
)
def test_hidden_states_and_attentions_are_the_encoders_own(video, audio, text):
    model = eager_model(video, audio, text)
    inputs, asked = make_inputs(model), {"output_hidden_states": True, "output_attentions": True}
    clips, texts = inputs["pixel_values_videos"][[0, 2]], inputs["input_ids"]
    if video in PER_FRAME:
        clips = clips.flatten(0, 1)
    if audio == "whisper":  # silence is as loud as it allows
        inputs["input_features_mask"][:] = True
    with torch.no_grad():
        outputs = model(**inputs, **asked)
        own = model.encoders["video"].model(clips, **asked)
        assert_equal_states(outputs.video_output, own)
        words = model.encoders["text"].model(texts[1:2, :7], **asked)
        of_caption = [state[2:3, :7] for state in outputs.text_output.hidden_states]  # rows are the five captions
        assert all(torch.allclose(*pair, atol=1e-5) for pair in zip(of_caption, words.hidden_states, strict=True))
        assert outputs.text_output.attentions[0].shape[:2] == (5, 2)
        sound = inputs["input_features"][:1]
        own = model.encoders["audio"].model(sound.transpose(1, 2) if audio == "whisper" else sound, **asked)
        for name in ("hidden_states", "attentions"):
            for ours, theirs in zip(outputs.audio_output[name], own[name], strict=True):
                assert torch.allclose(ours[:1], theirs, atol=1e-5)
        if audio == "wav2vec2":  # the second sound is half as long, and is encoded without its padding
            assert (outputs.audio_output.hidden_states[-1][1, 100:] == 0).all()
        assert model(**inputs).video_output.hidden_states is None


def assert_equal_states(ours, theirs) -> None:
    """Checks hidden states and attentions of two outputs, of which there must be some."""
    for name in ("hidden_states", "attentions"):
        assert len(ours[name]) >= 2
        assert all(torch.allclose(*pair, atol=1e-5) for pair in zip(ours[name], theirs[name], strict=True))


def test_the_attention_implementation_is_that_of_all_encoders(encoders_at, tmp_path):
    make_model("videomae", "ast", "bert").save_pretrained(tmp_path)
    outputs = {}
    for name in ("eager", "sdpa"):
        model = AutoModel.from_pretrained(tmp_path, attn_implementation=name)
        assert {encoder.model.config._attn_implementation for encoder in model.encoders.values()} == {name}
        with torch.no_grad():
            outputs[name] = model(**make_inputs(model)).logits_per_text
    assert torch.allclose(outputs["eager"], outputs["sdpa"], atol=1e-4)


def test_adapters_for_feature_extraction_train_and_load(tmp_path):
    model = make_model("clip", "wav2vec2", "bert", frozen=("video",))
    inputs = make_inputs(model)
    targets = ["q_proj", "v_proj", "query", "value"]
    options = LoraConfig(task_type="FEATURE_EXTRACTION", r=2, target_modules=targets, init_lora_weights=False)
    adapted = get_peft_model(model, options)
    adapted(**inputs, return_loss=True).loss.backward()
    trained = {name for name, parameter in adapted.named_parameters() if parameter.grad is not None}
    assert trained and all("lora_" in name for name in trained)
    assert {name.split("encoders.")[1].split(".")[0] for name in trained} == {"video", "audio", "text"}
    adapted.save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(make_model("clip", "wav2vec2", "bert"), tmp_path)
    with torch.no_grad():
        expected = adapted.eval()(**inputs).logits_per_text
        assert torch.allclose(again(**inputs).logits_per_text, expected, atol=1e-5)
        assert not torch.allclose(make_model("clip", "wav2vec2", "bert")(**inputs).logits_per_text, expected, atol=1e-2)
        with pytest.raises(ValueError, match="input_ids"):
            adapted(inputs_embeds=torch.zeros(1, 2, 32))


# Names and folders


def test_code_travels_with_the_weights(encoders_at, tmp_path):
    """Away from this repository, from a folder alone."""
    encoders = {
        "video": encoders_at / "videomae",
        "audio": encoders_at / "whisper",
        "text": encoders_at / "bert",
    }
    model, processor = FgmmModel.from_encoders(**encoders, frozen=("text",)), FgmmProcessor.from_encoders(**encoders)
    model.save_pretrained(tmp_path / "saved")
    processor.save_pretrained(tmp_path / "saved")
    clip = write_video(tmp_path / "clip.mp4", sound=1.0)
    code = (
        "import sys, torch\n"
        "from transformers import AutoModel, AutoProcessor\n"
        "model = AutoModel.from_pretrained('saved', trust_remote_code=True)\n"
        "processor = AutoProcessor.from_pretrained('saved', trust_remote_code=True)\n"
        "outputs = model(**processor(videos=['clip.mp4'], audio=['clip.mp4'], text=['a small dog']))\n"
        "assert 'modeling_fgmm' not in sys.modules and model.config.frozen == ['text']\n"
        "torch.save(outputs.logits_per_text, 'logits.pt')\n"
    )
    environment = {"HF_HOME": str(tmp_path / "home"), "PATH": "/usr/bin:/bin", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    expected = model(**processor(videos=[clip], audio=[clip], text=["a small dog"])).logits_per_text
    assert torch.allclose(torch.load(tmp_path / "logits.pt"), expected, atol=1e-5)
