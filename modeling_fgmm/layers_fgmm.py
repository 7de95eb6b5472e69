"""What the encoders share: the base class, the initialisation and the projection into the shared space."""

import math

import torch
from torch import nn
from transformers import initialization as init
from transformers.modeling_utils import PreTrainedModel

from .configuration_fgmm import FgmmConfig

# Where the Auto classes find each kind of model in a saved folder.
AUTO_MAP = {
    "AutoConfig": "configuration_fgmm.FgmmConfig",
    "AutoModel": "modeling_fgmm.FgmmModel",
    "AutoModelForZeroShotImageClassification": "modeling_fgmm.FgmmModel",
    "AutoModelForVideoClassification": "modeling_fgmm.FgmmForVideoClassification",
    "AutoModelForAudioClassification": "modeling_fgmm.FgmmForAudioClassification",
}


class FgmmPreTrainedModel(PreTrainedModel):
    """Base class of all fgmm models: loading, saving and initialisation."""

    config_class = FgmmConfig
    base_model_prefix = "fgmm"
    main_input_name = "pixel_values_videos"
    input_modalities = ("video", "audio", "text")
    supports_gradient_checkpointing = True
    # What a device map keeps together.
    _no_split_modules = ["Stem", "InceptionBlock", "AudioStage", "TextLayer"]
    # Of the text encoder's transformer layers.
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True

    def save_pretrained(self, save_directory, **kwargs):
        """As in transformers; a classifier can start from the folder of an [`FgmmModel`] by its Auto class, too."""
        self.config.auto_map = dict(AUTO_MAP)
        super().save_pretrained(save_directory, **kwargs)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module):
        if isinstance(module, (nn.Conv2d, nn.Conv3d)):
            init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
        elif isinstance(module, nn.Linear):
            init.kaiming_uniform_(module.weight, a=math.sqrt(5))
        elif isinstance(module, nn.Embedding):
            # Large enough that the first linear layer's bias does not drown the words.
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


def masked_mean(features: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """Mean over the positions that `mask` keeps; zero where it keeps none.

    Args:
        features: (B, N, D).
        mask: (B, N) bool, or None for all positions.

    Returns:
        (B, D).
    """
    if mask is None:
        return features.mean(dim=1)
    weights = mask.unsqueeze(-1).to(features.dtype)
    return (features * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1)
