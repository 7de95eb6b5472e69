"""fgmm: small video, audio and text encoders that share one space. Importing registers the Auto classes.

Shapes in this package are written with these letters:

| letter | is |
|---|---|
| B | items in a batch (Bq of queries, Bk of keys, Bv clips, Bt texts where they differ) |
| N | regions of one clip: positions of the encoder's feature map, t·h·w of a video, frequency·time of a sound |
| M | phrases of one item's text, those of all its candidate captions end to end |
| P | phrases that an objective compares: the M phrases, then the K whole captions if it compares those, too |
| K | candidate captions of one item |
| C | channels of an encoder |
| L | tokens of a text |
| S | samples of a waveform |
| W | words of one phrase |
| D | dimensions of the shared space |
| T, H, W | frames, height, width of pixels; t, h, w are those of the feature map |

A *region* is one position of a video's or sound's feature map, a *phrase* a run of words that says one thing ("two
eggs"); both are projected into the shared space and L2-normalised. *Queries* are texts (or, over videos, sounds) with
their phrases, *keys* are clips with their regions. γ is the *sharpness* (inverse temperature) of the attention over
regions, δ that of the attention over phrases.
"""

from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForAudioClassification,
    AutoModelForVideoClassification,
    AutoModelForZeroShotImageClassification,
)

from .classification_fgmm import FgmmForAudioClassification, FgmmForVideoClassification
from .configuration_fgmm import FgmmAudioConfig, FgmmConfig, FgmmTextConfig, FgmmVideoConfig
from .grounding_fgmm import ClipRegions, GroundedPhrase, Grounding
from .layers_fgmm import FgmmPreTrainedModel
from .modeling_fgmm import FgmmModel
from .outputs_fgmm import FgmmOutput, FgmmRegionOutput, FgmmTextOutput
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
    "ClipRegions",
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
    "GroundedPhrase",
    "Grounding",
    "attended_similarity",
    "caption_scores",
    "pair_scores",
]
