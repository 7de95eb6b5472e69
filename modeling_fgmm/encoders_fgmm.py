"""The encoder of each modality: making it, and running it on the items that have the modality."""

import torch
from torch import nn

from .audio_fgmm import FgmmAudioEncoder
from .configuration_fgmm import FgmmConfig
from .hf_encoders_fgmm import TransformersAudioEncoder, TransformersTextEncoder, TransformersVideoEncoder
from .layers_fgmm import evaluation_mode
from .text_fgmm import FgmmTextEncoder
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


def encode_present(encoder: nn.Module, present: torch.Tensor, *inputs: torch.Tensor) -> tuple[torch.Tensor, tuple]:
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
        with evaluation_mode(encoder):
            features, grid = encoder(*(values[kept] for values in inputs))
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
    features, grid = encode_present(encoder, video_mask.bool(), pixel_values_videos)
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
    features, grid = encode_present(encoder, keep.any(1), input_features, keep)
    return features, encoder.region_mask(keep, grid), grid
