"""What all models share: the base class, the initialisation, means over masks, evaluation mode."""

import math
from collections.abc import Iterator
from contextlib import contextmanager

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


def masked_mean(values: torch.Tensor, mask: torch.Tensor, dim: int) -> torch.Tensor:
    """Mean over one axis, of the entries where the mask is True; 0 where it is nowhere.

    Args:
        values: any shape.
        mask: bool, broadcast to the values.
        dim: the axis.
    """
    return (values * mask).sum(dim) / mask.sum(dim).clamp(min=1)


@contextmanager
def evaluation_mode(module: nn.Module) -> Iterator[None]:
    """The module in evaluation mode; afterwards every submodule is in the mode in which it was."""
    training = [submodule for submodule in module.modules() if submodule.training]
    module.eval()
    try:
        yield
    finally:
        for submodule in training:
            submodule.training = True
