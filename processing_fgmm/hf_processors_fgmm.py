"""The processors of transformers' encoders in the places of ours."""

import math

import torch
from transformers import (
    ASTFeatureExtractor,
    AutoConfig,
    AutoFeatureExtractor,
    AutoTokenizer,
    PreTrainedConfig,
    Wav2Vec2FeatureExtractor,
    WhisperFeatureExtractor,
)

from .feature_extraction_fgmm import FgmmFeatureExtractor, SoundFeatureExtractor
from .video_processing_fgmm import FgmmVideoProcessor

# Pillow's filters by their numbers, which saved image processors have.
RESAMPLING = {0: "nearest", 2: "bilinear", 3: "bicubic"}
LARGEST_PIXEL = 255
# The feature extractors of the audio encoders that a model takes.
FEATURE_EXTRACTORS = {
    kind.__name__: kind for kind in (ASTFeatureExtractor, Wav2Vec2FeatureExtractor, WhisperFeatureExtractor)
}
# The frames of Kaldi's spectrogram, which the Audio Spectrogram Transformer takes, in seconds.
KALDI_WINDOW, KALDI_HOP = 0.025, 0.010


def load_encoder_config(encoder: str | PreTrainedConfig, part: str) -> PreTrainedConfig | None:
    """
    Args:
        encoder: a name on the Hub, a folder, or a configuration.
        part: which configuration counts in a model of several, for example `"vision_config"`.

    Returns:
        The encoder's configuration; None for a name of an fgmm model, which has a processor of ours.
    """
    if not isinstance(encoder, PreTrainedConfig):
        values, _ = PreTrainedConfig.get_config_dict(encoder)
        if values.get("model_type") == "fgmm":
            return None
        encoder = AutoConfig.from_pretrained(encoder)
    return getattr(encoder, part, encoder)


def make_video_processor(encoder: str | PreTrainedConfig | None) -> FgmmVideoProcessor:
    """Ours, with the sizes, the filter and the normalisation of an encoder's own image or video processor.

    Args:
        encoder: a name on the Hub or a folder; a configuration says sizes and frames alone; None: our defaults.

    Raises:
        ValueError: for a resampling that we lack. OSError: for a name without an image or video processor.
    """
    if encoder is None:
        return FgmmVideoProcessor()
    config = load_encoder_config(encoder, "vision_config")
    if config is None:
        return FgmmVideoProcessor.from_pretrained(encoder)
    frames = getattr(config, "num_frames", None) or getattr(config, "frames_per_clip", None)
    frames = {"num_frames": frames} if frames else {}
    if isinstance(encoder, PreTrainedConfig):
        side = getattr(config, "image_size", None) or getattr(config, "crop_size", None)
        if side is None:  # ours takes any
            return FgmmVideoProcessor(**frames)
        height, width = (side, side) if isinstance(side, int) else side
        crop_size = {"height": height, "width": width}
        return FgmmVideoProcessor(**frames, size={"shortest_edge": min(height, width)}, crop_size=crop_size)
    settings, _ = FgmmVideoProcessor.get_video_processor_dict(encoder)
    return FgmmVideoProcessor(**frames, **read_settings(settings))


def read_settings(settings: dict) -> dict:
    """The saved settings of an image or video processor of transformers, of any version, as arguments of ours.

    Raises:
        ValueError: for a resampling that we lack.
    """
    cropped = settings.get("do_center_crop", "crop_size" in settings)
    size = settings.get("size", {"shortest_edge": 224})
    if isinstance(size, int):  # of older versions
        size = {"shortest_edge": size} if cropped else {"height": size, "width": size}
    size = {name: value for name, value in size.items() if value is not None}
    side = size.get("shortest_edge")
    crop_size = settings.get("crop_size") if cropped else None
    crop_size = crop_size or (size if side is None else side)
    if isinstance(crop_size, int):
        crop_size = {"height": crop_size, "width": crop_size}
    resampling = settings.get("resample", 2)
    if resampling not in RESAMPLING:
        raise ValueError(f"Pictures cannot be resampled by Pillow's filter {resampling}, only by {RESAMPLING}.")
    # (pixel · factor - offset - mean) / std, written for pixels from 0 to 1.
    factor = settings.get("rescale_factor", 1 / LARGEST_PIXEL) if settings.get("do_rescale", True) else 1.0
    offset = 1.0 if settings.get("offset", is_vivit(settings)) else 0.0
    mean, std = settings.get("image_mean", [0.0] * 3), settings.get("image_std", [1.0] * 3)
    if not settings.get("do_normalize", True):
        mean, std = [0.0] * 3, [1.0] * 3
    return {
        "size": size,
        "crop_size": {"height": crop_size["height"], "width": crop_size["width"]},
        "resample": RESAMPLING[resampling],
        "image_mean": [(value + offset) / (factor * LARGEST_PIXEL) for value in mean],
        "image_std": [value / (factor * LARGEST_PIXEL) for value in std],
    }


