"""Dual encoders of transformers taken whole: everything that the published models compute stays as it is."""

import copy
import json
import shutil
import subprocess
import sys
from collections import Counter

import pytest
import torch
from helpers import TEXTS, run_processes
from huggingface_hub import HfApi
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from tiny_dual_encoders import (
    CONFIGS,
    LOGIT_SCALE,
    WITH_IMAGES,
    WITH_SOUNDS,
    Reference,
    make_images,
    make_waves,
)
from tiny_encoders import VIDEO
from transformers import AutoModel, AutoProcessor
from transformers.modeling_layers import GradientCheckpointingLayer

from fgmm_tools.publishing.origins import list_sources
from modeling_fgmm import FgmmModel
from processing_fgmm import FgmmProcessor

EXACT = {"atol": 1e-5, "rtol": 1e-5}
CAPTIONS = ["two eggs", TEXTS[0], "a small dog!", TEXTS[1]]


@pytest.fixture(scope="module")
def taken(dual_at):
    """By their names, the model, its processor, and what transformers makes of the same folder."""
    return {
        name: (
            FgmmModel.from_dual_encoder(folder),
            FgmmProcessor.from_dual_encoder(folder),
            Reference(name, folder),
        )
        for name, folder in dual_at.items()
    }


def process(processor, name, items, texts):
    """Inputs of our model."""
    if name in WITH_SOUNDS:
        return processor(audio=items, sampling_rate=48000, text=texts)
    return processor(images=items, text=texts)


@torch.no_grad()
def check_equal(model, processor, reference):
    """Embeddings, cosines and logits of images or sounds and of texts, together with padding and each alone."""
    name = reference.name
    items = make_waves() if name in WITH_SOUNDS else make_images()
    expected = reference(items, CAPTIONS)
    inputs = process(processor, name, items, CAPTIONS)
    output = model(**inputs)
    key = "audio" if name in WITH_SOUNDS else "video"
    theirs = expected.audio_embeds if name in WITH_SOUNDS else expected.image_embeds
    assert theirs.var(0).max() > 1e-4 and expected.text_embeds.var(0).max() > 1e-4  # else equality says nothing
    torch.testing.assert_close(output[f"{key}_embeds"], theirs, **EXACT)
    torch.testing.assert_close(output.text_embeds, expected.text_embeds, **EXACT)
    if name != "pe_audio":  # whose logits are of vectors that are not normalised
        logits = expected.logits_per_audio if name in WITH_SOUNDS else expected.logits_per_image
        torch.testing.assert_close(output[f"logits_per_{key}"], logits, **EXACT)
    for row, item in enumerate(items):
        alone = model(**process(processor, name, [item], CAPTIONS[row : row + 1]))
        torch.testing.assert_close(alone[f"{key}_embeds"][0], theirs[row], **EXACT)
        torch.testing.assert_close(alone.text_embeds[0], expected.text_embeds[row], **EXACT)


@pytest.mark.parametrize("name", CONFIGS)
def test_embeddings_and_logits_are_those_of_transformers(taken, name):
    check_equal(*taken[name])


@pytest.mark.parametrize("name", ["clip", "siglip2", "clap_fused", "pe_audio"])
def test_a_saved_model_is_still_exact(taken, name, tmp_path):
    model, processor, reference = taken[name]
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    check_equal(AutoModel.from_pretrained(tmp_path), AutoProcessor.from_pretrained(tmp_path), reference)


LOAD_FROM_HUB = """
import sys, torch
from transformers import AutoModel, AutoProcessor
inputs = torch.load("inputs.pt", weights_only=False)
for name, values in inputs.items():
    model = AutoModel.from_pretrained(f"org/{name}", trust_remote_code=True)
    processor = AutoProcessor.from_pretrained(f"org/{name}", trust_remote_code=True)
    with torch.no_grad():
        outputs = model(**processor(**values))
    torch.save({key: value for key, value in outputs.items() if torch.is_tensor(value)}, f"{name}.pt")
assert "modeling_fgmm" not in sys.modules and "processing_fgmm" not in sys.modules
"""


