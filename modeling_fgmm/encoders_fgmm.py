"""Configuration and construction of each modality's encoder and projection; encoding of batches with missing items."""

import os
from dataclasses import replace

import torch
from torch import nn
from transformers import ASTFeatureExtractor, AutoConfig, AutoTokenizer, PreTrainedConfig
from transformers.models.auto.tokenization_auto import get_tokenizer_config

from .audio_fgmm import FgmmAudioEncoder
from .configuration_fgmm import DUAL_ENCODERS, FgmmConfig, check_options
from .dual_encoders_fgmm import ClapAudioEncoder, describe_dual_encoder, make_dual_encoder, make_dual_projection
from .hf_encoders_fgmm import TransformersAudioEncoder, TransformersTextEncoder, TransformersVideoEncoder
from .layers_fgmm import RegionFeatures, evaluation_mode
from .text_fgmm import FgmmTextEncoder
from .video_fgmm import FgmmVideoEncoder

# Options of FgmmConfig that follow from the encoders that are given.
PART_OPTIONS = ("video_config", "audio_config", "text_config", "modalities", "frozen")
DUAL_OPTIONS = ("dual_encoder", "text_padding_side")
# Our encoders by their model type; any other type is one of transformers'.
OWN_ENCODERS = {"fgmm_video": FgmmVideoEncoder, "fgmm_audio": FgmmAudioEncoder, "fgmm_text": FgmmTextEncoder}


def make_encoder(modality: str, config: FgmmConfig) -> nn.Module:
    """The encoder of one modality, with random weights.

    Raises:
        ValueError: for a kind of encoder that the modality cannot have.
    """
    if modality in config.dual_modalities:
        return make_dual_encoder(modality, config)
    part = getattr(config, f"{modality}_config")
    if part.model_type in OWN_ENCODERS:
        return OWN_ENCODERS[part.model_type](part)
    if part.model_type == "clap_audio_model":
        return ClapAudioEncoder(part)
    if modality == "audio":
        return TransformersAudioEncoder(part, config.audio_padding_value)
    return {"video": TransformersVideoEncoder, "text": TransformersTextEncoder}[modality](part)


def make_projection(modality: str, config: FgmmConfig, encoder: nn.Module) -> nn.Module:
    """The projection of one modality's features (..., C) into the shared space (..., D), with random weights."""
    if modality in config.dual_modalities:
        return make_dual_projection(modality, config)
    return nn.Linear(encoder.out_channels, config.projection_dim)


def encode_present(encoder: nn.Module, present: torch.Tensor, *inputs: torch.Tensor, **options: bool) -> RegionFeatures:
    """Encodes the items that have the modality; the features of the others are 0.

    Missing items cost no compute and do not enter the statistics of batch normalisation.

    Args:
        encoder: of videos or sounds.
        present: (B,) bool, True for items that have the modality.
        inputs: of the encoder, (B, ...) each.
        options: of the encoder.

    Returns:
        [`RegionFeatures`] of all items; hidden states and attentions are of those that have the modality.
    """
    if torch.compiler.is_compiling() and not encoder.training:
        # Shapes in a graph cannot depend on values: all items are encoded, which in evaluation mode are independent.
        kept, encoded = None, encoder(*inputs, **options)
    elif bool(present.all()):
        return encoder(*inputs, **options)
    elif bool(present.any()):
        kept, encoded = present, encoder(*(values[present] for values in inputs), **options)
    else:
        # One item is encoded and masked, so that shapes are known and all parameters take part in
        # DistributedDataParallel; in evaluation mode it does not count in the statistics.
        kept = torch.arange(len(present), device=present.device) == 0
        with evaluation_mode(encoder):
            encoded = encoder(*(values[kept] for values in inputs), **options)

    def put_in_places(part: torch.Tensor | None) -> torch.Tensor | None:
        if part is None:
            return None
        if kept is not None:
            part = part.new_zeros(len(present), *part.shape[1:]).index_put((kept,), part)
        return part.masked_fill(~present.view(-1, *[1] * (part.ndim - 1)), 0)

    parts = {name: put_in_places(getattr(encoded, name)) for name in ("features", "mask", "pooled")}
    return replace(encoded, **parts)


