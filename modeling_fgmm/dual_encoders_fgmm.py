"""Dual encoders of transformers with their own pooling and projections: CLIP, SigLIP, SigLIP 2, CLAP, PE-AV.

Pooled embeddings and logits are those of transformers (of PE-AV see `dual_pe_fgmm`). Regions and phrases, which the
published models do not have, are patches and words projected into the same space by the weights that pool them.
"""

import copy
from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import nn
from transformers import ClapAudioModel, PreTrainedConfig, PreTrainedModel
from transformers.models.clap.modeling_clap import ClapProjectionLayer

from .configuration_fgmm import DUAL_ENCODERS, MAX_LOGIT_SCALE, FgmmConfig
from .dual_pe_fgmm import PeAudioTower, PeProjection, PeTextEncoder, PeVideoTower
from .dual_text_fgmm import ClapTextEncoder, ClipTextEncoder, Siglip2TextEncoder, SiglipTextEncoder
from .dual_video_fgmm import ClipVideoEncoder, NaflexVideoEncoder, SiglipVideoEncoder
from .layers_fgmm import RegionFeatures


@dataclass(frozen=True)
class DualEncoder:
    """The attributes of transformers' class of a dual encoder whose weights are copied.

    Args:
        encoders: attribute of each modality's encoder.
        projections: attributes of the projections, by the names of ours; none for encoders that end with theirs.
        logits: by the names of our objectives, the attributes of the logit scale and of the bias of the logits (None
            without one).
        log_scale: the scale is stored as its logarithm, of normalised embeddings; else as it is, of raw ones.
        objective: of the published training, by our name.
    """

    encoders: dict[str, str]
    logits: dict[str, tuple[str, str | None]]
    projections: dict[str, str] = field(default_factory=dict)
    log_scale: bool = True
    objective: str = "coarse"


SIGLIP = DualEncoder(
    encoders={"video": "vision_model", "text": "text_model"},
    logits={"text_video": ("logit_scale", "logit_bias")},
    objective="siglip",
)
PE = {"log_scale": False, "objective": "siglip"}
LAYOUTS = {
    "clip": DualEncoder(
        encoders={"video": "vision_model", "text": "text_model"},
        logits={"text_video": ("logit_scale", None)},
        projections={"video": "visual_projection", "text": "text_projection"},
    ),
    "siglip": SIGLIP,
    "siglip2": SIGLIP,
    # Of its two scales (audio to text, text to audio) the one that zero-shot classification uses.
    "clap": DualEncoder(
        encoders={"audio": "audio_model", "text": "text_model"},
        logits={"text_audio": ("logit_scale_a", None)},
        projections={"audio": "audio_projection", "text": "text_projection"},
    ),
    "pe_audio": DualEncoder(
        encoders={"audio": "audio_encoder", "text": "text_model"},
        logits={"text_audio": ("text_audio_logit_scale", "text_audio_logit_bias")},
        projections={"audio.heads.0": "audio_head", "text.heads.0": "text_audio_head"},
        **PE,
    ),
    "pe_video": DualEncoder(
        encoders={"video": "video_encoder", "text": "text_model"},
        logits={"text_video": ("text_video_logit_scale", "text_video_logit_bias")},
        projections={"video.heads.0": "video_head", "text.heads.0": "text_video_head"},
        **PE,
    ),
    "pe_audio_video": DualEncoder(
        encoders={"video": "video_model.video_encoder", "audio": "audio_model.audio_encoder", "text": "text_model"},
        logits={
            "text_video": ("video_model.text_video_logit_scale", "video_model.text_video_logit_bias"),
            "text_audio": ("audio_model.text_audio_logit_scale", "audio_model.text_audio_logit_bias"),
            "audio_video": ("audio_video_logit_scale", "audio_video_logit_bias"),
        },
        projections={
            "video.heads.0": "video_model.video_head",
            "audio.heads.0": "audio_model.audio_head",
            "text.heads.0": "video_model.text_video_head",
            "text.heads.1": "audio_model.text_audio_head",
        },
        **PE,
    ),
}


