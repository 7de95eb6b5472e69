"""Attended similarity and pair scores: how much a phrase finds among the regions of a clip.

The plain tensor of all cosines is (Bq·M) x (Bk·N). `reference` makes it; `tiled` never holds more than a tile of it
and recomputes tiles in the backward pass. Both give the same values and the same gradients.
"""

import torch

# Cosines in one tile (float32: 8 MB, so that a tile and its softmax stay in a CPU's cache).
TILE_SIZE = 2**21


def attended_similarity(
    queries: torch.Tensor,
    keys: torch.Tensor,
    query_mask: torch.Tensor | None = None,
    key_mask: torch.Tensor | None = None,
    sharpness: torch.Tensor | float = 1.0,
    implementation: str = "auto",
) -> torch.Tensor:
    """Similarity of each query with each item's keys, the keys weighted by attention.

    For query m of item i and the keys n of item j, with S = q_im · k_jn:
    a_n = softmax over n of γ·S_n, and the result is the sum over n of a_n·S_n. γ = 0 gives the mean over the keys,
    γ to infinity the maximum (FILIP, ColBERT).

    Args:
        queries: (Bq, M, D), L2-normalised.
        keys: (Bk, N, D), L2-normalised.
        query_mask: (Bq, M) False for padding, or None.
        key_mask: (Bk, N) False for padding, or None.
        sharpness: γ, a number or a tensor of one element, not negative.
        implementation: `"reference"` (one einsum, any size of memory), `"tiled"`, or `"auto"` (reference where all
            cosines fit one tile, else tiled).

    Returns:
        (Bq, Bk, M) float32 (float64 for float64 inputs). Masked queries and items without any key give 0, and what
        stands under a mask has no influence on values or gradients.

    Raises:
        ValueError: for an unknown implementation.
    """
    dtype = torch.promote_types(queries.dtype, torch.float32)
    with torch.autocast(queries.device.type, enabled=False):
        query_mask = queries.new_ones(queries.shape[:2], dtype=torch.bool) if query_mask is None else query_mask.bool()
        key_mask = keys.new_ones(keys.shape[:2], dtype=torch.bool) if key_mask is None else key_mask.bool()
        queries = queries.to(dtype).masked_fill(~query_mask.unsqueeze(-1), 0.0)
        keys = keys.to(dtype).masked_fill(~key_mask.unsqueeze(-1), 0.0)
        sharpness = torch.as_tensor(sharpness, dtype=dtype, device=queries.device)
        if implementation == "auto":
            num_cosines = query_mask.numel() * key_mask.numel()
            implementation = "reference" if num_cosines <= TILE_SIZE else "tiled"
        if implementation == "reference":
            similarity = _reference(queries, keys, key_mask, sharpness)
        elif implementation == "tiled":
            similarity = _TiledAttendedSimilarity.apply(queries, keys, key_mask, sharpness)
        else:
            raise ValueError(f"implementation={implementation!r} is none of 'auto', 'reference', 'tiled'.")
        return similarity * query_mask.unsqueeze(1)


def _reference(
    queries: torch.Tensor, keys: torch.Tensor, key_mask: torch.Tensor, sharpness: torch.Tensor
) -> torch.Tensor:
    cosines = torch.einsum("imd,jnd->ijmn", queries, keys)
    attention = _attention(cosines, key_mask[None, :, None, :], sharpness)
    return (attention * cosines).sum(-1)


def _attention(cosines: torch.Tensor, key_mask: torch.Tensor, sharpness: torch.Tensor) -> torch.Tensor:
    """softmax over the last axis of γ·S among the kept keys; where none is kept, over keys that are all zero."""
    return (sharpness * cosines).masked_fill(~key_mask, torch.finfo(cosines.dtype).min).softmax(-1)


