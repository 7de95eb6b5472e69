"""What all models share: the base class with loading, saving and initialisation; masked means; evaluation mode."""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from transformers import initialization as init
from transformers.modeling_utils import PreTrainedModel

from .configuration_fgmm import FgmmConfig

# The class of each Auto class, which a saved folder names.
AUTO_MAP = {
    "AutoConfig": "configuration_fgmm.FgmmConfig",
    "AutoModel": "modeling_fgmm.FgmmModel",
    "AutoModelForZeroShotImageClassification": "modeling_fgmm.FgmmModel",
    "AutoModelForVideoClassification": "modeling_fgmm.FgmmForVideoClassification",
    "AutoModelForAudioClassification": "modeling_fgmm.FgmmForAudioClassification",
}


class FgmmPreTrainedModel(PreTrainedModel):
    """The base class of all fgmm models: loading, saving and initialisation."""

    config_class = FgmmConfig
    base_model_prefix = "fgmm"
    main_input_name = "pixel_values_videos"
    input_modalities = ("video", "audio", "text")
    supports_gradient_checkpointing = True
    # A device map keeps each of these on one device.
    _no_split_modules = ["Stem", "InceptionBlock", "AudioStage", "TextLayer"]
    # The text encoder's transformer layers support these.
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True

    def save_pretrained(self, save_directory, **kwargs):
        """As in transformers; the Auto classes of classifiers find theirs in the folder of an [`FgmmModel`], too."""
        self.config.auto_map = dict(AUTO_MAP)
        super().save_pretrained(save_directory, **kwargs)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module):
        if isinstance(module, (nn.Conv2d, nn.Conv3d)):
            init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
        elif isinstance(module, nn.Linear):
            init.kaiming_uniform_(module.weight, a=math.sqrt(5))
        elif isinstance(module, nn.Embedding):
            # Larger than usual, so that words are not small beside the bias of the first linear layer.
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
