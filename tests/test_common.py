"""transformers' own common tests on our classes; scripts/setup_environment.sh unpacks them into .venv."""

import importlib
import sys
import types
import unittest
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
import transformers
from helpers import TEXTS
from transformers.models.auto.video_processing_auto import AutoVideoProcessor

from fgmm_tools.training.tokenizer import train_word_tokenizer
from modeling_fgmm import FgmmConfig, FgmmForAudioClassification, FgmmForVideoClassification, FgmmModel
from processing_fgmm import FgmmFeatureExtractor, FgmmProcessor, FgmmVideoProcessor

FOLDER = Path(sys.prefix) / f"transformers-{transformers.__version__}" / "tests"
if not FOLDER.exists():
    pytest.skip(
        f"{FOLDER} is missing; bash scripts/setup_environment.sh fetches it where there is a network",
        allow_module_level=True,
    )


def add_module(name: str, **contents) -> None:
    """Makes a module that can be imported."""
    sys.modules[name] = types.ModuleType(name)
    vars(sys.modules[name]).update(contents)


# Under a name of its own, for transformers' folder is called tests, like ours. Its source distribution lacks what these
# modules import of others: mixins of text generation and of its exporters, a table of local copies of files on the Hub.
add_module("transformers_tests", __path__=[str(FOLDER)])
for module, mixin in (
    ("exporters.test_export", "ExportTesterMixin"),
    ("generation.test_utils", "GenerationTesterMixin"),
):
    add_module(f"transformers_tests.{module.partition('.')[0]}", __path__=[])
    add_module(f"transformers_tests.{module}", **{mixin: type(mixin, (), {})})
add_module("fetch_hub_objects_for_ci", url_to_local_path=str)

modeling = importlib.import_module("transformers_tests.test_modeling_common")
processing = importlib.import_module("transformers_tests.test_processing_common")
video_processing = importlib.import_module("transformers_tests.test_video_processing_common")
feature_extraction = importlib.import_module("transformers_tests.test_sequence_feature_extraction_common")
video_processing.AutoVideoProcessor = AutoVideoProcessor  # the name in transformers' top level asks for torchvision


def excluded(reasons: dict[str, str]):
    """Skips the tests of a class whose names begin so, by the reason."""

    def skip(cls):
        for beginning, reason in reasons.items():
            names = [name for name in dir(cls) if name.startswith(beginning)]
            assert names, f"{cls.__name__} has no test {beginning}"
            for name in names:
                setattr(cls, name, unittest.skip(reason)(lambda self: None))
        return cls

    return skip


