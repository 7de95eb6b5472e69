"""Gathers and means across the processes that train together, of uneven sizes too; gradients flow back to each."""

from dataclasses import replace

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch.distributed import _functional_collectives as collectives

from .scoring_fgmm import Queries


def num_processes() -> int:
    """Processes that train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def gather_stacked(tensor: torch.Tensor) -> torch.Tensor:
    """(processes, ...) the same-shaped tensors of all processes; the gradient is summed over all processes."""
    if num_processes() == 1:
        return tensor.unsqueeze(0)
    gather = collectives.all_gather_single_autograd if tensor.requires_grad else collectives.all_gather_single
    return gather(tensor.unsqueeze(0).contiguous(), 0, dist.group.WORLD)


def gather_items(tensor: torch.Tensor, counts: list[int]) -> torch.Tensor:
    """(sum of counts, ...) the items of all processes, end to end; gradients flow back to each.

    Args:
        tensor: (B, ...) this process's items, of the same shape elsewhere but for B.
        counts: items of each process.
    """
    padding = [0, 0] * (tensor.ndim - 1) + [0, max(counts) - len(tensor)]
    stacked = gather_stacked(F.pad(tensor, padding))
    return torch.cat([part[:count] for part, count in zip(stacked, counts, strict=True)])


def gather_queries(queries: Queries) -> tuple[Queries, int]:
    """The queries of all processes in the order of their ranks, and the index of this process's first one.

    Processes may hold different numbers of items (B), phrases (M) and captions (K); shorter ones are padded.
    """
    if num_processes() == 1:
        return queries, 0
    shape = [*queries.phrases.shape[:2], queries.embeds.shape[1]]
    items, phrases, captions = gather_stacked(torch.tensor(shape, device=queries.phrases.device)).unbind(1)
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
    return padded.map(lambda tensor: gather_items(tensor, counts)), sum(counts[: dist.get_rank()])


def mean_over_processes(count: torch.Tensor) -> torch.Tensor:
    """Mean of a number over processes, without gradient."""
    return gather_stacked(count.detach().to(torch.promote_types(count.dtype, torch.float32))).mean(0)