class _TiledAttendedSimilarity(torch.autograd.Function):
    """Tile by tile over items of keys and of queries.

    With a the attention and s the result, the gradients are closed: ds/dS_n = a_n·(1 + γ·(S_n − s)) and
    ds/dγ = Σ_n a_n·S_n² − s².
    """

    @staticmethod
    def forward(ctx, queries, keys, key_mask, sharpness):
        similarity = queries.new_empty(len(queries), len(keys), queries.shape[1])
        for rows, columns in _tiles(queries, keys):
            cosines = torch.einsum("imd,jnd->ijmn", queries[rows], keys[columns])
            attention = _attention(cosines, key_mask[None, columns, None, :], sharpness)
            similarity[rows, columns] = (attention * cosines).sum(-1)
        ctx.save_for_backward(queries, keys, key_mask, sharpness, similarity)
        return similarity

    @staticmethod
    def backward(ctx, gradient):
        queries, keys, key_mask, sharpness, similarity = ctx.saved_tensors
        queries_grad, keys_grad = torch.zeros_like(queries), torch.zeros_like(keys)
        sharpness_grad = torch.zeros_like(sharpness)
        for rows, columns in _tiles(queries, keys):
            cosines = torch.einsum("imd,jnd->ijmn", queries[rows], keys[columns])
            attention = _attention(cosines, key_mask[None, columns, None, :], sharpness)
            result = similarity[rows, columns].unsqueeze(-1)
            upstream = gradient[rows, columns].unsqueeze(-1)
            weighted = attention * upstream
            sharpness_grad += (weighted * cosines * (cosines - result)).sum()
            cosines_grad = weighted * (1 + sharpness * (cosines - result))
            queries_grad[rows] += torch.einsum("ijmn,jnd->imd", cosines_grad, keys[columns])
            keys_grad[columns] += torch.einsum("ijmn,imd->jnd", cosines_grad, queries[rows])
        return queries_grad, keys_grad, None, sharpness_grad


def _tiles(queries: torch.Tensor, keys: torch.Tensor):
    """Slices of query items and key items whose cosines number about TILE_SIZE."""
    per_pair = max(1, queries.shape[1] * keys.shape[1])
    columns = max(1, min(len(keys), int((TILE_SIZE / per_pair) ** 0.5)))
    rows = max(1, TILE_SIZE // (per_pair * columns))
    for row in range(0, len(queries), rows):
        for column in range(0, len(keys), columns):
            yield slice(row, row + rows), slice(column, column + columns)


def caption_scores(
    similarity: torch.Tensor,
    phrase_captions: torch.Tensor,
    phrase_mask: torch.Tensor,
    num_captions: int,
    phrase_sharpness: torch.Tensor | float = 0.0,
) -> torch.Tensor:
    """Score of each caption: its phrases' similarities, weighted by a softmax of δ times themselves.

    Args:
        similarity: (Bq, Bk, M) from [`attended_similarity`].
        phrase_captions: (Bq, M) index of the caption that a phrase belongs to, in 0..K-1.
        phrase_mask: (Bq, M) False for padding.
        num_captions: K.
        phrase_sharpness: δ; 0 gives the mean over a caption's phrases.

    Returns:
        (Bq, Bk, K) in the dtype of `similarity`; 0 for a caption without phrases.
    """
    num_queries, num_keys, _ = similarity.shape
    membership = torch.nn.functional.one_hot(phrase_captions.clamp(0, num_captions - 1), num_captions)
    membership = (membership.bool() & phrase_mask.bool().unsqueeze(-1)).to(similarity.dtype)  # (Bq, M, K)
    logits = phrase_sharpness * similarity
    # Each caption's own maximum is taken off, so that no caption's weights vanish beside another's.
    index = phrase_captions.clamp(0, num_captions - 1).unsqueeze(1).expand(-1, num_keys, -1)
    lowest = torch.finfo(similarity.dtype).min
    masked = logits.detach().masked_fill(~phrase_mask.bool().unsqueeze(1), lowest)
    maxima = logits.new_full((num_queries, num_keys, num_captions), lowest)
    maxima = maxima.scatter_reduce(2, index, masked, reduce="amax")
    weights = torch.exp((logits - maxima.gather(2, index)).clamp(max=0.0)) * phrase_mask.unsqueeze(1)
    total = torch.einsum("ijm,imk->ijk", weights, membership)
    return torch.einsum("ijm,imk->ijk", weights * similarity, membership) / total.clamp(min=1.0)


def pair_scores(
    queries: torch.Tensor,
    keys: torch.Tensor,
    query_mask: torch.Tensor | None = None,
    key_mask: torch.Tensor | None = None,
    sharpness: torch.Tensor | float = 1.0,
    phrase_sharpness: torch.Tensor | float = 0.0,
    implementation: str = "auto",
) -> torch.Tensor:
    """One score for each pair of items, all queries of an item taken as one caption.

    Args:
        queries, keys, query_mask, key_mask, sharpness, implementation: as in [`attended_similarity`].
        phrase_sharpness: δ, as in [`caption_scores`].

    Returns:
        (Bq, Bk) float32 (float64 for float64 inputs).
    """
    similarity = attended_similarity(queries, keys, query_mask, key_mask, sharpness, implementation)
    if query_mask is None:
        query_mask = queries.new_ones(queries.shape[:2], dtype=torch.bool)
    one_caption = torch.zeros_like(query_mask, dtype=torch.long)
    return caption_scores(similarity, one_caption, query_mask, 1, phrase_sharpness).squeeze(-1)
