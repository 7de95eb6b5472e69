"""Scores of every query with every item, all by one score, or coarsely first and then finely for the best alone."""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from tqdm import tqdm

from modeling_fgmm.loss_fgmm import PairObjective
from modeling_fgmm.scoring_fgmm import Keys, Queries

# Queries that are encoded, or scored against all items, at once.
BLOCK_SIZE = 128
# Below every cosine: an item without the modality, or a text without a word, comes last.
MISSING = -5.0
# What is not scored finely stands behind all that is: cosines less this.
BEHIND = 2.5


@contextmanager
def clock(seconds: Counter, stage: str) -> Iterator[None]:
    """Adds to a stage the time that passes inside."""
    started = time.monotonic()
    yield
    seconds[stage] += time.monotonic() - started


def score_pairs(
    objective: PairObjective, queries: Queries, keys: Keys, score: str, rerank_k: int, seconds: Counter
) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores for finding items by queries, and for finding queries by items.

    Only `"coarse_then_fine"` makes a difference between the two: the best `rerank_k` items of each query, by the coarse
    score, are scored finely for the former, the best `rerank_k` queries of each item for the latter. What is not among
    them keeps its coarse order behind them.

    Args:
        objective: of the two modalities.
        queries: of one caption each (Bq), on the objective's device.
        keys: of the items (Bk), on the same device.
        score: `"trained"`, `"fine"`, `"coarse"` or `"coarse_then_fine"`.
        rerank_k: how many are scored finely.
        seconds: the time is added to its stages coarse_scoring and fine_scoring.

    Returns:
        (Bq, Bk) float32 on the CPU, twice; `MISSING` where either side is missing. For `"coarse_then_fine"` four
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
    behind = coarse.sub_(BEHIND).masked_fill_(missing, MISSING)
    return torch.where(best[0], fine, behind), torch.where(best[1], fine, behind)


def score_all(function: Callable, queries: Queries, keys: Keys) -> torch.Tensor:
    """(Bq, Bk) scores of all pairs on the CPU, a block of queries at once."""
    scores = torch.empty(len(queries.mask), len(keys.mask))
    for first in tqdm(range(0, len(scores), BLOCK_SIZE), desc="Scoring", unit="block", leave=False):
        rows = slice(first, first + BLOCK_SIZE)
        scores[rows] = function(queries.select(rows).without_padding(), keys).squeeze(-1)
    return scores


def best_of(scores: torch.Tensor, number: int, dim: int) -> torch.Tensor:
    """(Bq, Bk) True for the `number` highest scores along an axis."""
    places = scores.topk(min(number, scores.shape[dim]), dim=dim).indices
    return torch.zeros_like(scores, dtype=torch.bool).scatter_(dim, places, True)


def score_some(function: Callable, queries: Queries, keys: Keys, wanted: torch.Tensor) -> torch.Tensor:
    """Scores of the pairs that are wanted: item by item, with all the queries that want it at once.

    So regions, which are many, stay where they are, and only phrases, which are few, are copied. Work: with k items
    for each query and k queries for each item at most k·(Bq + Bk) pairs in place of Bq·Bk. On a CPU a pair of 16
    regions takes 5 times as long as among all pairs, because of the copying, one of 196 regions no longer. Memory
    beside the scores: the phrases of the queries of one item.

    Args:
        wanted: (Bq, Bk) bool, on the CPU.

    Returns:
        (Bq, Bk) float32 on the CPU; 0 for pairs that are not wanted.
    """
    scores = torch.zeros(wanted.shape)
    for item in tqdm(range(len(keys.mask)), desc="Scoring the best", unit="item", leave=False):
        rows = wanted[:, item].nonzero().squeeze(1)
        if len(rows):
            chosen = queries.select(rows.to(queries.mask.device)).without_padding()
            scores[rows, item] = function(chosen, keys.select(slice(item, item + 1))).flatten().cpu()
    return scores
