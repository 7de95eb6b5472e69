"""Weights that are shared out to processes (FSDP2), as an accelerate configuration asks for; see configs/accelerate.

Encoders and projections are sharded. The objectives are a few numbers and vectors, some of them without a dimension to
shard: every process holds them whole, and their gradients are averaged here.
"""

import os
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils.fsdp_utils import FSDP_MODEL_NAME
from torch.distributed.fsdp import MixedPrecisionPolicy
from torch.distributed.fsdp.fully_sharded_data_parallel import StateDictType
from torch.distributed.fsdp.wrap import transformer_auto_wrap_policy

from modeling_fgmm import FgmmModel

from ..cli import UserError
from .configuration import PretrainConfig
from .parameter_groups import has_layers


def check_sharding(config: PretrainConfig, accelerator: Accelerator) -> None:
    """Checks what an accelerate configuration asks for.

    Raises:
        UserError: for FSDP where accelerate has none, in another form than ours, or with settings that need the whole
            model in each process.
    """
    if os.environ.get("ACCELERATE_USE_FSDP", "false").lower() != "true":
        return
    if accelerator.num_processes == 1 or accelerator.device.type == "cpu":
        raise UserError(
            "FSDP needs several processes with GPUs; accelerate trains the whole model in each process where it has "
            "none, and does not say so. Launch with scripts/configs/accelerate/ddp.yaml."
        )
    if not accelerator.is_fsdp2:
        raise UserError("Models are sharded by FSDP2; set fsdp_version: 2, as scripts/configs/accelerate/fsdp2.yaml.")
    if accelerator.state.fsdp_plugin.state_dict_type != StateDictType.FULL_STATE_DICT:
        raise UserError(
            "Checkpoints of sharded models hold pickled Python objects, which are not loaded; set "
            "fsdp_state_dict_type: FULL_STATE_DICT, as scripts/configs/accelerate/fsdp2.yaml."
        )
    # Both run encoders without the call of the model that gathers its weights, and adapters are added to whole ones.
    for name, without in (("encoder_chunk_size", 0), ("gradient_accumulation_steps", 1), ("lora_rank", 0)):
        if getattr(config, name) != without:
            raise UserError(f"FSDP has no {name}; leave it out, or launch with scripts/configs/accelerate/ddp.yaml.")


def prepare_sharding(accelerator: Accelerator, model: FgmmModel, optimizer: torch.optim.Optimizer) -> None:
    """Prepares what `accelerator.prepare` shards; without FSDP it does nothing.

    Args:
        accelerator: says which layers are gathered at once where it names them; else those of each encoder are.
        model: not prepared yet.
        optimizer: its groups are divided, as one group cannot have sharded and whole parameters.
    """
    if not accelerator.is_fsdp2:
        return
    plugin = accelerator.state.fsdp_plugin
    model.to(memory_format=torch.contiguous_format)  # weights in another order cannot be sharded
    plugin.ignored_modules = [model.objectives]
    plugin.mixed_precision_policy = MixedPrecisionPolicy()  # autocast rounds, as without FSDP; the loss stays float32
    if plugin.auto_wrap_policy is transformer_auto_wrap_policy and not plugin.transformer_cls_names_to_wrap:
        plugin.transformer_cls_names_to_wrap = find_layer_classes(model)
    whole = set(model.objectives.parameters())
    for group in list(optimizer.param_groups):
        kept = [parameter for parameter in group["params"] if parameter in whole]
        if kept:
            group["params"] = [parameter for parameter in group["params"] if parameter not in whole]
            optimizer.add_param_group({**group, "params": kept})


def find_layer_classes(model: FgmmModel) -> list[str]:
    """The names of the layers of the encoders, ours and transformers', as these name what must not be split."""
    # A part of the stem is called by itself, which gathers nothing: it stays with the weights outside of layers.
    sources = [model, *(encoder.model for encoder in model.encoders.values() if has_layers(encoder))]
    named = {name for source in sources for name in getattr(source, "_no_split_modules", None) or ()}
    return sorted((named - {"Stem"}) & {type(module).__name__ for module in model.modules()})


def average_whole_gradients(accelerator: Accelerator, model: FgmmModel) -> None:
    """Averages the gradients of the objectives over processes, as FSDP does those of what it shards.

    Args:
        accelerator: all processes call it together; without FSDP it does nothing.
        model: as prepared.
    """
    if not accelerator.is_fsdp2:
        return
    for parameter in model.objectives.parameters():
        gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        parameter.grad = accelerator.reduce(gradient, "mean")


def gather_model(accelerator: Accelerator, model: torch.nn.Module) -> FgmmModel | None:
    """The whole model without wrappers; all processes call it together, and the random state stays as it is.

    Returns:
        the trained model itself; with FSDP a copy of it in the main process, and None in the others.
    """
    module = accelerator.unwrap_model(model)
    if not accelerator.is_fsdp2:
        return module
    state = accelerator.get_state_dict(model)
    if not accelerator.is_main_process:
        return None
    with torch.random.fork_rng():
        copy = FgmmModel(module.config)
    copy.load_state_dict(state)
    return copy.to(accelerator.device).train(module.training)


def check_checkpoint(accelerator: Accelerator, checkpoint: Path) -> None:
    """Checks that a checkpoint is of a run that was sharded as this one is.

    Raises:
        UserError: when it is not.
    """
    was_sharded = (checkpoint / f"{FSDP_MODEL_NAME}.bin").exists()
    if was_sharded != accelerator.is_fsdp2:
        word = "with" if was_sharded else "without"
        raise UserError(f"{checkpoint} was written {word} FSDP; resume {word} it, with any number of processes.")
