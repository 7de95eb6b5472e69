"""Processors for transformers' encoders: ours with their settings, and their feature extractors wrapped."""

import math
import re
import string

import torch
from tokenizers import Regex, normalizers
from transformers import (
    ASTFeatureExtractor,
    AutoConfig,
    AutoFeatureExtractor,
    AutoTokenizer,
    ClapFeatureExtractor,
    PeAudioFeatureExtractor,
    PreTrainedConfig,
    PreTrainedTokenizerFast,
    Wav2Vec2FeatureExtractor,
    WhisperFeatureExtractor,
)
from transformers.image_processing_base import ImageProcessingMixin
from transformers.models.auto.tokenization_auto import get_tokenizer_config

from .feature_extraction_fgmm import FgmmFeatureExtractor, WaveformFeatureExtractor
from .video_processing_fgmm import FgmmVideoProcessor

# Resampling filters by their numbers in Pillow, as image processors save them.
RESAMPLING = {0: "nearest", 2: "bilinear", 3: "bicubic"}
MAX_PIXEL = 255
# Feature extractors of the supported audio encoders, by name.
FEATURE_EXTRACTORS = {
    extractor.__name__: extractor
    for extractor in (
        ASTFeatureExtractor,
        ClapFeatureExtractor,
        PeAudioFeatureExtractor,
        Wav2Vec2FeatureExtractor,
        WhisperFeatureExtractor,
    )
}
# Text encoders whose position ids begin at pad_token_id + 1, as RoBERTa's.
OFFSET_POSITIONS = ("camembert", "clap_text_model", "mpnet", "roberta", "xlm-roberta")
# Window and hop of Kaldi's spectrogram frames, which the Audio Spectrogram Transformer takes, seconds.
KALDI_WINDOW, KALDI_HOP = 0.025, 0.010


def load_encoder_config(encoder: str | PreTrainedConfig, sub_config: str = "") -> PreTrainedConfig | None:
    """Loads the configuration of an encoder.

    Args:
        encoder: name on the Hub, folder, or configuration.
        sub_config: attribute that holds it in the configuration of a model of several encoders, for example
            `"vision_config"`; empty: the whole configuration is meant.

    Returns:
        The encoder's configuration; None for the name of an fgmm model, which is saved with a processor of ours.
    """
    if not isinstance(encoder, PreTrainedConfig):
        values, _ = PreTrainedConfig.get_config_dict(encoder)
        if values.get("model_type") == "fgmm":
            return None
        encoder = AutoConfig.from_pretrained(encoder)
    return getattr(encoder, sub_config, encoder) if sub_config else encoder


def make_video_processor(encoder: str | PreTrainedConfig | None, **options) -> FgmmVideoProcessor:
    """Our video processor with the sizes, resampling and normalisation of an encoder's image or video processor.

    Args:
        encoder: name on the Hub or folder of the encoder; or its configuration, which gives the size and number of
            frames alone; None: our defaults.
        **options: of [`FgmmVideoProcessor`], for an encoder of transformers.

    Raises:
        ValueError: for a resampling filter other than nearest, bilinear and bicubic.
        OSError: for a name without an image or video processor.
    """
    if encoder is None:
        return FgmmVideoProcessor()
    config = load_encoder_config(encoder, "vision_config")
    if config is None:
        return FgmmVideoProcessor.from_pretrained(encoder)
    num_frames = getattr(config, "num_frames", None) or getattr(config, "frames_per_clip", None)
    if num_frames:
        options["num_frames"] = num_frames
    if isinstance(encoder, PreTrainedConfig) and config.model_type == "siglip2_vision_model":
        settings = {"max_num_patches": config.num_patches, "patch_size": config.patch_size}
        return FgmmVideoProcessor(**options, **convert_settings(settings))
    if isinstance(encoder, PreTrainedConfig):
        side = getattr(config, "image_size", None) or getattr(config, "crop_size", None)
        if side is None:  # our video encoder takes any size
            return FgmmVideoProcessor(**options)
        height, width = (side, side) if isinstance(side, int) else side
        crop_size = {"height": height, "width": width}
        return FgmmVideoProcessor(**options, size={"shortest_edge": min(height, width)}, crop_size=crop_size)
    settings = load_picture_settings(encoder)
    if settings.get("num_frames"):  # that the video processor samples
        options.setdefault("num_frames", settings["num_frames"])
    return FgmmVideoProcessor(**options, **convert_settings(settings))


