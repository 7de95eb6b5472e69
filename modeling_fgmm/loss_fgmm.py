"""The objectives: what a pair of modalities contributes to the loss, with negatives from every process.

Texts (or, for audio over video, sounds) ask and regions answer. The asking side is the smaller one: it is gathered
from all processes, the region maps stay where they were computed.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, fields, replace

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn

from .configuration_fgmm import FgmmConfig
from .scoring_fgmm import attended_similarity, caption_scores

# exp(MAX_LOGIT_SCALE) = 100, the bound of CLIP (Radford et al., 2021, section 2.5).
MAX_LOGIT_SCALE = 4.6052

# Gates are products of vectors, one of them of length 1 and one that an optimiser moves by its learning rate a step:
# without a factor no phrase would be silent before training ends.
GATE_SCALE = 10.0


class Side:
    """Tensors of one side of a pair, which accelerate takes to the device of the objective."""

    def to(self, *args, **kwargs) -> "Side":
        """As of a tensor."""
        return type(self)(**{field.name: getattr(self, field.name).to(*args, **kwargs) for field in fields(self)})


@dataclass
class Queries(Side):
    """The side that asks.

    phrases (B, M, D) and their mask (B, M); captions (B, M), the index of each phrase's candidate caption in 0..K-1;
    embeds (B, K, D), one pooled vector a caption, and caption_mask (B, K), False where an item has no such caption.
    """

    phrases: torch.Tensor
    mask: torch.Tensor
    captions: torch.Tensor
    embeds: torch.Tensor
    caption_mask: torch.Tensor

    @property
    def present(self) -> torch.Tensor:
        """(B,) True for items with at least one caption."""
        return self.caption_mask.any(1)


@dataclass
class Keys(Side):
    """The side that answers: regions (B, N, D), their mask (B, N), and embeds (B, D), one pooled vector an item."""

    regions: torch.Tensor
    mask: torch.Tensor
    embeds: torch.Tensor

    @property
    def present(self) -> torch.Tensor:
        """(B,) True for items with at least one region."""
        return self.mask.any(1)


class PairObjective(nn.Module, ABC):
    """One pair of modalities: its scores and its loss. `config.objective` names the subclass, see `OBJECTIVES`.

    A subclass says which scores it trains (`scores`), what they make of a pair (`pair_logits`), by which contrast
    (`loss`), whether these need phrases, and where its parameters start.
    """

    needs_phrases = False

    def __init__(self, config: FgmmConfig):
        super().__init__()
        self.config = config
        self.logit_scale = nn.Parameter(torch.empty(()))

    def initial_values(self) -> dict[str, float]:
        """Where each parameter starts."""
        return {"logit_scale": self.config.logit_scale_init_value}

    def sharpness(self) -> torch.Tensor | float:
        """γ of the attention over regions."""
        return self.config.sharpness_init_value

    def fine_scores(self, queries: Queries, keys: Keys) -> torch.Tensor:
        """Phrases against regions, on the cosine's scale: (Bq, Bk, K)."""
        similarity = self.phrase_similarity(queries, keys)
        return caption_scores(similarity, queries.captions, queries.mask, queries.embeds.shape[1])

    def phrase_similarity(self, queries: Queries, keys: Keys) -> torch.Tensor:
        """What each phrase finds among each item's regions, on the cosine's scale: (Bq, Bk, M)."""
        return attended_similarity(
            queries.phrases,
            keys.regions,
            queries.mask,
            keys.mask,
            self.sharpness(),
            self.config.scoring_implementation,
        )

    def coarse_scores(self, queries: Queries, keys: Keys) -> torch.Tensor:
        """Cosines of pooled embeddings: (Bq, Bk, K), float32 (float64 for float64 inputs)."""
        dtype = torch.promote_types(keys.embeds.dtype, torch.float32)
        with torch.autocast(keys.embeds.device.type, enabled=False):
            return torch.einsum("ikd,jd->ijk", queries.embeds.to(dtype), keys.embeds.to(dtype))

    def scores(self, queries: Queries, keys: Keys) -> torch.Tensor:
        """The scores that this objective trains, on the cosine's scale: (Bq, Bk, K)."""
        return self.coarse_scores(queries, keys)

    def logits(self, queries: Queries, keys: Keys) -> torch.Tensor:
        """What the objective takes each pair for, (Bq, Bk); where a side is missing, the lowest possible."""
        present = queries.present.unsqueeze(1) & keys.present
        return torch.where(present, self.pair_logits(queries, keys), self.lowest_logit())

    def pair_logits(self, queries: Queries, keys: Keys) -> torch.Tensor:
        """One score a pair, times the logit scale: (Bq, Bk). Of several captions, the mean of their odds."""
        mask = queries.caption_mask.unsqueeze(1)
        logits = self.scores(queries, keys) * scale(self.logit_scale)
        return masked_logsumexp(logits, mask, -1) - mask.sum(-1).clamp(min=1).to(logits.dtype).log()

    def lowest_logit(self) -> torch.Tensor:
        """That of a score of -1."""
        return -scale(self.logit_scale)

    def forward(self, queries: Queries, keys: Keys, return_loss: bool = True) -> torch.Tensor:
        """Loss of the B items on this process, against all items of all processes: a number, 0 if no item has both.

        Its mean over processes (which is what DistributedDataParallel makes of gradients) is the loss of the whole
        batch. Without `return_loss`, the logits: parameters that a device map keeps elsewhere are brought by a call.
        """
        if not return_loss:
            return self.logits(queries, keys)
        present = queries.present & keys.present
        if not self.needs_phrases:
            queries = without_phrases(queries)  # they need not travel
        gathered, offset = gather_queries(queries)
        return self.loss(gathered, keys, present, offset)

    def cost(self, own: torch.Tensor, *normalizers: torch.Tensor) -> torch.Tensor:
        """What pairs cost: the mean over contrasts of -log p, where log p = own - normalizer, or of (1 - p^q) / q.

        The latter, for a robustness q > 0, is generalised cross entropy (Zhang and Sabuncu, NeurIPS 2018, equation 6):
        its gradient is p^q times that of -log p, so that a pair in which the model does not believe moves it little.
        """
        log_probabilities = torch.stack([own - normalizer for normalizer in normalizers])
        if q := self.config.robustness:
            # Of pairs that are not there the difference may be large, and would be infinite here.
            return -torch.expm1(q * log_probabilities.clamp(max=0)).mean(0) / q
        return -log_probabilities.mean(0)

    @abstractmethod
    def loss(self, queries: Queries, keys: Keys, present: torch.Tensor, offset: int) -> torch.Tensor:
        """
        Args:
            queries: of all processes.
            keys: of this process.
            present: (Bk,) items of this process that have both modalities.
            offset: place of this process's first item among the queries.
        """