def is_vivit(settings: dict) -> bool:
    """ViViT's video processor takes 1 off its rescaled pixels without saying so."""
    return settings.get("video_processor_type") == "VivitVideoProcessor"


class FgmmEncoderFeatureExtractor(SoundFeatureExtractor):
    """An encoder's own feature extractor, whose values have our names and shapes.

    Args:
        kind: the class of transformers, one of `FEATURE_EXTRACTORS`.
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
        self.own = FEATURE_EXTRACTORS[kind](**kwargs)
        super().__init__(
            self.own.feature_size,
            self.own.sampling_rate,
            self.own.padding_value,
            padding_side=self.own.padding_side,
            return_attention_mask=self.own.return_attention_mask,
        )

    def extract(self, waveform: torch.Tensor) -> tuple[torch.Tensor, int]:
        rate = self.sampling_rate
        window, hop = int(KALDI_WINDOW * rate), int(KALDI_HOP * rate)
        is_kaldi = isinstance(self.own, ASTFeatureExtractor)
        if is_kaldi and len(waveform) < window:
            waveform = torch.nn.functional.pad(waveform, (0, window - len(waveform)))
        name = self.own.model_input_names[0]
        values = self.own(waveform.numpy(), sampling_rate=rate, return_tensors="pt")[name][0]
        if is_kaldi:
            return values, 1 + (len(waveform) - window) // hop
        if isinstance(self.own, WhisperFeatureExtractor):  # (mel, time), a frame's window centred on its first sample
            return values.T, math.ceil((len(waveform) + self.own.n_fft // 2) / self.own.hop_length)
        return values, len(values)

    def to_dict(self) -> dict:
        """The settings of the encoder's own, under the name of this class."""
        settings = {name: value for name, value in super().to_dict().items() if name != "own"}
        return {**self.own.to_dict(), **settings}


def load_feature_extractor(name: str, **kwargs) -> SoundFeatureExtractor:
    """The feature extractor of an fgmm model, or of an encoder.

    Args:
        name: on the Hub, or a folder.
        **kwargs: of transformers' `from_pretrained`.

    Raises:
        ValueError: for a feature extractor of an unknown kind. OSError: for a name without one.
    """
    settings, _ = FgmmFeatureExtractor.get_feature_extractor_dict(name, **kwargs)
    for ours in (FgmmFeatureExtractor, FgmmEncoderFeatureExtractor):
        if settings.get("feature_extractor_type") == ours.__name__:
            return ours.from_pretrained(name, **kwargs)
    settings = AutoFeatureExtractor.from_pretrained(name, **kwargs).to_dict()
    return FgmmEncoderFeatureExtractor(settings.pop("feature_extractor_type"), **settings)


def make_feature_extractor(encoder: str | PreTrainedConfig | None) -> SoundFeatureExtractor:
    """An encoder's own feature extractor; for a configuration, its kind's with fitting sizes; None: our defaults.

    Raises:
        ValueError: for a configuration or a feature extractor of an unknown kind. OSError: for a name without one.
    """
    if encoder is None:
        return FgmmFeatureExtractor()
    if not isinstance(encoder, PreTrainedConfig):
        return load_feature_extractor(encoder)
    config = load_encoder_config(encoder, "audio_config")
    if config.model_type == "audio-spectrogram-transformer":
        sizes = {"num_mel_bins": config.num_mel_bins, "max_length": config.max_length}
        return FgmmEncoderFeatureExtractor("ASTFeatureExtractor", **sizes)
    if config.model_type == "whisper":
        usual = WhisperFeatureExtractor()
        seconds = 2 * config.max_source_positions * usual.hop_length // usual.sampling_rate
        sizes = {"feature_size": config.num_mel_bins, "chunk_length": seconds}
        return FgmmEncoderFeatureExtractor("WhisperFeatureExtractor", **sizes)
    if hasattr(config, "conv_stride"):
        return FgmmEncoderFeatureExtractor("Wav2Vec2FeatureExtractor")
    if hasattr(config, "num_mel_bins"):
        return FgmmFeatureExtractor(feature_size=config.num_mel_bins)
    raise ValueError(f"There is no feature extractor for the configuration of {config.model_type}; give a name.")


def make_tokenizer(encoder):
    """An encoder's own tokenizer, which cuts texts to what the encoder takes.

    Args:
        encoder: a name on the Hub or a folder, or a tokenizer.

    Raises:
        ValueError: for None or a configuration, to which no tokenizer belongs.
    """
    if encoder is None or isinstance(encoder, PreTrainedConfig):
        raise ValueError("A processor needs a tokenizer: give text= or tokenizer=, a name or folder of any text model.")
    if not isinstance(encoder, str) and hasattr(encoder, "is_fast"):
        return encoder
    tokenizer = AutoTokenizer.from_pretrained(encoder)
    config = load_encoder_config(encoder, "text_config")
    longest = getattr(config, "max_position_embeddings", None) or tokenizer.model_max_length
    tokenizer.model_max_length = min(tokenizer.model_max_length, longest)
    return tokenizer


__all__ = ["FgmmEncoderFeatureExtractor"]
