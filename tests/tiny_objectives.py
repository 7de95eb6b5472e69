"""Objectives, queries and keys that are small and random, and their scores in plain steps."""

import math

import torch

from modeling_fgmm import FgmmConfig
from modeling_fgmm.loss_fgmm import OBJECTIVES, PairObjective
from modeling_fgmm.scoring_fgmm import Keys, Queries


def unit_vectors(generator: torch.Generator, *shape: int, dtype=torch.float64) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.randn(*shape, generator=generator, dtype=dtype), dim=-1)


def make_scoring_inputs(num_queries, num_phrases, num_keys, num_regions, dim, dtype=torch.float64, seed=0):
    """Random queries (Bq, M, D), keys (Bk, N, D) and their masks."""
    generator = torch.Generator().manual_seed(seed)
    query_mask = torch.rand(num_queries, num_phrases, generator=generator) < 0.7
    key_mask = torch.rand(num_keys, num_regions, generator=generator) < 0.7
    queries = unit_vectors(generator, num_queries, num_phrases, dim, dtype=dtype)
    return queries, unit_vectors(generator, num_keys, num_regions, dim, dtype=dtype), query_mask, key_mask


def plain_similarity(queries, keys, query_mask, key_mask, sharpness) -> torch.Tensor:
    """The formula of attended similarity with loops: what every implementation must give."""
    result = queries.new_zeros(len(queries), len(keys), queries.shape[1])
    for i, j, m in torch.cartesian_prod(*(torch.arange(size) for size in result.shape)).view(-1, 3).tolist():
        kept = keys[j][key_mask[j]]
        if not query_mask[i, m] or not len(kept):
            continue
        cosines = kept @ queries[i, m]
        if sharpness == math.inf:
            result[i, j, m] = cosines.max()
            continue
        weights = torch.exp(sharpness * cosines - (sharpness * cosines).max().detach())
        result[i, j, m] = (weights * cosines).sum() / weights.sum()
    return result


def gradients_of(function, queries, keys, query_mask, key_mask, sharpness):
    """The result, and the gradients of queries, keys and sharpness for a fixed random upstream gradient."""
    gamma = torch.tensor(sharpness, dtype=torch.promote_types(keys.dtype, torch.float32))
    tensors = [tensor.clone().requires_grad_() for tensor in (queries, keys, gamma)]
    result = function(tensors[0], tensors[1], query_mask, key_mask, tensors[2])
    upstream = torch.randn(result.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    if result.requires_grad:  # the plain formula is a constant where every query is masked
        result.backward(upstream.to(result))
    return result.detach(), [torch.zeros_like(t) if t.grad is None else t.grad for t in tensors]


# The parameters of objectives in tests, and options of the fine one.
SHARPNESS, DELTA, LOGIT_SCALE, BIAS = 5.0, 1.5, 2.0, -3.0
GATE = torch.linspace(-0.2, 0.3, 8, dtype=torch.float64)
WHOLE_GATE = torch.linspace(0.25, -0.1, 8, dtype=torch.float64)
# Every objective, and every option that changes its loss.
OBJECTIVE_VARIANTS = {
    **{name: {"objective": name} for name in OBJECTIVES},
    **{f"{name}, gce": {"objective": name, "gce_q": 0.4} for name in OBJECTIVES if name != "siglip"},
    "without gates": {"phrase_gates": False},
    "without whole captions": {"whole_captions": False},
    "fixed": {"learnable_sharpness": False, "learnable_phrase_sharpness": False},
}


def make_objective(objective: str = "fine", **options) -> PairObjective:
    """An objective in float64 with parameters that make every part of it count."""
    if objective == "fine":
        options = {"coarse_loss_weight": 0.3, **options}
    config = FgmmConfig(objective=objective, projection_dim=len(GATE), **options)
    made = OBJECTIVES[objective](config).double()
    values = {"log_sharpness": math.log(SHARPNESS), "phrase_sharpness": DELTA, "logit_bias": BIAS}
    with torch.no_grad():
        for name, parameter in (*made.named_parameters(), *made.named_buffers()):
            parameter.fill_(values.get(name, LOGIT_SCALE))
            if name.endswith("_gate"):
                parameter.copy_({"phrase_gate": GATE, "whole_gate": WHOLE_GATE}[name])
    return made


def make_items(number=5, num_phrases=4, num_captions=2, num_regions=6):
    """Random items: the second has no text, the fourth no regions, some captions are missing.

    Returns:
        Phrases (B, M, D), caption embeds (B, K, D), regions (B, N, D), embeds (B, D); and the phrases' mask and
        captions (B, M), the captions' mask (B, K), the regions' mask (B, N).
    """
    generator, dim = torch.Generator().manual_seed(0), len(GATE)
    mask = torch.rand(number, num_phrases, generator=generator) < 0.8
    mask[:, 0], mask[1] = True, False
    captions = torch.randint(0, num_captions, (number, num_phrases), generator=generator).masked_fill(~mask, 0)
    belongs = torch.nn.functional.one_hot(captions, num_captions).bool() & mask.unsqueeze(-1)
    region_mask = torch.rand(number, num_regions, generator=generator) < 0.8
    region_mask[:, 0], region_mask[3] = True, False
    shapes = ((number, num_phrases), (number, num_captions), (number, num_regions), (number,))
    tensors = [unit_vectors(generator, *shape, dim) for shape in shapes]
    return tensors, (mask, captions, belongs.any(1), region_mask)


def make_pair(tensors, masks, rows=slice(None)) -> tuple[Queries, Keys]:
    """Queries and keys of some of the items."""
    phrases, caption_embeds, regions, embeds = (tensor[rows] for tensor in tensors)
    mask, captions, caption_mask, region_mask = (tensor[rows] for tensor in masks)
    return Queries(phrases, mask, captions, caption_embeds, caption_mask), Keys(regions, region_mask, embeds)
