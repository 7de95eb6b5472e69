import math
import os
import socket

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing

from modeling_fgmm import FgmmConfig
from modeling_fgmm.loss_fgmm import Keys, PairObjective, Queries

SHARPNESS, DELTA, LOGIT_SCALE = 5.0, 1.5, 2.0


def make_objective() -> PairObjective:
    objective = PairObjective(FgmmConfig(coarse_loss_weight=0.3)).double()
    with torch.no_grad():
        objective.log_sharpness.fill_(math.log(SHARPNESS))
        objective.phrase_sharpness.fill_(DELTA)
        objective.logit_scale.fill_(LOGIT_SCALE)
        objective.coarse_logit_scale.fill_(LOGIT_SCALE)
    return objective


def make_items(number=5, num_phrases=4, num_captions=2, num_regions=6, dim=8):
    """Random items: the second has no text, the fourth no regions, some captions are missing."""
    generator = torch.Generator().manual_seed(0)

    def unit(*shape):
        return torch.nn.functional.normalize(torch.randn(*shape, generator=generator, dtype=torch.float64), dim=-1)

    mask = torch.rand(number, num_phrases, generator=generator) < 0.8
    mask[:, 0], mask[1] = True, False
    captions = torch.randint(0, num_captions, (number, num_phrases), generator=generator).masked_fill(~mask, 0)
    belongs = torch.nn.functional.one_hot(captions, num_captions).bool() & mask.unsqueeze(-1)
    region_mask = torch.rand(number, num_regions, generator=generator) < 0.8
    region_mask[:, 0], region_mask[3] = True, False
    tensors = [
        unit(number, num_phrases, dim),
        unit(number, num_captions, dim),
        unit(number, num_regions, dim),
        unit(number, dim),
    ]
    return tensors, (mask, captions, belongs.any(1), region_mask)


def loss_of(objective, tensors, masks, rows=slice(None)):
    phrases, caption_embeds, regions, embeds = (tensor[rows] for tensor in tensors)
    mask, captions, caption_mask, region_mask = (tensor[rows] for tensor in masks)
    return objective(Queries(phrases, mask, captions, caption_embeds, caption_mask), Keys(regions, region_mask, embeds))


def plain_loss(tensors, masks) -> float:
    """The objective of the design with loops over items, captions, phrases and regions."""
    phrases, caption_embeds, regions, embeds = tensors
    mask, captions, caption_mask, region_mask = masks
    number = len(phrases)

    def fine(i, k, j):
        scores = []
        for m in range(phrases.shape[1]):
            if mask[i, m] and captions[i, m] == k:
                cosines = [float(phrases[i, m] @ regions[j, n]) for n in range(regions.shape[1]) if region_mask[j, n]]
                weights = [math.exp(SHARPNESS * cosine) for cosine in cosines]
                scores.append(sum(w * c for w, c in zip(weights, cosines, strict=True)) / sum(weights))
        weights = [math.exp(DELTA * score) for score in scores]
        return sum(w * s for w, s in zip(weights, scores, strict=True)) / sum(weights)

    def coarse(i, k, j):
        return float(caption_embeds[i, k] @ embeds[j])

    def contrast(score):
        with_regions = [j for j in range(number) if region_mask[j].any()]
        with_text = [i for i in range(number) if caption_mask[i].any()]
        power = {
            (i, j): sum(math.exp(math.exp(LOGIT_SCALE) * score(i, k, j)) for k in range(2) if caption_mask[i, k])
            for i in with_text
            for j in with_regions
        }
        both = [i for i in with_text if i in with_regions]
        terms = [
            -0.5 * math.log(power[i, i] / sum(power[other, i] for other in with_text))
            - 0.5 * math.log(power[i, i] / sum(power[i, other] for other in with_regions))
            for i in both
        ]
        return sum(terms) / len(terms)

    return contrast(fine) + 0.3 * contrast(coarse)


def test_loss_is_that_of_the_design():
    tensors, masks = make_items()
    assert float(loss_of(make_objective(), tensors, masks)) == pytest.approx(plain_loss(tensors, masks), abs=1e-9)


