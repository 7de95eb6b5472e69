"""One contrast over more clips than fit into memory: encoders run chunk by chunk, twice, with cached gradients.

Every chunk is encoded without a graph; the loss of all embeddings together gives each embedding its gradient; then
every chunk is encoded again, with a graph, and the cached gradients are propagated into the weights (Gao et al.,
"Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup", RepL4NLP 2021). Loss and gradients are those
of the plain step, except that batch normalisation takes its statistics from a chunk.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch.nn.modules.batchnorm import _BatchNorm
from transformers.utils import ModelOutput

from modeling_fgmm import FgmmModel

# The fields of an encoder's output that the loss reads; the others are not kept.
CACHED = (
    ("regions", "region_mask", "pooler_output"),
    ("phrases", "phrase_mask", "phrase_captions", "caption_embeds", "caption_mask"),
)


def split_batch(inputs: dict[str, torch.Tensor], chunk_size: int) -> list[dict[str, torch.Tensor]]:
    """Splits model inputs of B items into chunks.

    Args:
        inputs: tensors (B, ...).
        chunk_size: items of a chunk at most; 0: one chunk of all items.
    """
    number = len(next(iter(inputs.values())))
    size = chunk_size or number
    return [{name: value[first : first + size] for name, value in inputs.items()} for first in range(0, number, size)]


def cached_backward(
    accelerator: Accelerator, model: FgmmModel, chunks: list[dict[str, torch.Tensor]]
) -> tuple[torch.Tensor, dict[str, ModelOutput]]:
    """Adds the gradients of one contrast over the items of all chunks and processes, averaged over processes.

    Args:
        accelerator: for autocast, loss scaling and communication.
        model: prepared by the accelerator, or plain.
        chunks: model inputs on the device, tensors (B, ...); chunks collated apart may differ in their other sizes.

    Returns:
        this process's loss, a scalar without graph, and the outputs of the encoders by modality, of all B items.
    """
    module = accelerator.unwrap_model(model)
    states, parts = [], []
    with torch.no_grad():
        for chunk in chunks:
            states.append(get_random_state())
            with accelerator.autocast():
                parts.append(module.encode_inputs(**chunk))
    cached = {modality: concatenate_outputs([part[modality] for part in parts]) for modality in parts[0]}
    for output in cached.values():
        for name in output:
            if output[name].is_floating_point():
                output[name].requires_grad_()
    with accelerator.autocast():
        loss = module.contrast(cached)
    accelerator.backward(loss)
    first = 0
    for chunk, state in zip(chunks, states, strict=True):
        rows = slice(first, first + len(next(iter(chunk.values()))))
        first = rows.stop
        with random_state(state), frozen_statistics(module), accelerator.autocast():
            outputs = module.encode_inputs(**chunk)
            with torch.autocast(accelerator.device.type, enabled=False):
                backward_rows(outputs, cached, rows)  # with gradient checkpointing it encodes once more
    for parameter in module.parameters():
        if parameter.grad is not None and accelerator.num_processes > 1:
            parameter.grad = accelerator.reduce(parameter.grad, "mean")
    return loss.detach(), cached


def concatenate_outputs(parts: list[ModelOutput]) -> ModelOutput:
    """Concatenates the fields that the loss reads.

    Args:
        parts: outputs of one encoder, tensors (B, n, ...) or (B,) with their own B and n.

    Returns:
        an output of tensors (sum of B, largest n, ...) or (sum of B,); shorter parts are padded by zeros.
    """
    names = next(names for names in CACHED if names[0] in parts[0])
    joined = {}
    for name in names:
        longest = max(part[name].shape[1] for part in parts)
        padded = [pad_second(part[name], longest) if part[name].ndim > 1 else part[name] for part in parts]
        joined[name] = torch.cat(padded)
    return type(parts[0])(**joined)


def pad_second(tensor: torch.Tensor, length: int) -> torch.Tensor:
    """Pads (B, n, ...) to (B, length, ...) by zeros."""
    return F.pad(tensor, [0, 0] * (tensor.ndim - 2) + [0, length - tensor.shape[1]])


def backward_rows(outputs: dict[str, ModelOutput], cached: dict[str, ModelOutput], rows: slice) -> None:
    """Propagates the cached gradients of one chunk through the encoders.

    Args:
        outputs: of the chunk with its graph, by modality, tensors (B of the chunk, n, ...).
        cached: of all chunks, with gradients, tensors (B of all, largest n, ...).
        rows: those of the chunk in `cached`.
    """
    tensors, gradients = [], []
    for modality, output in outputs.items():
        for name, whole in cached[modality].items():
            if whole.grad is not None:
                tensor = output[name]
                tensors.append(tensor)
                gradients.append(whole.grad[rows, : tensor.shape[1]].to(tensor.dtype))
    torch.autograd.backward(tensors, gradients)


def get_random_state() -> tuple:
    """The state of the random generators of the CPU and, where there is one, the current GPU."""
    return torch.get_rng_state(), torch.cuda.get_rng_state() if torch.cuda.is_available() else None


@contextmanager
def random_state(state: tuple) -> Iterator[None]:
    """Draws random numbers (dropout's) from a given state, and restores the present one afterwards."""
    before = get_random_state()
    set_random_state(state)
    try:
        yield
    finally:
        set_random_state(before)


def set_random_state(state: tuple) -> None:
    """Sets what [`get_random_state`] gave."""
    torch.set_rng_state(state[0])
    if state[1] is not None:
        torch.cuda.set_rng_state(state[1])


@contextmanager
def frozen_statistics(module: torch.nn.Module) -> Iterator[None]:
    """Keeps batch normalisation's running statistics as they are: the first pass has counted the chunk."""
    norms = [part for part in module.modules() if isinstance(part, _BatchNorm) and part.track_running_stats]
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True
