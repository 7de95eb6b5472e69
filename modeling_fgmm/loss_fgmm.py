"""The objectives: the scores of a pair of modalities, and their contrast with negatives from every process.

Queries are texts (or, over videos, sounds), keys are videos or sounds with their regions. Queries are smaller: they are
gathered from all processes, while keys stay where they were computed.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

from .configuration_fgmm import MAX_LOGIT_SCALE, FgmmConfig
from .distributed_fgmm import gather_queries, gather_stacked, mean_over_processes
from .layers_fgmm import masked_mean
from .scoring_fgmm import Keys, Queries, attended_similarity, caption_scores, phrase_attention, region_attention

# A gate is the product of a phrase's unit vector and a parameter that the optimiser moves by its learning rate a step:
# without a factor no phrase could be silenced before training ends.
GATE_SCALE = 10.0
# Initial gate of whole captions: a fifth of a phrase's weight. With a larger weight from the start the phrases are not
# trained, although they generalise to new sentences better than whole captions do.
WHOLE_GATE_START = -1.5


@dataclass
class Attention:
    """How an objective weighs regions, phrases and captions, for each query item with each key item.

    The score of a caption is the weighted sum of its phrases' similarities. If the objective compares whole captions
    with regions, too, each caption's pooled embedding is one more of its phrases: of the P phrases the first M are the
    queries' own, the other K, if any, are the whole captions.

    Args:
        queries: the queries with their P phrases, each of which belongs to a caption.
        regions: (Bq, Bk, P, N) attention of each phrase over the regions; sums to 1 over N. None in `"weights"`.
        phrases: (Bq, Bk, P) weight of each phrase in its caption's score; sums to 1 over the phrases of a caption.
        captions: (Bq, Bk, K) weight of each caption in the pair's logit; sums to 1 over K.
        similarity: (Bq, Bk, P) of each phrase with the attended regions, between -1 and 1.
        num_phrases: M.

    Weights are 0 for padding, and over the regions of an item without any.
    """

    queries: Queries
    regions: torch.Tensor | None
    phrases: torch.Tensor
    captions: torch.Tensor
    similarity: torch.Tensor
    num_phrases: int


class PairObjective(nn.Module, ABC):
    """The objective of one pair of modalities: scores, loss and attention. `config.objective` names the subclass.

    A subclass says which scores it trains (`scores`), which logit they make of a pair of items (`pair_logits`), the
    contrast of these logits (`loss`), whether it compares phrases with regions (`needs_phrases`; else pooled
    embeddings), how it weighs phrases and captions, and where its parameters start.
    """

    needs_phrases = False

    def __init__(self, config: FgmmConfig):
        super().__init__()
        self.config = config
        self.logit_scale = nn.Parameter(torch.empty(()))

    def initial_values(self) -> dict[str, float]:
        """The initial value of each parameter and buffer, by its name."""
        return {"logit_scale": self.config.logit_scale_init_value}

    def pooled_scale_and_bias(self) -> tuple[torch.Tensor, torch.Tensor | None]:
        """The logarithm of the logit scale of pooled embeddings, and the bias of their logits, None without one."""
        return self.logit_scale, None

    def scale(self) -> torch.Tensor:
        """The logit scale, at most 100 (CLIP: Radford et al., 2021, section 2.5)."""
        return exp_logit_scale(self.logit_scale)

    def sharpness(self) -> torch.Tensor | float:
        """γ of the attention over regions in fine scores; `math.inf` is the maximum."""
        return self.config.sharpness_init_value

    def fine_scores(self, queries: Queries, keys: Keys) -> torch.Tensor:
        """Scores of phrases against regions, between -1 and 1: (Bq, Bk, K)."""
        similarity = self.phrase_similarity(queries, keys)
        return caption_scores(similarity, queries.captions, queries.mask, queries.embeds.shape[1])

    def phrase_similarity(self, queries: Queries, keys: Keys) -> torch.Tensor:
        """Attended similarity of each phrase with each item's regions, between -1 and 1: (Bq, Bk, M)."""
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
        """The scores that this objective trains, between -1 and 1: (Bq, Bk, K)."""
        return self.coarse_scores(queries, keys)

    def attention(self, queries: Queries, keys: Keys, with_regions: bool = True) -> Attention:
        """The attention over regions, phrases and captions; materialises Bq·Bk·P·N numbers, so pass few items.

        Objectives of pooled embeddings give all regions of a clip, and all phrases of a caption, equal weights; the
        similarity of each phrase is the cosine of the caption's embedding with the clip's.

        Args:
            queries: with phrases.
            keys: with regions.
            with_regions: give the attention over regions, too; without it only Bq·Bk·P numbers are held.
        """
        compared = self.compared_queries(queries)
        regions = None
        if with_regions:
            regions = region_attention(
                compared.phrases, keys.regions, compared.mask, keys.mask, self.attention_sharpness()
            )
        if self.needs_phrases:
            similarity = self.phrase_similarity(compared, keys)
        else:
            index = compared.captions.unsqueeze(1).expand(-1, len(keys.mask), -1)
            similarity = self.scores(compared, keys).gather(2, index)
        return Attention(
            queries=compared,
            regions=regions,
            phrases=self.phrase_weights(compared, similarity),
            captions=self.caption_weights(queries, keys),
            similarity=similarity,
            num_phrases=queries.mask.shape[1],
        )

    def attention_sharpness(self) -> torch.Tensor | float:
        """γ of the attention in the trained scores; 0, the mean over the regions, for pooled embeddings."""
        return self.sharpness() if self.needs_phrases else 0.0

    def compared_queries(self, queries: Queries) -> Queries:
        """The queries with the P phrases that are compared: their M, and the K whole captions where these are, too."""
        return queries

    def phrase_weights(self, compared: Queries, similarity: torch.Tensor) -> torch.Tensor:
        """The weight of each phrase in its caption's score, here the same for all: (Bq, Bk, P) -> (Bq, Bk, P)."""
        return phrase_attention(similarity, compared.captions, compared.mask, compared.embeds.shape[1])

    def caption_weights(self, queries: Queries, keys: Keys) -> torch.Tensor:
        """The weight of each caption in the pair's logit, that is its gradient by the scaled score: (Bq, Bk, K)."""
        mask = queries.caption_mask.unsqueeze(1)
        logits = self.scores(queries, keys) * self.scale()
        return logits.masked_fill(~mask, torch.finfo(logits.dtype).min).softmax(-1) * mask

    def logits(self, queries: Queries, keys: Keys) -> torch.Tensor:
        """One logit for each pair of items, (Bq, Bk); the minimum where either modality is missing."""
        present = queries.present.unsqueeze(1) & keys.present
        return torch.where(present, self.pair_logits(queries, keys), self.min_logit())

    def pair_logits(self, queries: Queries, keys: Keys) -> torch.Tensor:
        """Scores times the logit scale, (Bq, Bk); for several captions the logarithm of the mean exponential."""
        mask = queries.caption_mask.unsqueeze(1)
        logits = self.scores(queries, keys) * self.scale()
        return masked_logsumexp(logits, mask, -1) - mask.sum(-1).clamp(min=1).to(logits.dtype).log()

    def min_logit(self) -> torch.Tensor:
        """The logit of a score of -1."""
        return -self.scale()

    def forward(self, queries: Queries, keys: Keys, output: str = "loss") -> torch.Tensor | Attention:
        """Loss of the B items of this process, contrasted with all items of all processes; or logits, or attention.

        All three go through a call of the module, because a device map brings parameters to the right device only then.

        Args:
            queries, keys: of this process; item i of the queries belongs to item i of the keys.
            output: `"loss"`, `"logits"`, `"attention"`, or `"weights"`, the attention without that over regions.

        Returns:
            The loss, a number, 0 if no item has both modalities; its mean over processes, which is what
            DistributedDataParallel makes of gradients, is the loss of the whole batch. Or logits (Bq, Bk), or what
            [`~PairObjective.attention`] gives.
        """
        if output != "loss":
            weights = partial(self.attention, with_regions=False)
            return {"logits": self.logits, "attention": self.attention, "weights": weights}[output](queries, keys)
        present = queries.present & keys.present
        if not self.needs_phrases:
            queries = queries.without_phrases()  # they need not be gathered
        gathered, offset = gather_queries(queries)
        return self.loss(gathered, keys, present, offset)

    def contrastive_nll(self, own: torch.Tensor, *denominators: torch.Tensor) -> torch.Tensor:
        """Negative log-likelihood of the matching pairs, or for `config.gce_q` = q > 0 generalised cross entropy.

        With p = exp(own - denominator): -log p, or (1 - p^q) / q (Zhang and Sabuncu, NeurIPS 2018, equation 6). The
        latter's gradient is p^q times that of -log p, so that pairs that the model thinks wrong change it little.

        Args:
            own: (B,) logits of the matching pairs.
            denominators: (B,) log-sum-exp over the candidates, one for each contrast.

        Returns:
            (B,) the mean over the contrasts.
        """
        log_probabilities = torch.stack([own - denominator for denominator in denominators])
        if q := self.config.gce_q:
            # For absent pairs the difference may be large and positive, and its exponential infinite.
            return -torch.expm1(q * log_probabilities.clamp(max=0)).mean(0) / q
        return -log_probabilities.mean(0)

    @abstractmethod
    def loss(self, queries: Queries, keys: Keys, present: torch.Tensor, offset: int) -> torch.Tensor:
        """
        Args:
            queries: of all processes.
            keys: of this process.
            present: (Bk,) True for items of this process that have both modalities.
            offset: index of this process's first item among the queries.

        Returns:
            A number.
        """


