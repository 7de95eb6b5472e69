"""The joint model: encoders, projections into one space, scores and loss; and the classifiers, on one encoder each."""

import torch
import torch.nn.functional as F
from torch import nn
from transformers import PreTrainedConfig
from transformers import initialization as init
from transformers.modeling_outputs import ImageClassifierOutput, SequenceClassifierOutput
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs
from transformers.utils.generic import can_return_tuple
from transformers.utils.output_capturing import capture_outputs

from .configuration_fgmm import FgmmConfig
from .distributed_fgmm import mean_over_processes
from .encoders_fgmm import encode_audio, encode_video, is_fgmm_config, load_config, make_encoder, make_joint_config
from .hf_encoders_fgmm import load_encoder
from .inference_fgmm import FgmmInferenceMixin
from .layers_fgmm import FgmmPreTrainedModel, masked_mean
from .loss_fgmm import OBJECTIVES, PairObjective
from .outputs_fgmm import PAIRS, FgmmOutput, FgmmRegionOutput, FgmmTextOutput, iterate_pairs
from .text_fgmm import TextLayer, complete_phrases, max_over_captions
from .video_fgmm import VideoStage

# The model inputs of each modality; the first of them is there where the modality is.
INPUTS = {
    "video": ("pixel_values_videos", "video_mask"),
    "audio": ("input_features", "input_features_mask"),
    "text": ("input_ids", "attention_mask", "phrase_spans", "phrase_captions", "phrase_mask", "caption_lengths"),
}


