"""Which encoder stands in the place of each modality, and items that lack a modality."""

import os
from difflib import get_close_matches

import torch
from torch import nn
from transformers import ASTFeatureExtractor, AutoConfig, PreTrainedConfig

from .audio_fgmm import FgmmAudioEncoder
from .configuration_fgmm import FgmmConfig
from .text_fgmm import FgmmTextEncoder
from .transformers_fgmm import TransformersAudioEncoder, TransformersTextEncoder, TransformersVideoEncoder
from .video_fgmm import FgmmVideoEncoder

# Ours, by their model type; any other is one of transformers'.
OWN_ENCODERS = {"fgmm_video": FgmmVideoEncoder, "fgmm_audio": FgmmAudioEncoder, "fgmm_text": FgmmTextEncoder}


def make_encoder(modality: str, config: FgmmConfig) -> nn.Module:
    """The encoder of one modality, with random weights.

    Raises:
        ValueError: for a kind of encoder that cannot stand in this place.
    """
    part = getattr(config, f"{modality}_config")
    if part.model_type in OWN_ENCODERS:
        return OWN_ENCODERS[part.model_type](part)
    if modality == "audio":
        return TransformersAudioEncoder(part, config.audio_padding_value)
    return {"video": TransformersVideoEncoder, "text": TransformersTextEncoder}[modality](part)


def check_given(encoders: dict, frozen: list[str], options: dict) -> None:
    """Looks at what `FgmmModel.from_encoders` was given, before anything is loaded.

    Raises:
        ValueError: for fewer than two encoders, one that is neither named nor a configuration, or names in `frozen` or
            `options` that there are not.
    """
    if len(encoders) < 2:
        raise ValueError(f"Give at least two of video, audio and text, not {', '.join(encoders) or 'none'}.")
    for name, encoder in encoders.items():
        if not isinstance(encoder, (str, os.PathLike, PreTrainedConfig)):
            raise ValueError(
                f"{name} cannot be a {type(encoder).__name__}; give a name on the Hub, a folder or a configuration."
            )
    for name in frozen:
        if name not in encoders:
            raise ValueError(f"frozen has {name!r}, which is none of the given encoders {', '.join(encoders)}.")
    known = set(FgmmConfig.__annotations__) - {"video_config", "audio_config", "text_config", "modalities", "frozen"}
    for name in options:
        if name not in known:
            nearest = get_close_matches(name, known) or sorted(known)
            raise ValueError(f"from_encoders has no option {name!r}; FgmmConfig has {', '.join(nearest)}.")


def load_config(encoder: str | os.PathLike | PreTrainedConfig) -> PreTrainedConfig:
    """The configuration of a named encoder or fgmm model; a configuration is taken as it is."""
    if isinstance(encoder, PreTrainedConfig):
        return encoder
    values, _ = PreTrainedConfig.get_config_dict(encoder)
    kind = FgmmConfig if values.get("model_type") == FgmmConfig.model_type else AutoConfig
    return kind.from_pretrained(encoder)


def is_joint(config: PreTrainedConfig) -> bool:
    """Whether it is an fgmm model's, with encoders in it."""
    return config.model_type == FgmmConfig.model_type


def find_part(modality: str, config: PreTrainedConfig) -> PreTrainedConfig:
    """The configuration of this modality's encoder, which an fgmm model's holds.

    Raises:
        ValueError: when the fgmm model has no such encoder.
    """
    if not is_joint(config):
        return config
    if modality not in config.modalities:
        raise ValueError(
            f"The fgmm model given as {modality} has no {modality} encoder, only {', '.join(config.modalities)}."
        )
    return getattr(config, f"{modality}_config")


def find_padding_value(encoder: str | os.PathLike | PreTrainedConfig, config: PreTrainedConfig) -> float:
    """What stands after a sound's end: an fgmm model's own value, 0 normalised as the Audio Spectrogram Transformer's
    feature extractor does, or 0."""
    if is_joint(config):
        return config.audio_padding_value
    if config.model_type != "audio-spectrogram-transformer":
        return 0.0
    extractor = ASTFeatureExtractor()
    if not isinstance(encoder, PreTrainedConfig):
        extractor = ASTFeatureExtractor.from_pretrained(encoder)
    return float(extractor.normalize(0.0)) if extractor.do_normalize else 0.0


def present_only(encoder: nn.Module, present: torch.Tensor, *inputs: torch.Tensor) -> tuple[torch.Tensor, tuple]:
    """Encodes the items that have the modality; the others' features are 0.

    So an absent item costs nothing and has no part in batch normalisation's statistics.

    Args:
        encoder: gives features (B, N, C) and the grid of the regions.
        present: (B,) bool.
        inputs: (B, ...) each.
    """
    if torch.compiler.is_compiling() and not encoder.training:
        # A graph's shapes cannot depend on values: everything is encoded, and without statistics no item sees another.
        features, grid = encoder(*inputs)
        return features.masked_fill(~present.view(-1, 1, 1), 0.0), grid
    if bool(present.all()):
        return encoder(*inputs)
    if bool(present.any()):
        kept, (features, grid) = present, encoder(*(values[present] for values in inputs))
    else:
        # One is encoded and dropped, so that shapes are known and parameters take part in DDP; no statistics count it.
        kept = torch.arange(len(present), device=present.device) == 0
        training = [module for module in encoder.modules() if module.training]
        features, grid = encoder.eval()(*(values[kept] for values in inputs))
        for module in training:
            module.training = True
    everything = features.new_zeros(len(present), *features.shape[1:])
    everything[kept] = features
    return everything.masked_fill(~present.view(-1, 1, 1), 0.0), grid


def encode_video(
    encoder: nn.Module, pixel_values_videos: torch.Tensor, video_mask: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor, tuple[int, ...]]:
    """
    Args:
        encoder: of video.
        pixel_values_videos: (B, T, 3, H, W) normalised pixels.
        video_mask: (B,) False for items without video, or None.

    Returns:
        The features of the regions (B, N, C), their mask (B, N) and their grid (t, h, w).
    """
    if video_mask is None:
        features, grid = encoder(pixel_values_videos)
        return features, torch.ones(features.shape[:2], dtype=torch.bool, device=features.device), grid
    features, grid = present_only(encoder, video_mask.bool(), pixel_values_videos)
    return features, video_mask.bool().unsqueeze(1).expand(features.shape[:2]), grid


def encode_audio(
    encoder: nn.Module, input_features: torch.Tensor, input_features_mask: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor, tuple[int, ...]]:
    """
    Args:
        encoder: of sound.
        input_features: (B, time, mel) log-mel frames, or (B, samples) for encoders of waveforms.
        input_features_mask: (B, time) or (B, samples) False for padding; an item without audio is all padding. None:
            all sound.

    Returns:
        The features of the regions (B, N, C), their mask (B, N) and their grid (frequency, time).
    """
    if input_features_mask is None:
        input_features_mask = torch.ones(input_features.shape[:2], dtype=torch.bool, device=input_features.device)
    keep = input_features_mask.bool()
    features, grid = present_only(encoder, keep.any(1), input_features, keep)
    return features, encoder.region_mask(keep, grid), grid