def test_models_on_the_hub_are_exact_with_their_own_code(taken, hub_server, tmp_path):
    """In a process outside of the repository, whose packages cannot be imported there."""
    inputs = {}
    for name, (model, processor, _) in taken.items():
        model.save_pretrained(tmp_path / name)
        processor.save_pretrained(tmp_path / name)
        HfApi().create_repo(f"org/{name}")
        HfApi().upload_folder(repo_id=f"org/{name}", folder_path=tmp_path / name)
        media = {"images": make_images()} if name in WITH_IMAGES else {"audio": make_waves(), "sampling_rate": 48000}
        inputs[name] = {**media, "text": CAPTIONS}
    (tmp_path / "there").mkdir()
    torch.save(inputs, tmp_path / "there" / "inputs.pt")
    environment = {
        "HF_ENDPOINT": hub_server.endpoint,
        "HF_HOME": str(tmp_path / "home"),
        "HF_HUB_DISABLE_XET": "1",
        "HF_TOKEN": "hf_owner",
        "PATH": "/usr/bin:/bin",
    }
    done = subprocess.run(
        [sys.executable, "-c", LOAD_FROM_HUB], cwd=tmp_path / "there", env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    for name, (_, _, reference) in taken.items():
        outputs = torch.load(tmp_path / "there" / f"{name}.pt")
        key, items = ("audio", make_waves()) if name in WITH_SOUNDS else ("video", make_images())
        expected = reference(items, CAPTIONS)
        theirs = expected.audio_embeds if name in WITH_SOUNDS else expected.image_embeds
        torch.testing.assert_close(outputs[f"{key}_embeds"], theirs, **EXACT)
        torch.testing.assert_close(outputs["text_embeds"], expected.text_embeds, **EXACT)


@pytest.mark.parametrize("name", WITH_IMAGES)
def test_a_video_is_the_normalised_mean_of_its_frames(taken, name):
    model, processor, reference = taken[name]
    frames = [image.resize((48, 32)) for image in make_images()]
    inputs = processor(videos=[frames, None], num_frames=3)
    with torch.no_grad():
        output = model.get_video_features(**inputs)
        expected = reference(frames, CAPTIONS).image_embeds.mean(0)
    torch.testing.assert_close(output.pooler_output[0], expected / expected.norm(), **EXACT)
    assert (output.pooler_output[1] == 0).all() and output.region_mask.any(1).tolist() == [True, False]


def test_silent_items_and_candidate_captions_change_nothing_else(taken):
    model, processor, reference = taken["clap"]
    waves = make_waves()
    texts = [[CAPTIONS[0], CAPTIONS[1]], [], [CAPTIONS[2]]]
    inputs = processor(audio=[waves[0], None, waves[1]], sampling_rate=48000, text=texts)
    with torch.no_grad():
        output = model(**inputs)
        expected = reference(waves[:2], CAPTIONS[:3])
    torch.testing.assert_close(output.audio_embeds[[0, 2]], expected.audio_embeds, **EXACT)
    assert (output.audio_embeds[1] == 0).all() and (output.text_embeds[1] == 0).all()
    captions = output.text_output.caption_embeds[[0, 0, 2], [0, 1, 0]]
    torch.testing.assert_close(captions, expected.text_embeds, **EXACT)


def test_the_origin_of_the_weights_is_saved(taken, dual_at, tmp_path):
    for name, (model, _, _) in taken.items():
        model.save_pretrained(tmp_path / name)
        assert list_sources(tmp_path / name) == [str(dual_at[name])] * len(model.config.modalities)


# Regions and phrases are what the published weights make of a single patch or word


def test_regions_of_siglip_are_its_head_over_each_patch_alone(taken):
    for name in ("siglip", "siglip2"):
        model, processor, reference = taken[name]
        image = make_images()[0]
        with torch.no_grad():
            output = model.get_video_features(**processor(images=[image]))
            tower = reference.model.vision_model
            inputs = reference.media([image])
            patches = tower(**inputs).last_hidden_state[0, : output.region_mask.sum()]
            expected = torch.nn.functional.normalize(tower.head(patches.unsqueeze(1)), dim=-1)
        torch.testing.assert_close(output.regions[0, output.region_mask[0]], expected, **EXACT)


def test_regions_of_clip_attend_by_queries_in_the_last_layer(taken):
    """ClearCLIP, equation 4, written out for one head after the other."""
    model, processor, reference = taken["clip"]
    with torch.no_grad():
        output = model.get_video_features(**processor(images=make_images()[:1]))
        tower = reference.model.vision_model
        states = tower(**reference.media(make_images()[:1]), output_hidden_states=True).hidden_states[-2]
        layer = tower.encoder.layers[-1]
        tokens, attention = layer.layer_norm1(states[0]), layer.self_attn
        query, value = attention.q_proj(tokens), attention.v_proj(tokens)
        size = attention.head_dim
        heads = [
            (query[:, at : at + size] @ query[:, at : at + size].T / size**0.5).softmax(-1) @ value[:, at : at + size]
            for at in range(0, len(query[0]), size)
        ]
        patches = tower.post_layernorm(attention.out_proj(torch.cat(heads, 1))[1:])
        expected = torch.nn.functional.normalize(reference.model.visual_projection(patches), dim=-1)
    torch.testing.assert_close(output.regions[0], expected, **EXACT)
    assert output.grid == (1, 2, 2)


@torch.no_grad()
def test_phrases_are_means_of_words_in_the_shared_space(taken):
    for name, (model, processor, reference) in taken.items():
        inputs = processor(text=["a small dog sits"])
        (first, last), tower, own = inputs["phrase_spans"][0, 0].tolist(), reference.model.text_model, reference.model
        texts = reference.texts(["a small dog sits"])
        words = tower(**texts).last_hidden_state[0]
        if name == "siglip2":  # its padding goes first
            words = words[len(words) - inputs["input_ids"].shape[1] :]
        words = words[first:last]
        if name.startswith("siglip"):
            expected = tower.head(words).mean(0)
        elif name == "pe_audio":
            expected = own.text_audio_head(words.mean(0))
        elif name == "clip":
            expected = own.text_projection(words).mean(0)
        else:
            expected = own.text_projection(tower.pooler.activation(tower.pooler.dense(words)).mean(0))
        expected = torch.nn.functional.normalize(expected, dim=-1)
        torch.testing.assert_close(model.get_text_features(**inputs).phrases[0, 0], expected, **EXACT)


def test_regions_of_clap_average_to_its_pooled_vector(taken):
    model, processor, _ = taken["clap"]
    with torch.no_grad():
        inputs = processor(audio=make_waves(), sampling_rate=48000)
        encoded = model.encoders["audio"](**inputs)
        output = model.get_audio_features(**inputs)
    torch.testing.assert_close(encoded.features.mean(1), encoded.pooled[:, 0], **EXACT)
    shares = output.region_mask.float().mean(1).tolist()  # the third is as long as the window
    assert shares[0] == pytest.approx(16000 / 48000, abs=0.15) and shares[2] == 1


def test_frames_of_any_aspect_ratio_do_not_depend_on_their_batch(taken):
    model, processor, _ = taken["siglip2"]
    images = make_images()
    together = processor(images=images)
    assert len({tuple(size) for size in together["video_sizes"].tolist()}) == 3
    assert together.keys() <= set(processor.model_input_names)
    with torch.no_grad():
        output = model.get_video_features(**together)
        for row, image in enumerate(images):
            alone = model.get_video_features(**processor(images=[image]))
            kept = output.region_mask[row]
            assert kept.sum() == alone.grid[1] * alone.grid[2] <= 16
            torch.testing.assert_close(output.regions[row, kept], alone.regions[0], **EXACT)
            in_map = kept.view(*output.grid)[0]
            height, width = (together["video_sizes"][row] // 8).tolist()
            assert in_map[:height, :width].all() and in_map.sum() == height * width
    with pytest.raises(ValueError, match="one size"):
        taken["clip"][0].get_video_features(torch.zeros(1, 1, 3, 32, 32), video_sizes=torch.tensor([[32, 32]]))


# Training


@pytest.mark.parametrize("name", CONFIGS)
def test_the_fine_objective_trains_all_weights_from_the_published_ones(dual_at, name):
    folder = dual_at[name]
    model, processor = FgmmModel.from_dual_encoder(folder, objective="fine"), FgmmProcessor.from_dual_encoder(folder)
    items = make_waves() if name in WITH_SOUNDS else make_images()
    inputs = process(processor, name, items, CAPTIONS[:3])
    model.train().gradient_checkpointing_enable()
    calls = Counter()
    layers = [(key, layer) for key, layer in model.named_modules() if isinstance(layer, GradientCheckpointingLayer)]
    for key, layer in layers:
        first = next(part for part in layer.modules() if isinstance(part, torch.nn.Linear))
        first.register_forward_hook(lambda *_, key=key: calls.update([key]))
    model(**inputs, return_loss=True).loss.backward()
    assert {key.split(".")[1] for key in calls} == {*model.encoders}
    assert min(calls.values()) >= 2  # once more in the backward pass
    without = [key for key, parameter in model.named_parameters() if parameter.grad is None]
    # Through its codec PE-AV passes no gradients.
    assert all(name == "pe_audio" and ("dac_encoder" in key or "bottleneck" in key) for key in without)
    assert all(not parameter.requires_grad for key, parameter in model.named_parameters() if key in without)
    if name == "pe_audio":
        return
    objective = model.objectives["text_audio" if name in WITH_SOUNDS else "text_video"]
    assert objective.coarse_logit_scale.item() == LOGIT_SCALE


def make_training_pair(name: str) -> tuple[FgmmModel, dict[str, torch.Tensor]]:
    """A dual encoder with random weights and the fine objective, and inputs of three clips of two frames."""
    torch.manual_seed(0)
    model = FgmmModel.from_dual_encoder(CONFIGS[name], objective="fine")
    text = {"input_ids": torch.randint(5, 119, (3, 6))}
    text["input_ids"][:, -1] = 3  # the end of CLIP's texts
    return model, {**text, "pixel_values_videos": torch.randn(3, 2, 3, 32, 32)}


def run_process(rank, world, port, bounds, folder):
    """One process of two: its share of the items, and the gradients that DistributedDataParallel makes of all."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"tcp://localhost:{port}", rank=rank, world_size=world)
    gradients = {}
    for name in ("clip", "siglip2"):
        model, inputs = make_training_pair(name)
        parallel = torch.nn.parallel.DistributedDataParallel(model)  # which refuses weights without a gradient
        for _ in range(2):
            model.zero_grad()
            own = {key: value[bounds[rank] : bounds[rank + 1]] for key, value in inputs.items()}
            parallel(**own, return_loss=True).loss.backward()
        gradients[name] = {key: parameter.grad for key, parameter in model.named_parameters()}
    torch.save(gradients, f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


def test_two_processes_have_the_gradients_of_one(tmp_path):
    given = run_processes(run_process, [0, 2, 3], tmp_path)
    for name in ("clip", "siglip2"):
        model, inputs = make_training_pair(name)
        model(**inputs, return_loss=True).loss.backward()
        for key, parameter in model.named_parameters():
            for of_process in given:
                torch.testing.assert_close(of_process[name][key], parameter.grad, **EXACT)


@pytest.mark.parametrize("name", ["whisper", "clap"])
def test_a_modality_is_added_by_an_encoder_of_its_own(dual_at, encoders_at, taken, name):
    audio = dual_at["clap"] if name == "clap" else encoders_at / "whisper"
    model = FgmmModel.from_dual_encoder(dual_at["clip"], audio=audio, frozen=("video", "text"), objective="fine")
    processor = FgmmProcessor.from_dual_encoder(dual_at["clip"], audio=audio)
    assert model.config.modalities == ["video", "audio", "text"] and len(model.objectives) == 3
    inputs = processor(images=make_images(), audio=make_waves(), sampling_rate=48000, text=CAPTIONS[:3])
    if name == "clap":  # the weights of its encoder, whose features are not yet in the space
        with torch.no_grad():
            own = taken["clap"][0].encoders["audio"](inputs["input_features"], inputs["input_features_mask"])
            encoded = model.encoders["audio"](inputs["input_features"], inputs["input_features_mask"])
        torch.testing.assert_close(encoded.pooled, own.pooled, **EXACT)
    model.train()(**inputs, return_loss=True).loss.backward()
    trained = {
        key.split(".")[1] for key, value in model.named_parameters() if "encoders" in key and value.grad is not None
    }
    assert trained == {"audio"}
    with torch.no_grad():
        expected = taken["clip"][2](make_images(), CAPTIONS[:3])
        torch.testing.assert_close(model.eval()(**inputs).video_embeds, expected.image_embeds, **EXACT)


@pytest.mark.parametrize("name", CONFIGS)
@torch.no_grad()
def test_half_precision_is_near_to_float32(dual_at, taken, name):
    reference = taken[name][2]
    items = make_waves() if name in WITH_SOUNDS else make_images()
    expected = reference(items, CAPTIONS)
    inputs = process(taken[name][1], name, items, CAPTIONS)
    key = "audio" if name in WITH_SOUNDS else "video"
    theirs = expected.audio_embeds if name in WITH_SOUNDS else expected.image_embeds
    for dtype in (torch.float16, torch.bfloat16):
        model = FgmmModel.from_dual_encoder(dual_at[name], dtype=dtype)
        assert {parameter.dtype for parameter in model.parameters()} == {dtype}
        given = {field: value.to(dtype) if value.is_floating_point() else value for field, value in inputs.items()}
        output = model(**given)
        assert output.text_embeds.dtype == dtype and output.logits_per_text.dtype == torch.float32
        for ours, whole in ((output.text_embeds, expected.text_embeds), (output[f"{key}_embeds"], theirs)):
            assert torch.nn.functional.cosine_similarity(ours.float(), whole).min() > 0.99


@pytest.mark.parametrize("name", CONFIGS)
@torch.no_grad()
def test_both_attentions_give_the_same_and_eager_ones_are_returned(dual_at, taken, name):
    _, processor, reference = taken[name]
    items = make_waves() if name in WITH_SOUNDS else make_images()
    inputs = process(processor, name, items, CAPTIONS)
    eager = FgmmModel.from_dual_encoder(dual_at[name], attn_implementation="eager")
    output = eager(**inputs, output_hidden_states=True, output_attentions=True)
    for part in (output.text_output, output.audio_output if name in WITH_SOUNDS else output.video_output):
        assert len(part.hidden_states) == 3 and len(part.attentions) == 2
    tower = reference.model.text_model  # texts of different lengths together, so that the first is without padding
    own = tower(**reference.texts(CAPTIONS[1:2]), output_hidden_states=True).hidden_states
    for ours, theirs in zip(output.text_output.hidden_states, own, strict=True):
        torch.testing.assert_close(ours[1, : theirs.shape[1]], theirs[0], **EXACT)
    if name.startswith("clap"):  # of which transformers has eager attention alone
        with pytest.raises(ValueError, match="scaled_dot_product_attention"):
            FgmmModel.from_dual_encoder(dual_at[name], attn_implementation="sdpa")
        return
    sdpa = FgmmModel.from_dual_encoder(dual_at[name], attn_implementation="sdpa")
    assert {encoder.model.config._attn_implementation for encoder in sdpa.encoders.values()} == {"sdpa"}
    torch.testing.assert_close(sdpa(**inputs).text_embeds, output.text_embeds, **EXACT)


def test_adapters_for_feature_extraction_are_trained(taken):
    model, processor, _ = taken["clip"]
    options = LoraConfig(task_type="FEATURE_EXTRACTION", r=2, target_modules=["q_proj", "v_proj"])
    adapted = get_peft_model(copy.deepcopy(model), options)
    inputs = process(processor, "clip", make_images(), CAPTIONS[:3])
    adapted(**inputs, return_loss=True).loss.backward()
    trained = {name for name, value in adapted.named_parameters() if value.grad is not None}
    assert trained and all("lora_" in name for name in trained)


def test_wrong_dual_encoders_are_refused(dual_at, encoders_at):
    for options, message in (
        ({"dual_encoder": encoders_at / "bert"}, "bert is none of the dual encoders"),
        (
            {"dual_encoder": dual_at["clip"], "video": encoders_at / "videomae"},
            "clip has a video encoder of its own",
        ),
        ({"dual_encoder": dual_at["clip"], "frozen": "audio"}, "none of the given encoders video, text"),
        ({"dual_encoder": dual_at["clip"], "projection_dim": 8}, "no option 'projection_dim'"),
        ({"dual_encoder": dual_at["clip"], "objective": "filip"}, "would leave the pooling"),
    ):
        with pytest.raises(Exception, match=message):
            FgmmModel.from_dual_encoder(**options)


def test_a_folder_that_is_not_whole_is_refused(dual_at, encoders_at, tmp_path):
    """transformers makes up what is missing: random weights, and a tokenizer of special tokens alone."""
    for source, key, load in (
        (dual_at["clip"], "visual_projection.weight", FgmmModel.from_dual_encoder),
        (
            encoders_at / "bert",
            "encoder.layer.0.output.dense.bias",
            lambda folder: FgmmModel.from_encoders(video=VIDEO["vit"], text=folder),
        ),
    ):
        folder = tmp_path / source.name
        shutil.copytree(source, folder)
        state = load_file(folder / "model.safetensors")
        del state[key]
        save_file(state, folder / "model.safetensors", {"format": "pt"})
        with pytest.raises(ValueError, match=f"has no weights for {key}; save or download"):
            load(folder)
    shutil.copytree(dual_at["clap"], tmp_path / "clap")  # of whose two scales one is not used
    state = load_file(tmp_path / "clap" / "model.safetensors")
    del state["logit_scale_t"]
    save_file(state, tmp_path / "clap" / "model.safetensors", {"format": "pt"})
    assert FgmmModel.from_dual_encoder(tmp_path / "clap").config.dual_encoder == "clap"
    for file in (tmp_path / "clip").glob("tokenizer*"):
        file.unlink()
    with pytest.raises(ValueError, match=r"There is no tokenizer in .*clip"):
        FgmmProcessor.from_dual_encoder(tmp_path / "clip")


def test_a_configuration_gives_random_weights_and_a_processor_of_its_sizes(dual_at):
    for name, config in CONFIGS.items():
        model = FgmmModel.from_dual_encoder(config)
        processor = FgmmProcessor.from_dual_encoder(config, tokenizer=dual_at[name])
        if name in WITH_SOUNDS:
            processor.feature_extractor = FgmmProcessor.from_dual_encoder(dual_at[name]).feature_extractor
        items = make_waves() if name in WITH_SOUNDS else make_images()
        with torch.no_grad():
            assert torch.isfinite(model(**process(processor, name, items, CAPTIONS)).logits_per_text).all()


def test_texts_of_siglip_are_lower_case_without_punctuation(dual_at, tmp_path):
    shutil.copytree(dual_at["siglip"], tmp_path / "own")
    path = tmp_path / "own" / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "tokenizer_class": "SiglipTokenizer"}))
    processor = FgmmProcessor.from_dual_encoder(tmp_path / "own")
    plain = FgmmProcessor.from_dual_encoder(dual_at["siglip"])
    inputs = processor(text=["  A small\n\tDOG, two (red) eggs!"])
    assert torch.equal(inputs["input_ids"], plain(text=["a small dog two red eggs"])["input_ids"])
    phrases = [
        processor.tokenizer.decode(inputs["input_ids"][0, first:last]) for first, last in inputs["phrase_spans"][0]
    ]
    assert [phrase.replace(" ", "") for phrase in phrases] == ["smalldog", "two", "red", "eggs"]
    assert FgmmModel.from_dual_encoder(tmp_path / "own").config.text_padding_side == "right"


def test_texts_are_cut_to_the_positions_that_there_are(taken):
    """CLAP counts positions from the one behind the padding id's, as RoBERTa does."""
    model, processor, _ = taken["clap"]
    inputs = processor(text=["two eggs " * 100])
    assert inputs["caption_lengths"].tolist() == [[63]]  # of 64 positions
    assert torch.isfinite(model.get_text_features(**inputs).pooler_output).all()
    with pytest.raises(ValueError, match="has 64 tokens, but clap_text_model takes at most 63"):
        model.get_text_features(input_ids=torch.full((1, 64), 7))


def test_long_sounds_are_their_middle(taken):
    processor = taken["clap_fused"][1]
    long = torch.randn(3, 48000).flatten().numpy()
    middle = processor(audio=[long[48000:96000]], sampling_rate=48000)
    assert torch.equal(processor(audio=[long], sampling_rate=48000)["input_features"], middle["input_features"])


@pytest.mark.parametrize("name", ["clip", "siglip2", "clap"])
def test_processors_that_transformers_saves_as_one_are_read(dual_at, name, tmp_path):
    """As its newer versions do: image processor and feature extractor are part of processor_config.json."""
    AutoModel.from_pretrained(dual_at[name]).save_pretrained(tmp_path)
    AutoProcessor.from_pretrained(dual_at[name]).save_pretrained(tmp_path)
    assert not (tmp_path / "preprocessor_config.json").exists()
    items = make_waves() if name in WITH_SOUNDS else make_images()
    ours, expected = (
        process(FgmmProcessor.from_dual_encoder(folder), name, items, CAPTIONS) for folder in (tmp_path, dual_at[name])
    )
    assert ours.keys() == expected.keys() and all(torch.equal(value, expected[key]) for key, value in ours.items())