class FineObjective(PairObjective):
    """Phrases against regions: our reading of Wang and Karout (BMVC 2021).

    MIL-NCE (Miech et al., CVPR 2020, equation 1, here with one denominator for each direction) over scores made of
    attended similarities, plus the same contrast of pooled embeddings, weighted by `coarse_loss_weight`.
    """

    needs_phrases = True

    def __init__(self, config: FgmmConfig):
        super().__init__(config)
        self.add_number("log_sharpness", config.learnable_sharpness)
        self.add_number("phrase_sharpness", config.learnable_phrase_sharpness)
        self.phrase_gate = nn.Parameter(torch.empty(config.projection_dim)) if config.phrase_gates else None
        has_whole_gate = config.phrase_gates and config.whole_captions
        self.whole_gate = nn.Parameter(torch.empty(config.projection_dim)) if has_whole_gate else None
        self.coarse_logit_scale = nn.Parameter(torch.empty(()))

    def add_number(self, name: str, learnable: bool) -> None:
        """Adds a number: a parameter, or a buffer (loading weights would make a frozen parameter learnable again)."""
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
            **({} if self.whole_gate is None else {"whole_gate": 0.0}),
        }

    def pooled_scale_and_bias(self) -> tuple[torch.Tensor, torch.Tensor | None]:
        return self.coarse_logit_scale, None

    def sharpness(self) -> torch.Tensor:
        return self.log_sharpness.exp()

    def compared_queries(self, queries: Queries) -> Queries:
        return queries.with_whole_captions() if self.config.whole_captions else queries

    def gates(self, compared: Queries) -> torch.Tensor | None:
        """(Bq, P) the part of each phrase's attention logit that depends on the phrase alone; None without gates.

        Whole captions have a gate of their own: it grows on corpora whose captions describe one thing, and shrinks on
        those whose captions are independent words.
        """
        if self.phrase_gate is None:
            return None
        phrases = compared.phrases.masked_fill(~compared.mask.unsqueeze(-1), 0.0)
        dtype = torch.promote_types(phrases.dtype, torch.float32)
        num_phrases = phrases.shape[1] - (compared.embeds.shape[1] if self.config.whole_captions else 0)
        with torch.autocast(phrases.device.type, enabled=False):
            gates = phrases[:, :num_phrases].to(dtype) @ self.phrase_gate.to(dtype)
            if self.whole_gate is not None:
                wholes = phrases[:, num_phrases:].to(dtype) @ self.whole_gate.to(dtype)
                gates = torch.cat([gates, wholes + WHOLE_GATE_START / GATE_SCALE], dim=1)
            return GATE_SCALE * gates

    def phrase_weights(self, compared: Queries, similarity: torch.Tensor) -> torch.Tensor:
        num_captions = compared.embeds.shape[1]
        return phrase_attention(
            similarity, compared.captions, compared.mask, num_captions, self.phrase_sharpness, self.gates(compared)
        )

    def fine_scores(self, queries: Queries, keys: Keys) -> torch.Tensor:
        """Scores (Bq, Bk, K): the attention-weighted mean over a caption's phrases and the whole caption."""
        compared = self.compared_queries(queries)
        return caption_scores(
            self.phrase_similarity(compared, keys),
            compared.captions,
            compared.mask,
            compared.embeds.shape[1],
            self.phrase_sharpness,
            self.gates(compared),
        )

    def scores(self, queries: Queries, keys: Keys) -> torch.Tensor:
        return self.fine_scores(queries, keys)

    def loss(self, queries: Queries, keys: Keys, present: torch.Tensor, offset: int) -> torch.Tensor:
        fine = self.fine_scores(queries, keys) * self.scale()
        coarse = self.coarse_scores(queries, keys) * exp_logit_scale(self.coarse_logit_scale)
        fine, coarse = (self.contrast(logits, queries, keys, present, offset) for logits in (fine, coarse))
        return fine + self.config.coarse_loss_weight * coarse

    def contrast(
        self, logits: torch.Tensor, queries: Queries, keys: Keys, present: torch.Tensor, offset: int
    ) -> torch.Tensor:
        """The contrast of caption logits (Bq, Bk, K), in which an item's captions share the numerator; a number."""
        bags = masked_logsumexp(logits, queries.caption_mask.unsqueeze(1), -1)
        terms = self.contrastive_nll(*contrast_terms(bags, queries.present, keys.present, offset))
        return mean_of_batch(terms, present)


