"""Shared by all models: the base class (loading, saving, initialisation), outputs of encoders, masked means."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn
from transformers import initialization as init
from transformers.modeling_utils import PreTrainedModel

from .configuration_fgmm import FgmmConfig


@dataclass
class RegionFeatures:
    """Output of a video or audio encoder.

    Args:
        features: (B, N, C) of the regions.
        grid: sizes of the feature map, (t, h, w) or (frequency, time); N is their product.
        mask: (B, N) bool, False for padding in the feature map; None: only the inputs' padding counts.
        pooled: (B, P, C) output of the encoder's own pooling: the item's embedding is the normalised mean of the P
            normalised projections. None: it is the normalised mean of the regions' projections.
        hidden_states: with `output_hidden_states`, see [`FgmmRegionOutput`].
        attentions: with `output_attentions`, see [`FgmmRegionOutput`].
    """

    features: torch.Tensor
    grid: tuple[int, ...]
    mask: torch.Tensor | None = None
    pooled: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None


@dataclass
class WordFeatures:
    """Output of a text encoder, first for words, then for phrases.

    Args:
        features: (B, L, C) words of B texts, or (B, M, C) phrases of B items.
        pooled: (B, C) output of the encoder's own pooling, one vector a text, or (B, K, C), one a candidate caption,
            whose normalised projection is the caption's embedding. None: captions are pooled over their phrases.
        hidden_states: with `output_hidden_states`, see [`FgmmTextOutput`].
        attentions: with `output_attentions`, see [`FgmmTextOutput`].
    """

    features: torch.Tensor
    pooled: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None


class FgmmPreTrainedModel(PreTrainedModel):
    """The base class of all fgmm models: loading, saving and initialisation."""

    config_class = FgmmConfig
    base_model_prefix = "fgmm"
    main_input_name = "pixel_values_videos"
    input_modalities = ("video", "audio", "text")
    supports_gradient_checkpointing = True
    # The class of each Auto class that a saved folder names; transformers adds the class that was saved.
    auto_classes = {"AutoConfig": "configuration_fgmm.FgmmConfig"}
    # A device map keeps each of these on one device.
    _no_split_modules = ["Stem", "InceptionBlock", "AudioStage", "TextLayer"]
    # The text encoder's transformer layers support these.
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True

    def save_pretrained(self, save_directory, **kwargs):
        """As in transformers, with the names of the classes that the Auto classes load from the folder."""
        self.config.auto_map = dict(self.auto_classes)
        super().save_pretrained(save_directory, **kwargs)

    def output_options(
        self, output_hidden_states: bool | None, output_attentions: bool | None = False
    ) -> dict[str, bool]:
        """The optional outputs requested from an encoder; None: as the configuration says."""
        given = {"output_hidden_states": output_hidden_states, "output_attentions": output_attentions}
        return {name: getattr(self.config, name) if value is None else value for name, value in given.items()}

    @torch.no_grad()
    def _init_weights(self, module: nn.Module):
        if isinstance(module, (nn.Conv2d, nn.Conv3d)):
            init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
        elif isinstance(module, nn.Linear):
            init.kaiming_uniform_(module.weight, a=math.sqrt(5))
        elif isinstance(module, nn.Embedding):
            # Larger than usual, so that words are not small relative to the bias of the first linear layer.
            init.normal_(module.weight, std=0.3)
            if module.padding_idx is not None:
                init.zeros_(module.weight[module.padding_idx])
        elif isinstance(module, (nn.BatchNorm2d, nn.BatchNorm3d, nn.LayerNorm)):
            init.ones_(module.weight)
            init.zeros_(module.bias)
            if not isinstance(module, nn.LayerNorm):
                init.zeros_(module.running_mean)
                init.ones_(module.running_var)
                init.zeros_(module.num_batches_tracked)
        if isinstance(module, (nn.Conv2d, nn.Conv3d, nn.Linear)) and module.bias is not None:
            init.zeros_(module.bias)


def masked_mean(values: torch.Tensor, mask: torch.Tensor, dim: int) -> torch.Tensor:
    """The mean over one axis of the values where the mask is True; 0 where it is True nowhere.

    Args:
        values: of any shape.
        mask: bool, broadcast to the values.
        dim: the axis, which the result lacks.
    """
    return (values * mask).sum(dim) / mask.sum(dim).clamp(min=1)


def join_rows(rows: list[torch.Tensor], parts: list[torch.Tensor]) -> torch.Tensor:
    """Joins parts of a batch, each row at its index, zero-padded to the largest size.

    Args:
        rows: (b,) indices of the rows of each part.
        parts: (b, ...) each, with sizes of their own in the other dimensions.

    Returns:
        (B, ...) with the largest of these sizes, 0 where a part is smaller.
    """
    sizes = [max(part.shape[axis] for part in parts) for axis in range(1, parts[0].ndim)]
    joined = parts[0].new_zeros(sum(map(len, rows)), *sizes)
    for places, part in zip(rows, parts, strict=True):
        joined[(places, *(slice(size) for size in part.shape[1:]))] = part
    return joined


@contextmanager
def evaluation_mode(module: nn.Module) -> Iterator[None]:
    """Puts a module into evaluation mode; afterwards every submodule is in its former mode again."""
    training = [submodule for submodule in module.modules() if submodule.training]
    module.eval()
    try:
        yield
    finally:
        for submodule in training:
            submodule.training = True
