"""The audio encoder: a ResNet over the log-mel spectrogram, to a feature map of regions (frequency x time)."""

import torch
from torch import nn
from transformers import ResNetBackbone, ResNetConfig
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.models.resnet.modeling_resnet import ResNetStage

from .configuration_fgmm import FgmmAudioConfig
from .layers_fgmm import RegionFeatures


def downsample_padding(padding: torch.Tensor, layer: nn.Conv2d | nn.MaxPool2d) -> torch.Tensor:
    """Which frames are padding, before a layer (B, 1, 1, t) -> after it (B, 1, 1, t')."""
    stride = layer.stride if isinstance(layer.stride, int) else layer.stride[1]
    return padding[..., ::stride]


class AudioStage(GradientCheckpointingLayer, ResNetStage):
    """A stage of transformers' ResNet that keeps padding at 0, with gradient checkpointing."""

    def forward(self, hidden_states: torch.Tensor, padding: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, C, f, t) and its padding (B, 1, 1, t) -> (B, C', f', t') and its padding (B, 1, 1, t')."""
        for layer in self.layers:
            residual = layer.shortcut(hidden_states)
            for block in layer.layer:
                padding = downsample_padding(padding, block.convolution)
                hidden_states = block(hidden_states).masked_fill(padding, 0.0)
            hidden_states = layer.activation(hidden_states + residual).masked_fill(padding, 0.0)
        return hidden_states, padding


class AudioBackbone(ResNetBackbone):
    """transformers' ResNet, with padding in time, hidden states after each stage and gradient checkpointing.

    The input of every convolution is 0 after a sound's end, as it is after the last frame of an unpadded sound, so that
    features do not depend on the length to which a batch is padded.
    """

    # It has no attention: any implementation that the joint model is given will do.
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True

    def __init__(self, config: ResNetConfig):
        super().__init__(config)
        for stage in self.encoder.stages:
            stage.__class__ = AudioStage  # the same layers; ResNet's encoder cannot be given a class for its stages

    def forward(self, spectrogram: torch.Tensor, padding: torch.Tensor) -> list[torch.Tensor]:
        """(B, 1, mel, time) and its padding (B, 1, 1, time) -> the feature maps before the first and after each stage,
        (B, C, frequency, time') each."""
        stem, pooler = self.embedder.embedder, self.embedder.pooler
        hidden_states = stem(spectrogram.masked_fill(padding, 0.0))
        padding = downsample_padding(padding, stem.convolution)
        # No output of a ReLU is below 0, so that the maximum is that of the sound.
        hidden_states = pooler(hidden_states.masked_fill(padding, 0.0))
        padding = downsample_padding(padding, pooler)
        hidden_states = hidden_states.masked_fill(padding, 0.0)
        maps = [hidden_states]
        for stage in self.encoder.stages:
            hidden_states, padding = stage(hidden_states, padding)
            maps.append(hidden_states)
        return maps


class FgmmAudioEncoder(nn.Module):
    """transformers' ResNet with one input channel; `out_channels` is the number of channels of its feature map (C)."""

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
        # Frames a region: the stem, its pooling and every stage but the first halve the time.
        self.frames_per_region = 2 ** (1 + len(config.hidden_sizes))

    def forward(
        self,
        input_features: torch.Tensor,
        input_features_mask: torch.Tensor,
        output_hidden_states: bool = False,
        output_attentions: bool = False,
    ) -> RegionFeatures:
        """
        Args:
            input_features: (B, time, mel) log-mel frames.
            input_features_mask: (B, time) bool, False for padding, which has no influence.
            output_hidden_states: return the maps before the first and after each stage, (B, C, frequency, time).
            output_attentions: has no effect, for there is no attention.

        Returns:
            [`RegionFeatures`], 0 in the padding, with N = frequency·time and the grid (frequency, time).

        Raises:
            ValueError: when the shape is not (B, time, mel).
        """
        if input_features.ndim != 3 or input_features.shape[2] != self.config.num_mel_bins:
            raise ValueError(
                f"input_features has shape {tuple(input_features.shape)}, but (batch, time, "
                f"{self.config.num_mel_bins}) is needed; make it with the model's own feature extractor."
            )
        spectrogram = input_features.transpose(1, 2).unsqueeze(1)
        maps = self.backbone(spectrogram, ~input_features_mask[:, None, None])
        features, grid = maps[-1].flatten(2).transpose(1, 2), tuple(maps[-1].shape[2:])
        return RegionFeatures(features, grid, hidden_states=tuple(maps) if output_hidden_states else None)

    def region_mask(self, input_features_mask: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
        """The mask of the regions; a sound has as many as it has without padding.

        Args:
            input_features_mask: (B, time) bool, False for padding.
            grid: (frequency, time) of the feature map.

        Returns:
            (B, N) bool, False for padding.
        """
        in_time = input_features_mask[:, :: self.frames_per_region]
        return in_time.unsqueeze(1).expand(-1, *grid).flatten(1)