class FineObjective(PairObjective):
    """Phrases against regions: our reading of Wang and Karout (BMVC 2021).

    MIL-NCE (Miech et al., CVPR 2020, equation 1, here with one denominator a direction) over scores made of attended
    similarities, and beside it the same contrast of pooled embeddings, weighted by `coarse_loss_weight`.
    """

    needs_phrases = True

    def __init__(self, config: FgmmConfig):
        super().__init__(config)
        self.add_number("log_sharpness", config.learnable_sharpness)
        # Without caption scores there is no attention over phrases, and DDP rejects parameters that no loss reaches.
        self.add_number("phrase_sharpness", config.learnable_phrase_sharpness and config.contrast_unit == "caption")
        # Only where captions are contrasted, by phrases that ask, is there something to gate and a whole that asks.
        whole = config.contrast_unit == "caption" and config.attention_direction != "regions_to_text"
        self.whole_caption_weight = config.whole_caption_weight if whole else 0.0
        self.phrase_gate = nn.Parameter(torch.empty(config.projection_dim)) if whole and config.phrase_gates else None
        self.coarse_logit_scale = nn.Parameter(torch.empty(()))

    def add_number(self, name: str, learnable: bool) -> None:
        """A parameter, or else a buffer: loading weights would make a parameter learnable again."""
        if learnable:
            setattr(self, name, nn.Parameter(torch.empty(())))
        else:
            self.register_buffer(name, torch.empty(()))

    def initial_values(self) -> dict[str, float]:
        return {
            "logit_scale": self.config.logit_scale_init_value,
            "coarse_logit_scale": self.config.logit_scale_init_value,
            "log_sharpness": math.log(self.config.sharpness_init_value),
            "phrase_sharpness": self.config.phrase_sharpness_init_value,
            **({} if self.phrase_gate is None else {"phrase_gate": 0.0}),
        }

    def sharpness(self) -> torch.Tensor:
        return self.log_sharpness.exp()

    def phrase_gates(self, queries: Queries) -> torch.Tensor | None:
        """(Bq, M) what each phrase's weight has whatever is shown, a logit; None where there are no gates."""
        if self.phrase_gate is None:
            return None
        phrases = queries.phrases.masked_fill(~queries.mask.unsqueeze(-1), 0.0)
        dtype = torch.promote_types(phrases.dtype, torch.float32)
        with torch.autocast(phrases.device.type, enabled=False):
            return GATE_SCALE * phrases.to(dtype) @ self.phrase_gate.to(dtype)

    def fine_scores(self, queries: Queries, keys: Keys) -> torch.Tensor:
        directions = {
            "text_to_regions": (self.caption_scores_over_regions,),
            "regions_to_text": (self.region_scores_over_phrases,),
            "both": (self.caption_scores_over_regions, self.region_scores_over_phrases),
        }[self.config.attention_direction]
        return torch.stack([score(queries, keys) for score in directions]).mean(0)

    def caption_scores_over_regions(self, queries: Queries, keys: Keys) -> torch.Tensor:
        """Each caption's score, (Bq, Bk, K): the weighted mean over its phrases and, by the share of
        `whole_caption_weight`, the caption as a whole, all of which attend to regions."""
        num_phrases, num_captions = queries.captions.shape[1], queries.embeds.shape[1]
        similarity = self.phrase_similarity(add_whole_captions(queries), keys)
        phrases, captions = similarity.split([num_phrases, num_captions], dim=-1)
        scores = caption_scores(
            phrases, queries.captions, queries.mask, num_captions, self.phrase_sharpness, self.phrase_gates(queries)
        )
        return torch.lerp(scores, captions, self.whole_caption_weight)

    def region_scores_over_phrases(self, queries: Queries, keys: Keys) -> torch.Tensor:
        """Each region attends to a caption's phrases; the score is the weighted mean over the regions: (Bq, Bk, K)."""
        num_captions = queries.embeds.shape[1]
        belongs = F.one_hot(queries.captions, num_captions).bool() & queries.mask.unsqueeze(-1)  # (Bq, M, K)
        phrases = queries.phrases.repeat_interleave(num_captions, 0)  # (Bq·K, M, D)
        similarity = attended_similarity(
            keys.regions,
            phrases,
            keys.mask,
            belongs.transpose(1, 2).flatten(0, 1),
            self.sharpness(),
            self.config.scoring_implementation,
        )
        one_caption = torch.zeros_like(keys.mask, dtype=torch.long)
        scores = caption_scores(similarity, one_caption, keys.mask, 1, self.phrase_sharpness)  # (Bk, Bq·K, 1)
        return scores.squeeze(-1).T.unflatten(0, (-1, num_captions)).transpose(1, 2)

    def scores(self, queries: Queries, keys: Keys) -> torch.Tensor:
        return self.fine_scores(queries, keys)

    def loss(self, queries: Queries, keys: Keys, present: torch.Tensor, offset: int) -> torch.Tensor:
        if self.config.contrast_unit == "phrase":
            scores, mask = self.phrase_similarity(queries, keys), queries.mask
        else:
            scores, mask = self.fine_scores(queries, keys), queries.caption_mask
        fine = self.contrast(scores * scale(self.logit_scale), mask, keys.present, present, offset)
        coarse = self.coarse_scores(queries, keys) * scale(self.coarse_logit_scale)
        coarse = self.contrast(coarse, queries.caption_mask, keys.present, present, offset)
        return fine + self.config.coarse_loss_weight * coarse

    def contrast(self, logits, mask, has_key, present, offset) -> torch.Tensor:
        """The contrast of captions or phrases that `contrast_bag` and `posterior_weights` choose."""
        if self.config.contrast_bag:
            bags = masked_logsumexp(logits, mask.unsqueeze(1), -1)
            own, among_queries, among_keys = normalizers(bags, mask.any(1), has_key, offset)
            weights = present.to(logits.dtype)
        else:
            own, among_queries, among_keys = unit_normalizers(logits, mask, has_key, offset)
            kept = mask[offset : offset + len(present)] & present.unsqueeze(1)
            weights = kept.to(logits.dtype) / kept.sum(1, keepdim=True).clamp(min=1)  # an item's units share its weight
        if self.config.posterior_weights:
            log_probability = own - 0.5 * (among_queries + among_keys)
            weights = weights * posterior(log_probability.detach(), weights)
        return mean_of_batch(self.cost(own, among_queries, among_keys), weights)


