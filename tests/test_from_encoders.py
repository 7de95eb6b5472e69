"""Encoders of the transformers library, tiny and random, in the places of ours."""

import subprocess
import sys

import numpy as np
import pretrain
import pytest
import torch
from accelerate import Accelerator
from conftest import TEXTS, run_processes, write_video
from gradient_cache import cached_backward, split_batch
from PIL import Image
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    ASTConfig,
    ASTFeatureExtractor,
    ASTModel,
    AutoModel,
    AutoProcessor,
    BertConfig,
    BertModel,
    CLIPConfig,
    CLIPModel,
    CLIPTextConfig,
    CLIPVisionConfig,
    Dinov2Config,
    Dinov2WithRegistersConfig,
    DistilBertConfig,
    HubertConfig,
    MPNetConfig,
    PreTrainedTokenizerFast,
    RobertaConfig,
    SiglipConfig,
    SiglipModel,
    SiglipTextConfig,
    SiglipVisionConfig,
    T5Config,
    TimesformerConfig,
    VideoMAEConfig,
    VideoMAEModel,
    ViTConfig,
    VivitConfig,
    VJEPA2Config,
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2Model,
    WavLMConfig,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperModel,
)

from modeling_fgmm import FgmmConfig, FgmmForAudioClassification, FgmmForVideoClassification, FgmmModel
from processing_fgmm import FgmmFeatureExtractor, FgmmProcessor, FgmmVideoProcessor
from processing_fgmm.encoder_processors_fgmm import read_settings
from processing_fgmm.processing_fgmm import extract_features

SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
PICTURE = {"image_size": 32, "patch_size": 16}
WAVE = {
    "conv_dim": [16, 16],
    "conv_kernel": [10, 4],
    "conv_stride": [5, 4],
    "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2,
}
WORDS = {"vocab_size": 120}
CLIP_TEXT = {**SIZES, **WORDS, "bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 0}

VIDEO = {
    "videomae": VideoMAEConfig(**SIZES, **PICTURE, num_frames=4),
    "vivit": VivitConfig(**SIZES, image_size=32, tubelet_size=[2, 16, 16], num_frames=4),
    "timesformer": TimesformerConfig(**SIZES, **PICTURE, num_frames=4),
    "vjepa2": VJEPA2Config(
        **{name: value for name, value in SIZES.items() if name != "intermediate_size"},
        **{"crop_size": 32, "patch_size": 16, "frames_per_clip": 4},
        **{"pred_hidden_size": 32, "pred_num_attention_heads": 2, "pred_num_hidden_layers": 1},
    ),
    "clip": CLIPVisionConfig(**SIZES, **PICTURE),
    "siglip": SiglipVisionConfig(**SIZES, **PICTURE),
    "vit": ViTConfig(**SIZES, **PICTURE),
    "dinov2": Dinov2Config(**SIZES, image_size=64, patch_size=16),
    "dinov2_with_registers": Dinov2WithRegistersConfig(**SIZES, image_size=64, patch_size=16, num_register_tokens=3),
}
PER_FRAME = ("clip", "siglip", "vit", "dinov2", "dinov2_with_registers")
AUDIO = {
    "ast": ASTConfig(**SIZES, num_mel_bins=24, max_length=60, patch_size=8, frequency_stride=8, time_stride=6),
    "wav2vec2": Wav2Vec2Config(**SIZES, **WAVE),
    "wav2vec2_layer": Wav2Vec2Config(**SIZES, **WAVE, feat_extract_norm="layer", do_stable_layer_norm=True),
    "hubert": HubertConfig(**SIZES, **WAVE),
    "wavlm": WavLMConfig(**SIZES, **WAVE, num_buckets=8),
    "whisper": WhisperConfig(
        **{"d_model": 32, "encoder_layers": 2, "encoder_attention_heads": 2, "encoder_ffn_dim": 48},
        **{"decoder_layers": 1, "decoder_attention_heads": 2, "decoder_ffn_dim": 48},
        **{"num_mel_bins": 24, "max_source_positions": 50, "vocab_size": 52000},
    ),
}
TEXT = {
    "bert": BertConfig(**SIZES, **WORDS),
    "distilbert": DistilBertConfig(dim=32, n_layers=2, n_heads=2, hidden_dim=48, **WORDS),
    "roberta": RobertaConfig(**SIZES, **WORDS),
    "mpnet": MPNetConfig(**SIZES, **WORDS),
    "clip": CLIPTextConfig(**CLIP_TEXT),
}
PHRASES = ("phrase_spans", "phrase_captions", "phrase_mask", "caption_lengths")


def make_model(video="vit", audio="wav2vec2", text="bert", **options) -> FgmmModel:
    torch.manual_seed(0)
    parts = {"video": VIDEO.get(video), "audio": AUDIO.get(audio), "text": TEXT.get(text)}
    return FgmmModel.from_encoders(**parts, projection_dim=16, **options)


def make_clips() -> dict[str, torch.Tensor]:
    """Three clips; the second item has no video."""
    generator = torch.Generator().manual_seed(1)
    clips = torch.randn(3, 4, 3, 32, 32, generator=generator)
    return {"pixel_values_videos": clips, "video_mask": torch.tensor([True, False, True])}


def make_sounds(config) -> dict[str, torch.Tensor]:
    """Three sounds, one half as long; the last item has none."""
    generator = torch.Generator().manual_seed(2)
    shape = {"whisper": (3, 100, 24), "audio-spectrogram-transformer": (3, 60, 24)}.get(config.model_type, (3, 4000))
    values = torch.randn(*shape, generator=generator)
    mask = torch.ones(shape[:2], dtype=torch.bool)
    mask[1, shape[1] // 2 :] = False
    mask[2] = False
    return {"input_features": values, "input_features_mask": mask}


def make_texts() -> dict[str, torch.Tensor]:
    """Three items; the first and last have two captions, with tokens in front and behind that are in no phrase."""
    generator = torch.Generator().manual_seed(3)
    mask = torch.ones(3, 12, dtype=torch.long)
    mask[1, 7:] = 0
    return {
        "input_ids": torch.randint(5, 119, (3, 12), generator=generator) * mask,
        "attention_mask": mask,
        "phrase_spans": torch.tensor([[[1, 3], [4, 5], [7, 10]], [[1, 2], [2, 6], [0, 0]], [[1, 2], [4, 6], [7, 9]]]),
        "phrase_captions": torch.tensor([[0, 0, 1], [0, 0, 0], [0, 1, 1]]),
        "phrase_mask": torch.tensor([[True] * 3, [True, True, False], [True] * 3]),
        "caption_lengths": torch.tensor([[6, 6], [7, 0], [3, 9]]),
    }


def make_inputs(model) -> dict[str, torch.Tensor]:
    return {**make_clips(), **make_sounds(model.config.audio_config), **make_texts()}


@pytest.fixture(scope="module")
def word_tokenizer():
    """BERT's way of cutting texts, trained on a few of them: 120 pieces of words."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer.train_from_iterator(TEXTS, trainers.WordPieceTrainer(vocab_size=120, special_tokens=special))
    tokenizer.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", None, [("[CLS]", 2), ("[SEP]", 3)])
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names, mask_token="[MASK]", model_max_length=64)


@pytest.fixture(scope="module")
def folders(word_tokenizer, tmp_path_factory):
    """Saved encoders, each with its own processor: what a name on the Hub holds."""
    root = tmp_path_factory.mktemp("encoders")
    torch.manual_seed(5)
    clip = CLIPConfig(vision_config=VIDEO["clip"].to_dict(), text_config=CLIP_TEXT, projection_dim=8)
    siglip = SiglipConfig(vision_config=VIDEO["siglip"].to_dict(), text_config={**SIZES, **WORDS})
    parts = {
        "videomae": VideoMAEModel(VIDEO["videomae"]),
        "clip": CLIPModel(clip),
        "siglip": SiglipModel(siglip),
        "ast": ASTModel(AUDIO["ast"]),
        "wav2vec2": Wav2Vec2Model(AUDIO["wav2vec2"]),
        "whisper": WhisperModel(AUDIO["whisper"]),
        "bert": BertModel(TEXT["bert"]),
    }
    for name, model in parts.items():
        model.save_pretrained(root / name)
    ASTFeatureExtractor(num_mel_bins=24, max_length=60, mean=-5.0, std=3.0).save_pretrained(root / "ast")
    Wav2Vec2FeatureExtractor().save_pretrained(root / "wav2vec2")
    WhisperFeatureExtractor(feature_size=24, chunk_length=1).save_pretrained(root / "whisper")
    for name, kind, options in PICTURE_PROCESSORS:
        if name in parts:
            pillow_processor(kind)(**options).save_pretrained(root / name)
    word_tokenizer.save_pretrained(root / "bert")
    word_tokenizer.save_pretrained(root / "clip")
    return root


PICTURE_PROCESSORS = [
    ("videomae", "videomae.image_processing_pil_videomae.VideoMAEImageProcessorPil", {"size": {"shortest_edge": 32}}),
    ("clip", "clip.image_processing_pil_clip.CLIPImageProcessorPil", {"size": {"shortest_edge": 36}}),
    ("siglip", "siglip.image_processing_pil_siglip.SiglipImageProcessorPil", {"size": {"height": 32, "width": 32}}),
    ("vit", "vit.image_processing_pil_vit.ViTImageProcessorPil", {"size": {"height": 32, "width": 32}}),
]
PICTURE_PROCESSORS = [
    (
        name,
        kind,
        {**options, "crop_size": {"height": 32, "width": 32}} if "shortest_edge" in options["size"] else options,
    )
    for name, kind, options in PICTURE_PROCESSORS
]


def pillow_processor(kind: str):
    """A class of transformers that works without torchvision."""
    module, name = kind.rsplit(".", 1)
    return getattr(__import__(f"transformers.models.{module}", fromlist=[name]), name)


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
        assert not model.encoders["video"](make_clips()["pixel_values_videos"])[0].requires_grad  # no graph at all
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


def test_pretraining_goes_on_from_given_encoders(narrated, folders, tmp_path):
    encoders = {"video": folders / "clip", "audio": folders / "whisper", "text": folders / "bert"}
    start = FgmmModel.from_encoders(**encoders, projection_dim=16, frozen=("video", "text"))
    start.save_pretrained(tmp_path / "start")
    processor = FgmmProcessor.from_encoders(**encoders)
    processor.video_processor.num_frames = 2
    processor.save_pretrained(tmp_path / "start")
    options = {"dataset": narrated, "output_dir": tmp_path / "model", "init_from": tmp_path / "start"}
    options.update({"clip_seconds": 2.0, "batch_size": 8, "num_workers": 0, "warmup_steps": 1, "max_steps": 3})
    options.update({"encoder_chunk_size": 4, "eval_clips": 4, "learning_rate": 0.01})
    words = [part for name, value in options.items() for part in (f"--{name}", str(value))]
    pretrain.train(pretrain.parse_config(words))
    trained = AutoModel.from_pretrained(tmp_path / "model")
    assert trained.config.frozen == ["video", "text"] and trained.config.video_config.model_type == "clip_vision_model"
    before, after = start.state_dict(), trained.state_dict()
    moved = {".".join(name.split(".")[:2]) for name in before if not torch.equal(before[name], after[name])}
    assert {"encoders.audio", "projections.video"} <= moved and not {"encoders.video", "encoders.text"} & moved
    states = torch.load(tmp_path / "model/checkpoints/step-0000003/optimizer.bin")["state"]
    assert len(states) == sum(parameter.requires_grad for parameter in trained.train().parameters())
    saved = AutoProcessor.from_pretrained(tmp_path / "model")
    assert isinstance(saved.feature_extractor, WhisperFeatureExtractor) and saved.video_processor.num_frames == 2


# Names and folders


def test_weights_of_names_are_taken(folders):
    clip, whisper = CLIPModel.from_pretrained(folders / "clip"), WhisperModel.from_pretrained(folders / "whisper")
    model = FgmmModel.from_encoders(video=folders / "clip", audio=folders / "whisper", text=folders / "clip")
    clips, texts = make_clips()["pixel_values_videos"], make_texts()
    sounds = make_sounds(AUDIO["whisper"])["input_features"]
    with torch.no_grad():
        tokens = clip.vision_model(clips[:, 0]).last_hidden_state
        assert torch.allclose(model.get_image_features(clips[:, 0]).last_hidden_state, tokens[:, 1:], atol=1e-5)
        expected = whisper.encoder(sounds.transpose(1, 2)).last_hidden_state
        assert torch.allclose(model.get_audio_features(sounds).last_hidden_state, expected, atol=1e-5)
        words = clip.text_model(texts["input_ids"][:1, :6]).last_hidden_state[0]
        phrases = model.get_text_features(**texts).last_hidden_state
        assert torch.allclose(phrases[0, 0], words[1:3].amax(0), atol=1e-5)
    assert model.config.text_config.model_type == "clip_text_model" and not hasattr(model.config, "projection")


def test_every_saved_kind_can_be_named(folders):
    for video, audio in (("videomae", "ast"), ("siglip", "wav2vec2")):
        model = FgmmModel.from_encoders(video=str(folders / video), audio=str(folders / audio), text=folders / "bert")
        own = AutoModel.from_pretrained(folders / "bert").state_dict()
        assert torch.equal(
            model.encoders["text"].model.state_dict()["embeddings.word_embeddings.weight"],
            own["embeddings.word_embeddings.weight"],
        )
        own = AutoModel.from_pretrained(folders / video)
        own = getattr(own, "vision_model", own).state_dict()
        ours = model.encoders["video"].model.state_dict()
        assert all(torch.equal(ours[name], own[name]) for name in ours)


def test_encoders_of_an_fgmm_model_can_be_taken(model, processor, tmp_path, folders):
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    mixed = FgmmModel.from_encoders(video=tmp_path, audio=tmp_path, text=folders / "bert", projection_dim=8)
    clips = make_clips()["pixel_values_videos"]
    expected = model.get_video_features(clips).last_hidden_state
    assert torch.equal(mixed.get_video_features(clips).last_hidden_state, expected)
    assert mixed.config.video_config.model_type == "fgmm_video"
    mixed_processor = FgmmProcessor.from_encoders(video=tmp_path, audio=tmp_path, text=folders / "bert")
    assert mixed_processor.video_processor.num_frames == 4 and mixed_processor.feature_extractor.feature_size == 32


def test_encoders_that_cannot_be_taken_are_named():
    with pytest.raises(ValueError, match="bert is none of the video encoders"):
        FgmmModel.from_encoders(video=TEXT["bert"], text=TEXT["bert"])
    with pytest.raises(ValueError, match="vit is none of the audio encoders"):
        FgmmModel.from_encoders(audio=VIDEO["vit"], text=TEXT["bert"])
    for text in (T5Config(d_model=32), SiglipTextConfig(**SIZES, **WORDS)):
        with pytest.raises(ValueError, match=f"{text.model_type} is no text encoder"):
            FgmmModel.from_encoders(video=VIDEO["vit"], text=text)
    with pytest.raises(ValueError, match="'nonesuch', which transformers lacks"):
        FgmmConfig(video_config={"model_type": "nonesuch"})
    with pytest.raises(Exception, match="two of"):
        FgmmModel.from_encoders(video=VIDEO["vit"])
    with pytest.raises(OSError, match="nowhere"):
        FgmmModel.from_encoders(video="./nowhere", text=TEXT["bert"])


# Processors


@pytest.mark.parametrize(
    ("name", "kind", "options"), PICTURE_PROCESSORS, ids=[entry[0] for entry in PICTURE_PROCESSORS]
)
def test_pictures_become_what_the_encoders_own_processor_makes(name, kind, options):
    own = pillow_processor(kind)(**options)
    ours = FgmmVideoProcessor(**read_settings(own.to_dict()))
    ramp = np.linspace(0, 255, 108)  # scaled to whole numbers of pixels
    noise = np.random.default_rng(0).integers(0, 60, (72, 108, 3))
    picture = ((ramp[None, :, None] + noise) / 2 + [[[0, 20, 60]]]).clip(0, 255).astype(np.uint8)
    expected = torch.as_tensor(np.array(own([Image.fromarray(picture)])["pixel_values"][0])).reshape(3, 32, 32)
    pixels = ours(Image.fromarray(picture), num_frames=1)["pixel_values_videos"][0, 0]
    one_level = 1 / 255 / min(own.image_std)
    assert (pixels - expected).abs().max() < 1.5 * one_level


def test_settings_of_older_and_of_video_processors():
    clip = {
        "crop_size": 224,
        "do_center_crop": True,
        "size": 224,
        "resample": 3,
        "image_mean": [0.5] * 3,
        "image_std": [0.25] * 3,
    }
    read = read_settings(clip)
    assert read["size"] == {"shortest_edge": 224} and read["crop_size"] == {"height": 224, "width": 224}
    assert read["resample"] == "bicubic" and read["image_mean"] == pytest.approx([0.5] * 3)
    vit = read_settings({"size": 384, "resample": 2, "image_mean": [0.5] * 3, "image_std": [0.5] * 3})
    assert vit["size"] == vit["crop_size"] == {"height": 384, "width": 384}
    videomae = read_settings({"do_center_crop": True, "size": 224})
    assert videomae["crop_size"] == {"height": 224, "width": 224}
    vivit = {
        "size": {"shortest_edge": 256},
        "crop_size": {"height": 224, "width": 224},
        "do_center_crop": True,
        "rescale_factor": 1 / 127.5,
        "offset": True,
        "image_mean": [0.5] * 3,
        "image_std": [0.25] * 3,
    }
    read = read_settings(vivit)
    assert (0.7 - read["image_mean"][0]) / read["image_std"][0] == pytest.approx((0.7 * 2 - 1 - 0.5) / 0.25)
    with pytest.raises(ValueError, match="filter 1"):
        read_settings({"size": 224, "resample": 1})


@pytest.mark.parametrize("name", ["ast", "wav2vec2", "whisper"])
def test_sounds_become_what_the_encoders_own_extractor_makes(name, folders):
    """Through the whole model: a sound that ends early is heard as the encoder hears it with its own padding."""
    torch.manual_seed(0)
    model = FgmmModel.from_encoders(audio=folders / name, text=folders / "bert")
    processor = FgmmProcessor.from_encoders(audio=folders / name, text=folders / "bert")
    sounds = [np.sin(np.arange(length) * 0.1).astype(np.float32) * 0.3 for length in (5000, 9000)]
    own = processor.feature_extractor
    inputs = processor(audio=[*sounds, None], sampling_rate=16000)
    encoder = model.encoders["audio"].model
    with torch.no_grad():
        output = model.get_audio_features(**inputs)
        for row, sound in enumerate(sounds):
            values = own(sound, sampling_rate=16000, return_tensors="pt")[own.model_input_names[0]]
            expected = encoder(values).last_hidden_state[0]
            number = output.last_hidden_state.shape[1] if name != "wav2vec2" else len(expected)
            assert torch.allclose(output.last_hidden_state[row, :number], expected[-number:], atol=1e-4)
    counts = output.region_mask.sum(1).tolist()
    assert 0 < counts[0] < counts[1] and counts[2] == 0
    seconds = {"ast": 0.6, "wav2vec2": 9000 / 16000, "whisper": 1.0}[name]
    frequencies, times = output.grid
    for row, sound in enumerate(sounds):
        assert abs(counts[row] / frequencies - times * len(sound) / 16000 / seconds) < 2.5
    assert extract_features(own, [None])["input_features_mask"].any().item() is False


def test_sounds_at_another_rate_are_resampled(folders):
    processor = FgmmProcessor.from_encoders(audio=folders / "wav2vec2", text=folders / "bert")
    sound = np.sin(np.arange(44100) / 44100 * 2 * np.pi * 440)
    assert processor(audio=[sound], sampling_rate=44100)["input_features"].shape == (1, 16000)


@pytest.mark.parametrize(
    ("video", "audio", "text"),
    [("videomae", "ast", "bert"), ("clip", "whisper", "clip"), ("siglip", "wav2vec2", "bert")],
)
def test_files_through_processor_and_model(folders, video, audio, text, tmp_path):
    encoders = {"video": folders / video, "audio": folders / audio, "text": folders / text}
    model, processor = FgmmModel.from_encoders(**encoders), FgmmProcessor.from_encoders(**encoders)
    clip = write_video(tmp_path / "clip.mp4", sound=1.0)
    long = write_video(tmp_path / "long.mp4", seconds=3.0, sound=3.0)
    photo = tmp_path / "photo.jpg"
    Image.fromarray(np.full((40, 60, 3), 120, np.uint8)).save(photo)
    texts = [[TEXTS[0], "a small dog"], [TEXTS[1]]]
    inputs = processor(videos=[clip, long.read_bytes()], audio=[clip, long], text=texts, start=0.5, end=1.0)
    outputs = model(**inputs)
    assert torch.isfinite(outputs.logits_per_text).all() and outputs.logits_per_audio.shape == (2, 2)
    assert inputs["pixel_values_videos"].shape[1] == (4 if video == "videomae" else 8)
    assert inputs["caption_lengths"].sum(1).tolist() == inputs["attention_mask"].sum(1).tolist()
    tokenizer = processor.tokenizer
    first, last = inputs["phrase_spans"][0, -1].tolist()
    assert tokenizer.decode(inputs["input_ids"][0, first:last]).replace(" ", "") == "smalldog"
    assert not set(tokenizer.all_special_ids) & set(inputs["input_ids"][0, first:last].tolist())
    assert torch.isfinite(model(**processor(images=[photo])).video_embeds).all()
    alone = model(**processor(text=["a small dog"])).text_output
    assert torch.allclose(outputs.text_output.caption_embeds[0, 1], alone.caption_embeds[0, 0], atol=1e-5)

    processor.save_pretrained(tmp_path / "saved")
    loaded = AutoProcessor.from_pretrained(tmp_path / "saved")
    assert isinstance(loaded, FgmmProcessor) and type(loaded.feature_extractor) is type(processor.feature_extractor)
    again = loaded(videos=[clip, long.read_bytes()], audio=[clip, long], text=texts, start=0.5, end=1.0)
    assert all(torch.equal(inputs[name], again[name]) for name in inputs)


def test_processors_of_configurations_fit_their_encoders(word_tokenizer, tmp_path):
    clip = write_video(tmp_path / "clip.mp4", sound=1.0)
    for video, audio in (("videomae", "whisper"), ("vjepa2", "ast"), ("dinov2", "hubert")):
        model = make_model(video, audio, "bert")
        processor = FgmmProcessor.from_encoders(VIDEO[video], AUDIO[audio], tokenizer=word_tokenizer)
        assert torch.isfinite(model(**processor(videos=[clip], audio=[clip], text=TEXTS[:1])).logits_per_text).all()
    own = FgmmConfig(audio_config={"num_mel_bins": 40})
    assert FgmmProcessor.from_encoders(audio=own.audio_config, text=word_tokenizer).feature_extractor.feature_size == 40


def test_texts_are_cut_to_what_the_encoder_takes(folders):
    processor = FgmmProcessor.from_encoders(text=folders / "bert")
    assert processor.tokenizer.model_max_length == 64
    assert processor(text=[["dog " * 500, "dog"]])["caption_lengths"].tolist() == [[64, 3]]
    processor.tokenizer.model_max_length = 10_000
    model = make_model(text="clip", audio=None)
    with pytest.raises(ValueError, match="max_position_embeddings is 77"):
        model(**processor(text=["dog " * 500]))


def test_a_processor_needs_a_fast_tokenizer(folders):
    for text in (None, TEXT["bert"]):
        with pytest.raises(ValueError, match="needs a tokenizer"):
            FgmmProcessor.from_encoders(text=text)

    class SlowTokenizer:
        is_fast = False
        model_max_length = 10

    with pytest.raises((ValueError, TypeError), match="tokenizer"):
        FgmmProcessor.from_encoders(text=SlowTokenizer())
    assert isinstance(FgmmProcessor.from_encoders(text=folders / "bert").feature_extractor, FgmmFeatureExtractor)


def test_code_travels_with_the_weights(folders, tmp_path):
    """Away from this repository, from a folder alone."""
    encoders = {"video": folders / "videomae", "audio": folders / "whisper", "text": folders / "bert"}
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
