"""A ResNet over the log-mel picture: sound to a feature map of regions (frequency x time)."""

import torch
import torch.nn.functional as F
from torch import nn
from transformers import ResNetBackbone, ResNetConfig
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.models.resnet.modeling_resnet import ResNetStage

from .configuration_fgmm import FgmmAudioConfig


class AudioStage(GradientCheckpointingLayer, ResNetStage):
    """A stage whose activations can be computed again in the backward pass."""


class AudioBackbone(ResNetBackbone):
    """transformers' ResNet, with hidden states after each stage and gradient checkpointing."""

    _can_record_outputs = {"hidden_states": AudioStage}
    # Without attention, whatever implementation the joint model is given will do.
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True

    def __init__(self, config: ResNetConfig):
        super().__init__(config)
        for stage in self.encoder.stages:
            stage.__class__ = AudioStage  # the same layers; ResNet's encoder takes no class of its stages


class FgmmAudioEncoder(nn.Module):
    """transformers' ResNet backbone with one input channel; `out_channels` are the channels of its feature map."""

    def __init__(self, config: FgmmAudioConfig):
        super().__init__()
        self.config = config
        self.backbone = AudioBackbone(
            ResNetConfig(
                num_channels=1,
                embedding_size=config.embedding_size,
                hidden_sizes=config.hidden_sizes,
                depths=config.depths,
                layer_type=config.layer_type,
                attn_implementation=config._attn_implementation,
            )
        )
        self.out_channels = config.hidden_sizes[-1]

    def forward(self, input_features: torch.Tensor) -> tuple[torch.Tensor, tuple[int, int]]:
        """
        Args:
            input_features: (B, time, mel) log-mel frames, 0 in the padding.

        Returns:
            The features of the regions (B, N, C) with N = frequency·time, and the grid (frequency, time).

        Raises:
            ValueError: when the shape is not (B, time, mel).
        """
        if input_features.ndim != 3 or input_features.shape[2] != self.config.num_mel_bins:
            raise ValueError(
                f"input_features has shape {tuple(input_features.shape)}, but (batch, time, "
                f"{self.config.num_mel_bins}) is needed; make it with the model's own feature extractor."
            )
        picture = input_features.transpose(1, 2).unsqueeze(1)
        features = self.backbone(picture, return_dict=True).feature_maps[-1]
        return features.flatten(2).transpose(1, 2), tuple(features.shape[2:])


def region_mask(input_features_mask: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    """(B, time) to (B, N): a region counts when any frame under it is sound.

    Args:
        input_features_mask: (B, time) True where a frame is sound, False where it is padding.
        grid: (frequency, time) of the feature map.
    """
    in_time = F.adaptive_max_pool1d(input_features_mask.float().unsqueeze(1), grid[1]) > 0
    return in_time.expand(-1, grid[0], -1).flatten(1)