class ClapAudioEncoder(nn.Module):
    """CLAP's audio encoder over ten seconds; `out_channels` is its hidden size (C).

    Regions are the positions of its last feature map, of which its pooled vector is the mean.
    """

    def __init__(self, config: PreTrainedConfig):
        super().__init__()
        self.config = config
        self.model = ClapAudioModel._from_config(config)
        self.out_channels = config.hidden_size
        self.num_spectrograms = 4 if config.enable_fusion else 1

    def forward(
        self, input_features: torch.Tensor, input_features_mask: torch.Tensor, **options: bool
    ) -> RegionFeatures:
        """
        Args:
            input_features: (B, time, mel) log-mel frames; of a model with feature fusion four spectrograms side by
                side, (B, time, 4·mel): of the whole sound and of three parts. Frames after a sound's end hold its
                repetitions, to which the encoder attends.
            input_features_mask: (B, time) bool; has no influence, see `region_mask`.
            **options: `output_hidden_states`, `output_attentions`: return the encoder's own.

        Returns:
            [`RegionFeatures`] with N = frequency·time, the grid (frequency, time) and one pooled vector.

        Raises:
            ValueError: for another shape.
        """
        bands = self.num_spectrograms * self.config.num_mel_bins
        if input_features.ndim != 3 or input_features.shape[2] != bands:
            raise ValueError(
                f"input_features has shape {tuple(input_features.shape)}, but this {self.config.model_type} takes "
                f"(batch, time, {bands}); make it with its own processor, FgmmProcessor.from_dual_encoder."
            )
        spectrograms = input_features.unflatten(2, (self.num_spectrograms, -1)).transpose(1, 2)
        # As transformers' processor says of a sound alone; without fusion it has no effect.
        is_longer = torch.ones(len(spectrograms), 1, dtype=torch.bool, device=spectrograms.device)
        output = self.model(spectrograms, is_longer=is_longer, **options)
        maps = output.last_hidden_state  # (B, C, frequency, time)
        return RegionFeatures(
            maps.flatten(2).transpose(1, 2),
            tuple(maps.shape[2:]),
            pooled=output.pooler_output.unsqueeze(1),
            hidden_states=output.hidden_states,
            attentions=output.attentions,
        )

    def region_mask(self, input_features_mask: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
        """The mask of the regions; those after a sound's end, which show its repetitions, are padding.

        Args:
            input_features_mask: (B, time) bool, True for the frames of the sound itself.
            grid: (frequency, time) of the feature map.

        Returns:
            (B, N) bool, False for padding.
        """
        in_time = F.adaptive_max_pool1d(input_features_mask.float().unsqueeze(1), grid[1]) > 0
        return in_time.expand(-1, grid[0], -1).flatten(1)


# By the model type of their configurations.
VIDEO_AND_AUDIO_ENCODERS = {
    "clip_vision_model": ClipVideoEncoder,
    "siglip_vision_model": SiglipVideoEncoder,
    "siglip2_vision_model": NaflexVideoEncoder,
    "clap_audio_model": ClapAudioEncoder,
    "pe_video_encoder": PeVideoTower,
    "pe_audio_encoder": PeAudioTower,
}
TEXT_ENCODERS = {
    "clip_text_model": ClipTextEncoder,
    "siglip_text_model": SiglipTextEncoder,
    "siglip2_text_model": Siglip2TextEncoder,
    "clap_text_model": ClapTextEncoder,
}


def make_dual_encoder(modality: str, config: FgmmConfig) -> nn.Module:
    """The encoder of one modality of the configuration's dual encoder, with random weights.

    Raises:
        ValueError: when the modality's configuration is not of a dual encoder.
    """
    part = getattr(config, f"{modality}_config")
    if modality == "text" and is_pe(config.dual_encoder):
        return PeTextEncoder(config)
    encoders = TEXT_ENCODERS if modality == "text" else VIDEO_AND_AUDIO_ENCODERS
    if part.model_type not in encoders:
        raise ValueError(
            f"{part.model_type} is no {modality} encoder of a dual encoder: those are {', '.join(encoders)}."
        )
    return encoders[part.model_type](config if modality == "text" else part)


def make_dual_projection(modality: str, config: FgmmConfig) -> nn.Module:
    """The projection of one modality of the configuration's dual encoder, with random weights."""
    part = getattr(config, f"{modality}_config")
    if is_pe(config.dual_encoder):
        return PeProjection(modality, config)
    if config.dual_encoder == "clip":
        return nn.Linear(part.hidden_size, config.projection_dim, bias=False)
    return ClapProjectionLayer(part) if config.dual_encoder == "clap" else nn.Identity()


def describe_dual_encoder(config: PreTrainedConfig) -> dict:
    """The options of [`FgmmConfig`] of a dual encoder.

    Args:
        config: of the dual encoder, as transformers loads it.

    Raises:
        ValueError: for another kind of model.
    """
    kind = config.model_type
    if kind not in DUAL_ENCODERS:
        raise ValueError(
            f"{kind} is none of the dual encoders that can be taken whole, {', '.join(DUAL_ENCODERS)}; "
            "FgmmModel.from_encoders takes single encoders."
        )
    if is_pe(kind):
        return describe_pe(config)
    pads = kind in ("siglip", "siglip2")
    return {
        "dual_encoder": kind,
        "objective": LAYOUTS[kind].objective,
        "projection_dim": config.vision_config.hidden_size if pads else config.projection_dim,
        "text_padding_side": "right" if pads else None,
        **{f"{modality}_config": copy.deepcopy(config) for modality in DUAL_ENCODERS[kind]},
    }


def is_pe(kind: str) -> bool:
    """Whether a model type is one of PE-AV's."""
    return kind.startswith("pe_")


def describe_pe(config: PreTrainedConfig) -> dict:
    """As [`describe_dual_encoder`], of PE-AV, whose configurations of encoders lie in others."""
    kind = config.model_type
    encoders = config.audio_video_config if kind == "pe_audio_video" else config
    width = config.text_config.hidden_size
    described = {
        "dual_encoder": kind,
        "objective": LAYOUTS[kind].objective,
        "projection_dim": 3 * width if kind == "pe_audio_video" else width,
    }
    for modality in DUAL_ENCODERS[kind]:
        part = copy.deepcopy(getattr(config if modality == "text" else encoders, f"{modality}_config"))
        part.name_or_path = config.name_or_path
        described[f"{modality}_config"] = part
    return described


def keep_used(keys: Iterable[str], kind: str) -> list[str]:
    """Those of the weights of transformers' dual encoder, by their names, that [`load_dual_weights`] copies."""
    layout = LAYOUTS[kind]
    logits = [name for names in layout.logits.values() for name in names if name]
    return [key for key in keys if key.startswith((*layout.encoders.values(), *layout.projections.values(), *logits))]


@torch.no_grad()
def load_dual_weights(model: PreTrainedModel, source: PreTrainedModel) -> None:
    """Copies the encoders, projections, logit scale and bias of transformers' model of a dual encoder.

    The logit scale is that of the objective's pooled embeddings. Of raw ones (PE-AV's) it is copied where the model's
    are raw, too.

    Args:
        model: an [`FgmmModel`] of its configuration.
        source: transformers' model.

    Raises:
        ValueError: for a negative logit scale.
    """
    layout = LAYOUTS[source.config.model_type]
    for modality, name in layout.encoders.items():
        model.encoders[modality].model.load_state_dict(source.get_submodule(name).state_dict())
    for own, name in layout.projections.items():
        model.projections.get_submodule(own).load_state_dict(source.get_submodule(name).state_dict())
    if layout.log_scale != model.config.normalize_embeds:
        return
    for pair, (scale_name, bias_name) in layout.logits.items():
        scale = source.get_parameter(scale_name).squeeze()
        if not layout.log_scale and scale < 0:
            raise ValueError(f"{scale_name} is {scale.item():g}; logits of a negative scale cannot be taken over.")
        bias = source.get_parameter(bias_name).squeeze() if bias_name else None
        set_pooled_scale(model.objectives[pair], scale if layout.log_scale else scale.log(), bias)


@torch.no_grad()
def set_pooled_scale(objective: nn.Module, scale: torch.Tensor, bias: torch.Tensor | None) -> None:
    """Sets the logit scale of an objective's pooled embeddings, and the bias of their logits where it has one.

    Args:
        objective: a `PairObjective`; changed.
        scale: its logarithm; beyond the objective's bound it is set to the bound, where it still has a gradient.
        bias: None: the objective's stays as it is.
    """
    own_scale, own_bias = objective.pooled_scale_and_bias()
    own_scale.copy_(scale if own_bias is not None else scale.clamp(max=MAX_LOGIT_SCALE))
    if own_bias is not None and bias is not None:
        own_bias.copy_(bias)
