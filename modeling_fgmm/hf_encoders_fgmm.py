"""Encoders of transformers with the interface of ours: the same inputs, and regions or phrases as outputs."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn
from transformers import (
    MODEL_MAPPING,
    AutoModel,
    ClapModel,
    PreTrainedConfig,
    PreTrainedModel,
    WhisperModel,
)
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from .layers_fgmm import RegionFeatures, WordFeatures, join_rows
from .text_fgmm import encode_each_caption, max_over_spans

# Whisper's feature extractor clips log-mel values so far below the loudest of a sound; the second is digital silence.
# The units are its own, (decades of power + 4) / 4.
WHISPER_RANGE, WHISPER_SILENCE = 2.0, -1.5


@dataclass(frozen=True)
class VideoFamily:
    """Properties of one model type of vision encoders.

    Args:
        per_frame: takes images, not clips.
        any_size: takes frames of other sizes than `config.image_size`.
        any_length: takes any multiple of `config.tubelet_size` frames, else exactly `config.num_frames`.
        time_last: in the order of its tokens time varies fastest, else space.
        arguments: extra arguments of its forward call.
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


def build_encoder(config: PreTrainedConfig) -> PreTrainedModel:
    """An encoder of transformers with random weights."""
    return remove_unused_modules(
        WhisperEncoder._from_config(config) if is_whisper(config) else AutoModel.from_config(config)
    )


def load_encoder(name: str, config: PreTrainedConfig) -> PreTrainedModel:
    """An encoder of transformers with the weights of a folder or of the Hub, in float32.

    Raises:
        ValueError: when some of its weights are not there.
    """
    model_class, part, options = AutoModel, "", {"config": config}
    if config.model_type == "clap_audio_model":  # which AutoModel does not load alone
        model_class, part, options = ClapModel, "audio_model", {}
    elif is_whisper(config):
        model_class, part = WhisperModel, "encoder"
    whole, report = model_class.from_pretrained(name, dtype=torch.float32, output_loading_info=True, **options)
    model = remove_unused_modules(whole.get_submodule(part))
    check_complete(name, model, report["missing_keys"], part)
    return model


def check_complete(name: str, model: PreTrainedModel, missing_keys: Iterable[str], part: str = "") -> None:
    """Checks that all weights of a model were loaded; transformers leaves those that are missing random.

    Args:
        name: from where it was loaded.
        model: the model, or that part of it which is used.
        missing_keys: of transformers' loading report.
        part: the attribute of the whole model that holds the part; empty: it is the whole.

    Raises:
        ValueError: when some are missing.
    """
    prefix = f"{part}." if part else ""
    missing = {key.removeprefix(prefix) for key in missing_keys if key.startswith(prefix)}
    if missing := sorted(missing & set(model.state_dict())):
        others = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise ValueError(f"{name} has no weights for {missing[0]}{others}; save or download it once more.")


def is_whisper(config: PreTrainedConfig) -> bool:
    """Whether it is Whisper, of whose encoder and decoder only the first is used."""
    return config.model_type == "whisper"


