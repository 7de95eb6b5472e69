"""The joint model: encoders, projections into one space, scores and loss."""

import torch
import torch.nn.functional as F
from torch import nn
from transformers import AutoModel, PreTrainedConfig
from transformers import initialization as init
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs
from transformers.utils.generic import can_return_tuple

from .classification_fgmm import FgmmForAudioClassification, FgmmForVideoClassification
from .configuration_fgmm import FgmmConfig
from .distributed_fgmm import mean_over_processes
from .dual_encoders_fgmm import keep_used, load_dual_weights
from .encoders_fgmm import (
    encode_audio,
    encode_video,
    is_fgmm_config,
    load_config,
    make_dual_config,
    make_encoder,
    make_joint_config,
    make_projection,
)
from .hf_encoders_fgmm import check_complete, load_encoder
from .inference_fgmm import FgmmInferenceMixin
from .layers_fgmm import FgmmPreTrainedModel, RegionFeatures, masked_mean
from .loss_fgmm import OBJECTIVES, PairObjective
from .outputs_fgmm import PAIRS, FgmmOutput, FgmmRegionOutput, FgmmTextOutput, iterate_pairs
from .text_fgmm import complete_phrases, max_over_captions

# The model inputs of each modality; the first of them is there where the modality is.
INPUTS = {
    "video": ("pixel_values_videos", "video_mask", "video_sizes"),
    "audio": ("input_features", "input_features_mask"),
    "text": ("input_ids", "attention_mask", "phrase_spans", "phrase_captions", "phrase_mask", "caption_lengths"),
}


