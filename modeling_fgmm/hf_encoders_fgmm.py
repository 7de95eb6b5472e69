"""Encoders of the transformers library in the places of ours: the same inputs, and regions or words out."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches

import torch
import torch.nn.functional as F
from torch import nn
from transformers import (
    MODEL_MAPPING,
    ASTFeatureExtractor,
    AutoConfig,
    AutoModel,
    PreTrainedConfig,
    PreTrainedModel,
    WhisperModel,
)
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from .configuration_fgmm import FgmmConfig
from .text_fgmm import encode_each_caption, max_over_spans

# Whisper's log-mel values end this far below the loudest of a sound, and never lie below the second, which is digital
# silence (its feature extractor's decades of power, divided by 4).
WHISPER_RANGE, WHISPER_SILENCE = 2.0, -1.5


@dataclass(frozen=True)
class VideoFamily:
    """What tells one kind of vision encoder from another.

    per_frame: takes single pictures. any_size: height and width may be other than the configuration's. any_length:
    takes any multiple of its tubelet's frames, else as many as the configuration says. time_last: its tokens go through
    time before they go through space. arguments: of its call.
    """

    per_frame: bool = False
    any_size: bool = False
    any_length: bool = False
    time_last: bool = False
    arguments: tuple[tuple[str, bool], ...] = ()


VIDEO_FAMILIES = {
    "videomae": VideoFamily(),
    "vivit": VideoFamily(),
    "timesformer": VideoFamily(time_last=True),
    "vjepa2": VideoFamily(any_length=True, arguments=(("skip_predictor", True),)),
    "clip_vision_model": VideoFamily(per_frame=True),
    "siglip_vision_model": VideoFamily(per_frame=True),
    "vit": VideoFamily(per_frame=True),
    "dinov2": VideoFamily(per_frame=True, any_size=True),
    "dinov2_with_registers": VideoFamily(per_frame=True, any_size=True),
}
SPECTROGRAM_FAMILIES = ("audio-spectrogram-transformer", "whisper")
WAVEFORM_FAMILIES = ("wav2vec2", "hubert", "wavlm")


def validate_encoders(encoders: dict, frozen: list[str], options: dict) -> None:
    """Looks at what `FgmmModel.from_encoders` was given, before anything is loaded.

    Raises:
        ValueError: for fewer than two encoders, one that is neither named nor a configuration, or names in `frozen` or
            `options` that there are not.
    """
    if len(encoders) < 2:
        raise ValueError(f"Give at least two of video, audio and text, not {', '.join(encoders) or 'none'}.")
    for name, encoder in encoders.items():
        if not isinstance(encoder, (str, os.PathLike, PreTrainedConfig)):
            raise ValueError(
                f"{name} cannot be a {type(encoder).__name__}; give a name on the Hub, a folder or a configuration."
            )
    for name in frozen:
        if name not in encoders:
            raise ValueError(f"frozen has {name!r}, which is none of the given encoders {', '.join(encoders)}.")
    known = set(FgmmConfig.__annotations__) - {"video_config", "audio_config", "text_config", "modalities", "frozen"}
    for name in options:
        if name not in known:
            nearest = get_close_matches(name, known) or sorted(known)
            raise ValueError(f"from_encoders has no option {name!r}; FgmmConfig has {', '.join(nearest)}.")


def load_config(encoder: str | os.PathLike | PreTrainedConfig) -> PreTrainedConfig:
    """The configuration of a named encoder or fgmm model; a configuration is taken as it is."""
    if isinstance(encoder, PreTrainedConfig):
        return encoder
    values, _ = PreTrainedConfig.get_config_dict(encoder)
    kind = FgmmConfig if values.get("model_type") == FgmmConfig.model_type else AutoConfig
    return kind.from_pretrained(encoder)


def is_fgmm_config(config: PreTrainedConfig) -> bool:
    """Whether it is an fgmm model's, with encoders in it."""
    return config.model_type == FgmmConfig.model_type


def select_encoder_config(modality: str, config: PreTrainedConfig) -> PreTrainedConfig:
    """The configuration of this modality's encoder, which an fgmm model's holds.

    Raises:
        ValueError: when the fgmm model has no such encoder.
    """
    if not is_fgmm_config(config):
        return config
    if modality not in config.modalities:
        raise ValueError(
            f"The fgmm model given as {modality} has no {modality} encoder, only {', '.join(config.modalities)}."
        )
    return getattr(config, f"{modality}_config")


