"""Configuration of the video, audio and text encoders and of the joint model."""

import copy
import math

from huggingface_hub.dataclasses import strict
from transformers import CONFIG_MAPPING
from transformers.configuration_utils import PreTrainedConfig

# Of transformers' encoders: no layer or input is left out at random in training. A contrast is noisy enough, and layers
# without gradient or a second pass that differs from the first would break distributed training and gradient caching.
# Heads and poolers that regions have no part in are left out as well.
ENCODER_SETTINGS = {
    "layerdrop": 0.0,
    "encoder_layerdrop": 0.0,
    "mask_time_prob": 0.0,
    "mask_feature_prob": 0.0,
    "vision_use_head": False,
}


@strict
class FgmmVideoConfig(PreTrainedConfig):
    r"""
    Configuration of the S3D-G video encoder. At its defaults the layout is that of the network of MIL-NCE
    (Miech et al., CVPR 2020).

    Args:
        num_channels (`int`): channels of a frame.
        width_multiplier (`float`): factor on the channels of every block; 1.0 is the published network.
        depths (`list[int]`): inception blocks in stages 3, 4 and 5 (at most 2, 5, 2). Leaving out stage 5 doubles the
            resolution of the feature map, from 1/32 to 1/16 of the frame.
        self_gating (`bool`): scale each branch's channels by a sigmoid of their mean (the G of S3D-G).
        space_to_depth (`bool`): fold 2x2x2 neighbourhoods into channels before a stem of stride 1.
        temporal_padding (`str`): `"replicate"` repeats the first and last frame, so that an image and a static clip
            have the same features; `"zeros"` is what converted MIL-NCE weights were trained with, and an image then
            stands still for the 32 frames of their clips.
        frame_by_frame (`bool`): encode every frame on its own (I2D of Xie et al., ECCV 2018): t is then the number of
            frames. For slide shows and clips of a few distant frames.
    """

    model_type = "fgmm_video"
    base_config_key = "video_config"

    num_channels: int = 3
    width_multiplier: float = 1.0
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
class FgmmAudioConfig(PreTrainedConfig):
    r"""
    Configuration of the audio encoder: a ResNet backbone over the log-mel picture, one input channel.

    Args:
        num_mel_bins (`int`): rows of the log-mel picture.
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
class FgmmTextConfig(PreTrainedConfig):
    r"""
    Configuration of the phrase encoder: word embedding, linear, ReLU, maximum over the words of a phrase, linear.
    With the whole sentence as one phrase this is the text tower of MIL-NCE (Miech et al., CVPR 2020).

    Args:
        vocab_size (`int`): size of the tokenizer's vocabulary.
        hidden_size (`int`): dimensions of the word embedding.
        intermediate_size (`int`): dimensions in which the maximum over words is taken.
        num_hidden_layers (`int`): transformer layers between the embedding and the pooling; 0 means that a word's
            vector does not depend on its neighbours.
        num_attention_heads (`int`): heads of each transformer layer.
        max_position_embeddings (`int`): longest input of the transformer layers, in tokens.
        dropout (`float`): probability of dropping a component of a word embedding in training.
        pad_token_id (`int`): id of the padding token; None: every id is a word.
    """

    model_type = "fgmm_text"
    base_config_key = "text_config"

    vocab_size: int = 66250
    hidden_size: int = 300
    intermediate_size: int = 2048
    num_hidden_layers: int = 0
    num_attention_heads: int = 4
    max_position_embeddings: int = 512
    dropout: float = 0.0
    pad_token_id: int | None = 0

    def validate_layout(self):
        """Check that the heads divide the hidden size."""
        if self.num_hidden_layers and self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size={self.hidden_size} is not divisible by num_attention_heads={self.num_attention_heads}."
            )


@strict
class FgmmConfig(PreTrainedConfig):
    r"""
    Configuration of [`FgmmModel`].

    Args:
        video_config, audio_config, text_config (`dict` or a configuration): the encoders: ours, or with another
            `model_type` one of transformers' (see `hf_encoders_fgmm`). Of a model of pictures and text, such as CLIP,
            it is the part for this modality.
        frozen (`list[str]`): which of the encoders an [`FgmmModel`] does not train; classifiers train them all.
        audio_padding_value (`float`): what stands in the frames after a sound's end: 0 but for encoders whose feature
            extractor normalises its padding (the Audio Spectrogram Transformer's).
        modalities (`list[str]`): which encoders the model has, out of `"video"`, `"audio"`, `"text"`.
        projection_dim (`int`): dimensions of the shared space (D).
        objective (`str`): `"fine"` (regions against phrases), or a baseline: `"coarse"`, `"mil_nce"`, `"filip"`,
            `"siglip"`; see `loss_fgmm.OBJECTIVES`.
        logit_scale_init_value (`float`): logarithm of the scale of the contrast at the start.
        sharpness_init_value (`float`): sharpness of the attention over regions at the start (γ, on cosines).
        learnable_sharpness (`bool`): train γ, else it stays.
        phrase_sharpness_init_value (`float`): sharpness of the attention over phrases at the start (δ); 0: mean.
        learnable_phrase_sharpness (`bool`): train δ, else it stays.
        phrase_gates (`bool`): add to the attention over phrases a logit predicted from the phrase alone, so that one
            that says little ("the background") weighs little whatever is shown.
        whole_caption_weight (`float`): share of a caption's score that its pooled embedding gives as one more phrase,
            beside its phrases; 0 to 1.
        gce_q (`float`): q of generalised cross entropy, 0 to 1, in every objective but `"siglip"`: pairs in which
            the model does not believe weigh less the larger it is; 0 is cross entropy.
        coarse_loss_weight (`float`): weight of the contrast on pooled embeddings beside that on regions and phrases.
        scoring_implementation (`str`): `"auto"`, `"reference"`, `"tiled"` or `"triton"`, see
            `scoring_fgmm.attended_similarity`.
        classifier_dropout (`float`): probability of dropping a component of the mean region before the linear layer of
            [`FgmmForVideoClassification`] and [`FgmmForAudioClassification`].
        num_frames (`int`): frames of a video that transformers' video-classification pipeline shows; None: as many as
            the video processor takes.
    """

    model_type = "fgmm"
    sub_configs_defaults = {
        "video_config": FgmmVideoConfig,
        "audio_config": FgmmAudioConfig,
        "text_config": FgmmTextConfig,
    }
    # What the Trainer leaves out of predictions, for the embeddings, regions and phrases in them are given beside them.
    keys_to_ignore_at_inference = ["video_output", "audio_output", "text_output"]

    video_config: dict | PreTrainedConfig | None = None
    audio_config: dict | PreTrainedConfig | None = None
    text_config: dict | PreTrainedConfig | None = None
    frozen: list[str] | tuple[str, ...] = ()
    audio_padding_value: float | int = 0.0
    modalities: list[str] | tuple[str, ...] = ("video", "audio", "text")
    projection_dim: int = 512
    objective: str = "fine"
    logit_scale_init_value: float = math.log(1 / 0.07)
    sharpness_init_value: float | int = 8.0
    learnable_sharpness: bool = True
    phrase_sharpness_init_value: float | int = 0.0
    learnable_phrase_sharpness: bool = True
    phrase_gates: bool = True
    whole_caption_weight: float | int = 0.5
    gce_q: float | int = 0.0
    coarse_loss_weight: float | int = 0.2
    scoring_implementation: str = "auto"
    classifier_dropout: float | int = 0.5
    num_frames: int | None = None

    def __post_init__(self, **kwargs):
        self.modalities, self.frozen = list(self.modalities), list(self.frozen)
        for modality in ("video", "audio", "text"):
            name = f"{modality}_config"
            setattr(self, name, encoder_config(modality, getattr(self, name), type(self).sub_configs[name].model_type))
        super().__post_init__(**kwargs)

    def validate_modalities(self):
        """Check that the model has at least one pair of known modalities to compare."""
        if not set(self.frozen) <= set(self.modalities):
            raise ValueError(f"frozen={self.frozen} must be among modalities={self.modalities}.")
        if len(set(self.modalities)) < 2 or not set(self.modalities) <= {"video", "audio", "text"}:
            raise ValueError(f"modalities={self.modalities} must be at least two of 'video', 'audio', 'text'.")

    def validate_objective(self):
        """Check that every choice of the objective is a known one."""
        for name, choices in {
            "objective": ("fine", "coarse", "mil_nce", "filip", "siglip"),
            "scoring_implementation": ("auto", "reference", "tiled", "triton"),
        }.items():
            if getattr(self, name) not in choices:
                raise ValueError(f"{name}={getattr(self, name)!r} is none of {', '.join(map(repr, choices))}.")
        if self.sharpness_init_value <= 0:
            raise ValueError(f"sharpness_init_value={self.sharpness_init_value} must be positive.")
        if not 0 <= self.whole_caption_weight <= 1:
            raise ValueError(f"whole_caption_weight={self.whole_caption_weight} must be between 0 and 1.")
        if not 0 <= self.gce_q <= 1:
            raise ValueError(f"gce_q={self.gce_q} must be between 0 and 1.")
        if self.gce_q and self.objective == "siglip":
            raise ValueError("gce_q needs an objective with a softmax; 'siglip' has none.")

    def validate_classifier(self):
        """Check that the dropout is a probability."""
        if not 0 <= self.classifier_dropout < 1:
            raise ValueError(f"classifier_dropout={self.classifier_dropout} must be at least 0 and below 1.")


def encoder_config(modality: str, config: dict | PreTrainedConfig | None, own_type: str):
    """
    Args:
        modality: `"video"`, `"audio"` or `"text"`.
        config: of any encoder; a dict without `model_type`, or None, is one of ours.
        own_type: the model type of our encoder.

    Returns:
        The same where it is one of ours, else transformers' configuration of this modality's encoder.

    Raises:
        ValueError: for a model type that transformers does not know.
    """
    if isinstance(config, dict) and config.get("model_type", own_type) != own_type:
        if config["model_type"] not in CONFIG_MAPPING:
            raise ValueError(f"{modality}_config has model_type {config['model_type']!r}, which transformers lacks.")
        config = CONFIG_MAPPING[config["model_type"]].from_dict(config)
    if not isinstance(config, PreTrainedConfig) or config.model_type == own_type:
        return config
    config = copy.deepcopy(getattr(config, {"video": "vision_config", "text": "text_config"}.get(modality, ""), config))
    config.dtype = None  # that of the whole model
    for name, value in ENCODER_SETTINGS.items():
        if hasattr(config, name):
            setattr(config, name, value)
    return config


__all__ = ["FgmmAudioConfig", "FgmmConfig", "FgmmTextConfig", "FgmmVideoConfig"]