class FgmmModel(FgmmInferenceMixin, FgmmPreTrainedModel):
    """Video, audio and text encoders with one shared space, in which phrases are compared with regions.

    Each encoder's features are projected into D dimensions and L2-normalised; [`PairObjective`] scores two modalities.
    Adapters of PEFT are trained in frozen encoders, too; leave `task_type` out of their configuration, because its
    wrappers pass arguments that this model does not take.
    """

    # The text encoder and the audio encoder's backbone record theirs.
    _can_record_outputs = {"hidden_states": VideoStage, "attentions": TextLayer}

    def __init__(self, config: FgmmConfig):
        super().__init__(config)
        self.encoders = nn.ModuleDict({name: make_encoder(name, config) for name in config.modalities})
        self.projections = nn.ModuleDict(
            {name: nn.Linear(encoder.out_channels, config.projection_dim) for name, encoder in self.encoders.items()}
        )
        objective = OBJECTIVES[config.objective]
        self.objectives = nn.ModuleDict(
            {f"{query}_{key}": objective(config) for query, key in PAIRS if {query, key} <= set(self.encoders)}
        )
        self.freeze()
        self.train()
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module):
        super()._init_weights(module)
        if isinstance(module, PairObjective):
            for name, value in module.initial_values().items():
                init.constant_(getattr(module, name), value)

    @classmethod
    def from_pretrained(cls, *args, **kwargs):
        """As in transformers, which makes all weights that it loads trainable; frozen encoders are frozen again."""
        loaded = super().from_pretrained(*args, **kwargs)
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        model.freeze()
        return loaded

    @classmethod
    def from_encoders(
        cls, video=None, audio=None, text=None, frozen: str | tuple[str, ...] = (), **config_kwargs
    ) -> "FgmmModel":
        """A model of given encoders, with new projections and objectives.

        Args:
            video, audio, text: a name on the Hub, a folder, or a configuration (for random weights); None: no encoder
                of this modality. They may be of an fgmm model or of transformers (see `hf_encoders_fgmm`); of a dual
                encoder such as CLIP the part of this modality is taken.
            frozen: the encoders that are not trained, one or several of `"video"`, `"audio"`, `"text"`.
            **config_kwargs: of [`FgmmConfig`], for example `projection_dim`.

        Raises:
            ValueError: for a kind of encoder that the modality cannot have, fewer than two encoders, or an unknown
                name in `frozen` or `config_kwargs`.
            OSError: for a name that cannot be loaded.
            StrictDataclassError: (of huggingface_hub) for a value that [`FgmmConfig`] refuses.
        """
        given = {"video": video, "audio": audio, "text": text}
        given = {name: encoder for name, encoder in given.items() if encoder is not None}
        frozen = [frozen] if isinstance(frozen, str) else list(frozen)
        model = cls(make_joint_config(given, frozen, config_kwargs))
        for name, encoder in given.items():
            if isinstance(encoder, PreTrainedConfig):
                continue
            if is_fgmm_config(load_config(encoder)):
                loaded = cls.from_pretrained(encoder, dtype=torch.float32).encoders[name]
                model.encoders[name].load_state_dict(loaded.state_dict())
            else:
                loaded = load_encoder(encoder, getattr(model.config, f"{name}_config"))
                model.encoders[name].model.load_state_dict(loaded.state_dict())
        return model.eval()

    def freeze(self) -> None:
        """Turns the gradients of frozen encoders off."""
        for name in self.config.frozen:
            self.encoders[name].requires_grad_(False)

    def train(self, mode: bool = True) -> "FgmmModel":
        """As in torch; frozen encoders stay in evaluation mode."""
        super().train(mode)
        for name in self.config.frozen:
            self.encoders[name].eval()
        return self

    def get_input_embeddings(self) -> nn.Module:
        """The word embedding; without a text encoder what transformers raises, for its callers expect it."""
        if "text" not in self.encoders:
            return super().get_input_embeddings()
        return self.encoders["text"].get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self._encoder("text").set_input_embeddings(value)

    def _encoder(self, modality: str) -> nn.Module:
        if modality not in self.encoders:
            raise ValueError(f"This model has no {modality} encoder, only {', '.join(self.encoders)}.")
        return self.encoders[modality]

    def get_objective(self, query: str, key: str) -> PairObjective:
        """The objective of two modalities, those of its queries and of its keys.

        Raises:
            ValueError: when the model does not compare them.
        """
        if f"{query}_{key}" not in self.objectives:
            raise ValueError(f"This model does not compare {query} with {key}, only {', '.join(self.objectives)}.")
        return self.objectives[f"{query}_{key}"]

    @capture_outputs(tie_last_hidden_states=False)
    def get_video_features(
        self,
        pixel_values_videos: torch.Tensor,
        video_mask: torch.Tensor | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
    ) -> FgmmRegionOutput:
        """
        Args:
            pixel_values_videos: (B, T, 3, H, W) normalised pixels.
            video_mask: (B,) False for items without video, or None.
            output_hidden_states: return them, too; None: as the configuration says.
            output_attentions: has no effect; an encoder of transformers, `encoders["video"].model`, returns its own.

        Returns:
            [`FgmmRegionOutput`], whose grid is (t, h, w).

        Raises:
            ValueError: for a wrong shape, or when the model has no video encoder.
        """
        return self._project_regions("video", *encode_video(self._encoder("video"), pixel_values_videos, video_mask))

    def get_image_features(self, pixel_values: torch.Tensor, **kwargs: Unpack[TransformersKwargs]) -> FgmmRegionOutput:
        """
        Args:
            pixel_values: (B, 3, H, W) normalised pixels; each image is a clip of one frame.
            **kwargs: see [`~FgmmModel.get_video_features`].

        Returns:
            [`FgmmRegionOutput`], whose grid is (1, h, w). Encoders that need several frames (ours, too, with
            `temporal_padding="zeros"`) repeat the image; their grid is (t, h, w).
        """
        return self.get_video_features(pixel_values.unsqueeze(1), **kwargs)

    @capture_outputs(tie_last_hidden_states=False)
    def get_audio_features(
        self,
        input_features: torch.Tensor,
        input_features_mask: torch.Tensor | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
    ) -> FgmmRegionOutput:
        """
        Args:
            input_features: (B, time, mel) log-mel frames, or (B, S) samples for encoders of waveforms.
            input_features_mask: (B, time) or (B, S) False for padding; an item without audio is all padding. None:
                nothing is padding.
            output_hidden_states, output_attentions: as in [`~FgmmModel.get_video_features`].

        Returns:
            [`FgmmRegionOutput`], whose grid is (frequency, time).

        Raises:
            ValueError: for a wrong shape, or when the model has no audio encoder.
        """
        return self._project_regions(
            "audio", *encode_audio(self._encoder("audio"), input_features, input_features_mask)
        )

    @capture_outputs(tie_last_hidden_states=False)
    def get_text_features(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        phrase_spans: torch.Tensor | None = None,
        phrase_captions: torch.Tensor | None = None,
        phrase_mask: torch.Tensor | None = None,
        caption_lengths: torch.Tensor | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
    ) -> FgmmTextOutput:
        """
        Args:
            input_ids: (B, L) token ids; an item's candidate captions end to end.
            attention_mask: (B, L) 0 for padding. None: what is the padding id.
            phrase_spans: (B, M, 2) first token and one past the last of each phrase. None: each item is one phrase.
            phrase_captions: (B, M) index of the candidate caption of a phrase, in 0..K-1. None: one caption an item.
            phrase_mask: (B, M) False for padding. None: empty spans are padding.
            caption_lengths: (B, K) tokens of each candidate caption, 0 for padding: words attend within their own
                caption. None: an item is one text.
            output_hidden_states, output_attentions: return them, too; None: as the configuration says.

        Returns:
            [`FgmmTextOutput`].

        Raises:
            ValueError: when the text is too long, or when the model has no text encoder.
        """
        encoder = self._encoder("text")
        if attention_mask is None:
            padding = self.config.text_config.pad_token_id
            attention_mask = torch.ones_like(input_ids) if padding is None else (input_ids != padding).long()
        phrase_spans, phrase_captions, phrase_mask, num_captions = complete_phrases(
            attention_mask, phrase_spans, phrase_captions, phrase_mask
        )
        features = encoder(input_ids, attention_mask, phrase_spans, caption_lengths)

        items, captions, caption_mask = max_over_captions(features, phrase_mask, phrase_captions, num_captions)
        project = self.projections["text"]
        return FgmmTextOutput(
            last_hidden_state=features,
            pooler_output=F.normalize(project(items), dim=-1) * caption_mask.any(1, keepdim=True),
            phrases=F.normalize(project(features), dim=-1),
            phrase_mask=phrase_mask,
            phrase_captions=phrase_captions,
            caption_embeds=F.normalize(project(captions), dim=-1),
            caption_mask=caption_mask,
        )

    def _project_regions(
        self, modality: str, features: torch.Tensor, mask: torch.Tensor, grid: tuple[int, ...]
    ) -> FgmmRegionOutput:
        """Features (B, N, C) and mask (B, N) of regions to an output."""
        projected = self.projections[modality](features)
        # One row an item, because transformers' pipelines and Trainer split and concatenate outputs by items.
        sizes = [mask.new_full(mask.shape[:1], size, dtype=torch.long) for size in grid]
        return FgmmRegionOutput(
            last_hidden_state=features,
            pooler_output=F.normalize(masked_mean(projected, mask.unsqueeze(-1), 1), dim=-1),
            regions=F.normalize(projected, dim=-1),
            region_mask=mask,
            region_grid=torch.stack(sizes, dim=1),
        )

    @can_return_tuple
    def forward(
        self,
        pixel_values_videos: torch.Tensor | None = None,
        input_features: torch.Tensor | None = None,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        video_mask: torch.Tensor | None = None,
        input_features_mask: torch.Tensor | None = None,
        phrase_spans: torch.Tensor | None = None,
        phrase_captions: torch.Tensor | None = None,
        phrase_mask: torch.Tensor | None = None,
        caption_lengths: torch.Tensor | None = None,
        return_loss: bool = False,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
    ) -> FgmmOutput:
        """
        Scores all given items of one modality with all of another, for each pair of modalities that is given.

        Args:
            pixel_values_videos, video_mask: see [`~FgmmModel.get_video_features`].
            input_features, input_features_mask: see [`~FgmmModel.get_audio_features`].
            input_ids, attention_mask, phrase_spans, phrase_captions, phrase_mask, caption_lengths: see
                [`~FgmmModel.get_text_features`].
            return_loss: compute the loss in place of the logits; item i of one modality belongs to item i of the
                others, negatives come from all processes.
            output_hidden_states, output_attentions: return them in `video_output`, `audio_output` and `text_output`;
                None: as the configuration says.

        Returns:
            [`FgmmOutput`].

        Raises:
            ValueError: when nothing is given, a shape is wrong, or for a loss fewer than two modalities or different
                numbers of items are given.
        """
        outputs = self.encode_inputs(
            pixel_values_videos=pixel_values_videos,
            video_mask=video_mask,
            input_features=input_features,
            input_features_mask=input_features_mask,
            input_ids=input_ids,
            attention_mask=attention_mask,
            phrase_spans=phrase_spans,
            phrase_captions=phrase_captions,
            phrase_mask=phrase_mask,
            caption_lengths=caption_lengths,
            output_hidden_states=output_hidden_states,
            output_attentions=output_attentions,
        )
        return FgmmOutput(
            **({"loss": self.contrast(outputs)} if return_loss else self._logits(outputs)),
            **{f"{name}_embeds": output.pooler_output for name, output in outputs.items()},
            **{f"{name}_regions": outputs[name].regions for name in ("video", "audio") if name in outputs},
            phrases=outputs["text"].phrases if "text" in outputs else None,
            **{f"{name}_output": output for name, output in outputs.items()},
        )

    def encode_inputs(
        self,
        *,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        **inputs: torch.Tensor | None,
    ) -> dict[str, FgmmRegionOutput | FgmmTextOutput]:
        """
        Encodes each given modality.

        Args:
            output_hidden_states, output_attentions, **inputs: as in [`~FgmmModel.forward`].

        Returns:
            The output of each modality by its name, "video", "audio" or "text".

        Raises:
            TypeError: for an unknown input. ValueError: when nothing is given, or a shape is wrong.
        """
        if unknown := inputs.keys() - {name for names in INPUTS.values() for name in names}:
            raise TypeError(f"{', '.join(sorted(unknown))} is no input of this model.")
        options = {"output_hidden_states": output_hidden_states, "output_attentions": output_attentions}
        options = {name: value for name, value in options.items() if value is not None}
        outputs = {}
        for modality, names in INPUTS.items():
            if inputs.get(names[0]) is not None:
                given = {name: inputs[name] for name in names if name in inputs}
                outputs[modality] = getattr(self, f"get_{modality}_features")(**given, **options, return_dict=True)
        if not outputs:
            raise ValueError("Give at least one of pixel_values_videos, input_features and input_ids.")
        return outputs

    def _logits(self, outputs: dict[str, FgmmRegionOutput | FgmmTextOutput]) -> dict[str, torch.Tensor | None]:
        """The fields `logits_per_...` of [`FgmmOutput`]."""
        logits = {
            pair: self.get_objective(*pair)(queries, keys, output="logits")
            for pair, queries, keys in iterate_pairs(outputs)
        }
        per_video, per_audio = logits.get(("text", "video")), logits.get(("text", "audio"))
        return {
            "logits_per_video": None if per_video is None else per_video.T,
            "logits_per_text": per_audio if per_video is None else per_video,
            "logits_per_audio": None if per_audio is None else per_audio.T,
            "logits_per_audio_video": logits.get(("audio", "video")),
        }

    def contrast(self, outputs: dict[str, FgmmRegionOutput | FgmmTextOutput]) -> torch.Tensor:
        """
        The loss of encoded items; item i of one modality belongs to item i of the others.

        Args:
            outputs: from [`~FgmmModel.encode_inputs`].

        Returns:
            A number: the mean over the pairs of modalities that any item of any process has.

        Raises:
            ValueError: when fewer than two modalities or different numbers of items are given.
        """
        losses, present = [], []
        sizes = {name: len(output[0]) for name, output in outputs.items()}
        if len(set(sizes.values())) == 1:
            for pair, queries, keys in iterate_pairs(outputs):
                losses.append(self.get_objective(*pair)(queries, keys))
                present.append((queries.present & keys.present).any())
        if not losses:
            raise ValueError(f"A loss needs at least two modalities of as many items each, but was given {sizes}.")
        number = (mean_over_processes(torch.stack(present)) > 0).sum()
        return torch.stack(losses).sum() / number.clamp(min=1)