def load_picture_settings(name: str) -> dict:
    """The saved settings of an encoder's video processor, or else of its image processor.

    Raises:
        OSError: for a name without either.
    """
    try:
        return FgmmVideoProcessor.get_video_processor_dict(name)[0]
    except OSError:  # it does not look for image processors that are saved as part of a processor
        return ImageProcessingMixin.get_image_processor_dict(name)[0]


def convert_settings(settings: dict) -> dict:
    """Saved settings of an image or video processor of any version of transformers to arguments of ours.

    Raises:
        ValueError: for a resampling filter other than nearest, bilinear and bicubic.
    """
    cropped = settings.get("do_center_crop", "crop_size" in settings)
    any_aspect_ratio = {}
    if max_num_patches := settings.get("max_num_patches"):
        any_aspect_ratio = {"max_num_patches": max_num_patches, "patch_size": settings["patch_size"]}
        # Of a square; it is only the size to which videos are decoded, and of crops in training.
        settings = {**settings, "size": {"shortest_edge": math.isqrt(max_num_patches) * settings["patch_size"]}}
    size = settings.get("size", {"shortest_edge": 224})
    if isinstance(size, int):  # older versions
        size = {"shortest_edge": size} if cropped else {"height": size, "width": size}
    size = {name: value for name, value in size.items() if value is not None}
    side = size.get("shortest_edge")
    crop_size = settings.get("crop_size") if cropped else None
    crop_size = crop_size or (size if side is None else side)
    if isinstance(crop_size, int):
        crop_size = {"height": crop_size, "width": crop_size}
    resampling = settings.get("resample", 2)
    if resampling not in RESAMPLING:
        raise ValueError(
            f"Images cannot be resampled by Pillow's filter {resampling}, only by {RESAMPLING}; give another encoder."
        )
    # Theirs is (pixel · factor - offset - mean) / std of pixels in [0, 255]; ours has the factor 1 / 255 and no offset.
    factor = settings.get("rescale_factor", 1 / MAX_PIXEL) if settings.get("do_rescale", True) else 1.0
    offset = 1.0 if settings.get("offset", is_vivit(settings)) else 0.0
    mean, std = settings.get("image_mean", [0.0] * 3), settings.get("image_std", [1.0] * 3)
    if not settings.get("do_normalize", True):
        mean, std = [0.0] * 3, [1.0] * 3
    return {
        "size": size,
        "crop_size": {"height": crop_size["height"], "width": crop_size["width"]},
        "resample": RESAMPLING[resampling],
        "image_mean": [(value + offset) / (factor * MAX_PIXEL) for value in mean],
        "image_std": [value / (factor * MAX_PIXEL) for value in std],
        **any_aspect_ratio,
    }


def is_vivit(settings: dict) -> bool:
    """Whether these are settings of ViViT's video processor, which subtracts 1 from rescaled pixels by default."""
    return settings.get("video_processor_type") == "VivitVideoProcessor"