class CoarseObjective(PairObjective):
    """Symmetric InfoNCE on pooled embeddings (CLIP: Radford et al., 2021, figure 3).

    The score of an item with several captions is the mean of their cosines.
    """

    def caption_weights(self, queries: Queries, keys: Keys) -> torch.Tensor:
        weights = queries.caption_mask / queries.caption_mask.sum(1, keepdim=True).clamp(min=1)
        return weights.unsqueeze(1).expand(-1, len(keys.mask), -1)

    def pair_logits(self, queries: Queries, keys: Keys) -> torch.Tensor:
        scores = masked_mean(self.coarse_scores(queries, keys), queries.caption_mask.unsqueeze(1), -1)
        return scores * self.scale()

    def loss(self, queries: Queries, keys: Keys, present: torch.Tensor, offset: int) -> torch.Tensor:
        logits = self.pair_logits(queries, keys)
        terms = self.contrastive_nll(*contrast_terms(logits, queries.present, keys.present, offset))
        return mean_of_batch(terms, present)


class MilNceObjective(PairObjective):
    """MIL-NCE on pooled embeddings (Miech et al., CVPR 2020, equation 1).

    An item's captions share the numerator; the one denominator holds them, the other items' captions with this clip,
    and this item's captions with the other clips. Ours are L2-normalised, therefore the logit scale.
    """

    def loss(self, queries: Queries, keys: Keys, present: torch.Tensor, offset: int) -> torch.Tensor:
        logits = self.coarse_scores(queries, keys) * self.scale()
        bags = masked_logsumexp(logits, queries.caption_mask.unsqueeze(1), -1)
        own, _, lse_over_keys = contrast_terms(bags, queries.present, keys.present, offset)
        lse_over_other_queries = masked_logsumexp(bags, queries.present.unsqueeze(1) & ~own_pairs(bags, offset), 0)
        denominator = torch.logaddexp(lse_over_keys, lse_over_other_queries)
        return mean_of_batch(self.contrastive_nll(own, denominator), present)


