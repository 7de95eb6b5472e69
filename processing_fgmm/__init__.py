"""Media files, arrays, texts and corpora to model inputs. Importing registers the Auto classes.

Modules, each of which imports only those above it:

    containers_fgmm          media containers: streams, duration, seeking, packets
    decoding_fgmm            their streams to frames with presentation times
    pictures_fgmm            decoded frames and image files to upright RGB pictures
    sounds_fgmm              decoded audio to mono waveforms
    media_fgmm               media files, opened once, to frames and waveforms of a window
    names_fgmm               names of models and corpora: folders, or repositories on the Hub
    phrases_fgmm             texts to phrases
    feature_extraction_fgmm  waveforms to audio features
    video_processing_fgmm    videos and images to normalised frames
    hf_processors_fgmm       the processors of transformers' encoders in the places of ours
    processing_fgmm          all modalities in one call
    sources_fgmm             folders as `datasets` finds corpora in them
    stores_fgmm              files here and in remote stores, asked for again where a store does not answer
    corpora_fgmm             what a corpus is: schema, opening, checking
    rowgroups_fgmm           the row groups of a corpus: their sizes, and reading any of them
    orders_fgmm              the order of training clips, a function of row groups, seed and place
    clips_fgmm               one row of a corpus to a decoded clip, clips to model inputs
    collation_fgmm           clips to what travels from a worker, and that to model inputs on the device
    streams_fgmm             the clips of training, shared out to processes and workers, and of evaluation
    loaders_fgmm             the parts of a batch from all workers, joined

All but the last nine are saved with every processor, as its code; only those need `datasets`.

Letters of shapes in docstrings, the same as in modeling_fgmm:

    B        items in a batch (Bv clips, Bt texts where they differ)
    N        regions of one clip: positions of the encoder's feature map, t·h·w for video, frequency·time for audio,
             tokens for a transformer encoder
    M        phrases of one item's text (all candidate captions' phrases end to end)
    K        candidate captions of one item
    C, L, S  channels of an encoder, tokens of a text, samples of a waveform
    W        words of one phrase
    D        dimensions of the shared space
    T, H, W  frames, height, width of pixels; t, h, w those of the feature map
"""

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
