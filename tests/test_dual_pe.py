"""PE-AV taken whole: three modalities, and logits of vectors that are not normalised."""

import json

import numpy as np
import pytest
import torch
from helpers import TEXTS
from tiny_dual_encoders import PE_AUDIO, PE_ENCODER, PE_HOP, PE_TEXT, PE_VIDEO, Reference, make_waves
from transformers import (
    AutoModel,
    PeAudioFeatureExtractor,
    PeAudioFrameLevelModel,
    PeAudioVideoConfig,
    PeAudioVideoEncoderConfig,
    PeAudioVideoModel,
)

from modeling_fgmm import FgmmModel
from modeling_fgmm.dual_encoders_fgmm import load_dual_weights
from processing_fgmm import FgmmProcessor

EXACT = {"atol": 1e-5, "rtol": 1e-5}
CAPTIONS = ["two eggs", TEXTS[0], "a small dog!", TEXTS[1]]


@pytest.fixture(scope="module")
def pe_audio(dual_at):
    """The model of sounds and texts, its processor, and what transformers makes of the same folder."""
    folder = dual_at["pe_audio"]
    return (
        FgmmModel.from_dual_encoder(folder),
        FgmmProcessor.from_dual_encoder(folder),
        Reference("pe_audio", folder),
    )


def make_pe_audio_video() -> tuple[PeAudioVideoModel, dict[str, torch.Tensor]]:
    """PE-AV of three modalities, with scales and biases of their own, and inputs of two items."""
    torch.manual_seed(0)
    encoders = PeAudioVideoEncoderConfig(**PE_ENCODER, audio_config=PE_AUDIO, video_config=PE_VIDEO)
    model = PeAudioVideoModel(PeAudioVideoConfig(text_config=PE_TEXT, audio_video_config=encoders)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "logit" in name:
                parameter.uniform_(0.5, 2.0)
    inputs = {"input_ids": torch.randint(5, 119, (2, 6)), "attention_mask": torch.ones(2, 6, dtype=torch.long)}
    inputs["attention_mask"][1, 4:] = 0
    return model, {
        **inputs,
        "input_values": torch.randn(2, 1, 4 * PE_HOP),
        "pixel_values_videos": torch.randn(2, 3, 3, 32, 32),
    }


def as_ours(inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Inputs of PE-AV, by our names and shapes."""
    inputs = dict(inputs)
    return {"input_features": inputs.pop("input_values").squeeze(1), **inputs}


def test_videos_of_pe_av_are_processed_without_torchvision(tmp_path, word_tokenizer):
    """By the settings of its video processor, which transformers loads with torchvision alone."""
    reference, _ = make_pe_audio_video()
    reference.config.save_pretrained(tmp_path)
    word_tokenizer.save_pretrained(tmp_path)
    PeAudioFeatureExtractor(hop_length=PE_HOP).save_pretrained(tmp_path)
    settings = {"video_processor_type": "PeVideoVideoProcessor", "size": {"height": 32, "width": 32}, "resample": 2}
    settings |= {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "num_frames": 3}
    (tmp_path / "video_preprocessor_config.json").write_text(json.dumps(settings))
    processor = FgmmProcessor.from_dual_encoder(tmp_path)
    model = FgmmModel.from_dual_encoder(reference.config).eval()
    clip = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    inputs = processor(videos=[clip], audio=[torch.zeros(PE_HOP)], sampling_rate=48000, text=["two eggs"])
    expected = torch.as_tensor(clip).permute(0, 3, 1, 2) / 127.5 - 1
    torch.testing.assert_close(inputs["pixel_values_videos"][0], expected, **EXACT)
    with torch.no_grad():
        output = model(**inputs)
    assert output.video_output.grid == (3, 1, 1) and torch.isfinite(output.logits_per_video).all()


@torch.no_grad()
def test_cosines_of_three_modalities_are_half_of_those_of_pe_av():
    """Each pair by its own heads; PE-AV's own cosines are those of its vectors, normalised."""
    reference, inputs = make_pe_audio_video()
    model = FgmmModel.from_dual_encoder(reference.config)
    load_dual_weights(model, reference)
    expected, output = reference(**inputs), model(**as_ours(inputs))
    ours = {"video": output.video_embeds, "audio": output.audio_embeds, "text": output.text_embeds}
    for first, second, names in (
        ("video", "text", ("video_embeds", "text_video_embeds")),
        ("audio", "text", ("audio_embeds", "text_audio_embeds")),
        ("audio", "video", ("audio_embeds", "video_embeds")),
    ):
        left, right = (torch.nn.functional.normalize(expected[name], dim=-1) for name in names)
        torch.testing.assert_close(ours[first] @ ours[second].T, left @ right.T / 2, **EXACT)
    assert output.video_output.grid == (3, 1, 1) and output.audio_output.grid == (1, 4)


@torch.no_grad()
def test_embeddings_that_are_not_normalised_give_all_logits_of_pe_av():
    reference, inputs = make_pe_audio_video()
    model = FgmmModel.from_dual_encoder(reference.config, normalize_embeds=False)
    load_dual_weights(model, reference)
    expected, output = reference(**inputs), model(**as_ours(inputs))
    for ours, theirs in (
        ("logits_per_video", "logits_video_text"),
        ("logits_per_audio", "logits_audio_text"),
        ("logits_per_audio_video", "logits_audio_video"),
    ):
        assert expected[theirs].std() > 0.01
        torch.testing.assert_close(output[ours], expected[theirs], **EXACT)
    width = model.config.projection_dim // 3
    torch.testing.assert_close(output.video_embeds[:, :width], expected.video_embeds, **EXACT)
    silent = model(**{**as_ours(inputs), "input_features_mask": torch.tensor([[True], [False]]).expand(2, 4 * PE_HOP)})
    assert (silent.audio_embeds[1] == 0).all() and (silent.logits_per_audio[1] < -1e30).all()


@torch.no_grad()
def test_logits_of_pe_audio_are_still_exact_when_saved(dual_at, pe_audio, tmp_path):
    processor, reference = pe_audio[1:]
    model = FgmmModel.from_dual_encoder(dual_at["pe_audio"], normalize_embeds=False)
    model.save_pretrained(tmp_path)
    output = AutoModel.from_pretrained(tmp_path)(**processor(audio=make_waves(), sampling_rate=48000, text=CAPTIONS))
    own = [reference.model(**reference.texts(CAPTIONS), **inputs) for inputs in reference.media(make_waves())]
    embeds, logits = (torch.cat([getattr(one, key) for one in own]) for key in ("audio_embeds", "logits_audio_text"))
    torch.testing.assert_close(output.audio_embeds, embeds, **EXACT)
    torch.testing.assert_close(output.logits_per_audio, logits, **EXACT)


def test_negative_scales_and_other_models_keep_normalised_embeddings(dual_at):
    reference, _ = make_pe_audio_video()
    reference.audio_video_logit_scale.data.fill_(-1.0)
    with pytest.raises(ValueError, match="audio_video_logit_scale is -1"):
        load_dual_weights(FgmmModel.from_dual_encoder(reference.config, normalize_embeds=False), reference)
    for folder, options in ((dual_at["siglip"], {}), (dual_at["pe_audio"], {"objective": "fine"})):
        with pytest.raises(Exception, match="normalize_embeds=False"):
            FgmmModel.from_dual_encoder(folder, normalize_embeds=False, **options)


@torch.no_grad()
def test_regions_of_pe_audio_are_those_of_its_model_of_frames(pe_audio, dual_at):
    model, processor, reference = pe_audio
    frames = PeAudioFrameLevelModel.from_pretrained(dual_at["pe_audio"]).eval()
    waves = make_waves()
    output = model.get_audio_features(**processor(audio=[*waves, None], sampling_rate=48000))
    assert output.region_mask.sum(1).tolist() == [17, 49, 50, 0]
    for row, inputs in enumerate(reference.media(waves)):
        expected = frames(**reference.texts(CAPTIONS), **inputs).audio_embeds[0]
        kept = output.region_mask[row]
        torch.testing.assert_close(output.regions[row, kept], torch.nn.functional.normalize(expected, dim=-1), **EXACT)