def encode_video(
    encoder: nn.Module,
    pixel_values_videos: torch.Tensor,
    video_mask: torch.Tensor | None,
    video_sizes: torch.Tensor | None = None,
    **options: bool,
) -> RegionFeatures:
    """Encodes videos.

    Args:
        encoder: of video, ours or one of transformers'.
        pixel_values_videos: (B, T, 3, H, W) normalised pixels.
        video_mask: (B,) False for items without video, or None.
        video_sizes: (B, 2) height and width of an item's frames without the padding at their right and bottom, pixels,
            for encoders of frames of any aspect ratio. None: there is no padding.
        options: of the encoder.

    Returns:
        [`RegionFeatures`] with the grid (t, h, w) and a mask, False for padding and for items without video.

    Raises:
        ValueError: for `video_sizes` with an encoder whose frames have one size.
    """
    inputs = [pixel_values_videos]
    if video_sizes is not None:
        if not getattr(encoder, "any_aspect_ratio", False):
            raise ValueError("This model's video encoder takes frames of one size; leave video_sizes out.")
        inputs.append(video_sizes)
    if video_mask is None:
        encoded = encoder(*inputs, **options)
    else:
        encoded = encode_present(encoder, video_mask.bool(), *inputs, **options)
    if encoded.mask is not None:
        return encoded
    mask = torch.ones(encoded.features.shape[:2], dtype=torch.bool, device=encoded.features.device)
    return replace(encoded, mask=mask if video_mask is None else mask & video_mask.bool().unsqueeze(1))


def encode_audio(
    encoder: nn.Module, input_features: torch.Tensor, input_features_mask: torch.Tensor | None, **options: bool
) -> RegionFeatures:
    """Encodes sounds.

    Args:
        encoder: of audio, ours or one of transformers'.
        input_features: (B, time, mel) log-mel frames, or (B, S) samples for encoders of waveforms.
        input_features_mask: (B, time) or (B, S) False for padding; an item without audio is all padding. None: nothing
            is padding.
        options: of the encoder.

    Returns:
        [`RegionFeatures`] with the grid (frequency, time) and a mask, False for padding.
    """
    if input_features_mask is None:
        input_features_mask = torch.ones(input_features.shape[:2], dtype=torch.bool, device=input_features.device)
    keep = input_features_mask.bool()
    encoded = encode_present(encoder, keep.any(1), input_features, keep, **options)
    return replace(encoded, mask=encoder.region_mask(keep, encoded.grid))


def make_joint_config(encoders: dict, frozen: list[str], options: dict) -> FgmmConfig:
    """The configuration of a model of given encoders.

    Args:
        encoders: of some modalities a name on the Hub, a folder, or a configuration.
        frozen: the encoders that are not trained.
        options: of [`FgmmConfig`].

    Raises:
        ValueError: for fewer than two encoders, one that is neither named nor a configuration, an fgmm model without
            the wanted encoder, or an unknown name in `frozen` or `options`.
    """
    if len(encoders) < 2:
        raise ValueError(f"Give at least two of video, audio and text, not {', '.join(encoders) or 'none'}.")
    check_encoders(encoders, frozen)
    known = FgmmConfig.own_options() - {*PART_OPTIONS, *DUAL_OPTIONS}
    check_options("from_encoders", [name for name in options if name not in known], known)
    return FgmmConfig(**encoder_options(encoders, options), modalities=list(encoders), frozen=frozen)


