"""The objective: what a pair of modalities contributes to the loss, with negatives from every process.

Texts (or, for audio over video, sounds) ask and regions answer. The asking side is the smaller one: it is gathered
from all processes, the region maps stay where they were computed.
"""

from dataclasses import dataclass, replace

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn

from .configuration_fgmm import FgmmConfig
from .scoring_fgmm import attended_similarity, caption_scores

# exp(MAX_LOGIT_SCALE) = 100, the bound of CLIP (Radford et al., 2021, section 2.5).
MAX_LOGIT_SCALE = 4.6052


@dataclass
class Queries:
    """The side that asks.

    phrases (B, M, D) and their mask (B, M); captions (B, M), the index of each phrase's candidate caption in 0..K-1;
    embeds (B, K, D), one pooled vector a caption, and caption_mask (B, K), False where an item has no such caption.
    """

    phrases: torch.Tensor
    mask: torch.Tensor
    captions: torch.Tensor
    embeds: torch.Tensor
    caption_mask: torch.Tensor


@dataclass
class Keys:
    """The side that answers: regions (B, N, D), their mask (B, N), and embeds (B, D), one pooled vector an item."""

    regions: torch.Tensor
    mask: torch.Tensor
    embeds: torch.Tensor

    @property
    def present(self) -> torch.Tensor:
        """(B,) True for items with at least one region."""
        return self.mask.any(1)


class PairObjective(nn.Module):
    """Scores and the fine-grained loss of one pair of modalities, with its own sharpness and logit scales.

    Our reading of Wang and Karout (BMVC 2021): MIL-NCE (Miech et al., CVPR 2020, equation 1, here in both directions)
    over caption scores made of attended similarities, and beside it the same contrast of pooled embeddings.
    """

    def __init__(self, config: FgmmConfig):
        super().__init__()
        self.config = config
        self.log_sharpness = nn.Parameter(torch.empty(()))
        self.phrase_sharpness = nn.Parameter(torch.empty(()))
        self.logit_scale = nn.Parameter(torch.empty(()))
        self.coarse_logit_scale = nn.Parameter(torch.empty(()))

    def fine_scores(self, queries: Queries, keys: Keys) -> torch.Tensor:
        """Caption scores on the cosine's scale: (Bq, Bk, K)."""
        similarity = attended_similarity(
            queries.phrases,
            keys.regions,
            queries.mask,
            keys.mask,
            self.log_sharpness.exp(),
            self.config.scoring_implementation,
        )
        num_captions = queries.embeds.shape[1]
        return caption_scores(similarity, queries.captions, queries.mask, num_captions, self.phrase_sharpness)

    def coarse_scores(self, queries: Queries, keys: Keys) -> torch.Tensor:
        """Cosines of pooled embeddings: (Bq, Bk, K), float32 (float64 for float64 inputs)."""
        dtype = torch.promote_types(keys.embeds.dtype, torch.float32)
        with torch.autocast(keys.embeds.device.type, enabled=False):
            return torch.einsum("ikd,jd->ijk", queries.embeds.to(dtype), keys.embeds.to(dtype))

    def logits(self, queries: Queries, keys: Keys) -> torch.Tensor:
        """One fine score a pair, times the logit scale: (Bq, Bk).

        Of several captions, the mean of their odds; where a side is missing, the lowest possible score.
        """
        mask = queries.caption_mask.unsqueeze(1)
        logits = self.fine_scores(queries, keys) * scale(self.logit_scale)
        logits = masked_logsumexp(logits, mask, -1) - mask.sum(-1).clamp(min=1).log()
        return torch.where(mask.any(-1) & keys.present, logits, -scale(self.logit_scale))

    def forward(self, queries: Queries, keys: Keys) -> torch.Tensor:
        """Loss of the B items on this process, against all items of all processes: a number, 0 if no item has both."""
        present = queries.caption_mask.any(1) & keys.present
        gathered, offset = gather_queries(queries)
        fine = mil_nce_contrast(
            self.fine_scores(gathered, keys) * scale(self.logit_scale), gathered, keys, present, offset
        )
        coarse = mil_nce_contrast(
            self.coarse_scores(gathered, keys) * scale(self.coarse_logit_scale), gathered, keys, present, offset
        )
        return fine + self.config.coarse_loss_weight * coarse


def scale(logarithm: torch.Tensor) -> torch.Tensor:
    """The logit scale from its logarithm, at most 100."""
    return logarithm.clamp(max=MAX_LOGIT_SCALE).exp()