class CoarseObjective(PairObjective):
    """Symmetric InfoNCE on pooled embeddings (CLIP: Radford et al., 2021, figure 3).

    An item of several captions has the mean of their cosines for its score.
    """

    def pair_logits(self, queries: Queries, keys: Keys) -> torch.Tensor:
        return masked_mean(self.coarse_scores(queries, keys), queries.caption_mask) * scale(self.logit_scale)

    def loss(self, queries: Queries, keys: Keys, present: torch.Tensor, offset: int) -> torch.Tensor:
        logits = self.pair_logits(queries, keys)
        own, among_queries, among_keys = normalizers(logits, queries.present, keys.present, offset)
        return mean_of_batch(self.cost(own, among_queries, among_keys), present.to(logits.dtype))


class MilNceObjective(PairObjective):
    """MIL-NCE on pooled embeddings (Miech et al., CVPR 2020, equation 1).

    An item's captions share the numerator; the one denominator holds them, the other items' captions with this clip,
    and this item's captions with the other clips. Ours are L2-normalised, therefore the logit scale.
    """

    def loss(self, queries: Queries, keys: Keys, present: torch.Tensor, offset: int) -> torch.Tensor:
        logits = self.coarse_scores(queries, keys) * scale(self.logit_scale)
        bags = masked_logsumexp(logits, queries.caption_mask.unsqueeze(1), -1)
        own, _, among_keys = normalizers(bags, queries.present, keys.present, offset)
        denominator = torch.logaddexp(among_keys, among_other_queries(bags, queries.present, offset))
        return mean_of_batch(self.cost(own, denominator), present.to(logits.dtype))