class ModelTester:
    """What the common tests of models ask for: a small configuration, and inputs by their names."""

    is_training = True
    batch_size = 3
    num_hidden_layers = 2  # of the text encoder, and as many stages of the others
    num_attention_heads = 2
    seq_length = 5
    hidden_size = 8
    vocab_size = 40

    def __init__(self, *names: str):
        self.names = names

    def get_config(self) -> FgmmConfig:
        return FgmmConfig(
            projection_dim=16,
            video_config={"width_multiplier": 0.01, "depths": [1, 1]},
            audio_config={"num_mel_bins": 16, "embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1]},
            text_config={
                "vocab_size": self.vocab_size,
                "hidden_size": self.hidden_size,
                "intermediate_size": 16,
                "num_hidden_layers": self.num_hidden_layers,
                "num_attention_heads": self.num_attention_heads,
            },
        )

    def prepare_config_and_inputs_for_common(self):
        attention_mask = torch.ones(self.batch_size, self.seq_length, dtype=torch.long)
        attention_mask[1, 3:] = 0
        inputs = {
            "pixel_values_videos": torch.randn(self.batch_size, 2, 3, 16, 16),
            "pixel_values": torch.randn(self.batch_size, 3, 16, 16),
            "input_features": torch.randn(self.batch_size, 16, 16),
            "input_ids": torch.randint(1, self.vocab_size, (self.batch_size, self.seq_length)),
            "attention_mask": attention_mask,
        }
        return self.get_config(), {name: inputs[name] for name in self.names}


class FgmmModelTesterMixin(modeling.ModelTesterMixin):
    test_can_init_all_missing_weights_before_2023 = True  # our files begin without a year

    def _prepare_for_class(self, inputs_dict, model_class, return_labels=False):
        inputs = super()._prepare_for_class(inputs_dict, model_class)
        if not return_labels:
            return inputs
        if model_class is FgmmModel:
            return {**inputs, "return_loss": True}
        return {**inputs, "labels": torch.zeros(self.model_tester.batch_size, dtype=torch.long)}


JOINT = "the joint model has no hidden states of its own; test_encoders.py tests those of video_output and text_output"
WIDTH = "regions and phrases are as wide as the encoder's last stage makes them, and no field hidden_size says so"
MAPS = "hidden states are maps, (B, C, t, h, w) and (B, C, frequency, time); test_encoders.py tests their shapes"
NO_WORDS = "a classifier has no word embedding"


@excluded(
    {
        "test_attention_outputs": JOINT,
        "test_hidden_states_output": JOINT,
        "test_retain_grad_hidden_states_attentions": JOINT,
        "test_eager_matches_sdpa_inference": JOINT,
        "test_get_text_features_output_0": WIDTH,
        "test_get_text_features_output_2": WIDTH,
        "test_get_image_features_output_0": WIDTH,
        "test_get_image_features_output_2": WIDTH,
        "test_get_audio_features_output_0": WIDTH,
        "test_get_audio_features_output_2": WIDTH,
        "test_get_video_features_output_0": WIDTH,
        "test_get_video_features_output_2": WIDTH,
        "test_get_image_features_attentions": "the video encoder has no attention",
        "test_get_video_features_attentions": "the video encoder has no attention",
        "test_get_audio_features_attentions": "the audio encoder has no attention",
        "test_model_outputs_equivalence": "the test subtracts outputs, and masks are bool",
        "test_inputs_embeds": "texts are token ids; inputs_embeds is there for PEFT's wrapper, which passes None",
    }
)
class FgmmModelTest(FgmmModelTesterMixin, unittest.TestCase):
    all_model_classes = (FgmmModel,)
    _is_composite = True

    def setUp(self):
        self.model_tester = ModelTester("pixel_values_videos", "input_features", "input_ids", "attention_mask")
        self.model_tester.vision_model_tester = ModelTester("pixel_values")


@excluded({"test_hidden_states_output": MAPS, "test_model_get_set_embeddings": NO_WORDS})
class FgmmForVideoClassificationTest(FgmmModelTesterMixin, unittest.TestCase):
    all_model_classes = (FgmmForVideoClassification,)
    has_attentions = False
    test_resize_embeddings = False

    def setUp(self):
        self.model_tester = ModelTester("pixel_values_videos")


@excluded({"test_hidden_states_output": MAPS, "test_model_get_set_embeddings": NO_WORDS})
class FgmmForAudioClassificationTest(FgmmModelTesterMixin, unittest.TestCase):
    all_model_classes = (FgmmForAudioClassification,)
    has_attentions = False
    test_resize_embeddings = False

    def setUp(self):
        self.model_tester = ModelTester("input_features")


EITHER = "the test gives images and videos at once, which take the same place here"


@excluded(
    {
        "test_flat_kwarg_applied_when_modality_dict_lacks_it": EITHER,
        "test_model_input_names": EITHER,
    }
)
class FgmmProcessorTest(processing.ProcessorTesterMixin, unittest.TestCase):
    processor_class = FgmmProcessor

    def setUp(self):
        # Else a processor that was saved has auto_map, by which its code travels, and differs from one that was not.
        for part in (FgmmProcessor, FgmmVideoProcessor, FgmmFeatureExtractor):
            registered = patch.object(part, "_auto_class", None)
            registered.start()
            self.addCleanup(registered.stop)

    @classmethod
    def _setup_video_processor(cls):
        return FgmmVideoProcessor(num_frames=2, size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16})

    @classmethod
    def _setup_feature_extractor(cls):
        return FgmmFeatureExtractor(feature_size=32, hop_length=320)

    @classmethod
    def _setup_tokenizer(cls):
        return train_word_tokenizer(TEXTS, 200)


class VideoProcessorTester:
    """What the common tests of video processors ask for."""

    batch_size = 3
    num_frames = 4
    num_channels = 3

    def prepare_video_inputs(self, equal_resolution=False, return_tensors="pil"):
        return video_processing.prepare_video_inputs(
            self.batch_size, self.num_frames, self.num_channels, 20, 60, equal_resolution, return_tensors
        )

    def expected_output_video_shape(self, videos):
        return self.num_frames, self.num_channels, 18, 18


@excluded(
    {
        "test_call_numpy_4_channels": "frames have three channels",
        "test_call_sample_frames": "num_frames are always taken, at even times; there is no sampling by a rate",
    }
)
class FgmmVideoProcessorTest(video_processing.VideoProcessingTestMixin, unittest.TestCase):
    fast_video_processing_class = FgmmVideoProcessor
    test_cast_dtype = True
    video_processor_dict = {
        "num_frames": 4,
        "size": {"shortest_edge": 20},
        "crop_size": {"height": 18, "width": 18},
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
    }

    def setUp(self):
        super().setUp()
        self.video_processor_tester = VideoProcessorTester()


class FeatureExtractorTester:
    """What the common tests of feature extractors ask for."""

    batch_size = 5
    feature_size = 8
    min_seq_length = 40
    max_seq_length = 200
    seq_length_diff = 40

    def prepare_feat_extract_dict(self):
        return {"feature_size": self.feature_size, "hop_length": 100, "win_length": 200, "n_fft": 256}

    def prepare_inputs_for_common(self, equal_length=False, numpify=False):
        lengths = range(self.min_seq_length, self.max_seq_length + 1, self.seq_length_diff)
        frames = [torch.randn(max(lengths) if equal_length else n, self.feature_size).numpy() for n in lengths]
        return frames if numpify else [item.tolist() for item in frames]


class FgmmFeatureExtractorTest(feature_extraction.SequenceFeatureExtractionTestMixin, unittest.TestCase):
    feature_extraction_class = FgmmFeatureExtractor

    def setUp(self):
        self.feat_extract_tester = FeatureExtractorTester()