class FilipObjective(PairObjective):
    """Token-wise maximum similarity (FILIP: Yao et al., ICLR 2022, equations 1 to 4).

    From clip to text the score is the mean over regions of the best phrase, from text to clip the mean over phrases of
    the best region. All phrases of an item are one text. The attention is that from text to clip.
    """

    needs_phrases = True

    def sharpness(self) -> float:
        return math.inf

    def scores(self, queries: Queries, keys: Keys) -> torch.Tensor:
        return self.fine_scores(queries, keys)

    def caption_weights(self, queries: Queries, keys: Keys) -> torch.Tensor:
        """A caption's share of the item's phrases: (Bq, Bk, K)."""
        belongs = F.one_hot(queries.captions, queries.embeds.shape[1]) * queries.mask.unsqueeze(-1)
        weights = belongs.sum(1) / queries.mask.sum(1, keepdim=True).clamp(min=1)
        return weights.unsqueeze(1).expand(-1, len(keys.mask), -1)

    def pair_logits(self, queries: Queries, keys: Keys) -> torch.Tensor:
        """Those from text to clip, (Bq, Bk); the other direction is in the loss alone."""
        scores = masked_mean(self.phrase_similarity(queries, keys), queries.mask.unsqueeze(1), -1)
        return scores * self.scale()

    def loss(self, queries: Queries, keys: Keys, present: torch.Tensor, offset: int) -> torch.Tensor:
        text_logits = self.pair_logits(queries, keys)
        per_region = attended_similarity(
            keys.regions, queries.phrases, keys.mask, queries.mask, math.inf, self.config.scoring_implementation
        )  # (Bk, Bq, N)
        clip_logits = masked_mean(per_region, keys.mask.unsqueeze(1), -1).T * self.scale()
        own_text, _, lse_over_keys = contrast_terms(text_logits, queries.present, keys.present, offset)
        own_clip, lse_over_queries, _ = contrast_terms(clip_logits, queries.present, keys.present, offset)
        terms = self.contrastive_nll(own_text, lse_over_keys) + self.contrastive_nll(own_clip, lse_over_queries)
        return mean_of_batch(0.5 * terms, present)