class FgmmModel(FgmmInferenceMixin, FgmmPreTrainedModel):
    """Video, audio and text encoders with one shared space, in which phrases are compared with regions.

    Each encoder's features are projected into D dimensions and L2-normalised; [`PairObjective`] scores two modalities.
    Adapters of PEFT are trained in frozen encoders, too.
    """

    # The Auto classes of classifiers find theirs in the folder of a joint model, too: its code travels with this file.
    auto_classes = {
        **FgmmPreTrainedModel.auto_classes,
        "AutoModel": "modeling_fgmm.FgmmModel",
        "AutoModelForZeroShotImageClassification": "modeling_fgmm.FgmmModel",
        "AutoModelForVideoClassification": "classification_fgmm.FgmmForVideoClassification",
        "AutoModelForAudioClassification": "classification_fgmm.FgmmForAudioClassification",
    }

    def __init__(self, config: FgmmConfig):
        super().__init__(config)
        self.encoders = nn.ModuleDict({name: make_encoder(name, config) for name in config.modalities})
        self.projections = nn.ModuleDict(
            {name: make_projection(name, config, encoder) for name, encoder in self.encoders.items()}
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
        cls, video=None, audio=None, text=None, frozen=(), dtype=None, attn_implementation=None, **config_kwargs
    ) -> "FgmmModel":
        """A model of given encoders, with new projections and objectives.

        Args:
            video, audio, text: a name on the Hub, a folder, or a configuration (for random weights); None: no encoder
                of this modality. They may be of an fgmm model or of transformers (see `hf_encoders_fgmm`); of a dual
                encoder such as CLIP the part of this modality is taken.
            frozen: the encoders that are not trained, one or several of `"video"`, `"audio"`, `"text"`.
            dtype, attn_implementation: of all weights (None: float32), and of all encoders, as in `from_pretrained`.
            **config_kwargs: of [`FgmmConfig`], for example `projection_dim`.

        Raises:
            ValueError: for a kind of encoder that the modality cannot have, fewer than two encoders, missing weights,
                or an unknown name in `frozen` or `config_kwargs`.
            OSError: for a name that cannot be loaded.
            StrictDataclassError: (of huggingface_hub) for a value that [`FgmmConfig`] refuses.
        """
        given = {"video": video, "audio": audio, "text": text}
        given = {name: encoder for name, encoder in given.items() if encoder is not None}
        frozen = [frozen] if isinstance(frozen, str) else list(frozen)
        config = make_joint_config(given, frozen, config_kwargs)
        model = cls._from_config(config, dtype=dtype, attn_implementation=attn_implementation)
        model._load_encoders(given)
        return model.eval()

    @classmethod
    def from_dual_encoder(
        cls, dual_encoder, video=None, audio=None, frozen=(), dtype=None, attn_implementation=None, **config_kwargs
    ) -> "FgmmModel":
        """A model from a dual encoder of transformers, with its encoders, projections, pooling, logit scale and bias.

        Its pooled embeddings, and with its default objective its logits, are those of transformers; the embedding of a
        video is the normalised mean of its frames'. Regions and phrases are its patches and words in the same space,
        see `dual_encoders_fgmm`, and `objective="fine"` trains them. PE-AV's own vectors are not normalised; ours are,
        and its logits are taken over with `normalize_embeds=False` alone, see `dual_pe_fgmm`.

        Args:
            dual_encoder: a name on the Hub, a folder, or a configuration (for random weights), of CLIP, SigLIP, SigLIP
                2, CLAP or PE-AV.
            video, audio: an encoder of the modality that the dual encoder lacks, as in [`~FgmmModel.from_encoders`];
                its projection is new, and trained into the dual encoder's space. So CLIP with the audio encoder of
                CLAP has CLIP's text encoder alone: a text has one embedding, as an index needs, not one a modality.
            frozen, dtype, attn_implementation: as in [`~FgmmModel.from_encoders`].
            **config_kwargs: of [`FgmmConfig`]; `objective` is by default the one that the weights were trained with.

        Raises:
            ValueError: for a model that is no such dual encoder, a modality that it has, missing weights, or an unknown
                name in `frozen` or `config_kwargs`.
            OSError: for a name that cannot be loaded.
            StrictDataclassError: (of huggingface_hub) for a value that [`FgmmConfig`] refuses.
        """
        given = {"video": video, "audio": audio}
        given = {name: encoder for name, encoder in given.items() if encoder is not None}
        frozen = [frozen] if isinstance(frozen, str) else list(frozen)
        config = make_dual_config(dual_encoder, given, frozen, config_kwargs)
        model = cls._from_config(config, dtype=dtype, attn_implementation=attn_implementation)
        model._load_encoders(given)
        if not isinstance(dual_encoder, PreTrainedConfig):
            options = {"dtype": torch.float32, "output_loading_info": True}
            source, report = AutoModel.from_pretrained(dual_encoder, **options)
            check_complete(dual_encoder, source, keep_used(report["missing_keys"], source.config.model_type))
            load_dual_weights(model, source)
        return model.eval()

    def _load_encoders(self, given: dict) -> None:
        """Loads the weights of single encoders, of those that are given by name or folder."""
        for name, encoder in given.items():
            if isinstance(encoder, PreTrainedConfig):
                continue
            if is_fgmm_config(load_config(encoder)):
                loaded = type(self).from_pretrained(encoder, dtype=torch.float32).encoders[name]
                self.encoders[name].load_state_dict(loaded.state_dict())
            else:
                loaded = load_encoder(encoder, getattr(self.config, f"{name}_config"))
                self.encoders[name].model.load_state_dict(loaded.state_dict())

    def freeze(self) -> None:
        """Sets `requires_grad` to False in frozen encoders, and in modules that no gradient reaches."""
        for encoder in self.encoders.values():
            for module in getattr(encoder, "constant_modules", list)():
                module.requires_grad_(False)
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

    @can_return_tuple
    def get_video_features(
        self,
        pixel_values_videos: torch.Tensor,
        video_mask: torch.Tensor | None = None,
        video_sizes: torch.Tensor | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
    ) -> FgmmRegionOutput:
        """
        Args:
            pixel_values_videos: (B, T, 3, H, W) normalised pixels.
            video_mask: (B,) False for items without video, or None.
            video_sizes: (B, 2) height and width of an item's frames without the padding at their right and bottom,
                pixels, for an encoder of frames of any aspect ratio. None: there is no padding.
            output_hidden_states, output_attentions: return them, too; None: as the configuration says.

        Returns:
            [`FgmmRegionOutput`], whose grid is (t, h, w).

        Raises:
            ValueError: for a wrong shape, or when the model has no video encoder.
        """
        options = self.output_options(output_hidden_states, output_attentions)
        return self._project_regions(
            "video", encode_video(self._encoder("video"), pixel_values_videos, video_mask, video_sizes, **options)
        )

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

    @can_return_tuple
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
        options = self.output_options(output_hidden_states, output_attentions)
        return self._project_regions(
            "audio", encode_audio(self._encoder("audio"), input_features, input_features_mask, **options)
        )

    @can_return_tuple
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
            attention_mask: (B, L) 0 for padding. None: what is the padding id; with a dual encoder nothing.
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
            # CLIP's end of a text, whose vector it pools, is its padding, too; dual encoders see all tokens.
            padding = None if self.config.dual_encoder else self.config.text_config.pad_token_id
            attention_mask = torch.ones_like(input_ids) if padding is None else (input_ids != padding).long()
        phrase_spans, phrase_captions, phrase_mask, num_captions = complete_phrases(
            attention_mask, phrase_spans, phrase_captions, phrase_mask
        )
        options = self.output_options(output_hidden_states, output_attentions)
        encoded = encoder(input_ids, attention_mask, phrase_spans, caption_lengths, **options)
        features = encoded.features
        items, captions, caption_mask = max_over_captions(features, phrase_mask, phrase_captions, num_captions)
        project = self.projections["text"]
        if encoded.pooled is None:
            caption_embeds, items = F.normalize(project(captions), dim=-1), project(items)
        else:
            caption_embeds = self._embed("text", encoded.pooled[:, :num_captions])
            items = masked_mean(caption_embeds, caption_mask.unsqueeze(-1), 1)
        return FgmmTextOutput(
            last_hidden_state=features,
            pooler_output=self._normalize(items) * caption_mask.any(1, keepdim=True),
            phrases=F.normalize(project(features), dim=-1),
            phrase_mask=phrase_mask,
            phrase_captions=phrase_captions,
            caption_embeds=caption_embeds,
            caption_mask=caption_mask,
            hidden_states=encoded.hidden_states,
            attentions=encoded.attentions,
        )

    def _normalize(self, embeds: torch.Tensor) -> torch.Tensor:
        """Embeddings (..., D), L2-normalised unless the configuration says that they are not."""
        return F.normalize(embeds, dim=-1) if self.config.normalize_embeds else embeds

    def _embed(self, modality: str, pooled: torch.Tensor) -> torch.Tensor:
        """Embeddings of an encoder's own pooled output: (..., C) -> (..., D)."""
        project = self.projections[modality]
        return self._normalize(project(pooled) if self.config.normalize_embeds else project.concatenate_heads(pooled))

    def _project_regions(self, modality: str, encoded: RegionFeatures) -> FgmmRegionOutput:
        """Projects an encoder's features (B, N, C), which have a mask, to an output."""
        features, mask = encoded.features, encoded.mask
        project = self.projections[modality]
        projected = project(features)
        if encoded.pooled is None:
            pooled = masked_mean(projected, mask.unsqueeze(-1), 1)
        else:
            pooled = self._embed(modality, encoded.pooled).mean(1) * mask.any(1, keepdim=True)
        # One row an item, because transformers' pipelines and Trainer split and concatenate outputs by items.
        sizes = [mask.new_full(mask.shape[:1], size, dtype=torch.long) for size in encoded.grid]
        return FgmmRegionOutput(
            last_hidden_state=features,
            pooler_output=self._normalize(pooled),
            regions=F.normalize(projected, dim=-1),
            region_mask=mask,
            region_grid=torch.stack(sizes, dim=1),
            hidden_states=encoded.hidden_states,
            attentions=encoded.attentions,
        )

    @can_return_tuple
    def forward(
        self,
        pixel_values_videos: torch.Tensor | None = None,
        input_features: torch.Tensor | None = None,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        video_mask: torch.Tensor | None = None,
        video_sizes: torch.Tensor | None = None,
        input_features_mask: torch.Tensor | None = None,
        phrase_spans: torch.Tensor | None = None,
        phrase_captions: torch.Tensor | None = None,
        phrase_mask: torch.Tensor | None = None,
        caption_lengths: torch.Tensor | None = None,
        inputs_embeds: None = None,
        return_loss: bool = False,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
    ) -> FgmmOutput:
        """
        Scores all given items of one modality with all of another, for each pair of modalities that is given.

        Args:
            pixel_values_videos, video_mask, video_sizes: see [`~FgmmModel.get_video_features`].
            input_features, input_features_mask: see [`~FgmmModel.get_audio_features`].
            input_ids, attention_mask, phrase_spans, phrase_captions, phrase_mask, caption_lengths: see
                [`~FgmmModel.get_text_features`].
            inputs_embeds: must be None; PEFT's wrapper for feature extraction passes it.
            return_loss: compute the loss in place of the logits; item i of one modality belongs to item i of the
                others, negatives come from all processes.
            output_hidden_states, output_attentions: return them in `video_output`, `audio_output` and `text_output`;
                None: as the configuration says.

        Returns:
            [`FgmmOutput`].

        Raises:
            ValueError: when nothing or `inputs_embeds` is given, a shape is wrong, or for a loss fewer than two
                modalities or different numbers of items are given.
        """
        if inputs_embeds is not None:
            raise ValueError("Texts are given as input_ids; inputs_embeds cannot be used.")
        outputs = self.encode_inputs(
            pixel_values_videos=pixel_values_videos,
            video_mask=video_mask,
            video_sizes=video_sizes,
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


__all__ = ["FgmmForAudioClassification", "FgmmForVideoClassification", "FgmmModel"]
