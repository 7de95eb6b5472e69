"""The encoder of each modality: its configuration, building it, and running it on the items that have the modality."""

import os

import torch
from torch import nn
from transformers import ASTFeatureExtractor, AutoConfig, PreTrainedConfig

from .audio_fgmm import FgmmAudioEncoder
from .configuration_fgmm import FgmmConfig, check_options
from .hf_encoders_fgmm import TransformersAudioEncoder, TransformersTextEncoder, TransformersVideoEncoder
from .layers_fgmm import evaluation_mode
from .text_fgmm import FgmmTextEncoder
from .video_fgmm import FgmmVideoEncoder

# Our encoders by their model type; any other type is one of transformers'.
OWN_ENCODERS = {"fgmm_video": FgmmVideoEncoder, "fgmm_audio": FgmmAudioEncoder, "fgmm_text": FgmmTextEncoder}


def make_encoder(modality: str, config: FgmmConfig) -> nn.Module:
    """The encoder of one modality, with random weights.

    Raises:
        ValueError: for a kind of encoder that the modality cannot have.
    """
    part = getattr(config, f"{modality}_config")
    if part.model_type in OWN_ENCODERS:
        return OWN_ENCODERS[part.model_type](part)
    if modality == "audio":
        return TransformersAudioEncoder(part, config.audio_padding_value)
    return {"video": TransformersVideoEncoder, "text": TransformersTextEncoder}[modality](part)


def encode_present(encoder: nn.Module, present: torch.Tensor, *inputs: torch.Tensor) -> tuple[torch.Tensor, tuple]:
    """Encodes the items that have the modality; the features of the others are 0.

    Thus an absent item costs nothing and has no part in the statistics of batch normalisation.

    Args:
        encoder: returns features (B, N, C) and the grid of the regions.
        present: (B,) bool, True for items that have the modality.
        inputs: of the encoder, (B, ...) each.

    Returns:
        Features (B, N, C), and the grid, (t, h, w) or (frequency, time).
    """
    if torch.compiler.is_compiling() and not encoder.training:
        # Shapes in a graph cannot depend on values: all items are encoded, which in evaluation mode are independent.
        features, grid = encoder(*inputs)
        return features.masked_fill(~present.view(-1, 1, 1), 0.0), grid
    if bool(present.all()):
        return encoder(*inputs)
    if bool(present.any()):
        kept, (features, grid) = present, encoder(*(values[present] for values in inputs))
    else:
        # One item is encoded and masked, so that shapes are known and all parameters take part in
        # DistributedDataParallel; in evaluation mode it does not count in the statistics.
        kept = torch.arange(len(present), device=present.device) == 0
        with evaluation_mode(encoder):
            features, grid = encoder(*(values[kept] for values in inputs))
    all_features = features.new_zeros(len(present), *features.shape[1:])
    all_features[kept] = features
    return all_features.masked_fill(~present.view(-1, 1, 1), 0.0), grid


def encode_video(
    encoder: nn.Module, pixel_values_videos: torch.Tensor, video_mask: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor, tuple[int, ...]]:
    """Encodes videos.

    Args:
        encoder: of video, ours or one of transformers'.
        pixel_values_videos: (B, T, 3, H, W) normalised pixels.
        video_mask: (B,) False for items without video, or None.

    Returns:
        Features of the regions (B, N, C), their mask (B, N), False for items without video, and their grid (t, h, w).
    """
    if video_mask is None:
        features, grid = encoder(pixel_values_videos)
        return features, torch.ones(features.shape[:2], dtype=torch.bool, device=features.device), grid
    features, grid = encode_present(encoder, video_mask.bool(), pixel_values_videos)
    return features, video_mask.bool().unsqueeze(1).expand(features.shape[:2]), grid


def encode_audio(
    encoder: nn.Module, input_features: torch.Tensor, input_features_mask: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor, tuple[int, ...]]:
    """Encodes sounds.

    Args:
        encoder: of audio, ours or one of transformers'.
        input_features: (B, time, mel) log-mel frames, or (B, S) samples for encoders of waveforms.
        input_features_mask: (B, time) or (B, S) False for padding; an item without audio is all padding. None: nothing
            is padding.

    Returns:
        Features of the regions (B, N, C), their mask (B, N), False for padding, and their grid (frequency, time).
    """
    if input_features_mask is None:
        input_features_mask = torch.ones(input_features.shape[:2], dtype=torch.bool, device=input_features.device)
    keep = input_features_mask.bool()
    features, grid = encode_present(encoder, keep.any(1), input_features, keep)
    return features, encoder.region_mask(keep, grid), grid


def make_joint_config(encoders: dict, frozen: list[str], options: dict) -> FgmmConfig:
    """The configuration of a model of given encoders.

    Args:
        encoders: of some modalities a name on the Hub, a folder, or a configuration.
        frozen: the encoders that are not trained.
        options: of [`FgmmConfig`].

    Raises:
        ValueError: for fewer than two encoders, one that is neither named nor a configuration, an fgmm model without
            the wanted encoder, or an unknown name in `frozen` or `options`.
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
    known = FgmmConfig.own_options() - {"video_config", "audio_config", "text_config", "modalities", "frozen"}
    check_options("from_encoders", [name for name in options if name not in known], known)
    configs = {name: load_config(encoder) for name, encoder in encoders.items()}
    if "audio" in configs and "audio_padding_value" not in options:
        options = {**options, "audio_padding_value": find_padding_value(encoders["audio"], configs["audio"])}
    parts = {f"{name}_config": select_encoder_config(name, config) for name, config in configs.items()}
    return FgmmConfig(**parts, modalities=list(encoders), frozen=frozen, **options)


def load_config(encoder: str | os.PathLike | PreTrainedConfig) -> PreTrainedConfig:
    """The configuration of a named encoder or fgmm model; one that is given is returned."""
    if isinstance(encoder, PreTrainedConfig):
        return encoder
    values, _ = PreTrainedConfig.get_config_dict(encoder)
    # Not by AutoConfig: the Auto classes do not know ours where its code travelled with the weights.
    kind = FgmmConfig if values.get("model_type") == FgmmConfig.model_type else AutoConfig
    return kind.from_pretrained(encoder)


def is_fgmm_config(config: PreTrainedConfig) -> bool:
    """Whether it is the configuration of an fgmm model, which holds those of its encoders."""
    return config.model_type == FgmmConfig.model_type


def select_encoder_config(modality: str, config: PreTrainedConfig) -> PreTrainedConfig:
    """The configuration of one modality's encoder: that in an fgmm model's, or the given one.

    Raises:
        ValueError: when the fgmm model has no such encoder.
    """
    if not is_fgmm_config(config):
        return config
    if modality not in config.modalities:
        raise ValueError(
            f"The fgmm model given as {modality} has no {modality} encoder, only {', '.join(config.modalities)}."
        )
    return getattr(config, f"{modality}_config")


def find_padding_value(encoder: str | os.PathLike | PreTrainedConfig, config: PreTrainedConfig) -> float:
    """The value of padded frames that an audio encoder was trained with.

    Of an fgmm model it is in its configuration; of the Audio Spectrogram Transformer it is 0 as its feature extractor
    normalises it; of others it is 0.
    """
    if is_fgmm_config(config):
        return config.audio_padding_value
    if config.model_type != "audio-spectrogram-transformer":
        return 0.0
    extractor = ASTFeatureExtractor()
    if not isinstance(encoder, PreTrainedConfig):
        extractor = ASTFeatureExtractor.from_pretrained(encoder)
    return float(extractor.normalize(0.0)) if extractor.do_normalize else 0.0
