"""The maps of phrases in clips: what a model attends to, or where its unpooled features are most similar."""

from dataclasses import dataclass

import torch

from modeling_fgmm import ClipRegions, FgmmModel
from modeling_fgmm.grounding_fgmm import Span
from modeling_fgmm.outputs_fgmm import as_queries
from modeling_fgmm.scoring_fgmm import Queries
from processing_fgmm import FgmmProcessor


@dataclass
class TextMaps:
    """The maps of B texts in one clip, on the CPU.

    Args:
        maps: (B, t, h, w) over a video or (B, frequency, time) over a sound, not negative.
        scores: (B,) of the texts with the clip, -1 to 1.
    """

    maps: torch.Tensor
    scores: torch.Tensor


@torch.no_grad()
def map_texts(model: FgmmModel, queries: Queries, clip: ClipRegions) -> TextMaps:
    """The map of each text in a clip: the attention of its phrases, weighted as they are in its score. An objective of
    pooled embeddings has none; there it is the cosines of the text's embedding with the unpooled regions, shifted so
    that the lowest is 0.

    Args:
        model: in evaluation mode.
        queries: B texts of one caption each, on the model's device.
        clip: its regions.
    """
    objective = model.get_objective("text", "audio" if clip.area is None else "video")
    if objective.needs_phrases:
        attention = objective(queries, clip.keys, output="attention")
        maps = torch.einsum("bp,bpn->bn", attention.phrases[:, 0], attention.regions[:, 0])
    else:
        attention = objective(queries, clip.keys, output="weights")
        cosines = queries.embeds[:, 0].float() @ clip.keys.regions[0].float().T
        maps = cosines - cosines.masked_fill(~clip.keys.mask, 2.0).amin(1, keepdim=True)
    scores = (attention.phrases * attention.similarity)[:, 0].sum(1)
    return TextMaps(clip.to_maps(maps * clip.keys.mask), scores.float().cpu())


@torch.no_grad()
def encode_queries(model: FgmmModel, processor: FgmmProcessor, texts: list[str]) -> Queries:
    """Texts as queries of one caption each, on the model's device."""
    return as_queries(model.get_text_features(**processor(text=texts, verbose=False).to(model.device)))


def join_clips(clips: list[ClipRegions]) -> ClipRegions:
    """Clips end to end as one, whose times go on from clip to clip; all have times.

    Args:
        clips: of one modality, with maps of the same height and width, or frequencies.
    """
    is_sound = clips[0].area is None
    steps: list[Span] = []
    for clip in clips:
        offset = (steps[-1][1] if steps else 0.0) - clip.steps[0][0]
        steps += [(start + offset, end + offset) for start, end in clip.steps]
    regions = [clip.keys.regions[0].unflatten(0, clip.grid) for clip in clips]
    masks = [clip.keys.mask[0].view(clip.grid) for clip in clips]
    regions, mask = (torch.cat(parts, dim=1 if is_sound else 0) for parts in (regions, masks))
    embeds = torch.nn.functional.normalize(sum(clip.keys.embeds for clip in clips), dim=-1)
    keys = type(clips[0].keys)(regions.reshape(1, -1, regions.shape[-1]), mask.reshape(1, -1), embeds)
    return ClipRegions(keys, tuple(mask.shape), steps, clips[0].area)


def step_at(steps: list[Span] | None, time: float | None) -> int:
    """The step of a map at a time, seconds; the first where there are no times."""
    if not steps or time is None:
        return 0
    return next((index for index, (_, end) in enumerate(steps) if time < end), len(steps) - 1)
