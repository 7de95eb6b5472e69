"""The output classes of the models, and their conversion to queries and keys."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from transformers.utils import ModelOutput

from .scoring_fgmm import Keys, Queries

# The pairs of modalities that are compared: of the queries, of the keys.
PAIRS = (("text", "video"), ("text", "audio"), ("audio", "video"))


@dataclass
class FgmmRegionOutput(ModelOutput):
    """Features of videos or sounds.

    Args:
        last_hidden_state: (B, N, C) features of the regions.
        pooler_output: (B, D) one L2-normalised embedding an item, the mean over its regions; 0 for an item without the
            modality.
        regions: (B, N, D) L2-normalised regions in the shared space.
        region_mask: (B, N) bool, False for padding.
        region_grid: (B, 3) t, h, w of a video, (B, 2) frequency, time of a sound, the same in every row; N is their
            product. See `grid`.
        hidden_states: with `output_hidden_states`, of the items that have the modality: the feature maps before the
            first and after each stage, (B, C, t, h, w) or (B, C, frequency, time). An encoder of transformers returns
            its own, one that takes images with a row for each frame.
        attentions: with `output_attentions` and eager attention, those of an encoder of transformers, likewise.
    """

    last_hidden_state: torch.FloatTensor | None = None
    pooler_output: torch.FloatTensor | None = None
    regions: torch.FloatTensor | None = None
    region_mask: torch.BoolTensor | None = None
    region_grid: torch.LongTensor | None = None
    hidden_states: tuple[torch.FloatTensor, ...] | None = None
    attentions: tuple[torch.FloatTensor, ...] | None = None

    @property
    def grid(self) -> tuple[int, ...]:
        """The sizes of the feature map, (t, h, w) or (frequency, time)."""
        return tuple(self.region_grid[0].tolist())


@dataclass
class FgmmTextOutput(ModelOutput):
    """Features of texts.

    Args:
        last_hidden_state: (B, M, C) features of the phrases.
        pooler_output: (B, D) one L2-normalised embedding an item, pooled over the words of all its phrases.
        phrases: (B, M, D) L2-normalised phrases in the shared space.
        phrase_mask: (B, M) bool, False for padding.
        phrase_captions: (B, M) index of each phrase's candidate caption, in 0..K-1.
        caption_embeds: (B, K, D) one L2-normalised embedding a candidate caption, pooled over the words of its phrases.
        caption_mask: (B, K) bool, False where an item has no such caption or it has no phrase.
        hidden_states: with `output_hidden_states`, (B, L, C) before the first and after each transformer layer; with
            `caption_lengths`, a row for each caption. An encoder of transformers returns its own, as of the attentions.
        attentions: with `output_attentions` and eager attention, (B, heads, L, L) weights of each transformer layer.
    """

    last_hidden_state: torch.FloatTensor | None = None
    pooler_output: torch.FloatTensor | None = None
    phrases: torch.FloatTensor | None = None
    phrase_mask: torch.BoolTensor | None = None
    phrase_captions: torch.LongTensor | None = None
    caption_embeds: torch.FloatTensor | None = None
    caption_mask: torch.BoolTensor | None = None
    hidden_states: tuple[torch.FloatTensor, ...] | None = None
    attentions: tuple[torch.FloatTensor, ...] | None = None


@dataclass
class FgmmOutput(ModelOutput):
    """The output of the joint model; a field is None where its modality was not given.

    Args:
        loss: a number, with `return_loss=True`, see [`~FgmmModel.contrast`].
        logits_per_video: (Bv, Bt) the objective's scores times the logit scale.
        logits_per_text: (Bt, Bv) the transpose; (Bt, Ba) where no video was given.
        logits_per_audio: (Ba, Bt) those of audio and text, as for video.
        logits_per_audio_video: (Ba, Bv) those of sounds as queries and videos as keys.
        video_embeds, audio_embeds, text_embeds: (B, D) one L2-normalised embedding an item, for search indexes (not
            normalised with `config.normalize_embeds=False`).
        video_regions, audio_regions: (B, N, D) L2-normalised; phrases: (B, M, D) L2-normalised.
        video_output, audio_output: [`FgmmRegionOutput`], with masks and grids; text_output: [`FgmmTextOutput`].
    """

    loss: torch.FloatTensor | None = None
    logits_per_video: torch.FloatTensor | None = None
    logits_per_text: torch.FloatTensor | None = None
    logits_per_audio: torch.FloatTensor | None = None
    logits_per_audio_video: torch.FloatTensor | None = None
    video_embeds: torch.FloatTensor | None = None
    audio_embeds: torch.FloatTensor | None = None
    text_embeds: torch.FloatTensor | None = None
    video_regions: torch.FloatTensor | None = None
    audio_regions: torch.FloatTensor | None = None
    phrases: torch.FloatTensor | None = None
    video_output: FgmmRegionOutput | None = None
    audio_output: FgmmRegionOutput | None = None
    text_output: FgmmTextOutput | None = None

    @property
    def logits_per_image(self) -> torch.FloatTensor | None:
        """`logits_per_video` by the name that transformers' pipelines use; an image is a clip of one frame."""
        return self.logits_per_video


def as_queries(output: FgmmTextOutput | FgmmRegionOutput) -> Queries:
    """Queries of texts with their phrases; or of sounds, each as one caption whose phrases are its regions."""
    if not isinstance(output, FgmmTextOutput):
        return Queries.from_keys(as_keys(output))
    return Queries(
        output.phrases, output.phrase_mask, output.phrase_captions, output.caption_embeds, output.caption_mask
    )


def as_keys(output: FgmmRegionOutput) -> Keys:
    """Keys of videos or sounds: their regions (B, N, D), masks and pooled embeddings."""
    return Keys(output.regions, output.region_mask, output.pooler_output)


def iterate_pairs(
    outputs: dict[str, FgmmTextOutput | FgmmRegionOutput],
) -> Iterator[tuple[tuple[str, str], Queries, Keys]]:
    """Each of `PAIRS` of which both modalities are given, with its queries and keys.

    Args:
        outputs: by modality, "video", "audio" or "text".
    """
    for query, key in PAIRS:
        if query in outputs and key in outputs:
            yield (query, key), as_queries(outputs[query]), as_keys(outputs[key])


__all__ = ["FgmmOutput", "FgmmRegionOutput", "FgmmTextOutput", "as_keys", "as_queries"]