def find_padding_value(encoder: str | os.PathLike | PreTrainedConfig, config: PreTrainedConfig) -> float:
    """What stands after a sound's end: an fgmm model's own value, 0 normalised as the Audio Spectrogram Transformer's
    feature extractor does, or 0."""
    if is_fgmm_config(config):
        return config.audio_padding_value
    if config.model_type != "audio-spectrogram-transformer":
        return 0.0
    extractor = ASTFeatureExtractor()
    if not isinstance(encoder, PreTrainedConfig):
        extractor = ASTFeatureExtractor.from_pretrained(encoder)
    return float(extractor.normalize(0.0)) if extractor.do_normalize else 0.0


def build_encoder(config: PreTrainedConfig) -> PreTrainedModel:
    """An encoder with random weights."""
    return remove_unused_modules(
        WhisperEncoder._from_config(config) if is_whisper(config) else AutoModel.from_config(config)
    )


def load_encoder(name: str, config: PreTrainedConfig) -> PreTrainedModel:
    """An encoder with the weights of a folder or of the Hub, in float32."""
    if is_whisper(config):
        return remove_unused_modules(WhisperModel.from_pretrained(name, config=config, dtype=torch.float32).encoder)
    return remove_unused_modules(AutoModel.from_pretrained(name, config=config, dtype=torch.float32))


def is_whisper(config: PreTrainedConfig) -> bool:
    """Whisper has an encoder and a decoder, of which only the first is wanted."""
    return config.model_type == "whisper"


def remove_unused_modules(model: PreTrainedModel) -> PreTrainedModel:
    """Takes away what regions and words have no part in: its weights would wait for a gradient that never comes.

    Constants become buffers, for a weight that is loaded is given a gradient.
    """
    for name in ("pooler", "predictor"):
        if isinstance(getattr(model, name, None), nn.Module):
            setattr(model, name, None)
    for name in ("post_layernorm", "head"):  # of the pooled picture or text alone, and always called
        pooled_only = model.config.model_type in ("clip_vision_model", "siglip_text_model")
        if pooled_only and isinstance(getattr(model, name, None), nn.Module):
            setattr(model, name, nn.Identity())
    for owner, name in (("embeddings", "mask_token"), ("embed_positions", "weight")):
        module = getattr(model, owner, None)
        if isinstance(constant := getattr(module, name, None), nn.Parameter):
            delattr(module, name)
            module.register_buffer(name, constant.detach())
    return model


