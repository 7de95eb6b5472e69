"""Media, audio, text and corpora to model inputs. Importing registers the Auto classes."""

from transformers import AutoFeatureExtractor, AutoImageProcessor, AutoProcessor

# The name in transformers' top level asks for torchvision, which the class itself does not need.
from transformers.models.auto.video_processing_auto import AutoVideoProcessor

from .feature_extraction_fgmm import FgmmFeatureExtractor
from .hf_processors_fgmm import FgmmEncoderFeatureExtractor
from .media_fgmm import MediaError, read_waveform
from .phrases_fgmm import find_phrases
from .processing_fgmm import FgmmProcessor
from .video_processing_fgmm import FgmmImageProcessor, FgmmVideoProcessor

# The Auto classes find these by the class names in a saved processor_config.json; the key plays no part in that, and
# the configuration class is not known here, for this package does not import the models.
AutoFeatureExtractor.register(FgmmFeatureExtractor, FgmmFeatureExtractor)
AutoFeatureExtractor.register(FgmmEncoderFeatureExtractor, FgmmEncoderFeatureExtractor)
AutoImageProcessor.register(FgmmImageProcessor, image_processor_classes={"pil": FgmmImageProcessor})
AutoVideoProcessor.register(FgmmVideoProcessor, FgmmVideoProcessor)
AutoProcessor.register(FgmmProcessor, FgmmProcessor)
FgmmFeatureExtractor.register_for_auto_class("AutoFeatureExtractor")
FgmmEncoderFeatureExtractor.register_for_auto_class("AutoFeatureExtractor")
FgmmImageProcessor.register_for_auto_class("AutoImageProcessor")
FgmmVideoProcessor.register_for_auto_class("AutoVideoProcessor")
FgmmProcessor.register_for_auto_class("AutoProcessor")

__all__ = [
    "FgmmEncoderFeatureExtractor",
    "FgmmFeatureExtractor",
    "FgmmImageProcessor",
    "FgmmProcessor",
    "FgmmVideoProcessor",
    "MediaError",
    "find_phrases",
    "read_waveform",
]
