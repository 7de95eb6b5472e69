"""Compares a dual encoder that is taken whole with transformers' own class and processor, on given files."""

from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import ImageOps
from transformers import AutoConfig, AutoModel, AutoProcessor

from modeling_fgmm import FgmmModel
from modeling_fgmm.dual_encoders_fgmm import is_pe
from processing_fgmm.media_fgmm import read_waveform
from processing_fgmm.pictures_fgmm import read_image

from .cli import UserError
from .models import is_dual_encoder, load_model

# Of results in float32.
TOLERANCE = 1e-5


@torch.no_grad()
def compare_with_transformers(
    name: str, images: list[Path], sounds: list[Path], texts: list[str]
) -> dict[str, dict[str, float]]:
    """The largest absolute differences between fgmm's and transformers' results, in float32.

    Args:
        name: of the dual encoder, a folder or a name on the Hub.
        images, sounds: files, of what the dual encoder has an encoder for; at least one.
        texts: at least one.

    Returns:
        for "images" and "sounds", where they are given, the differences of their "embeddings", those of "texts", and
        of "cosines" and "logits", these divided by the logit scale. Of PE-AV cosines, and the logits of
        `normalize_embeds=False`, divided by the scale and the lengths of the vectors.

    Raises:
        UserError: when the model cannot be loaded, is an fgmm model, or has no encoder of given files.
    """
    model, processor = load_model(name)
    if not is_dual_encoder(AutoConfig.from_pretrained(name).model_type):
        raise UserError(f"{name!r} is an fgmm model; give the dual encoder that it began from.")
    for modality, noun, files in (("video", "images", images), ("audio", "sounds", sounds)):
        if files and modality not in model.config.dual_modalities:
            raise UserError(f"{name!r} has no encoder of {noun}.")
    if images and is_pe(model.config.dual_encoder):
        raise UserError("PE-AV is compared on sounds alone, for its own processor takes videos; leave --images out.")
    try:
        their_processor = AutoProcessor.from_pretrained(name)
    except (ImportError, OSError, ValueError) as error:
        raise UserError(f"transformers cannot load the processor of {name!r}: {str(error).splitlines()[0]}") from error
    theirs = AutoModel.from_pretrained(name, dtype=torch.float32).eval()
    differences = {}
    if images:
        # transformers' processors neither turn pictures upright nor, all of them, take other colours.
        items = [ImageOps.exif_transpose(read_image(path)).convert("RGB") for path in images]
        inputs = [their_processor.image_processor(item, return_tensors="pt") for item in items]
        ours = processor(images=items, text=texts)
        differences["images"] = compare(model, ours, theirs, inputs, their_processor, texts)
    if sounds:
        rate = processor.feature_extractor.sampling_rate
        items = [read_waveform(path, rate).numpy() for path in sounds]
        inputs = [their_processor.feature_extractor(item, sampling_rate=rate, return_tensors="pt") for item in items]
        ours = processor(audio=items, sampling_rate=rate, text=texts)
        if is_pe(model.config.dual_encoder):
            raw = FgmmModel.from_dual_encoder(name, normalize_embeds=False)
            differences["sounds"] = compare_pe(model, raw, ours, theirs, inputs, their_processor, texts)
        else:
            differences["sounds"] = compare(model, ours, theirs, inputs, their_processor, texts)
    return differences


def compare(model: FgmmModel, ours: dict, theirs, media: list[dict], their_processor, texts: list[str]) -> dict:
    """The differences of [`compare_with_transformers`] for one modality of a dual encoder other than PE-AV.

    Args:
        model, theirs: fgmm's and transformers' model.
        ours: inputs of fgmm's, of all items together.
        media: inputs of transformers', of each item alone.
        their_processor: makes theirs of the texts.
    """
    key = "audio" if "input_features" in ours else "video"
    output = model(**ours)
    tokens = {"padding": True}
    if model.config.text_padding_side:
        longest = model.config.text_config.max_position_embeddings
        tokens = {"padding": "max_length", "max_length": longest, "truncation": True}
    text = their_processor.tokenizer(texts, return_tensors="pt", **tokens)
    if model.config.text_padding_side:  # which it was trained to attend to
        text.pop("attention_mask", None)
    outputs = [theirs(**text, **inputs) for inputs in media]
    cosines = output[f"{key}_embeds"] @ output.text_embeds.T
    embeds = torch.cat([one["audio_embeds" if key == "audio" else "image_embeds"] for one in outputs])
    logits = torch.cat([one["logits_per_audio" if key == "audio" else "logits_per_image"] for one in outputs])
    text_embeds, scale = outputs[0].text_embeds, model.get_objective("text", key).scale()
    return {
        "embeddings": largest(output[f"{key}_embeds"] - embeds),
        "texts": largest(output.text_embeds - text_embeds),
        "cosines": largest(cosines - embeds @ text_embeds.T),
        "logits": largest((output[f"logits_per_{key}"] - logits) / scale),
    }


def compare_pe(
    model: FgmmModel, raw: FgmmModel, ours: dict, theirs, sounds: list[dict], their_processor, texts: list[str]
) -> dict:
    """The differences of [`compare_with_transformers`] for the sounds of PE-AV.

    Args:
        raw: as `model`, with embeddings that are not normalised.
        others: as in [`compare`].
    """
    text = their_processor.tokenizer(texts, return_tensors="pt", padding=True)
    outputs = [theirs(**text, **inputs) for inputs in sounds]
    embeds, text_embeds = torch.cat([one.audio_embeds for one in outputs]), outputs[0].text_audio_embeds
    cosines = F.normalize(embeds, dim=-1) @ F.normalize(text_embeds, dim=-1).T
    logits = torch.cat([one.logits_audio_text for one in outputs])
    lengths = embeds.norm(dim=-1, keepdim=True) * text_embeds.norm(dim=-1)
    output = model(**ours)
    factor = 2 if model.config.dual_encoder == "pe_audio_video" else 1  # see dual_pe_fgmm
    scale = raw.get_objective("text", "audio").scale()
    return {
        "cosines": largest(factor * output.audio_embeds @ output.text_embeds.T - cosines),
        "logits": largest((raw(**ours).logits_per_audio - logits) / (scale * lengths)),
    }


def largest(differences: torch.Tensor) -> float:
    """The largest absolute value."""
    return differences.abs().max().item()