class SiglipObjective(CoarseObjective):
    """Sigmoid loss of every single pair of pooled embeddings (SigLIP: Zhai et al., ICCV 2023, equation 1).

    Scores are those of the coarse objective, with a bias.
    """

    def __init__(self, config: FgmmConfig):
        super().__init__(config)
        self.logit_bias = nn.Parameter(torch.empty(()))

    def initial_values(self) -> dict[str, float]:
        """The paper's start: scale 10, bias -10 (section 3.2)."""
        return {"logit_scale": math.log(10.0), "logit_bias": -10.0}

    def pooled_scale_and_bias(self) -> tuple[torch.Tensor, torch.Tensor | None]:
        return self.logit_scale, self.logit_bias

    def scale(self) -> torch.Tensor:
        """The logit scale, which the paper does not bound; published weights go beyond 100."""
        return self.logit_scale.exp()

    def pair_logits(self, queries: Queries, keys: Keys) -> torch.Tensor:
        return super().pair_logits(queries, keys) + self.logit_bias

    def min_logit(self) -> torch.Tensor:
        if not self.config.normalize_embeds:  # a dot product has no minimum
            return torch.full_like(self.logit_bias, torch.finfo(self.logit_bias.dtype).min)
        return super().min_logit() + self.logit_bias

    def loss(self, queries: Queries, keys: Keys, present: torch.Tensor, offset: int) -> torch.Tensor:
        logits = self.pair_logits(queries, keys)
        terms = -F.logsigmoid(torch.where(own_pairs(logits, offset), logits, -logits))
        terms = (terms * (queries.present.unsqueeze(1) & keys.present)).sum()
        number = mean_over_processes(present.sum())  # of matching pairs; without one there is no loss
        return torch.where(number > 0, terms, 0.0) / number.clamp(min=1e-6)


OBJECTIVES = {
    "fine": FineObjective,
    "coarse": CoarseObjective,
    "mil_nce": MilNceObjective,
    "filip": FilipObjective,
    "siglip": SiglipObjective,
}


def exp_logit_scale(logarithm: torch.Tensor) -> torch.Tensor:
    """The logit scale from its logarithm, at most 100."""
    return logarithm.clamp(max=MAX_LOGIT_SCALE).exp()


def masked_logsumexp(logits: torch.Tensor, mask: torch.Tensor, dim: int) -> torch.Tensor:
    """Log-sum-exp over one axis, where the mask is True; a very low finite number where it is nowhere.

    Args:
        logits: any shape.
        mask: bool, broadcast to the logits.
        dim: the axis.
    """
    return torch.logsumexp(logits.masked_fill(~mask, torch.finfo(logits.dtype).min / 4), dim)


def own_pairs(logits: torch.Tensor, offset: int) -> torch.Tensor:
    """(Bq, Bk) True where query and key are of the same item, the first key being that of query `offset`."""
    own = torch.zeros_like(logits, dtype=torch.bool)
    own[offset : offset + logits.shape[1]].fill_diagonal_(True)
    return own


def contrast_terms(
    logits: torch.Tensor, query_present: torch.Tensor, key_present: torch.Tensor, offset: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The logits of the matching pairs, and the denominators of both directions.

    Args:
        logits: (Bq, Bk) of all processes' queries with this process's keys.
        query_present: (Bq,) False for queries that take no part.
        key_present: (Bk,) False for keys that take no part.
        offset: index of this process's first item among the queries.

    Returns:
        (Bk,) each: the own logit; the log-sum-exp over all queries for the own key; the log-sum-exp over the keys of
        all processes for the own query.
    """
    rows = slice(offset, offset + logits.shape[1])
    own = logits[rows].diagonal()
    lse_over_queries = masked_logsumexp(logits, query_present.unsqueeze(1), 0)
    lse_over_keys = gather_stacked(masked_logsumexp(logits, key_present.unsqueeze(0), 1)).logsumexp(0)
    return own, lse_over_queries, lse_over_keys[rows]


def mean_of_batch(terms: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
    """Sum of the present terms (B,) over the mean number of present terms of a process; a number, 0 if none is."""
    return torch.where(present, terms, 0.0).sum() / mean_over_processes(present.sum()).clamp(min=1e-6)