class RegionClassifier(FgmmPreTrainedModel):
    """The encoder of one modality, the mean over its regions, dropout and a linear layer.

    Loaded from an [`FgmmModel`] it takes the weights of that encoder; the linear layer is newly initialised.
    """

    modality: str
    _can_record_outputs = {"hidden_states": VideoStage}  # the audio encoder's backbone records its own

    def __init__(self, config: FgmmConfig):
        super().__init__(config)
        if self.modality not in config.modalities:
            raise ValueError(f"This model has no {self.modality} encoder, only {', '.join(config.modalities)}.")
        self.encoders = nn.ModuleDict({self.modality: make_encoder(self.modality, config)})
        self.dropout = nn.Dropout(config.classifier_dropout)
        self.classifier = nn.Linear(self.encoders[self.modality].out_channels, config.num_labels)
        self.post_init()

    def classify(
        self, features: torch.Tensor, mask: torch.Tensor, labels: torch.Tensor | None
    ) -> dict[str, torch.Tensor | None]:
        """
        Args:
            features: (B, N, C) of the regions.
            mask: (B, N) False for padding.
            labels: (B,) classes, (B, num_labels) 0 or 1 where an item may have several, or None.

        Returns:
            The fields of the output.
        """
        logits = self.classifier(self.dropout(masked_mean(features, mask.unsqueeze(-1), 1)))
        return {"loss": None if labels is None else self.loss_function(labels, logits, self.config), "logits": logits}


