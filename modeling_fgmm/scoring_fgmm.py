"""Queries and keys, attended similarity of phrases with regions, and the scores of captions and pairs made of it.

The plain tensor of all cosines is (Bq·M) x (Bk·N). `reference` builds it; `tiled` never holds more than a tile of it
and recomputes tiles in the backward pass; `triton` (kernels_fgmm) keeps tiles in a GPU's on-chip memory. All give the
same values and gradients.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import torch
import torch.nn.functional as F
from torch.autograd.function import once_differentiable
from torch.nn.utils.rnn import pad_sequence

from .kernels_fgmm import TritonAttendedSimilarity, is_supported

# Cosines in one tile (1 MB of float32, so that a tile stays in a core's cache).
TILE_SIZE = 2**18


class PairInputs:
    """Base of queries and keys: tensors whose first axis is the batch (B)."""

    def map(self, function: Callable[[torch.Tensor], torch.Tensor]) -> "PairInputs":
        """A copy with a function applied to each tensor."""
        return type(self)(**{field.name: function(getattr(self, field.name)) for field in fields(self)})

    def to(self, *args, **kwargs) -> "PairInputs":
        """As `torch.Tensor.to`; accelerate calls it to move inputs to the objective's device."""
        return self.map(lambda tensor: tensor.to(*args, **kwargs))

    def select(self, rows: torch.Tensor | slice) -> "PairInputs":
        """The items of some rows: (B,) bool, (rows,) indices, or a slice."""
        return self.map(lambda tensor: tensor[rows])

    @classmethod
    def concatenate(cls, pieces: list["PairInputs"]) -> "PairInputs":
        """One batch of several, padded to the largest number of phrases, regions or captions."""
        rows = {field.name: [row for piece in pieces for row in getattr(piece, field.name)] for field in fields(cls)}
        return cls(**{name: pad_sequence(tensors, batch_first=True) for name, tensors in rows.items()})


@dataclass
class Keys(PairInputs):
    """Videos or sounds.

    regions (B, N, D), L2-normalised, and their mask (B, N), False for padding; embeds (B, D), one pooled, L2-normalised
    embedding an item.
    """

    regions: torch.Tensor
    mask: torch.Tensor
    embeds: torch.Tensor

    @property
    def present(self) -> torch.Tensor:
        """(B,) True for items with at least one region."""
        return self.mask.any(1)

    def join_windows(self, counts: list[int]) -> "Keys":
        """Merges the windows of each item: their regions end to end, padded, and the normalised mean of `embeds`.

        Args:
            counts: number of windows of each item, in the order of the rows.
        """
        if max(counts) == 1:
            return self
        return Keys(
            pad_sequence([regions.flatten(0, 1) for regions in self.regions.split(counts)], batch_first=True),
            pad_sequence([mask.flatten() for mask in self.mask.split(counts)], batch_first=True),
            torch.stack([F.normalize(embeds.sum(0), dim=0) for embeds in self.embeds.split(counts)]),
        )