class FilipObjective(PairObjective):
    """Token-wise maximum similarity (FILIP: Yao et al., ICLR 2022, equations 1 to 4).

    A clip finds its text by the mean over regions of the best phrase, a text its clip by the mean over phrases of the
    best region. All phrases of an item are one text.
    """

    needs_phrases = True

    def sharpness(self) -> float:
        return math.inf

    def scores(self, queries: Queries, keys: Keys) -> torch.Tensor:
        return self.fine_scores(queries, keys)

    def pair_logits(self, queries: Queries, keys: Keys) -> torch.Tensor:
        """A text's with each clip; the clip's own side is only in the loss."""
        return masked_mean(self.phrase_similarity(queries, keys), queries.mask) * scale(self.logit_scale)

    def loss(self, queries: Queries, keys: Keys, present: torch.Tensor, offset: int) -> torch.Tensor:
        text_logits = self.pair_logits(queries, keys)
        per_region = attended_similarity(
            keys.regions, queries.phrases, keys.mask, queries.mask, math.inf, self.config.scoring_implementation
        )  # (Bk, Bq, N)
        clip_logits = masked_mean(per_region, keys.mask).T * scale(self.logit_scale)
        own_text, _, among_keys = normalizers(text_logits, queries.present, keys.present, offset)
        own_clip, among_queries, _ = normalizers(clip_logits, queries.present, keys.present, offset)
        terms = 0.5 * (self.cost(own_text, among_keys) + self.cost(own_clip, among_queries))
        return mean_of_batch(terms, present.to(terms.dtype))


class SiglipObjective(CoarseObjective):
    """Sigmoid loss of every pair of pooled embeddings on its own (SigLIP: Zhai et al., ICCV 2023, equation 1).

    Scores are those of the coarse objective, with a bias.
    """

    def __init__(self, config: FgmmConfig):
        super().__init__(config)
        self.logit_bias = nn.Parameter(torch.empty(()))

    def initial_values(self) -> dict[str, float]:
        """The paper's start: scale 10, bias -10 (section 3.2)."""
        return {"logit_scale": math.log(10.0), "logit_bias": -10.0}

    def pair_logits(self, queries: Queries, keys: Keys) -> torch.Tensor:
        return super().pair_logits(queries, keys) + self.logit_bias

    def lowest_logit(self) -> torch.Tensor:
        return super().lowest_logit() + self.logit_bias

    def loss(self, queries: Queries, keys: Keys, present: torch.Tensor, offset: int) -> torch.Tensor:
        logits = self.pair_logits(queries, keys)
        same = torch.zeros_like(logits, dtype=torch.bool)
        same[offset : offset + len(present)].fill_diagonal_(True)
        terms = -F.logsigmoid(torch.where(same, logits, -logits))
        terms = (terms * (queries.present.unsqueeze(1) & keys.present)).sum()
        number = mean_over_processes(present.sum())  # of pairs that belong together; without one there is no loss
        return torch.where(number > 0, terms, 0.0) / number.clamp(min=1e-6)


def add_whole_captions(queries: Queries) -> Queries:
    """The K captions' pooled embeddings as further phrases, behind the M others: each is one of its own caption."""
    places = torch.arange(queries.embeds.shape[1], device=queries.captions.device).expand(len(queries.captions), -1)
    return replace(
        queries,
        phrases=torch.cat([queries.phrases, queries.embeds], dim=1),
        mask=torch.cat([queries.mask, queries.caption_mask], dim=1),
        captions=torch.cat([queries.captions, places], dim=1),
    )


