"""Classifiers of videos and of sounds: an encoder of an [`FgmmModel`], the mean over its regions, a linear layer."""

import torch
from torch import nn
from transformers.modeling_outputs import ImageClassifierOutput, SequenceClassifierOutput
from transformers.utils.generic import can_return_tuple

from .configuration_fgmm import FgmmConfig
from .encoders_fgmm import encode_audio, encode_video, make_encoder
from .layers_fgmm import FgmmPreTrainedModel, RegionFeatures, masked_mean


class RegionClassifier(FgmmPreTrainedModel):
    """The encoder of one modality, the mean over its regions (or its own pooling), dropout and a linear layer.

    Loaded from an [`FgmmModel`] it takes the weights of that encoder; the linear layer is newly initialised.
    """

    modality: str

    def __init__(self, config: FgmmConfig):
        super().__init__(config)
        if self.modality not in config.modalities:
            raise ValueError(f"This model has no {self.modality} encoder, only {', '.join(config.modalities)}.")
        self.encoders = nn.ModuleDict({self.modality: make_encoder(self.modality, config)})
        self.dropout = nn.Dropout(config.classifier_dropout)
        self.classifier = nn.Linear(self.encoders[self.modality].out_channels, config.num_labels)
        self.post_init()

    def classify(self, encoded: RegionFeatures, labels: torch.Tensor | None) -> dict[str, torch.Tensor | tuple | None]:
        """
        Args:
            encoded: with the mask of the regions.
            labels: (B,) classes, (B, num_labels) 0 or 1 where an item may have several, or None.

        Returns:
            The fields of the output.
        """
        if encoded.pooled is None:
            features = masked_mean(encoded.features, encoded.mask.unsqueeze(-1), 1)
        else:
            features = encoded.pooled.mean(1)
        logits = self.classifier(self.dropout(features))
        return {
            "loss": None if labels is None else self.loss_function(labels, logits, self.config),
            "logits": logits,
            "hidden_states": encoded.hidden_states,
            "attentions": encoded.attentions,
        }


class FgmmForVideoClassification(RegionClassifier):
    """A classifier of videos, and of images as clips of one frame."""

    modality = "video"
    input_modalities = ("video",)
    _keys_to_ignore_on_load_unexpected = [r"^encoders\.(audio|text)\.", r"^projections\.", r"^objectives\."]

    @can_return_tuple
    def forward(
        self,
        pixel_values_videos: torch.Tensor,
        video_mask: torch.Tensor | None = None,
        video_sizes: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
    ) -> ImageClassifierOutput:
        """
        Args:
            pixel_values_videos: (B, T, 3, H, W) normalised pixels; T = 1 for images.
            video_mask: (B,) False for items without video, or None.
            video_sizes: see [`~FgmmModel.get_video_features`].
            labels: (B,) class indices, or (B, num_labels) floats 0 or 1 where an item may have several classes, as
                `config.problem_type` says; where it is not set, the first labels set it.
            output_hidden_states, output_attentions: return them, too, see [`FgmmRegionOutput`]; None: as the
                configuration says.

        Returns:
            transformers' `ImageClassifierOutput`: loss (with labels), logits (B, num_labels), hidden_states and
            attentions.

        Raises:
            ValueError: for a wrong shape.
        """
        options = self.output_options(output_hidden_states, output_attentions)
        encoded = encode_video(self.encoders["video"], pixel_values_videos, video_mask, video_sizes, **options)
        return ImageClassifierOutput(**self.classify(encoded, labels))


class FgmmForAudioClassification(RegionClassifier):
    """A classifier of sounds."""

    modality = "audio"
    main_input_name = "input_features"
    input_modalities = ("audio",)
    _keys_to_ignore_on_load_unexpected = [r"^encoders\.(video|text)\.", r"^projections\.", r"^objectives\."]

    @can_return_tuple
    def forward(
        self,
        input_features: torch.Tensor,
        input_features_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
    ) -> SequenceClassifierOutput:
        """
        Args:
            input_features: (B, time, mel) log-mel frames.
            input_features_mask: (B, time) False for padding. None: nothing is padding.
            labels, output_hidden_states, output_attentions: see [`~FgmmForVideoClassification.forward`].

        Returns:
            transformers' `SequenceClassifierOutput`: loss (with labels), logits (B, num_labels), hidden_states and
            attentions.

        Raises:
            ValueError: for a wrong shape.
        """
        options = self.output_options(output_hidden_states, output_attentions)
        encoded = encode_audio(self.encoders["audio"], input_features, input_features_mask, **options)
        return SequenceClassifierOutput(**self.classify(encoded, labels))


__all__ = ["FgmmForAudioClassification", "FgmmForVideoClassification"]