def make_dual_config(
    dual_encoder: str | os.PathLike | PreTrainedConfig, encoders: dict, frozen: list[str], options: dict
) -> FgmmConfig:
    """The configuration of a model of a dual encoder, and of further encoders.

    Args:
        dual_encoder: a name on the Hub, a folder, or a configuration.
        encoders, frozen, options: as in [`make_joint_config`], of modalities that the dual encoder lacks.

    Raises:
        ValueError: as in [`make_joint_config`]; for another kind of model, or a modality that the dual encoder has.
    """
    known = FgmmConfig.own_options() - {*PART_OPTIONS, *DUAL_OPTIONS, "projection_dim"}
    check_options("from_dual_encoder", [name for name in options if name not in known], known)
    config = load_config(dual_encoder)
    described = describe_dual_encoder(config)
    own = DUAL_ENCODERS[config.model_type]
    for name in encoders:
        if name in own:
            raise ValueError(f"{config.model_type} has a {name} encoder of its own; leave {name}= out.")
    modalities = [name for name in ("video", "audio", "text") if name in (*own, *encoders)]
    check_encoders(encoders, frozen, modalities)
    named = not isinstance(dual_encoder, PreTrainedConfig)
    if named and described.get("text_padding_side") and not is_siglip_tokenizer(dual_encoder):
        # Configurations of SigLIP 2 have the padding of SigLIP, which is not that of their tokenizer.
        tokenizer = AutoTokenizer.from_pretrained(dual_encoder)
        described["text_padding_side"] = tokenizer.padding_side
        described["text_config"].text_config.pad_token_id = tokenizer.pad_token_id
    return FgmmConfig(**described | encoder_options(encoders, options), modalities=modalities, frozen=frozen)


def is_siglip_tokenizer(name: str | os.PathLike) -> bool:
    """Whether a name's tokenizer is that of SigLIP, whose padding is that of the configuration."""
    return get_tokenizer_config(name).get("tokenizer_class") == "SiglipTokenizer"


def check_encoders(encoders: dict, frozen: list[str], modalities: list[str] | None = None) -> None:
    """Checks what is given for encoders, and that frozen ones are among the model's modalities (None: those given).

    Raises:
        ValueError: for one that is neither named nor a configuration, or an unknown name in `frozen`.
    """
    for name, encoder in encoders.items():
        if not isinstance(encoder, (str, os.PathLike, PreTrainedConfig)):
            raise ValueError(
                f"{name} cannot be a {type(encoder).__name__}; give a name on the Hub, a folder or a configuration."
            )
    modalities = list(encoders) if modalities is None else modalities
    for name in frozen:
        if name not in modalities:
            raise ValueError(f"frozen has {name!r}, which is none of the given encoders {', '.join(modalities)}.")


def encoder_options(encoders: dict, options: dict) -> dict:
    """Options of [`FgmmConfig`], with the configurations of given encoders.

    Raises:
        ValueError: for an fgmm model without the wanted encoder.
    """
    configs = {name: load_config(encoder) for name, encoder in encoders.items()}
    if "audio" in configs and "audio_padding_value" not in options:
        options = {**options, "audio_padding_value": find_padding_value(encoders["audio"], configs["audio"])}
    return {**options, **{f"{name}_config": select_encoder_config(name, config) for name, config in configs.items()}}


def load_config(encoder: str | os.PathLike | PreTrainedConfig) -> PreTrainedConfig:
    """The configuration of a named encoder or fgmm model; one that is given is returned."""
    if isinstance(encoder, PreTrainedConfig):
        return encoder
    values, _ = PreTrainedConfig.get_config_dict(encoder)
    # Not by AutoConfig: the Auto classes do not know ours where its code travelled with the weights.
    kind = FgmmConfig if values.get("model_type") == FgmmConfig.model_type else AutoConfig
    return kind.from_pretrained(encoder)


def is_fgmm_config(config: PreTrainedConfig) -> bool:
    """Whether it is the configuration of an fgmm model, which holds those of its encoders."""
    return config.model_type == FgmmConfig.model_type


def select_encoder_config(modality: str, config: PreTrainedConfig) -> PreTrainedConfig:
    """The configuration of one modality's encoder: that in an fgmm model's, or the given one.

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
    """The value of padded frames that an audio encoder was trained with.

    Of an fgmm model it is in its configuration; of the Audio Spectrogram Transformer it is 0 as its feature extractor
    normalises it; of others it is 0.
    """
    if is_fgmm_config(config):
        return config.audio_padding_value
    if config.model_type != "audio-spectrogram-transformer":
        return 0.0
    extractor = ASTFeatureExtractor()
    if not isinstance(encoder, PreTrainedConfig):
        extractor = ASTFeatureExtractor.from_pretrained(encoder)
    return float(extractor.normalize(0.0)) if extractor.do_normalize else 0.0
