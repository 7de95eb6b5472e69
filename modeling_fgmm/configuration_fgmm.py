"""Configuration of the video, audio and text encoders and of the joint model."""

import copy
import math
from collections.abc import Iterable
from difflib import get_close_matches

from huggingface_hub.dataclasses import strict
from transformers import CONFIG_MAPPING
from transformers.configuration_utils import PreTrainedConfig

# exp(MAX_LOGIT_SCALE) = 100, the bound of the logit scale of CLIP (Radford et al., 2021, section 2.5).
MAX_LOGIT_SCALE = 4.6052
# Set in every encoder of transformers. No layer is dropped and no input masked at random in training: a layer without a
# gradient breaks DistributedDataParallel, a second pass that differs from the first breaks gradient caching.
ENCODER_SETTINGS = {"layerdrop": 0.0, "encoder_layerdrop": 0.0, "mask_time_prob": 0.0, "mask_feature_prob": 0.0}
# The modalities of the dual encoders of transformers that can be taken whole, by their model type.
DUAL_ENCODERS = {
    "clip": ("video", "text"),
    "siglip": ("video", "text"),
    "siglip2": ("video", "text"),
    "clap": ("audio", "text"),
    "pe_audio": ("audio", "text"),
    "pe_video": ("video", "text"),
    "pe_audio_video": ("video", "audio", "text"),
}
# What transformers takes beyond the attributes of its base class.
TRANSFORMERS_OPTIONS = ("attn_implementation", "auto_map", "experts_implementation", "quantization_config")
# Of earlier versions: options with one value left, which a saved model may have, and options with a new name.
REMOVED_OPTIONS = {
    "attention_direction": "text_to_regions",
    "contrast_unit": "caption",
    "contrast_bag": True,
    "posterior_weights": False,
}
RENAMED_OPTIONS = {"robustness": "gce_q"}
# The objectives with which an option has an effect, where it is not all of them. (The sharpness is also that of the
# fine scores by which evaluation may compare a model that was trained on pooled embeddings.)
WITH_SOFTMAX = ("fine", "coarse", "mil_nce", "filip")
OBJECTIVES_OF_OPTION = {
    "logit_scale_init_value": WITH_SOFTMAX,
    "gce_q": WITH_SOFTMAX,
    "sharpness_init_value": ("fine", "coarse", "mil_nce", "siglip"),
    "learnable_sharpness": ("fine",),
    "phrase_sharpness_init_value": ("fine",),
    "learnable_phrase_sharpness": ("fine",),
    "phrase_gates": ("fine",),
    "whole_captions": ("fine",),
    "coarse_loss_weight": ("fine",),
}


class FgmmBaseConfig(PreTrainedConfig):
    """A configuration that refuses unknown options; transformers would silently store them as attributes."""

    def __post_init__(self, **kwargs):
        check_options(type(self).__name__, self.unknown_options(kwargs), self.own_options())
        super().__post_init__(**kwargs)

    @classmethod
    def own_options(cls) -> set[str]:
        """The options that the class adds to transformers' own."""
        return set(cls.__dataclass_fields__) - set(PreTrainedConfig.__dataclass_fields__)

    @classmethod
    def unknown_options(cls, names: Iterable[str]) -> list[str]:
        """Those of the names that neither this class nor transformers knows."""
        known = {*cls.__dataclass_fields__, *TRANSFORMERS_OPTIONS}
        return [name for name in names if not (name in known or name[0] == "_" or hasattr(PreTrainedConfig, name))]