@dataclass
class Queries(PairInputs):
    """Texts; or sounds, as queries over videos.

    phrases (B, M, D), L2-normalised, and their mask (B, M), False for padding; captions (B, M), the index of each
    phrase's candidate caption in 0..K-1; embeds (B, K, D), one pooled, L2-normalised embedding a caption, and
    caption_mask (B, K), False where an item has no such caption.
    """

    phrases: torch.Tensor
    mask: torch.Tensor
    captions: torch.Tensor
    embeds: torch.Tensor
    caption_mask: torch.Tensor

    @classmethod
    def from_keys(cls, keys: Keys) -> "Queries":
        """Sounds as queries: each sound is one caption, its regions are the phrases."""
        return cls(
            phrases=keys.regions,
            mask=keys.mask,
            captions=torch.zeros_like(keys.mask, dtype=torch.long),
            embeds=keys.embeds.unsqueeze(1),
            caption_mask=keys.present.unsqueeze(1),
        )

    @property
    def present(self) -> torch.Tensor:
        """(B,) True for items with at least one caption."""
        return self.caption_mask.any(1)

    def with_whole_captions(self) -> "Queries":
        """With each whole caption as one more of its phrases: the K pooled embeddings follow the M phrases."""
        indices = torch.arange(self.embeds.shape[1], device=self.captions.device).expand(len(self.captions), -1)
        return replace(
            self,
            phrases=torch.cat([self.phrases, self.embeds], dim=1),
            mask=torch.cat([self.mask, self.caption_mask], dim=1),
            captions=torch.cat([self.captions, indices], dim=1),
        )

    def without_phrases(self) -> "Queries":
        """The pooled embeddings of the captions alone (M = 0)."""
        return replace(self, phrases=self.phrases[:, :0], mask=self.mask[:, :0], captions=self.captions[:, :0])

    def without_padding(self) -> "Queries":
        """Without the columns of (B, M) in which all items have padding."""
        used = self.mask.any(0)
        return replace(self, phrases=self.phrases[:, used], mask=self.mask[:, used], captions=self.captions[:, used])


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
    γ = `math.inf` the maximum (FILIP, ColBERT).

    Args:
        queries: (Bq, M, D), L2-normalised.
        keys: (Bk, N, D), L2-normalised.
        query_mask: (Bq, M) False for padding, or None.
        key_mask: (Bk, N) False for padding, or None.
        sharpness: γ, at least 0: a number, or a finite tensor of one element, which then gets its gradient.
        implementation: `"reference"` (holds all cosines), `"tiled"` (any device), `"triton"` (CUDA; products in the
            inputs' dtype, under autocast in its dtype), or `"auto"`: triton where it can be used, reference where all
            cosines fit one tile, else tiled.

    Returns:
        (Bq, Bk, M) float32 (float64 for float64 inputs); 0 for masked queries and for items without any key. Masked
        vectors change neither values nor gradients.

    Raises:
        ValueError: for an unknown implementation, or one that cannot take these inputs.
    """
    device_type = queries.device.type
    dtype = torch.promote_types(queries.dtype, keys.dtype)
    if torch.is_autocast_enabled(device_type) and dtype == torch.float32:
        dtype = torch.get_autocast_dtype(device_type)
    if implementation == "auto":
        implementation = choose_implementation(queries, keys, dtype, is_hard(sharpness))
    if implementation != "triton":
        dtype = torch.promote_types(torch.promote_types(queries.dtype, keys.dtype), torch.float32)
    with torch.autocast(device_type, enabled=False):
        queries, keys, key_mask = _prepare(queries, keys, query_mask, key_mask, dtype)
        if implementation == "reference":
            similarity = _reference(queries, keys, key_mask, sharpness)
        elif implementation == "tiled":
            gamma = torch.as_tensor(sharpness, dtype=dtype, device=queries.device)
            similarity = _TiledAttendedSimilarity.apply(queries, keys, key_mask, gamma, is_hard(sharpness))
        elif implementation == "triton":
            if is_hard(sharpness) or not is_supported(queries, dtype):
                raise ValueError(
                    "implementation='triton' needs Triton, a CUDA device, a finite sharpness, at most 512 dimensions "
                    "and no float64; use 'auto'."
                )
            gamma = torch.as_tensor(sharpness, dtype=torch.float32, device=queries.device)
            similarity = TritonAttendedSimilarity.apply(queries, keys, key_mask, gamma)
        else:
            raise ValueError(f"implementation={implementation!r} is none of 'auto', 'reference', 'tiled', 'triton'.")
        return similarity if query_mask is None else similarity * query_mask.unsqueeze(1)


def region_attention(
    queries: torch.Tensor,
    keys: torch.Tensor,
    query_mask: torch.Tensor | None = None,
    key_mask: torch.Tensor | None = None,
    sharpness: torch.Tensor | float = 1.0,
) -> torch.Tensor:
    """The weights a_n of [`attended_similarity`] for each item's keys, materialised as one tensor.

    Args:
        queries, keys, query_mask, key_mask, sharpness: as in [`attended_similarity`].

    Returns:
        (Bq, Bk, M, N) float32 (float64 for float64 inputs), which sum to 1 over N; 0 for masked queries, masked keys
        and items without any key. γ = `math.inf` gives 1 to the best key (the first of equals) and 0 to the others.
    """
    dtype = torch.promote_types(torch.promote_types(queries.dtype, keys.dtype), torch.float32)
    with torch.autocast(queries.device.type, enabled=False):
        queries, keys, key_mask = _prepare(queries, keys, query_mask, key_mask, dtype)
        cosines = torch.einsum("imd,jnd->ijmn", queries, keys)
        attention = _attention(cosines, key_mask, sharpness) * key_mask[None, :, None, :]
        return attention if query_mask is None else attention * query_mask[:, None, :, None]


def _prepare(
    queries: torch.Tensor,
    keys: torch.Tensor,
    query_mask: torch.Tensor | None,
    key_mask: torch.Tensor | None,
    dtype: torch.dtype,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Queries (Bq, M, D) and keys (Bk, N, D) in a dtype, 0 where masked, and the keys' mask (Bk, N), bool."""
    queries, keys = queries.to(dtype), keys.to(dtype)
    if query_mask is not None:
        queries = queries.masked_fill(~query_mask.bool().unsqueeze(-1), 0.0)
    if key_mask is None:
        return queries, keys, keys.new_ones(keys.shape[:2], dtype=torch.bool)
    key_mask = key_mask.bool()
    return queries, keys.masked_fill(~key_mask.unsqueeze(-1), 0.0), key_mask


def choose_implementation(queries: torch.Tensor, keys: torch.Tensor, dtype: torch.dtype, hard: bool) -> str:
    """The fastest implementation for queries (Bq, M, D) and keys (Bk, N, D) multiplied in this dtype."""
    if queries.is_cuda and not hard and is_supported(queries, dtype):
        return "triton"
    return "reference" if queries[..., 0].numel() * keys[..., 0].numel() <= TILE_SIZE else "tiled"


def is_hard(sharpness: torch.Tensor | float) -> bool:
    """Whether the attention is the hard maximum."""
    return not isinstance(sharpness, torch.Tensor) and math.isinf(sharpness)


def _reference(
    queries: torch.Tensor, keys: torch.Tensor, key_mask: torch.Tensor, sharpness: torch.Tensor | float
) -> torch.Tensor:
    """Queries (Bq, M, D) and keys (Bk, N, D) with their mask (Bk, N) -> (Bq, Bk, M)."""
    cosines = torch.einsum("imd,jnd->ijmn", queries, keys)
    return (_attention(cosines, key_mask, sharpness) * cosines).sum(-1)


def _attention(cosines: torch.Tensor, key_mask: torch.Tensor, sharpness: torch.Tensor | float) -> torch.Tensor:
    """Cosines (Bq, Bk, M, N) and the keys' mask (Bk, N) -> weights (Bq, Bk, M, N), which sum to 1 over N.

    Weights of an item without keys are arbitrary; its cosines are 0.
    """
    masked = ~key_mask[None, :, None, :]
    lowest = torch.finfo(cosines.dtype).min
    if is_hard(sharpness):
        best = cosines.masked_fill(masked, lowest).argmax(-1, keepdim=True)
        return torch.zeros_like(cosines).scatter_(-1, best, 1.0)
    return (sharpness * cosines).masked_fill(masked, lowest).softmax(-1)


class _TiledAttendedSimilarity(torch.autograd.Function):
    """Attended similarity tile by tile over items of queries and keys: one matrix product, then passes in place.

    With a the attention and s the result, the gradients are closed: ds/dS_n = a_n·(1 + γ·(S_n − s)) and
    ds/dγ = Σ_n a_n·(S_n − s)². The hard maximum has a of 0 and 1, and no second term.
    """

    @staticmethod
    def forward(ctx, queries, keys, key_mask, gamma, hard):
        """Queries (Bq, M, D), keys (Bk, N, D), key_mask (Bk, N) bool, gamma of one element -> (Bq, Bk, M)."""
        num_queries, num_phrases, _ = queries.shape
        masked = not bool(key_mask.all())
        similarity = queries.new_empty(num_queries, num_phrases, len(keys))
        # The softmax's maximum and total are kept apart: one logarithm of both would be rounded where logits are large.
        # Of the hard maximum the index is kept.
        maximum, total = torch.empty_like(similarity), None if hard else torch.empty_like(similarity)
        for rows, columns in _tiles(queries, keys):
            cosines = _cosines(queries[rows], keys[columns])
            dropped = ~key_mask[columns] if masked else None
            if hard:
                best = _mask(cosines, dropped, copy=True).argmax(-1, keepdim=True)
                result, highest = cosines.gather(-1, best).squeeze(-1), best.squeeze(-1).to(cosines.dtype)
            else:
                logits = _mask(gamma * cosines, dropped)
                highest = logits.amax(-1, keepdim=True)
                weights = logits.sub_(highest).exp_()
                sums = weights.sum(-1)
                result, highest = weights.mul_(cosines).sum(-1).div_(sums), highest.squeeze(-1)
                total[rows, :, columns] = sums.unflatten(0, (-1, num_phrases))
            similarity[rows, :, columns] = result.unflatten(0, (-1, num_phrases))
            maximum[rows, :, columns] = highest.unflatten(0, (-1, num_phrases))
        ctx.save_for_backward(queries, keys, key_mask, gamma, similarity, maximum, total)
        ctx.hard = hard
        return similarity.transpose(1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        queries, keys, key_mask, gamma, similarity, maximum, total = ctx.saved_tensors
        masked = not bool(key_mask.all())
        gradient = gradient.transpose(1, 2)
        if not ctx.hard:
            gradient = gradient / total
        queries_grad, keys_grad = torch.zeros_like(queries), torch.zeros_like(keys)
        gamma_grad = torch.zeros_like(gamma)
        for rows, columns in _tiles(queries, keys):
            cosines = _cosines(queries[rows], keys[columns])  # (r·M, c, N)
            upstream, result, highest = (
                tensor[rows, :, columns].flatten(0, 1).unsqueeze(-1) for tensor in (gradient, similarity, maximum)
            )
            if ctx.hard:
                cosines_grad = cosines.zero_().scatter_(-1, highest.long(), upstream)
            else:
                logits = _mask(torch.addcmul(-highest, cosines, gamma), ~key_mask[columns] if masked else None)
                weights = logits.exp_()  # the attention times the total
                deviation = cosines.sub_(result)
                spread = weights * deviation
                gamma_grad += (spread * deviation).sum(-1, keepdim=True).mul_(upstream).sum()
                cosines_grad = weights.addcmul_(spread, gamma).mul_(upstream)
            flat = cosines_grad.flatten(1)
            queries_grad[rows].flatten(0, 1).addmm_(flat, keys[columns].flatten(0, 1))
            keys_grad[columns].flatten(0, 1).addmm_(flat.T, queries[rows].flatten(0, 1))
        return queries_grad, keys_grad, None, gamma_grad, None


def _cosines(queries: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
    """(r, M, D) and (c, N, D) -> (r·M, c, N)."""
    product = queries.flatten(0, 1) @ keys.flatten(0, 1).T
    return product.unflatten(1, keys.shape[:2])


def _mask(logits: torch.Tensor, dropped: torch.Tensor | None, copy: bool = False) -> torch.Tensor:
    """Logits (r·M, c, N) with the lowest number for dropped keys (c, N), in place or on a copy; None drops nothing.

    Where all keys of an item are dropped their weights are equal, and their cosines are 0.
    """
    if dropped is None:
        return logits
    lowest = torch.finfo(logits.dtype).min
    return logits.masked_fill(dropped, lowest) if copy else logits.masked_fill_(dropped, lowest)


def _tiles(queries: torch.Tensor, keys: torch.Tensor):
    """Slices of query items and key items of about TILE_SIZE cosines, for queries (Bq, M, D) and keys (Bk, N, D)."""
    num_phrases, num_regions = queries.shape[1], keys.shape[1]
    columns = max(1, min(len(keys), int((4 * TILE_SIZE) ** 0.5) // max(1, num_regions)))
    rows = max(1, TILE_SIZE // max(1, num_phrases * num_regions * columns))
    for row in range(0, len(queries), rows):
        for column in range(0, len(keys), columns):
            yield slice(row, row + rows), slice(column, column + columns)


def caption_scores(
    similarity: torch.Tensor,
    phrase_captions: torch.Tensor,
    phrase_mask: torch.Tensor,
    num_captions: int,
    phrase_sharpness: torch.Tensor | float = 0.0,
    phrase_gates: torch.Tensor | None = None,
) -> torch.Tensor:
    """Score of each caption: its phrases' similarities, weighted by the attention over phrases.

    With s_m the similarity of phrase m of a caption: w_m = softmax over the caption's phrases of δ·s_m + g_m, and the
    score is the sum over them of w_m·s_m.

    Args:
        similarity: (Bq, Bk, M) from [`attended_similarity`].
        phrase_captions: (Bq, M) index of the caption that a phrase belongs to, in 0..K-1.
        phrase_mask: (Bq, M) False for padding.
        num_captions: K.
        phrase_sharpness: δ; 0 without gates gives the mean over a caption's phrases.
        phrase_gates: (Bq, M) the gates g; None: 0.

    Returns:
        (Bq, Bk, K) in the dtype of `similarity`; 0 for a caption without phrases.
    """
    weights, membership, total = _phrase_weights(
        similarity, phrase_captions, phrase_mask, num_captions, phrase_sharpness, phrase_gates
    )
    with torch.autocast(similarity.device.type, enabled=False):  # sums must not be rounded to 8 bits
        return torch.einsum("ijm,imk->ijk", weights * similarity, membership) / total


def phrase_attention(
    similarity: torch.Tensor,
    phrase_captions: torch.Tensor,
    phrase_mask: torch.Tensor,
    num_captions: int,
    phrase_sharpness: torch.Tensor | float = 0.0,
    phrase_gates: torch.Tensor | None = None,
) -> torch.Tensor:
    """The weights w_m that [`caption_scores`] gives to phrases; its arguments.

    Returns:
        (Bq, Bk, M) in the dtype of `similarity`, which sum to 1 over the phrases of a caption; 0 for padding.
    """
    weights, membership, total = _phrase_weights(
        similarity, phrase_captions, phrase_mask, num_captions, phrase_sharpness, phrase_gates
    )
    with torch.autocast(similarity.device.type, enabled=False):
        return weights * torch.einsum("ijk,imk->ijm", 1 / total, membership)


def _phrase_weights(
    similarity: torch.Tensor,
    phrase_captions: torch.Tensor,
    phrase_mask: torch.Tensor,
    num_captions: int,
    phrase_sharpness: torch.Tensor | float,
    phrase_gates: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The softmax over a caption's phrases before it is divided; the arguments are those of [`caption_scores`].

    Returns:
        Exponentials (Bq, Bk, M), 0 for padding; which phrase belongs to which caption, 0 or 1 (Bq, M, K); and each
        caption's sum of exponentials (Bq, Bk, K), at least 1.
    """
    num_queries, num_keys, _ = similarity.shape
    phrase_mask = phrase_mask.bool()
    membership = F.one_hot(phrase_captions.clamp(0, num_captions - 1), num_captions)
    membership = (membership.bool() & phrase_mask.unsqueeze(-1)).to(similarity.dtype)
    logits = phrase_sharpness * similarity
    if phrase_gates is not None:
        logits = logits + phrase_gates.masked_fill(~phrase_mask, 0.0).unsqueeze(1)
    # Each caption's own maximum is subtracted, so that no caption's weights underflow.
    index = phrase_captions.clamp(0, num_captions - 1).unsqueeze(1).expand(-1, num_keys, -1)
    lowest = torch.finfo(similarity.dtype).min
    masked = logits.detach().masked_fill(~phrase_mask.unsqueeze(1), lowest)
    maxima = logits.new_full((num_queries, num_keys, num_captions), lowest)
    maxima = maxima.scatter_reduce(2, index, masked, reduce="amax")
    weights = torch.exp((logits - maxima.gather(2, index)).clamp(max=0.0)) * phrase_mask.unsqueeze(1)
    with torch.autocast(similarity.device.type, enabled=False):
        total = torch.einsum("ijm,imk->ijk", weights, membership)
    return weights, membership, total.clamp(min=1.0)


def pair_scores(
    queries: torch.Tensor,
    keys: torch.Tensor,
    query_mask: torch.Tensor | None = None,
    key_mask: torch.Tensor | None = None,
    sharpness: torch.Tensor | float = 1.0,
    phrase_sharpness: torch.Tensor | float = 0.0,
    implementation: str = "auto",
) -> torch.Tensor:
    """One score for each pair of items, with all queries of an item as one caption.

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
