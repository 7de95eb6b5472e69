"""fgmm: small video, audio and text encoders that share one space. Importing registers the Auto classes."""

from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForAudioClassification,
    AutoModelForVideoClassification,
    AutoModelForZeroShotImageClassification,
)

from .configuration_fgmm import FgmmAudioConfig, FgmmConfig, FgmmTextConfig, FgmmVideoConfig
from .modeling_fgmm import (
    FgmmForAudioClassification,
    FgmmForVideoClassification,
    FgmmModel,
    FgmmOutput,
    FgmmPreTrainedModel,
    FgmmRegionOutput,
    FgmmTextOutput,
)
from .scoring_fgmm import attended_similarity, caption_scores, pair_scores

AutoConfig.register("fgmm", FgmmConfig)
AutoModel.register(FgmmConfig, FgmmModel)
AutoModelForZeroShotImageClassification.register(FgmmConfig, FgmmModel)
AutoModelForVideoClassification.register(FgmmConfig, FgmmForVideoClassification)
AutoModelForAudioClassification.register(FgmmConfig, FgmmForAudioClassification)
FgmmConfig.register_for_auto_class()
FgmmModel.register_for_auto_class("AutoModel")
FgmmForVideoClassification.register_for_auto_class("AutoModelForVideoClassification")
FgmmForAudioClassification.register_for_auto_class("AutoModelForAudioClassification")

__all__ = [
    "FgmmAudioConfig",
    "FgmmConfig",
    "FgmmForAudioClassification",
    "FgmmForVideoClassification",
    "FgmmModel",
    "FgmmOutput",
    "FgmmPreTrainedModel",
    "FgmmRegionOutput",
    "FgmmTextConfig",
    "FgmmTextOutput",
    "FgmmVideoConfig",
    "attended_similarity",
    "caption_scores",
    "pair_scores",
]