@strict
class FgmmVideoConfig(FgmmBaseConfig):
    r"""
    Configuration of the S3D-G video encoder. At its defaults it is the network of MIL-NCE (Miech et al., CVPR 2020).

    Args:
        num_channels (`int`): channels of a frame.
        width_multiplier (`float`): factor on the channels of every block; 1.0 is the published network.
        depths (`list[int]`): inception blocks in stages 3, 4 and 5 (at most 2, 5, 2). Without stage 5 the feature map
            has twice the resolution, 1/16 of the frame in place of 1/32.
        self_gating (`bool`): scale each branch's channels by a sigmoid of their mean (the G of S3D-G).
        space_to_depth (`bool`): move 2x2x2 neighbourhoods into the channels before a stem of stride 1.
        temporal_padding (`str`): `"replicate"` repeats the first and last frame, so that an image and a static clip
            have the same features; `"zeros"` is what converted MIL-NCE weights were trained with, and an image is then
            repeated for the 32 frames of their clips.
        frame_by_frame (`bool`): encode each frame on its own (I2D of Xie et al., ECCV 2018), so that t is the number of
            frames. For slide shows and clips of a few distant frames.
    """

    model_type = "fgmm_video"
    base_config_key = "video_config"

    num_channels: int = 3
    width_multiplier: float | int = 1.0
    depths: list[int] | tuple[int, ...] = (2, 5, 2)
    self_gating: bool = True
    space_to_depth: bool = False
    temporal_padding: str = "replicate"
    frame_by_frame: bool = False

    def __post_init__(self, **kwargs):
        self.depths = list(self.depths)
        super().__post_init__(**kwargs)

    def validate_layout(self):
        """Check that the stages exist in S3D-G."""
        largest = (2, 5, 2)
        if not 1 <= len(self.depths) <= 3 or any(not 1 <= d <= m for d, m in zip(self.depths, largest, strict=False)):
            raise ValueError(f"depths={self.depths} must hold one to three numbers between 1 and 2, 5, 2.")
        if self.temporal_padding not in ("replicate", "zeros"):
            raise ValueError(f"temporal_padding={self.temporal_padding!r} is neither 'replicate' nor 'zeros'.")
        if self.width_multiplier <= 0:
            raise ValueError(f"width_multiplier={self.width_multiplier} must be positive.")


@strict
class FgmmAudioConfig(FgmmBaseConfig):
    r"""
    Configuration of the audio encoder: a ResNet backbone over the log-mel spectrogram, one input channel.

    Args:
        num_mel_bins (`int`): mel bands of the spectrogram.
        embedding_size (`int`): channels of the stem.
        hidden_sizes (`list[int]`): channels of each stage; every stage after the first halves the resolution.
        depths (`list[int]`): layers in each stage.
        layer_type (`str`): `"basic"` or `"bottleneck"`.
    """

    model_type = "fgmm_audio"
    base_config_key = "audio_config"

    num_mel_bins: int = 64
    embedding_size: int = 64
    hidden_sizes: list[int] | tuple[int, ...] = (64, 128, 256, 512)
    depths: list[int] | tuple[int, ...] = (2, 2, 2, 2)
    layer_type: str = "basic"

    def __post_init__(self, **kwargs):
        self.hidden_sizes, self.depths = list(self.hidden_sizes), list(self.depths)
        super().__post_init__(**kwargs)

    def validate_layout(self):
        """Check that every stage has a depth."""
        if len(self.hidden_sizes) != len(self.depths) or not self.depths:
            raise ValueError(f"hidden_sizes={self.hidden_sizes} and depths={self.depths} must be of one length.")


@strict
class FgmmTextConfig(FgmmBaseConfig):
    r"""
    Configuration of the text encoder: word embedding, linear, ReLU, maximum over the words of a phrase; the projection
    follows. With the whole sentence as one phrase this is the text tower of MIL-NCE (Miech et al., CVPR 2020).

    Args:
        vocab_size (`int`): size of the tokenizer's vocabulary.
        hidden_size (`int`): dimensions of the word embedding.
        intermediate_size (`int`): dimensions in which words are pooled to phrases.
        num_hidden_layers (`int`): transformer layers between the embedding and the pooling; with 0 a word's vector does
            not depend on its neighbours.
        num_attention_heads (`int`): heads of each transformer layer.
        max_position_embeddings (`int`): longest input of the transformer layers, in tokens.
        dropout (`float`): dropout probability of the word embeddings.
        pad_token_id (`int`): id of the padding token; None where every id is a word.
    """

    model_type = "fgmm_text"
    base_config_key = "text_config"

    vocab_size: int = 66250
    hidden_size: int = 300
    intermediate_size: int = 2048
    num_hidden_layers: int = 0
    num_attention_heads: int = 4
    max_position_embeddings: int = 512
    dropout: float | int = 0.0
    pad_token_id: int | None = 0

    def validate_layout(self):
        """Check that the heads divide the hidden size."""
        if self.num_hidden_layers and self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size={self.hidden_size} is not divisible by num_attention_heads={self.num_attention_heads}."
            )


