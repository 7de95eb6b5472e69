import os
from itertools import pairwise

import pytest
import torch
import torch.distributed as dist
from helpers import run_processes
from tiny_objectives import OBJECTIVE_VARIANTS, make_items, make_objective, make_pair

from modeling_fgmm.distributed_fgmm import gather_items, gather_queries, gather_stacked, mean_over_processes

# The first items of each of three processes and the end: uneven; one without text; one without regions; one without
# items.
SHARES = ([0, 2, 4, 5], [0, 1, 2, 5], [0, 3, 4, 5], [0, 3, 3, 5])


def test_one_process_gathers_what_it_has():
    tensors, masks = make_items()
    queries, _ = make_pair(tensors, masks)
    gathered, offset = gather_queries(queries)
    assert gathered is queries and offset == 0
    assert torch.equal(gather_stacked(tensors[0]), tensors[0].unsqueeze(0))
    assert torch.equal(gather_items(tensors[0], [5]), tensors[0])
    assert mean_over_processes(torch.tensor(3)).item() == 3.0


def loss_and_gradients(options: dict, rows=slice(None)) -> tuple:
    """The loss of some of the items, and the gradients of their tensors and of the objective's parameters."""
    tensors, masks = make_items()
    mine = [tensor[rows].clone().requires_grad_() for tensor in tensors]
    objective = make_objective(**options)
    loss = objective(*make_pair(mine, [mask[rows] for mask in masks]))
    loss.backward()
    parameters = [parameter for parameter in objective.parameters() if parameter.requires_grad]
    assert all(parameter.grad is not None for parameter in parameters)  # DistributedDataParallel would wait for it
    return loss.detach(), [tensor.grad for tensor in mine], [parameter.grad for parameter in parameters]


def gather_uneven(rank: int, bounds: list[int]) -> dict:
    """What this process gathers: items, and queries of as many phrases and captions as it has items."""
    tensors, masks = make_items()
    rows = slice(bounds[rank], bounds[rank + 1])
    number = rows.stop - rows.start
    counts = [last - first for first, last in pairwise(bounds)]
    mine = tensors[0][rows].clone().requires_grad_()
    items = gather_items(mine, counts)
    (items * (rank + 1) * torch.arange(5).view(-1, 1, 1)).sum().backward()
    queries, _ = make_pair(tensors, masks, rows)
    cut = {"phrases": queries.phrases[:, :number], "mask": queries.mask[:, :number]}
    cut |= {"captions": torch.zeros_like(queries.captions[:, :number]), "caption_mask": queries.caption_mask[:, :1]}
    queries, offset = gather_queries(type(queries)(**cut, embeds=queries.embeds[:, :1]))
    mean = mean_over_processes(torch.tensor([float(number), rank]))
    found = {"items": items.detach(), "gradient": mine.grad, "offset": offset, "mean": mean}
    return {**found, "phrases": queries.phrases, "mask": queries.mask}


def run_process(rank: int, world: int, port: int, bounds: list[int], folder: str) -> None:
    """One of several processes: losses and gradients of its shares of the items, and what it gathers."""
    os.environ.update(MASTER_ADDR="localhost", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=world)
    outcomes = []
    for share in SHARES:
        rows = slice(share[rank], share[rank + 1])
        losses = {name: loss_and_gradients(options, rows) for name, options in OBJECTIVE_VARIANTS.items()}
        outcomes.append({"losses": losses, **gather_uneven(rank, share)})
    torch.save(outcomes, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def check_losses(parts: tuple[dict, ...]) -> None:
    """Each objective's loss and gradients are those of one process with all items, in float64."""
    world = len(parts)
    for name, options in OBJECTIVE_VARIANTS.items():
        loss, inputs, parameters = loss_and_gradients(options)
        assert all(gradient.abs().min() > 0 for gradient in parameters)
        shares = [part["losses"][name] for part in parts]
        assert abs(sum(share[0] for share in shares) / world - loss) < 1e-9, name
        for index, gradient in enumerate(inputs):
            if gradient is not None:
                gathered = torch.cat([share[1][index] for share in shares]) / world
                assert torch.allclose(gathered, gradient, atol=1e-9), name
        for index, gradient in enumerate(parameters):
            assert torch.allclose(sum(share[2][index] for share in shares) / world, gradient, atol=1e-9), name


def check_gathered(parts: tuple[dict, ...], bounds: list[int]) -> None:
    """Items come in order, with padding for what is shorter, and gradients are summed over processes."""
    tensors, masks = make_items()
    counts = [last - first for first, last in pairwise(bounds)]
    gradient = torch.arange(5.0).view(-1, 1, 1).expand_as(tensors[0]) * sum(range(1, len(parts) + 1))
    assert torch.equal(torch.cat([part["gradient"] for part in parts]), gradient.double())
    for rank, part in enumerate(parts):
        assert torch.equal(part["items"], tensors[0]) and part["offset"] == bounds[rank]
        assert part["mean"].tolist() == pytest.approx([5 / len(parts), sum(range(len(parts))) / len(parts)])
        assert part["phrases"].shape == (5, max(counts), 8)
        for owner, number in enumerate(counts):
            rows = slice(bounds[owner], bounds[owner + 1])
            assert torch.equal(part["phrases"][rows, :number], tensors[0][rows, :number])
            assert torch.equal(part["mask"][rows, :number], masks[0][rows, :number])
            assert not part["mask"][rows, number:].any()


def test_several_processes_equal_one(tmp_path):
    """All shares and objectives in one set of processes, which takes longer to start than to work."""
    parts = run_processes(run_process, SHARES[0], tmp_path)
    for share, outcomes in zip(SHARES, zip(*parts, strict=True), strict=True):
        check_losses(outcomes)
        check_gathered(outcomes, share)
