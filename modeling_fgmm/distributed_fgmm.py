"""Communication between the processes that train together: gathers with gradients, of uneven sizes, and means."""

from dataclasses import replace

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch.distributed import _functional_collectives as collectives

from .scoring_fgmm import Queries


def num_processes() -> int:
    """The number of processes that train together, 1 without torch.distributed."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def gather_stacked(tensor: torch.Tensor) -> torch.Tensor:
    """The tensors of all processes, which have one shape: (...) -> (processes, ...).

    In the backward pass each process's tensor gets the sum of the gradients that all processes have for it.
    """
    if num_processes() == 1:
        return tensor.unsqueeze(0)
    return collectives.all_gather_single(tensor.unsqueeze(0).contiguous(), 0, dist.group.WORLD)


def gather_items(tensor: torch.Tensor, counts: list[int]) -> torch.Tensor:
    """The items of all processes, end to end: (B, ...) -> (sum of counts, ...). Gradients flow back to each process.

    Args:
        tensor: this process's items; only B may differ between processes.
        counts: B of each process.
    """
    padding = [0, 0] * (tensor.ndim - 1) + [0, max(counts) - len(tensor)]
    stacked = gather_stacked(F.pad(tensor, padding))
    return torch.cat([part[:count] for part, count in zip(stacked, counts, strict=True)])


def gather_queries(queries: Queries) -> tuple[Queries, int]:
    """Gathers the queries of all processes.

    Processes may hold different numbers of items (B), phrases (M) and captions (K); they are padded to the largest.

    Returns:
        All queries in the order of the ranks, and the index of this process's first one.
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
    """The mean of a count over the processes, element by element, without gradient: (...) -> (...)."""
    return gather_stacked(count.detach().to(torch.promote_types(count.dtype, torch.float32))).mean(0)