@strict
class FgmmConfig(FgmmBaseConfig):
    r"""
    Configuration of [`FgmmModel`].

    Args:
        video_config, audio_config, text_config (`dict` or a configuration): the encoders: ours, or with the
            `model_type` of one of transformers' (see `hf_encoders_fgmm`). Of a dual encoder's configuration, such as
            CLIP's, the part of this modality is taken.
        dual_encoder (`str`): model type of the dual encoder of transformers, one of `DUAL_ENCODERS`, whose encoders,
            pooling and projections the model has; None: the projections are new, and embeddings are means. See
            [`~FgmmModel.from_dual_encoder`].
        text_padding_side (`str`): `"left"` or `"right"` for a text encoder that was trained on texts padded to
            `max_position_embeddings` on this side, and attends to the padding (SigLIP's); None: padding is masked.
        normalize_embeds (`bool`): L2-normalise pooled embeddings. False, for PE-AV with `"siglip"` alone: they are the
            vectors whose dot products PE-AV's logits are.
        frozen (`list[str]`): the encoders that an [`FgmmModel`] does not train; classifiers train theirs all the same.
        audio_padding_value (`float`): value of padded spectrogram frames: 0, unless the encoder's feature extractor
            normalises its padding (the Audio Spectrogram Transformer's).
        modalities (`list[str]`): the encoders that the model has, at least two of `"video"`, `"audio"`, `"text"`.
        projection_dim (`int`): dimensions of the shared space (D).
        objective (`str`): `"fine"` (regions against phrases), or a baseline: `"coarse"`, `"mil_nce"`, `"filip"`,
            `"siglip"`; see `loss_fgmm.OBJECTIVES`. An option that has no effect with the objective is refused.
        logit_scale_init_value (`float`): initial logarithm of the logit scale. Not with `"siglip"`, which starts at its
            paper's.
        sharpness_init_value (`float`): initial sharpness γ of the attention over regions, above 0. Not with `"filip"`,
            whose attention is the maximum.
        learnable_sharpness (`bool`): train γ. With `"fine"` alone; so are the next five.
        phrase_sharpness_init_value (`float`): initial sharpness δ of the attention over phrases; 0 is the mean.
        learnable_phrase_sharpness (`bool`): train δ.
        phrase_gates (`bool`): add to a phrase's attention logit a term predicted from the phrase alone, so that an
            uninformative phrase ("the background") weighs little for every clip.
        whole_captions (`bool`): compare whole captions with regions, too: one more phrase with a gate of its own.
        coarse_loss_weight (`float`): weight of the contrast of pooled embeddings, added to that of regions and phrases.
        gce_q (`float`): q of generalised cross entropy, 0 to 1: the larger it is, the less a pair weighs that the model
            thinks wrong; 0 is cross entropy. Not with `"siglip"`, which has no softmax.
        scoring_implementation (`str`): `"auto"`, `"reference"`, `"tiled"` or `"triton"`, see
            `scoring_fgmm.attended_similarity`.
        classifier_dropout (`float`): dropout probability before the linear layer of [`FgmmForVideoClassification`] and
            [`FgmmForAudioClassification`].
        num_frames (`int`): frames that transformers' video-classification pipeline samples from a video; None: as many
            as the video processor.

    Raises:
        ValueError: for an unknown or removed option.
        StrictDataclassError: (of huggingface_hub) for a value of the wrong type or outside of its range, or an option
            that has no effect with the objective.
    """

    model_type = "fgmm"
    sub_configs_defaults = {
        "video_config": FgmmVideoConfig,
        "audio_config": FgmmAudioConfig,
        "text_config": FgmmTextConfig,
    }
    # Left out of the Trainer's predictions: what they hold is among the outputs already.
    keys_to_ignore_at_inference = ["video_output", "audio_output", "text_output"]

    video_config: dict | PreTrainedConfig | None = None
    audio_config: dict | PreTrainedConfig | None = None
    text_config: dict | PreTrainedConfig | None = None
    dual_encoder: str | None = None
    text_padding_side: str | None = None
    normalize_embeds: bool = True
    frozen: list[str] | tuple[str, ...] = ()
    audio_padding_value: float | int = 0.0
    modalities: list[str] | tuple[str, ...] = ("video", "audio", "text")
    projection_dim: int = 512
    objective: str = "fine"
    logit_scale_init_value: float | int = math.log(1 / 0.07)
    sharpness_init_value: float | int = 8.0
    learnable_sharpness: bool = True
    phrase_sharpness_init_value: float | int = 0.0
    learnable_phrase_sharpness: bool = True
    phrase_gates: bool = True
    whole_captions: bool = True
    coarse_loss_weight: float | int = 0.2
    gce_q: float | int = 0.0
    scoring_implementation: str = "auto"
    classifier_dropout: float | int = 0.5
    num_frames: int | None = None

    def __post_init__(self, **kwargs):
        self.modalities, self.frozen = list(self.modalities), list(self.frozen)
        for modality in ("video", "audio", "text"):
            name = f"{modality}_config"
            own_type = type(self).sub_configs[name].model_type
            of_dual = modality in self.dual_modalities
            setattr(self, name, encoder_config(modality, getattr(self, name), own_type, of_dual))
        super().__post_init__(**kwargs)

    @classmethod
    def from_dict(cls, config_dict: dict, **kwargs):
        """As in transformers, of a saved configuration, which may be an earlier version's or have attributes of others.

        Raises:
            ValueError: for a model that was trained with an option that is no longer there.
        """
        config_dict = upgrade_options(config_dict)
        foreign = {name: config_dict.pop(name) for name in cls.unknown_options(config_dict)}
        loaded = super().from_dict(config_dict, **kwargs)
        vars(loaded[0] if isinstance(loaded, tuple) else loaded).update(foreign)
        return loaded

    @property
    def dual_modalities(self) -> tuple[str, ...]:
        """The modalities whose encoders and projections are those of the dual encoder; none without one."""
        return DUAL_ENCODERS.get(self.dual_encoder, ())

    def validate_modalities(self):
        """Check that the model has at least two known modalities, and that what is frozen is among them."""
        if not set(self.frozen) <= set(self.modalities):
            raise ValueError(f"frozen={self.frozen} must be among modalities={self.modalities}.")
        if len(set(self.modalities)) < 2 or not set(self.modalities) <= {"video", "audio", "text"}:
            raise ValueError(f"modalities={self.modalities} must be at least two of 'video', 'audio', 'text'.")

    def validate_dual_encoder(self):
        """Check that the dual encoder is known, and that the model has its encoders and trains its pooling."""
        if self.text_padding_side not in (None, "left", "right"):
            raise ValueError(f"text_padding_side={self.text_padding_side!r} is none of None, 'left', 'right'.")
        takes_logits = (self.dual_encoder or "").startswith("pe_") and self.objective == "siglip"
        if not self.normalize_embeds and not takes_logits:
            raise ValueError("normalize_embeds=False is for PE-AV with objective='siglip' alone.")
        if self.dual_encoder is None:
            return
        if self.dual_encoder not in DUAL_ENCODERS:
            known = ", ".join(map(repr, DUAL_ENCODERS))
            raise ValueError(f"dual_encoder={self.dual_encoder!r} is none of {known}.")
        if not set(self.dual_modalities) <= set(self.modalities):
            raise ValueError(
                f"modalities={self.modalities} lack some of {self.dual_modalities}, which "
                f"dual_encoder={self.dual_encoder!r} has."
            )
        if self.objective == "filip":
            raise ValueError("objective='filip' would leave the pooling of a dual encoder untrained; take 'fine'.")

    def validate_objective(self):
        """Check that the objective and its options exist and are within their ranges."""
        for name, choices in {
            "objective": ("fine", "coarse", "mil_nce", "filip", "siglip"),
            "scoring_implementation": ("auto", "reference", "tiled", "triton"),
        }.items():
            if getattr(self, name) not in choices:
                raise ValueError(f"{name}={getattr(self, name)!r} is none of {', '.join(map(repr, choices))}.")
        if self.sharpness_init_value <= 0:
            raise ValueError(f"sharpness_init_value={self.sharpness_init_value} must be positive.")
        if not 0 <= self.gce_q <= 1:
            raise ValueError(f"gce_q={self.gce_q} must be between 0 and 1.")

    def validate_options_of_objective(self):
        """Check that no option is set that has no effect with the objective."""
        for name in ineffective_options(self.objective, vars(self)):
            objectives = ", ".join(map(repr, OBJECTIVES_OF_OPTION[name]))
            raise ValueError(
                f"{name}={getattr(self, name)!r} has no effect with objective={self.objective!r}, only with "
                f"{objectives}; leave it out."
            )

    def validate_classifier(self):
        """Check that the dropout is a probability."""
        if not 0 <= self.classifier_dropout < 1:
            raise ValueError(f"classifier_dropout={self.classifier_dropout} must be at least 0 and below 1.")