class TransformersVideoEncoder(nn.Module):
    """A vision transformer over clips, or over each frame of a clip; `out_channels` are its hidden dimensions."""

    def __init__(self, config: PreTrainedConfig):
        super().__init__()
        self.config = config
        self.family = find_family("video", config, VIDEO_FAMILIES)
        self.model = build_encoder(config)
        self.out_channels = config.hidden_size
        tubelet = getattr(config, "tubelet_size", 1)
        patch = as_tuple(getattr(config, "patch_size", 1), 2)
        self.tubelet = tuple(tubelet) if isinstance(tubelet, Iterable) else (tubelet, *patch)

    def forward(self, pixel_values_videos: torch.Tensor) -> tuple[torch.Tensor, tuple[int, int, int]]:
        """
        Args:
            pixel_values_videos: (B, T, 3, H, W) normalised pixels; a single frame is repeated for as long as the
                encoder needs.

        Returns:
            The features of the regions (B, N, C) with N = t·h·w, and the grid (t, h, w).

        Raises:
            ValueError: for a shape that the encoder does not take.
        """
        clips = self.repeat_image(self.check(pixel_values_videos))
        grid = tuple(size // part for size, part in zip((clips.shape[1], *clips.shape[3:]), self.tubelet, strict=True))
        time, height, width = grid
        arguments = dict(self.family.arguments)
        if self.family.per_frame:
            tokens = self.model(clips.flatten(0, 1), **arguments).last_hidden_state[:, -height * width :]
            return tokens.unflatten(0, clips.shape[:2]).flatten(1, 2), grid
        tokens = self.model(clips, **arguments).last_hidden_state[:, -time * height * width :]  # class tokens go first
        if self.family.time_last:
            tokens = tokens.unflatten(1, (height * width, time)).transpose(1, 2).flatten(1, 2)
        return tokens, grid

    def check(self, clips: torch.Tensor) -> torch.Tensor:
        """The same clips.

        Raises:
            ValueError: when they are none, or not of the encoder's size.
        """
        if clips.ndim != 5:
            raise ValueError(
                f"pixel_values_videos has shape {tuple(clips.shape)}, but (batch, frames, channels, height, width) is "
                "needed; give one image as a clip of one frame."
            )
        size = as_tuple(getattr(self.config, "image_size", None) or self.config.crop_size, 2)
        fits = all(side % part == 0 for side, part in zip(clips.shape[3:], self.tubelet[1:], strict=True))
        if not fits or (not self.family.any_size and clips.shape[3:] != size):
            wanted = f"multiples of {self.tubelet[1:]}" if self.family.any_size else str(size)
            raise ValueError(
                f"{self.config.model_type} takes frames of {wanted} pixels, not {tuple(clips.shape[3:])}; make them "
                "with its own processor, FgmmProcessor.from_encoders."
            )
        return clips

    def repeat_image(self, clips: torch.Tensor) -> torch.Tensor:
        """Clips of one frame stand still for as long as the encoder needs.

        Raises:
            ValueError: for another number of frames than it takes.
        """
        if self.family.per_frame:
            return clips
        frames = self.tubelet[0] if self.family.any_length else self.config.num_frames
        given = clips.shape[1]
        if given == 1:
            return clips.expand(-1, frames, -1, -1, -1)
        if given % frames if self.family.any_length else given != frames:
            wanted = f"a multiple of {frames}" if self.family.any_length else str(frames)
            raise ValueError(f"{self.config.model_type} takes 1 frame (an image) or {wanted}, not {given}.")
        return clips


class TransformersAudioEncoder(nn.Module):
    """A transformer over a spectrogram or a waveform; `out_channels` are its hidden dimensions."""

    def __init__(self, config: PreTrainedConfig, padding_value: float = 0.0):
        super().__init__()
        self.config = config
        find_family("audio", config, dict.fromkeys((*SPECTROGRAM_FAMILIES, *WAVEFORM_FAMILIES)))
        self.padding_value = padding_value
        self.model = build_encoder(config)
        self.out_channels = getattr(config, "output_hidden_size", config.hidden_size)
        if not getattr(config, "add_adapter", False):
            self.out_channels = config.hidden_size

    def forward(
        self, input_features: torch.Tensor, input_features_mask: torch.Tensor
    ) -> tuple[torch.Tensor, tuple[int, int]]:
        """
        Args:
            input_features: (B, time, mel) log-mel frames, or (B, samples) for encoders of waveforms.
            input_features_mask: (B, time) or (B, samples), True up to a sound's end.

        Returns:
            The features of the regions (B, N, C), and the grid (frequency, time), N its product.

        Raises:
            ValueError: for a shape that the encoder does not take.
        """
        if self.config.model_type in WAVEFORM_FAMILIES:
            return self.encode_waveforms(input_features, input_features_mask)
        config = self.config
        frames = 2 * config.max_source_positions if is_whisper(config) else config.max_length
        if input_features.ndim != 3 or input_features.shape[1:] != (frames, config.num_mel_bins):
            raise ValueError(
                f"input_features has shape {tuple(input_features.shape)}, but {config.model_type} takes (batch, "
                f"{frames}, {config.num_mel_bins}); make it with its own processor, FgmmProcessor.from_encoders."
            )
        padding = ~input_features_mask.unsqueeze(-1)
        if is_whisper(config):
            loudest = input_features.masked_fill(padding, WHISPER_SILENCE).amax((1, 2), keepdim=True).detach()
            silence = (loudest - WHISPER_RANGE).clamp(min=WHISPER_SILENCE)
            filled = torch.where(padding, silence, input_features)
            features = self.model(filled.transpose(1, 2)).last_hidden_state
            return features, (1, features.shape[1])
        filled = input_features.masked_fill(padding, self.padding_value)
        grid = self.model.embeddings.get_shape(config)
        return self.model(filled).last_hidden_state[:, -grid[0] * grid[1] :], grid  # two class tokens go first

    def encode_waveforms(self, waveforms: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, tuple[int, int]]:
        """Sounds of one length together, and without padding: some of these encoders normalise over time."""
        if waveforms.ndim != 2:
            raise ValueError(
                f"input_features has shape {tuple(waveforms.shape)}, but {self.config.model_type} takes waveforms, "
                "(batch, samples); make them with its own processor, FgmmProcessor.from_encoders."
            )
        lengths = self.sound_lengths(mask)
        waveforms = F.pad(waveforms.masked_fill(~mask, 0.0), (0, max(0, int(lengths.max()) - waveforms.shape[1])))
        encoded = {}
        for length in lengths.unique().tolist():
            rows = (lengths == length).nonzero().squeeze(1)
            encoded[length] = rows, self.model(waveforms[rows, :length]).last_hidden_state
        rows, longest = encoded[max(encoded)]
        features = longest.new_zeros(len(waveforms), *longest.shape[1:])
        for rows, part in encoded.values():
            features[rows, : part.shape[1]] = part
        return features, (1, features.shape[1])

    def sound_lengths(self, mask: torch.Tensor) -> torch.Tensor:
        """(B,) samples of each sound, at least what the first region sees."""
        shortest = 1
        for kernel, stride in zip(self.config.conv_kernel[::-1], self.config.conv_stride[::-1], strict=True):
            shortest = (shortest - 1) * stride + kernel
        return mask.sum(1).clamp(min=shortest)

    def region_mask(self, input_features_mask: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
        """(B, time) or (B, samples) to (B, N): a region counts when any frame under it is sound.

        Args:
            input_features_mask: True up to a sound's end.
            grid: (frequency, time) of the feature map.
        """
        if self.config.model_type in WAVEFORM_FAMILIES:
            number = self.model._get_feat_extract_output_lengths(self.sound_lengths(input_features_mask))
            in_time = torch.arange(grid[1], device=number.device) < number.unsqueeze(1)
            return in_time & input_features_mask.any(1, keepdim=True)
        kernel, stride = (2, 2) if is_whisper(self.config) else (self.config.patch_size, self.config.time_stride)
        in_time = F.max_pool1d(input_features_mask.float().unsqueeze(1), kernel, stride) > 0
        return in_time.expand(-1, grid[0], -1).flatten(1)


class TransformersTextEncoder(nn.Module):
    """A contextual text encoder; phrases are maxima over its word vectors, `out_channels` its hidden dimensions."""

    def __init__(self, config: PreTrainedConfig):
        super().__init__()
        if type(config) not in MODEL_MAPPING or config.is_encoder_decoder:
            raise ValueError(
                f"{config.model_type} is no text encoder that AutoModel loads alone; give one such as BERT, "
                "DistilBERT, RoBERTa, MPNet or CLIP's."
            )
        self.config = config
        self.model = build_encoder(config)
        self.out_channels = config.hidden_size

    def get_input_embeddings(self) -> nn.Module:
        return self.model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.model.set_input_embeddings(value)

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        phrase_spans: torch.Tensor,
        caption_lengths: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """
        Args:
            input_ids, attention_mask, phrase_spans, caption_lengths: as of `FgmmTextEncoder`.

        Returns:
            (B, M, C) the maximum over each phrase's words, 0 for padding.

        Raises:
            ValueError: when a text is longer than the encoder's positions.
        """
        words = encode_each_caption(self.encode_words, input_ids, attention_mask, caption_lengths)
        return max_over_spans(words, phrase_spans)

    def encode_words(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """(S, l) ids and mask, 1 for tokens, to word vectors (S, l, C)."""
        longest = getattr(self.config, "max_position_embeddings", None)
        if longest is not None and input_ids.shape[1] > longest:
            raise ValueError(
                f"A text has {input_ids.shape[1]} tokens, but max_position_embeddings is {longest}; pass "
                "truncation=True and max_length to the processor."
            )
        input_ids = input_ids.masked_fill(attention_mask == 0, self.config.pad_token_id or 0)
        return self.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state


def find_family(modality: str, config: PreTrainedConfig, families: dict):
    """What is known of an encoder's kind.

    Raises:
        ValueError: when nothing is, naming the kinds that are known.
    """
    if config.model_type not in families:
        raise ValueError(
            f"{config.model_type} is none of the {modality} encoders that can be taken: {', '.join(families)}."
        )
    return families[config.model_type]


def as_tuple(value: int | Iterable[int], length: int) -> tuple[int, ...]:
    """One number for every side, or one for each."""
    return tuple(value) if isinstance(value, Iterable) else (value,) * length
