"""Scores of all pairs of queries and keys: by one score, or by the coarse one and re-ranked by the fine one."""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from tqdm import tqdm

from modeling_fgmm.loss_fgmm import PairObjective
from modeling_fgmm.scoring_fgmm import Keys, Queries

# Queries that are scored against all keys at once.
BLOCK_SIZE = 128
# Below every score: a pair of which one side is missing (no sound, no word) comes last.
MISSING = torch.finfo(torch.float32).min
# The highest score of pairs that are not re-ranked: below every fine score, so that they come after all that are.
MAX_UNRANKED = -2.0


@contextmanager
def clock(seconds: Counter, stage: str) -> Iterator[None]:
    """Adds the time that passes inside to `seconds[stage]`."""
    started = time.monotonic()
    yield
    seconds[stage] += time.monotonic() - started


def score_pairs(
    objective: PairObjective, queries: Queries, keys: Keys, score: str, rerank_k: int, seconds: Counter
) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores that rank the keys of each query, and scores that rank the queries of each key.

    The two differ only for `"coarse_then_fine"`: by the fine score are re-ranked the best `rerank_k` keys of each query
    in the former, the best `rerank_k` queries of each key in the latter. All others keep their coarse order after them.

    Args:
        objective: of the two modalities.
        queries: (Bq) of one caption each, on the objective's device.
        keys: (Bk) on the same device.
        score: see [`RetrievalSettings`].
        rerank_k: how many are re-ranked.
        seconds: the time is added to its stages coarse_scoring and fine_scoring.

    Returns:
        (Bq, Bk) float32 on the CPU, twice; `MISSING` where query or key is missing. For `"coarse_then_fine"` four
        such tensors and four of bool are held at once, else one of each.
    """
    missing = ~(queries.present.unsqueeze(1) & keys.present).cpu()
    if score != "coarse_then_fine":
        function = {"trained": objective.scores, "fine": objective.fine_scores, "coarse": objective.coarse_scores}
        is_fine = score == "fine" or (score == "trained" and objective.needs_phrases)
        with clock(seconds, "fine_scoring" if is_fine else "coarse_scoring"):
            scores = score_all(function[score], queries, keys).masked_fill_(missing, MISSING)
        return scores, scores
    with clock(seconds, "coarse_scoring"):
        coarse = score_all(objective.coarse_scores, queries, keys).masked_fill_(missing, MISSING)
        best = [best_of(coarse, rerank_k, dim) & ~missing for dim in (1, 0)]
    with clock(seconds, "fine_scoring"):
        fine = score_some(objective.fine_scores, queries, keys, best[0] | best[1])
    others = coarse.add_(MAX_UNRANKED - coarse.max()).masked_fill_(missing, MISSING)
    return torch.where(best[0], fine, others), torch.where(best[1], fine, others)


def score_all(function: Callable, queries: Queries, keys: Keys) -> torch.Tensor:
    """(Bq, Bk) float32 scores of all pairs, on the CPU; a block of queries at once.

    Args:
        function: [`Queries`] (b) and [`Keys`] (Bk) to their (b, Bk, 1) scores.
    """
    scores = torch.empty(len(queries.mask), len(keys.mask))
    for first in tqdm(range(0, len(scores), BLOCK_SIZE), desc="Scoring", unit="block", leave=False):
        rows = slice(first, first + BLOCK_SIZE)
        scores[rows] = function(queries.select(rows).without_padding(), keys).squeeze(-1)
    return scores


def best_of(scores: torch.Tensor, number: int, dim: int) -> torch.Tensor:
    """(Bq, Bk) True for the `number` highest of the scores (Bq, Bk) along the axis `dim`."""
    places = scores.topk(min(number, scores.shape[dim]), dim=dim).indices
    return torch.zeros_like(scores, dtype=torch.bool).scatter_(dim, places, True)


def score_some(function: Callable, queries: Queries, keys: Keys, wanted: torch.Tensor) -> torch.Tensor:
    """Scores of the wanted pairs: key by key, each with all queries that want it at once.

    So regions, which are many, stay where they are, and only phrases, which are few, are copied. Work: with k keys
    for each query and k queries for each key at most k·(Bq + Bk) pairs in place of Bq·Bk. On a CPU a pair of 16
    regions takes 5 times as long as among all pairs, because of the copying, one of 196 regions no longer. Memory
    beside the scores: the phrases of the queries of one key.

    Args:
        function: as in [`score_all`].
        wanted: (Bq, Bk) bool, on the CPU.

    Returns:
        (Bq, Bk) float32 on the CPU; 0 for pairs that are not wanted.
    """
    scores = torch.zeros(wanted.shape)
    for column in tqdm(range(len(keys.mask)), desc="Re-ranking", unit="item", leave=False):
        rows = wanted[:, column].nonzero().squeeze(1)
        if len(rows):
            chosen = queries.select(rows.to(queries.mask.device)).without_padding()
            scores[rows, column] = function(chosen, keys.select(slice(column, column + 1))).flatten().cpu()
    return scores