def test_one_caption_an_item_is_symmetric_infonce():
    tensors, masks = make_items(num_captions=1)
    masks = (masks[0], torch.zeros_like(masks[1]), masks[2], masks[3])
    kept = [0, 2, 4]
    tensors, masks = [tensor[kept] for tensor in tensors], [mask[kept] for mask in masks]
    objective = make_objective()
    queries = Queries(tensors[0], masks[0], masks[1], tensors[1], masks[2])
    keys = Keys(tensors[2], masks[3], tensors[3])
    fine = objective.fine_scores(queries, keys).squeeze(-1) * math.exp(LOGIT_SCALE)
    coarse = objective.coarse_scores(queries, keys).squeeze(-1) * math.exp(LOGIT_SCALE)
    target = torch.arange(3)
    cross_entropy = torch.nn.functional.cross_entropy
    expected = [0.5 * (cross_entropy(x, target) + cross_entropy(x.T, target)) for x in (fine, coarse)]
    assert float(objective(queries, keys)) == pytest.approx(float(expected[0] + 0.3 * expected[1]), abs=1e-6)


def test_padding_changes_neither_loss_nor_gradient():
    outcomes = []
    for rubbish in (0.0, 1e3):
        tensors, masks = make_items()
        tensors = [
            tensors[0].masked_fill(~masks[0].unsqueeze(-1), rubbish),
            tensors[1].masked_fill(~masks[2].unsqueeze(-1), rubbish),
            tensors[2].masked_fill(~masks[3].unsqueeze(-1), rubbish),
            tensors[3].masked_fill(~masks[3].any(1, keepdim=True), rubbish),
        ]
        tensors = [tensor.requires_grad_() for tensor in tensors]
        loss = loss_of(make_objective(), tensors, masks)
        loss.backward()
        outcomes.append([loss.detach(), *(tensor.grad for tensor in tensors)])
    assert all(torch.equal(clean, dirty) for clean, dirty in zip(*outcomes, strict=True))


def test_no_item_with_both_modalities_gives_zero():
    tensors, masks = make_items()
    masks = (torch.zeros_like(masks[0]), masks[1], torch.zeros_like(masks[2]), masks[3])
    tensors = [tensor.requires_grad_() for tensor in tensors]
    loss = loss_of(make_objective(), tensors, masks)
    loss.backward()
    assert float(loss) == 0 and all(torch.isfinite(tensor.grad).all() for tensor in tensors)


def test_logit_scale_stays_bounded():
    objective = make_objective()
    with torch.no_grad():
        objective.logit_scale.fill_(50.0)
        objective.coarse_logit_scale.fill_(50.0)
    assert float(loss_of(objective, *make_items())) < 500


def run_process(rank: int, world: int, port: int, bounds: list[int], folder: str) -> None:
    """One of several processes: its rows' loss, and the gradients that DistributedDataParallel would average."""
    os.environ.update(MASTER_ADDR="localhost", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=world)
    tensors, masks = make_items()
    rows = slice(bounds[rank], bounds[rank + 1])
    mine = [tensor[rows].clone().requires_grad_() for tensor in tensors]
    # The last phrase column is cut off where this process has none, as collation would.
    my_masks = [mask[rows] for mask in masks]
    objective = make_objective()
    loss = loss_of(objective, mine, my_masks)
    loss.backward()
    torch.save([loss.detach(), [t.grad for t in mine], [p.grad for p in objective.parameters()]], f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.parametrize("bounds", [[0, 3, 5], [0, 2, 4, 5]])
def test_several_processes_equal_one(tmp_path, bounds):
    world = len(bounds) - 1
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    multiprocessing.spawn(run_process, (world, port, bounds, str(tmp_path)), nprocs=world)
    parts = [torch.load(tmp_path / f"{rank}.pt") for rank in range(world)]

    tensors, masks = make_items()
    tensors = [tensor.requires_grad_() for tensor in tensors]
    objective = make_objective()
    loss = loss_of(objective, tensors, masks)
    loss.backward()
    assert float(sum(part[0] for part in parts)) / world == pytest.approx(float(loss), abs=1e-9)
    for index, tensor in enumerate(tensors):
        gathered = torch.cat([part[1][index] for part in parts]) / world
        assert torch.allclose(gathered, tensor.grad, atol=1e-9)
    for index, parameter in enumerate(objective.parameters()):
        assert torch.allclose(sum(part[2][index] for part in parts) / world, parameter.grad, atol=1e-9)
