import time

import torch
from torch import nn

from fgmm_tools.training.checkpoints import Progress
from fgmm_tools.training.cost import core_seconds, counting_operations


def test_operations_are_those_of_forward_and_backward():
    layer, inputs, progress = nn.Linear(5, 7), torch.randn(3, 5, requires_grad=True), Progress()
    with counting_operations(progress):
        layer(inputs).sum().backward()
    assert progress.operations_per_step == 3 * 2 * 3 * 5 * 7  # the product, and those of the two gradients
    with counting_operations(progress):  # one step stands for all
        layer(torch.randn(100, 5)).sum().backward()
    assert progress.operations_per_step == 3 * 2 * 3 * 5 * 7


def test_core_seconds_count_work_and_not_waiting():
    started = core_seconds()
    time.sleep(0.3)
    assert core_seconds() - started < 0.2
    matrix = torch.randn(300, 300)
    until = time.monotonic() + 0.3
    while time.monotonic() < until:
        matrix @ matrix
    assert core_seconds() - started > 0.1