def mil_nce_contrast(
    logits: torch.Tensor, queries: Queries, keys: Keys, present: torch.Tensor, offset: int
) -> torch.Tensor:
    """MIL-NCE in both directions; with one caption an item, symmetric InfoNCE.

    An item's own captions share the numerator; all captions of all items stand in the denominator.

    Args:
        logits: (Bq, Bk, K) scores of all processes' captions against this process's items.
        queries: of all processes.
        keys: of this process.
        present: (Bk,) items of this process that have both modalities.
        offset: place of this process's first item among the queries.

    Returns:
        The sum of this process's terms over the mean number of terms a process, so that the mean over processes
        (which is what DistributedDataParallel makes of gradients) is the loss of the whole batch.
    """
    num_local = len(keys.regions)
    captions = queries.caption_mask.unsqueeze(1)  # (Bq, 1, K)
    over_captions = masked_logsumexp(logits, captions, -1)  # (Bq, Bk)
    own = over_captions[offset : offset + num_local].diagonal()

    has_caption = queries.caption_mask.any(1, keepdim=True)
    among_queries = masked_logsumexp(over_captions, has_caption, 0)  # (Bk,)
    among_local_keys = masked_logsumexp(over_captions, keys.present.unsqueeze(0), 1)  # (Bq,)
    among_keys = torch.logsumexp(gather_stacked(among_local_keys), 0)[offset : offset + num_local]

    terms = torch.where(present, 0.5 * (among_queries + among_keys) - own, 0.0)
    return terms.sum() / mean_over_processes(present.sum()).clamp(min=torch.finfo(torch.float32).tiny)


def masked_logsumexp(logits: torch.Tensor, mask: torch.Tensor, dim: int) -> torch.Tensor:
    """Log of the sum of exponentials over the kept entries; a very low finite number where none is kept."""
    return torch.logsumexp(logits.masked_fill(~mask, torch.finfo(logits.dtype).min / 4), dim)


def gather_queries(queries: Queries) -> tuple[Queries, int]:
    """The queries of all processes in the order of their ranks, and the place of this process's first one.

    Processes may hold different numbers of items, phrases and captions; shorter ones are padded.
    """
    if num_processes() == 1:
        return queries, 0
    device = queries.phrases.device
    sizes = gather_raw(torch.tensor([*queries.phrases.shape[:2], queries.embeds.shape[1]], device=device))
    items, phrases, captions = (sizes[:, axis] for axis in range(3))
    more_phrases = int(phrases.max()) - queries.phrases.shape[1]
    more_captions = int(captions.max()) - queries.embeds.shape[1]
    padded = replace(
        queries,
        phrases=F.pad(queries.phrases, (0, 0, 0, more_phrases)),
        mask=F.pad(queries.mask, (0, more_phrases)),
        captions=F.pad(queries.captions, (0, more_phrases)),
        embeds=F.pad(queries.embeds, (0, 0, 0, more_captions)),
        caption_mask=F.pad(queries.caption_mask, (0, more_captions)),
    )
    counts = items.tolist()
    gathered = {name: gather_items(value, counts) for name, value in vars(padded).items()}
    return Queries(**gathered), sum(counts[: dist.get_rank()])


def num_processes() -> int:
    """Processes that train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def gather_raw(tensor: torch.Tensor) -> torch.Tensor:
    """(processes, ...) the same-shaped tensors of all processes, without gradient."""
    gathered = [torch.empty_like(tensor) for _ in range(num_processes())]
    dist.all_gather(gathered, tensor.detach().contiguous())
    return torch.stack(gathered)


class _GatherStacked(torch.autograd.Function):
    """Gathers same-shaped tensors; the gradient is the sum of all processes' gradients for the own part."""

    @staticmethod
    def forward(ctx, tensor):
        return gather_raw(tensor)

    @staticmethod
    def backward(ctx, gradient):
        gradient = gradient.contiguous().clone()
        dist.all_reduce(gradient)
        return gradient[dist.get_rank()]


def gather_stacked(tensor: torch.Tensor) -> torch.Tensor:
    """(processes, ...) the same-shaped tensors of all processes; gradients flow back to each."""
    return _GatherStacked.apply(tensor) if num_processes() > 1 else tensor.unsqueeze(0)


def gather_items(tensor: torch.Tensor, counts: list[int]) -> torch.Tensor:
    """(sum of counts, ...) the items of all processes, end to end; gradients flow back to each.

    Args:
        tensor: (B, ...) this process's items, of the same shape elsewhere but for B.
        counts: items of each process.
    """
    padding = [0, 0] * (tensor.ndim - 1) + [0, max(counts) - len(tensor)]
    padded = F.pad(tensor, padding)
    stacked = gather_stacked(padded) if tensor.is_floating_point() else gather_raw(padded)
    return torch.cat([part[:count] for part, count in zip(stacked, counts, strict=True)])


def mean_over_processes(count: torch.Tensor) -> torch.Tensor:
    """Mean of a number over processes, without gradient."""
    return gather_stacked(count.detach().float()).mean(0)