def remove_unused_modules(model: PreTrainedModel) -> PreTrainedModel:
    """Removes modules that regions and words do not depend on: their weights would never get a gradient.

    Constant parameters become buffers, because loading weights sets `requires_grad`.
    """
    for name in ("pooler", "predictor"):
        if isinstance(getattr(model, name, None), nn.Module):
            setattr(model, name, None)
    for name in ("post_layernorm", "head"):  # only of the pooled output, but always called
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
    """A vision transformer over clips, or over each frame of a clip; `out_channels` is its hidden size (C)."""

    def __init__(self, config: PreTrainedConfig):
        super().__init__()
        self.config = config
        self.family = find_family("video", config, VIDEO_FAMILIES)
        self.model = build_encoder(config)
        self.out_channels = config.hidden_size
        tubelet = getattr(config, "tubelet_size", 1)
        patch = as_tuple(getattr(config, "patch_size", 1), 2)
        self.tubelet = tuple(tubelet) if isinstance(tubelet, Iterable) else (tubelet, *patch)

    def forward(
        self, pixel_values_videos: torch.Tensor, output_hidden_states: bool = False, output_attentions: bool = False
    ) -> RegionFeatures:
        """
        Args:
            pixel_values_videos: (B, T, 3, H, W) normalised pixels; a single frame is repeated as often as the encoder
                needs.
            output_hidden_states, output_attentions: return the encoder's own; of an encoder of images they have a row
                for each frame.

        Returns:
            [`RegionFeatures`] with N = t·h·w and the grid (t, h, w).

        Raises:
            ValueError: for a shape that the encoder does not take.
        """
        size = None
        if not self.family.any_size:
            size = as_tuple(getattr(self.config, "image_size", None) or self.config.crop_size, 2)
        check_frames(pixel_values_videos, self.config.model_type, size, self.tubelet[1:])
        clips = self.repeat_image(pixel_values_videos)
        grid = tuple(size // part for size, part in zip((clips.shape[1], *clips.shape[3:]), self.tubelet, strict=True))
        time, height, width = grid
        output = self.model(
            clips.flatten(0, 1) if self.family.per_frame else clips,
            output_hidden_states=output_hidden_states,
            output_attentions=output_attentions,
            **dict(self.family.arguments),
        )
        if self.family.per_frame:
            tokens = output.last_hidden_state[:, -height * width :]  # class tokens go first
            tokens = tokens.unflatten(0, clips.shape[:2]).flatten(1, 2)
        else:
            tokens = output.last_hidden_state[:, -time * height * width :]
        if self.family.time_last:
            tokens = tokens.unflatten(1, (height * width, time)).transpose(1, 2).flatten(1, 2)
        return RegionFeatures(tokens, grid, hidden_states=output.hidden_states, attentions=output.attentions)

    def repeat_image(self, clips: torch.Tensor) -> torch.Tensor:
        """Repeats the frame of clips of one frame as often as the encoder needs: (B, T, 3, H, W) -> (B, T', 3, H, W).

        Raises:
            ValueError: for a number of frames that the encoder does not take.
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
    """A transformer over a spectrogram or a waveform; `out_channels` is the size of its features (C)."""

    def __init__(self, config: PreTrainedConfig, padding_value: float = 0.0):
        super().__init__()
        self.config = config
        find_family("audio", config, dict.fromkeys((*SPECTROGRAM_FAMILIES, *WAVEFORM_FAMILIES)))
        self.padding_value = padding_value
        self.model = build_encoder(config)
        has_adapter = getattr(config, "add_adapter", False)
        self.out_channels = config.output_hidden_size if has_adapter else config.hidden_size

    def forward(
        self,
        input_features: torch.Tensor,
        input_features_mask: torch.Tensor,
        output_hidden_states: bool = False,
        output_attentions: bool = False,
    ) -> RegionFeatures:
        """
        Args:
            input_features: (B, time, mel) log-mel frames, or (B, S) samples for encoders of waveforms.
            input_features_mask: (B, time) or (B, S) bool, False for padding, which is at the end.
            output_hidden_states, output_attentions: return the encoder's own.

        Returns:
            [`RegionFeatures`] with N = frequency·time and the grid (frequency, time).

        Raises:
            ValueError: for a shape that the encoder does not take.
        """
        encode = partial(self.model, output_hidden_states=output_hidden_states, output_attentions=output_attentions)
        if self.config.model_type in WAVEFORM_FAMILIES:
            return self.encode_waveforms(encode, input_features, input_features_mask)
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
            output = encode(torch.where(padding, silence, input_features).transpose(1, 2))
            features, grid = output.last_hidden_state, (1, output.last_hidden_state.shape[1])
        else:
            output = encode(input_features.masked_fill(padding, self.padding_value))
            grid = self.model.embeddings.get_shape(config)
            features = output.last_hidden_state[:, -grid[0] * grid[1] :]  # two class tokens go first
        return RegionFeatures(features, grid, hidden_states=output.hidden_states, attentions=output.attentions)

    def encode_waveforms(self, encode: Callable, waveforms: torch.Tensor, mask: torch.Tensor) -> RegionFeatures:
        """Encodes sounds of equal length together, without padding, because some encoders normalise over time.

        Args:
            encode: samples (b, S) to the encoder's output.
            waveforms: (B, S) samples.
            mask: (B, S) bool, False for padding, which is at the end.

        Returns:
            [`RegionFeatures`], 0 in the padding, with the grid (1, N).
        """
        if waveforms.ndim != 2:
            raise ValueError(
                f"input_features has shape {tuple(waveforms.shape)}, but {self.config.model_type} takes waveforms, "
                "(batch, samples); make them with its own processor, FgmmProcessor.from_encoders."
            )
        lengths = self.sound_lengths(mask)
        waveforms = F.pad(waveforms.masked_fill(~mask, 0.0), (0, max(0, int(lengths.max()) - waveforms.shape[1])))
        rows = [(lengths == length).nonzero().squeeze(1) for length in lengths.unique().tolist()]
        outputs = [encode(waveforms[own, : int(lengths[own[0]])]) for own in rows]
        features = join_rows(rows, [output.last_hidden_state for output in outputs])
        return RegionFeatures(features, (1, features.shape[1]), **join_states(rows, outputs))

    def sound_lengths(self, mask: torch.Tensor) -> torch.Tensor:
        """Samples of each sound, at least as many as the first region needs: mask (B, S) -> (B,)."""
        shortest = 1
        for kernel, stride in zip(self.config.conv_kernel[::-1], self.config.conv_stride[::-1], strict=True):
            shortest = (shortest - 1) * stride + kernel
        return mask.sum(1).clamp(min=shortest)

    def region_mask(self, input_features_mask: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
        """The mask of the regions; a region is padding when all of its frames are.

        Args:
            input_features_mask: (B, time) or (B, S) bool, False for padding.
            grid: (frequency, time) of the feature map.

        Returns:
            (B, N) bool, False for padding.
        """
        if self.config.model_type in WAVEFORM_FAMILIES:
            number = self.model._get_feat_extract_output_lengths(self.sound_lengths(input_features_mask))
            in_time = torch.arange(grid[1], device=number.device) < number.unsqueeze(1)
            return in_time & input_features_mask.any(1, keepdim=True)
        kernel, stride = (2, 2) if is_whisper(self.config) else (self.config.patch_size, self.config.time_stride)
        in_time = F.max_pool1d(input_features_mask.float().unsqueeze(1), kernel, stride) > 0
        return in_time.expand(-1, grid[0], -1).flatten(1)


class TransformersTextEncoder(nn.Module):
    """A text transformer; phrases are maxima over its word vectors; `out_channels` is its hidden size (C)."""

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
        **options: bool,
    ) -> WordFeatures:
        """
        Args:
            input_ids, attention_mask, phrase_spans, caption_lengths: as in `FgmmTextEncoder`.
            **options: `output_hidden_states`, `output_attentions`: return the encoder's own, with a row for each
                caption.

        Returns:
            [`WordFeatures`] of phrases: (B, M, C) the maximum over each phrase's words, 0 for padding.

        Raises:
            ValueError: when a text is longer than the encoder's positions.
        """
        encode = partial(self.encode_words, **options)
        words = encode_each_caption(encode, input_ids, attention_mask, caption_lengths)
        return replace(words, features=max_over_spans(words.features, phrase_spans))

    def encode_words(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, **options: bool) -> WordFeatures:
        """Token ids and their mask, 1 for tokens, (B, L) each -> word vectors (B, L, C)."""
        check_text_length(input_ids, self.model)
        input_ids = input_ids.masked_fill(attention_mask == 0, self.config.pad_token_id or 0)
        output = self.model(input_ids=input_ids, attention_mask=attention_mask, **options)
        return WordFeatures(output.last_hidden_state, hidden_states=output.hidden_states, attentions=output.attentions)


def check_frames(
    clips: torch.Tensor, kind: str, size: tuple[int, int] | None = None, parts: tuple[int, int] = (1, 1)
) -> None:
    """Checks that clips are (B, T, 3, H, W), with frames of a size that an encoder takes.

    Args:
        clips: pixels.
        kind: model type of the encoder.
        size: height and width that it takes, pixels; None: any multiples of `parts`.
        parts: height and width of its patches, pixels.

    Raises:
        ValueError: when they are not.
    """
    if clips.ndim != 5:
        raise ValueError(
            f"pixel_values_videos has shape {tuple(clips.shape)}, but (batch, frames, channels, height, width) is "
            "needed; give one image as a clip of one frame."
        )
    given = tuple(clips.shape[3:])
    if any(side % part for side, part in zip(given, parts, strict=True)) or size not in (None, given):
        wanted = f"multiples of {parts}" if size is None else str(size)
        raise ValueError(
            f"{kind} takes frames of {wanted} pixels, not {given}; make them with its own processor, "
            "FgmmProcessor.from_encoders."
        )


def join_states(rows: list[torch.Tensor], outputs: list) -> dict[str, tuple[torch.Tensor, ...]]:
    """The hidden states and attentions of parts of a batch, where they were asked for, as in [`join_rows`].

    Args:
        rows: (b,) of each part, the places of its rows.
        outputs: of an encoder of transformers, of each part.
    """
    return {
        name: tuple(join_rows(rows, list(parts)) for parts in zip(*(output[name] for output in outputs), strict=True))
        for name in ("hidden_states", "attentions")
        if outputs[0].get(name) is not None
    }


def check_text_length(input_ids: torch.Tensor, model: PreTrainedModel) -> None:
    """Checks that texts (B, L) are no longer than an encoder's positions.

    Raises:
        ValueError: when they are.
    """
    longest = max_text_length(model)
    if longest is not None and input_ids.shape[1] > longest:
        raise ValueError(
            f"A text has {input_ids.shape[1]} tokens, but {model.config.model_type} takes at most {longest}; pass "
            "truncation=True and max_length to the processor."
        )


def max_text_length(model: PreTrainedModel) -> int | None:
    """The most tokens of a text that an encoder has positions for; None: any number.

    The position ids of RoBERTa, MPNet and CLAP begin at `pad_token_id + 1`.
    """
    longest = getattr(model.config, "max_position_embeddings", None)
    positions = getattr(getattr(model, "embeddings", None), "position_embeddings", None)
    padding_id = getattr(positions, "padding_idx", None)
    return longest if longest is None or padding_id is None else longest - padding_id - 1


def find_family(modality: str, config: PreTrainedConfig, families: dict):
    """The entry of an encoder's model type in a table of supported types.

    Raises:
        ValueError: for a type that is not in it, naming those that are.
    """
    if config.model_type not in families:
        raise ValueError(
            f"{config.model_type} is none of the {modality} encoders that can be taken: {', '.join(families)}."
        )
    return families[config.model_type]


def as_tuple(value: int | Iterable[int], length: int) -> tuple[int, ...]:
    """A size as a tuple: one number stands for each of `length` sides."""
    return tuple(value) if isinstance(value, Iterable) else (value,) * length