def without_phrases(queries: Queries) -> Queries:
    """The captions' pooled embeddings alone."""
    return replace(queries, phrases=queries.phrases[:, :0], mask=queries.mask[:, :0], captions=queries.captions[:, :0])


OBJECTIVES = {
    "fine": FineObjective,
    "coarse": CoarseObjective,
    "mil_nce": MilNceObjective,
    "filip": FilipObjective,
    "siglip": SiglipObjective,
}


def scale(logarithm: torch.Tensor) -> torch.Tensor:
    """The logit scale from its logarithm, at most 100."""
    return logarithm.clamp(max=MAX_LOGIT_SCALE).exp()


def masked_mean(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean over the last axis of (Bq, Bk, M), by mask (Bq, M); 0 where nothing is kept."""
    return (values * mask.unsqueeze(1)).sum(-1) / mask.sum(1, keepdim=True).clamp(min=1)


def masked_logsumexp(logits: torch.Tensor, mask: torch.Tensor, dim: int) -> torch.Tensor:
    """Log of the sum of exponentials over the kept entries; a very low finite number where none is kept."""
    return torch.logsumexp(logits.masked_fill(~mask, torch.finfo(logits.dtype).min / 4), dim)


def normalizers(
    logits: torch.Tensor, has_query: torch.Tensor, has_key: torch.Tensor, offset: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """What each item of this process is, in the log domain, and what it is measured against.

    Args:
        logits: (Bq, Bk) of all processes' queries against this process's keys.
        has_query: (Bq,) False for queries that take no part.
        has_key: (Bk,) False for keys that take no part.
        offset: place of this process's first item among the queries.

    Returns:
        (Bk,) each: the own logit; log-sum-exp over all queries for the own key; over all keys, of all processes, for
        the own query.
    """
    rows = slice(offset, offset + logits.shape[1])
    own = logits[rows].diagonal()
    among_queries = masked_logsumexp(logits, has_query.unsqueeze(1), 0)
    return own, among_queries, among_all_keys(logits, has_key)[rows]


def among_all_keys(logits: torch.Tensor, has_key: torch.Tensor) -> torch.Tensor:
    """(Bq, ...) log-sum-exp of logits (Bq, Bk, ...) over the kept keys of all processes."""
    kept = has_key.view(1, -1, *[1] * (logits.ndim - 2))
    return torch.logsumexp(gather_stacked(masked_logsumexp(logits, kept, 1)), 0)


def among_other_queries(logits: torch.Tensor, has_query: torch.Tensor, offset: int) -> torch.Tensor:
    """(Bk,) log-sum-exp of logits (Bq, Bk) over the kept queries that are not the key's own."""
    own = torch.zeros_like(logits, dtype=torch.bool)
    own[offset : offset + logits.shape[1]].fill_diagonal_(True)
    return masked_logsumexp(logits, has_query.unsqueeze(1) & ~own, 0)


def unit_normalizers(
    logits: torch.Tensor, mask: torch.Tensor, has_key: torch.Tensor, offset: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """As [`normalizers`], with each caption or phrase as a positive of its own.

    Args:
        logits: (Bq, Bk, K) of all processes' captions or phrases against this process's keys.
        mask: (Bq, K) False for padding.

    Returns:
        (Bk, K) each; among the queries stand the unit itself and the units of all other items.
    """
    rows = slice(offset, offset + logits.shape[1])
    own = logits[rows].diagonal().T
    others = among_other_queries(masked_logsumexp(logits, mask.unsqueeze(1), -1), mask.any(1), offset)
    return own, torch.logaddexp(own, others.unsqueeze(1)), among_all_keys(logits, has_key)[rows]


def posterior(log_probability: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """The probability that the model gives to each own pair, divided by its weighted mean over all processes."""
    probability = torch.where(weights > 0, log_probability.exp(), 0.0)
    mean = mean_over_processes((probability * weights).sum()) / mean_over_processes(weights.sum()).clamp(min=1e-6)
    return probability / mean.clamp(min=1e-6)


def mean_of_batch(terms: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """This process's weighted terms over the mean weight of a process; terms of weight 0 are left out."""
    terms = torch.where(weights > 0, terms, 0.0)
    return (terms * weights).sum() / mean_over_processes(weights.sum()).clamp(min=1e-6)


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
    return gather_stacked(count.detach().to(torch.promote_types(count.dtype, torch.float32))).mean(0)