class FgmmForVideoClassification(RegionClassifier):
    """A classifier of videos, and of images as clips of one frame."""

    modality = "video"
    input_modalities = ("video",)
    _keys_to_ignore_on_load_unexpected = [r"^encoders\.(audio|text)\.", r"^projections\.", r"^objectives\."]

    @capture_outputs
    def forward(
        self,
        pixel_values_videos: torch.Tensor,
        video_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        output_hidden_states: bool | None = None,
    ) -> ImageClassifierOutput:
        """
        Args:
            pixel_values_videos: (B, T, 3, H, W) normalised pixels; T = 1 for images.
            video_mask: (B,) False for items without video, or None.
            labels: (B,) class indices, or (B, num_labels) floats 0 or 1 where an item may have several classes, as
                `config.problem_type` says; where it is not set, the first labels set it.
            output_hidden_states: return them, too, see [`FgmmRegionOutput`]; None: as the configuration says.

        Returns:
            transformers' `ImageClassifierOutput`: loss (with labels), logits (B, num_labels), hidden_states.

        Raises:
            ValueError: for a wrong shape.
        """
        features, mask, _ = encode_video(self.encoders["video"], pixel_values_videos, video_mask)
        return ImageClassifierOutput(**self.classify(features, mask, labels))


class FgmmForAudioClassification(RegionClassifier):
    """A classifier of sounds."""

    modality = "audio"
    main_input_name = "input_features"
    input_modalities = ("audio",)
    _keys_to_ignore_on_load_unexpected = [r"^encoders\.(video|text)\.", r"^projections\.", r"^objectives\."]

    @capture_outputs
    def forward(
        self,
        input_features: torch.Tensor,
        input_features_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        output_hidden_states: bool | None = None,
    ) -> SequenceClassifierOutput:
        """
        Args:
            input_features: (B, time, mel) log-mel frames.
            input_features_mask: (B, time) False for padding. None: nothing is padding.
            labels, output_hidden_states: see [`~FgmmForVideoClassification.forward`].

        Returns:
            transformers' `SequenceClassifierOutput`: loss (with labels), logits (B, num_labels), hidden_states.

        Raises:
            ValueError: for a wrong shape.
        """
        features, mask, _ = encode_audio(self.encoders["audio"], input_features, input_features_mask)
        return SequenceClassifierOutput(**self.classify(features, mask, labels))


__all__ = ["FgmmForAudioClassification", "FgmmForVideoClassification", "FgmmModel"]