def check_options(owner: str, unknown: list[str], known: Iterable[str]) -> None:
    """Refuses unknown options.

    Args:
        owner: whose options they are, for the message.
        unknown: names of the unknown options.
        known: names of the options that there are.

    Raises:
        ValueError: for the first unknown name, saying what was meant.
    """
    for name in unknown:
        if name in RENAMED_OPTIONS:
            raise ValueError(f"{owner} has no option {name!r} any more; it is now {RENAMED_OPTIONS[name]!r}.")
        if name in REMOVED_OPTIONS:
            raise ValueError(
                f"{owner} has no option {name!r} any more; what it always does is {name}={REMOVED_OPTIONS[name]!r}."
            )
        nearest = get_close_matches(name, known, 1)
        hint = f"did you mean {nearest[0]!r}?" if nearest else f"there are {', '.join(sorted(known))}."
        raise ValueError(f"{owner} has no option {name!r}; {hint}")


def upgrade_options(config_dict: dict) -> dict:
    """A saved configuration in the words of this version.

    Args:
        config_dict: of this or an earlier version; it is not changed.

    Returns:
        A copy with new names for renamed options, and without removed and ineffective ones.

    Raises:
        ValueError: for a removed option with another value than the one that is left.
    """
    options = {RENAMED_OPTIONS.get(name, name): value for name, value in config_dict.items()}
    objective = options.get("objective", FgmmConfig.objective)
    removed = dict(REMOVED_OPTIONS)
    if "whole_caption_weight" in options:  # the fixed share of whole captions before they had a gate
        removed["whole_caption_weight"] = 0.0 if objective == "fine" else options["whole_caption_weight"]
        options["whole_captions"] = objective != "fine"
    for name, left in removed.items():
        if (value := options.pop(name, left)) != left:
            raise ValueError(
                f"The model was trained with {name}={value!r}, which this version of fgmm lacks; load it with its own "
                "code (trust_remote_code=True, without importing modeling_fgmm)."
            )
    for name in ineffective_options(objective, options):
        del options[name]
    return options


