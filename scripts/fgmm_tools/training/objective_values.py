"""What the objectives do while they train: loss, scales and gates of each pair of modalities, entropy of attention."""

import math

import torch
from accelerate import Accelerator
from torch import nn
from transformers.utils import ModelOutput

from modeling_fgmm import FgmmModel
from modeling_fgmm.loss_fgmm import FineObjective, PairObjective, exp_logit_scale
from modeling_fgmm.outputs_fgmm import iterate_pairs
from modeling_fgmm.scoring_fgmm import Keys, Queries

# Items of a process, of the last step, whose attention is measured.
MAX_ITEMS = 8
# What is measured of a pair's attention, see [`attention_sums`].
ATTENTION = ("attention_entropy", "whole_caption_weight", "gate_mean", "gate_square")


class PairLosses:
    """Keeps the loss of each pair of modalities, as the training steps compute it: nothing is computed twice.

    Args:
        model: without wrappers.
    """

    def __init__(self, model: FgmmModel):
        self.losses: dict[str, list[torch.Tensor]] = {name: [] for name in model.objectives}
        for name, objective in model.objectives.items():
            objective.register_forward_hook(self.make_hook(name))

    def make_hook(self, name: str):
        """A hook of the objective of one pair."""

        def keep(objective: nn.Module, inputs: tuple[Queries, Keys], output: torch.Tensor) -> None:
            if torch.is_grad_enabled():  # else it is a measurement
                queries, keys = inputs
                is_present = (queries.present & keys.present).any()
                self.losses[name].append(torch.stack([output.detach().float(), is_present.float()]))

        return keep

    def report(self, accelerator: Accelerator) -> dict[str, float]:
        """The mean loss of each pair since the last report, over the steps in which an item of any process had both
        modalities and the loss was a number; all processes call it together."""
        values = {}
        for name, steps in self.losses.items():
            if not steps:
                continue
            losses, present = accelerator.reduce(torch.stack(steps), "mean").cpu().unbind(1)
            counted = losses[(present > 0) & losses.isfinite()]
            steps.clear()
            if len(counted):
                values[f"loss/{name}"] = counted.mean().item()
        return values


@torch.no_grad()
def read_scales(model: FgmmModel) -> dict[str, float]:
    """The numbers that objectives learn: logit scales, sharpness γ of the attention over regions and δ of that over
    phrases, of each pair of modalities that has them."""
    values = {}
    for pair, objective in model.objectives.items():
        values[f"logit_scale/{pair}"] = objective.scale()
        if objective.needs_phrases and math.isfinite(sharpness := as_number(objective.sharpness())):
            values[f"sharpness/{pair}"] = sharpness
        if isinstance(objective, FineObjective):
            values[f"phrase_sharpness/{pair}"] = objective.phrase_sharpness
            values[f"coarse_logit_scale/{pair}"] = exp_logit_scale(objective.coarse_logit_scale)
    return {name: as_number(value) for name, value in values.items()}


def as_number(value: torch.Tensor | float) -> float:
    """A parameter's value."""
    return torch.as_tensor(value).detach().item()


@torch.no_grad()
def measure_attention(accelerator: Accelerator, model: FgmmModel, outputs: dict[str, ModelOutput]) -> dict[str, float]:
    """How the pairs of modalities whose objective compares phrases attend in some clips of the last step.

    All processes call it together. For each pair: `attention_entropy`, the entropy of a phrase's attention over the
    regions of its own clip by that of the uniform attention, 0 (one region) to 1 (all alike); `whole_caption_weight`,
    the mean weight of a caption as a whole in its own score; `gate_spread`, the standard deviation of the gates over
    phrases.

    Args:
        accelerator, model: as trained; the model without wrappers.
        outputs: of the encoders in the last step, by modality; B items.
    """
    compared = {
        "_".join(pair): attention_sums(model.get_objective(*pair), queries, keys)
        for pair, queries, keys in iterate_pairs(outputs)
        if model.get_objective(*pair).needs_phrases
    }
    if not compared:
        return {}
    totals = accelerator.reduce(torch.stack(list(compared.values())), "sum").tolist()
    values = {}
    for pair, sums in zip(compared, totals, strict=True):
        means = {name: total / count for name, (total, count) in zip(ATTENTION, sums, strict=True) if count}
        if "gate_mean" in means:
            means["gate_spread"] = max(means.pop("gate_square") - means.pop("gate_mean") ** 2, 0.0) ** 0.5
        values |= {f"{name}/{pair}": value for name, value in means.items()}
    return values


def attention_sums(objective: PairObjective, queries: Queries, keys: Keys) -> torch.Tensor:
    """(4, 2) for each of `ATTENTION` its sum and the number of its terms, over the first items of this process."""
    chosen = (queries.present & keys.present).nonzero().squeeze(1)[:MAX_ITEMS]
    sums = torch.zeros(len(ATTENTION), 2, device=chosen.device)
    if not len(chosen):
        return sums
    queries, keys = queries.select(chosen), keys.select(chosen)
    attention = objective(queries, keys, output="attention")
    regions, weights = (of.diagonal(dim1=0, dim2=1).movedim(-1, 0) for of in (attention.regions, attention.phrases))
    mask, num_phrases = attention.queries.mask, attention.num_phrases
    num_regions = keys.mask.sum(1)
    entropy = torch.special.entr(regions).sum(-1) / num_regions.clamp(min=2).log().unsqueeze(1)  # (B, P)
    sums[0] = sum_and_count(entropy, mask & (num_regions > 1).unsqueeze(1))
    sums[1] = sum_and_count(weights[:, num_phrases:], mask[:, num_phrases:])
    if isinstance(objective, FineObjective) and (gates := objective.gates(attention.queries)) is not None:
        gates, mask = gates[:, :num_phrases], mask[:, :num_phrases]
        sums[2], sums[3] = sum_and_count(gates, mask), sum_and_count(gates**2, mask)
    return sums


def sum_and_count(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """(2,) the sum of the values where the mask, of the same shape, is True, and their number."""
    return torch.stack([values[mask].sum().float(), mask.sum().float()])