class FgmmEncoderFeatureExtractor(WaveformFeatureExtractor):
    """A feature extractor of transformers, wrapped so that its features have our names and shapes.

    Args:
        kind: name of its class, one of `FEATURE_EXTRACTORS`.
        **kwargs: its settings.

    Raises:
        ValueError: for another class.
    """

    def __init__(self, kind: str, **kwargs):
        if kind not in FEATURE_EXTRACTORS:
            raise ValueError(
                f"{kind} is none of the feature extractors {', '.join(FEATURE_EXTRACTORS)}; give an encoder of theirs."
            )
        self.kind = kind
        self.wrapped = FEATURE_EXTRACTORS[kind](**kwargs)
        super().__init__(
            self.wrapped.feature_size,
            self.wrapped.sampling_rate,
            self.wrapped.padding_value,
            padding_side=self.wrapped.padding_side,
            return_attention_mask=self.wrapped.return_attention_mask,
        )

    def extract(self, waveform: torch.Tensor) -> tuple[torch.Tensor, int]:
        rate = self.sampling_rate
        window, hop = int(KALDI_WINDOW * rate), int(KALDI_HOP * rate)
        is_kaldi = isinstance(self.wrapped, ASTFeatureExtractor)
        if is_kaldi and len(waveform) < window:
            waveform = torch.nn.functional.pad(waveform, (0, window - len(waveform)))
        name = self.wrapped.model_input_names[0]
        if isinstance(self.wrapped, ClapFeatureExtractor):
            # It crops longer sounds at random.
            surplus = max(0, len(waveform) - self.wrapped.nb_max_samples)
            waveform = waveform[surplus // 2 : len(waveform) - (surplus - surplus // 2)]
        values = self.wrapped(waveform.numpy(), sampling_rate=rate, return_tensors="pt")[name][0]
        if isinstance(self.wrapped, PeAudioFeatureExtractor):  # (channels, samples)
            return values[0], values.shape[1]
        if isinstance(self.wrapped, ClapFeatureExtractor):  # (spectrograms, frames, mel bands), side by side
            return values.transpose(0, 1).flatten(1), 1 + len(waveform) // self.wrapped.hop_length
        if is_kaldi:
            return values, 1 + (len(waveform) - window) // hop
        if isinstance(self.wrapped, WhisperFeatureExtractor):  # (mel bands, frames), centred on their first samples
            return values.T, math.ceil((len(waveform) + self.wrapped.n_fft // 2) / self.wrapped.hop_length)
        return values, len(values)

    def to_dict(self) -> dict:
        """The settings of the wrapped feature extractor, under the name of this class."""
        settings = {name: value for name, value in super().to_dict().items() if name != "wrapped"}
        return {**self.wrapped.to_dict(), **settings}


def load_feature_extractor(name: str, **kwargs) -> WaveformFeatureExtractor:
    """Loads the feature extractor of an fgmm model, or wraps that of an encoder.

    Args:
        name: name on the Hub, or folder.
        **kwargs: of transformers' `from_pretrained`.

    Raises:
        ValueError: for a feature extractor of an unsupported class.
        OSError: for a name without a feature extractor.
    """
    settings, _ = FgmmFeatureExtractor.get_feature_extractor_dict(name, **kwargs)
    for ours in (FgmmFeatureExtractor, FgmmEncoderFeatureExtractor):
        if settings.get("feature_extractor_type") == ours.__name__:
            return ours.from_pretrained(name, **kwargs)
    settings = AutoFeatureExtractor.from_pretrained(name, **kwargs).to_dict()
    return FgmmEncoderFeatureExtractor(settings.pop("feature_extractor_type"), **settings)


def make_feature_extractor(encoder: str | PreTrainedConfig | None) -> WaveformFeatureExtractor:
    """The feature extractor for an audio encoder.

    Args:
        encoder: name on the Hub or folder of the encoder, whose feature extractor is wrapped; or its configuration, for
            the defaults of its class with the sizes of the configuration; None: our defaults.

    Raises:
        ValueError: for a configuration or feature extractor of an unsupported class.
        OSError: for a name without a feature extractor.
    """
    if encoder is None:
        return FgmmFeatureExtractor()
    if not isinstance(encoder, PreTrainedConfig):
        return load_feature_extractor(encoder)
    config = load_encoder_config(encoder, "audio_config")
    if config.model_type == "audio-spectrogram-transformer":
        sizes = {"num_mel_bins": config.num_mel_bins, "max_length": config.max_length}
        return FgmmEncoderFeatureExtractor("ASTFeatureExtractor", **sizes)
    if config.model_type == "clap_audio_model":
        truncation = "fusion" if config.enable_fusion else "rand_trunc"
        sizes = {"feature_size": config.num_mel_bins, "truncation": truncation}
        return FgmmEncoderFeatureExtractor("ClapFeatureExtractor", **sizes)
    if config.model_type.startswith("pe_audio"):
        config = getattr(config, "audio_config", config)
        ratios = config.dac_config.downsampling_ratios
        return FgmmEncoderFeatureExtractor("PeAudioFeatureExtractor", hop_length=math.prod(ratios))
    if config.model_type == "whisper":
        defaults = WhisperFeatureExtractor()
        seconds = 2 * config.max_source_positions * defaults.hop_length // defaults.sampling_rate
        sizes = {"feature_size": config.num_mel_bins, "chunk_length": seconds}
        return FgmmEncoderFeatureExtractor("WhisperFeatureExtractor", **sizes)
    if hasattr(config, "conv_stride"):
        return FgmmEncoderFeatureExtractor("Wav2Vec2FeatureExtractor")
    if hasattr(config, "num_mel_bins"):
        return FgmmFeatureExtractor(feature_size=config.num_mel_bins)
    raise ValueError(
        f"There is no feature extractor for the configuration of {config.model_type}; give a name instead."
    )


def make_dual_processors(
    dual_encoder: str | PreTrainedConfig, video: str | PreTrainedConfig | None, audio: str | PreTrainedConfig | None
) -> tuple[FgmmVideoProcessor, WaveformFeatureExtractor]:
    """The video processor and feature extractor of a model of a dual encoder.

    Args:
        dual_encoder: name on the Hub, folder or configuration.
        video, audio: as [`make_video_processor`] and [`make_feature_extractor`] take them, of the modality that the
            dual encoder lacks.
    """
    config = load_encoder_config(dual_encoder)
    if hasattr(config, "vision_config"):  # with an image processor, which resizes by Pillow
        video_processor = make_video_processor(dual_encoder, resize_backend="pillow")
    else:
        video_processor = make_video_processor(dual_encoder if hasattr(config, "video_config") else video)
    has_audio = hasattr(config, "audio_config")
    return video_processor, make_feature_extractor(dual_encoder if has_audio else audio)


def load_tokenizer(name: str, **kwargs):
    """Loads the tokenizer of an fgmm model.

    Args:
        name: name on the Hub, or folder.
        **kwargs: of transformers' `from_pretrained`.
    """
    # Its own settings name its class. Without a configuration AutoTokenizer would load the model's and, unless
    # modeling_fgmm is imported, require trust_remote_code.
    return AutoTokenizer.from_pretrained(name, config=PreTrainedConfig(), **kwargs)


def make_tokenizer(encoder):
    """The tokenizer of an encoder, which truncates texts to the encoder's maximum length.

    Args:
        encoder: name on the Hub or folder of the encoder; or a tokenizer, which is returned as it is.

    Raises:
        ValueError: for None, a configuration, or a name without a tokenizer.
    """
    if encoder is None or isinstance(encoder, PreTrainedConfig):
        raise ValueError("A processor needs a tokenizer: give text= or tokenizer=, a name or folder of any text model.")
    if not isinstance(encoder, str) and hasattr(encoder, "is_fast"):
        return encoder
    config = load_encoder_config(encoder, "text_config")
    if config is None:
        tokenizer = load_tokenizer(encoder)
    elif config.model_type == "siglip_text_model" and is_siglip_tokenizer(encoder):
        tokenizer = load_siglip_tokenizer(encoder)
    else:
        tokenizer = AutoTokenizer.from_pretrained(encoder)
    if len(tokenizer) <= len(tokenizer.all_special_ids):  # transformers' default without files
        raise ValueError(f"There is no tokenizer in {encoder}; give one by tokenizer=.")
    max_length = getattr(config, "max_position_embeddings", None) or tokenizer.model_max_length
    if getattr(config, "model_type", None) in OFFSET_POSITIONS:
        max_length -= config.pad_token_id + 1
    tokenizer.model_max_length = min(tokenizer.model_max_length, max_length)
    return tokenizer


def is_siglip_tokenizer(name: str) -> bool:
    """Whether a name's tokenizer is that of SigLIP, which transformers has in a slow version only."""
    return get_tokenizer_config(name).get("tokenizer_class") == "SiglipTokenizer"


def load_siglip_tokenizer(name: str) -> PreTrainedTokenizerFast:
    """The tokenizer of SigLIP as a fast one: lower case, without punctuation, one space between words.

    Raises:
        OSError: for a name without a tokenizer.json.
    """
    tokenizer = PreTrainedTokenizerFast.from_pretrained(name)
    steps = [
        normalizers.Lowercase(),
        normalizers.Replace(Regex(f"[{re.escape(string.punctuation)}]"), ""),
        normalizers.Replace(Regex(r"\s+"), " "),
        normalizers.Strip(),
    ]
    backend = tokenizer.backend_tokenizer
    backend.normalizer = normalizers.Sequence(steps + ([backend.normalizer] if backend.normalizer else []))
    return tokenizer


__all__ = [
    "FgmmEncoderFeatureExtractor",
    "load_feature_extractor",
    "load_tokenizer",
    "make_dual_processors",
    "make_feature_extractor",
    "make_tokenizer",
    "make_video_processor",
]