def ineffective_options(objective: str, options: dict) -> list[str]:
    """The options that have no effect with an objective, and have another value than their default."""
    return [
        name
        for name, objectives in OBJECTIVES_OF_OPTION.items()
        if objective not in objectives and options.get(name, getattr(FgmmConfig, name)) != getattr(FgmmConfig, name)
    ]


def encoder_config(
    modality: str, config: dict | PreTrainedConfig | None, own_type: str, of_dual_encoder: bool
) -> dict | PreTrainedConfig | None:
    """The configuration of one modality's encoder.

    Args:
        modality: `"video"`, `"audio"` or `"text"`.
        config: of any encoder; a dict without `model_type`, or None, is one of ours.
        own_type: the model type of our encoder.
        of_dual_encoder: it is part of a dual encoder that is taken whole; else a head that pools regions is not built,
            because the projections pool them.

    Returns:
        One of ours as it was given; of transformers', a copy with `ENCODER_SETTINGS`, of the modality's part alone.

    Raises:
        ValueError: for a model type that transformers does not know.
    """
    if isinstance(config, dict) and config.get("model_type", own_type) != own_type:
        if config["model_type"] not in CONFIG_MAPPING:
            raise ValueError(f"{modality}_config has model_type {config['model_type']!r}, which transformers lacks.")
        config = CONFIG_MAPPING[config["model_type"]].from_dict(config)
    if not isinstance(config, PreTrainedConfig) or config.model_type == own_type:
        return config
    part = {"video": "vision_config", "audio": "audio_config", "text": "text_config"}[modality]
    name = config.name_or_path
    if hasattr(config, "text_config"):  # it is of a model of several encoders
        config = getattr(config, part, config)
    config = copy.deepcopy(config)
    config.name_or_path = config.name_or_path or name
    config.dtype = None  # it is the joint model's
    settings = ENCODER_SETTINGS if of_dual_encoder else {**ENCODER_SETTINGS, "vision_use_head": False}
    for name, value in settings.items():
        if hasattr(config, name):
            setattr(config, name, value)
    return config


__all__ = ["FgmmAudioConfig", "FgmmConfig", "FgmmTextConfig", "FgmmVideoConfig"]
