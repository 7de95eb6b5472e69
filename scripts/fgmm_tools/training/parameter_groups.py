"""What of a model is trained, and how fast: learning rates of encoders and new weights, layer-wise decay, adapters."""

import re

from torch import nn

from modeling_fgmm import FgmmConfig, FgmmPreTrainedModel

from ..cli import UserError

# Lists of layers in transformers' encoders, by which a layer is named: `encoder.layers.3`, `layers.1.blocks.0`.
LAYER = re.compile(r"\.(?:layers?|blocks?|h)\.(\d+)(?=\.)")
# Before the first layer.
EMBEDDINGS = re.compile(r"embed|feature_extractor|feature_projection|pre_layrnorm|\.batch_norm\.|\.conv[12]\.")
# The names of adapters' weights.
ADAPTER = "default"


def make_parameter_groups(
    model: FgmmPreTrainedModel,
    learning_rate: float,
    weight_decay: float,
    encoder_learning_rate: float | None = None,
    layer_decay: float = 1.0,
) -> list[dict]:
    """The parameters that are not frozen, as an optimiser takes them; weights of one dimension or none do not decay.

    Args:
        model: the encoders of which are in `encoders`.
        learning_rate: of new weights: objectives, and projections or a classifier.
        weight_decay: of matrices and kernels.
        encoder_learning_rate: of the encoders, and of a dual encoder's own projections; None: that of new weights.
        layer_decay: factor on the rate of each layer of one of transformers' encoders, from its last layer down to its
            embeddings (ELECTRA: Clark et al., ICLR 2020, appendix A; BEiT).

    Returns:
        groups with "params", "lr" and "weight_decay", those of new weights first.
    """
    encoder_learning_rate = learning_rate if encoder_learning_rate is None else encoder_learning_rate
    factors = layer_factors(model, layer_decay)
    groups = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        of_encoder = is_of_encoder(name, model.config)
        rate = encoder_learning_rate * factors.get(name, 1.0) if of_encoder else learning_rate
        decays = parameter.ndim > 1  # not biases, norms, scales, sharpness
        # Groups of one rate are one, so that without these options there are two.
        key = (rate, decays)
        group = {"params": [], "lr": rate, "weight_decay": weight_decay if decays else 0.0}
        groups.setdefault(key, group)["params"].append(parameter)
    return [groups[key] for key in sorted(groups, key=lambda key: (key[0] != learning_rate, -key[0], not key[1]))]


def is_of_encoder(name: str, config: FgmmConfig) -> bool:
    """Whether a parameter is of an encoder, or of the projection that a dual encoder brought along."""
    if name.startswith("encoders."):
        return True
    part, _, modality = name.partition(".")
    return part == "projections" and modality.partition(".")[0] in config.dual_modalities


def layer_factors(model: FgmmPreTrainedModel, layer_decay: float) -> dict[str, float]:
    """The factor on the learning rate of each parameter of transformers' encoders, by its name.

    The last layer, and what follows it, has 1, the layer before it `layer_decay`, and so on; embeddings are one before
    the first layer.
    """
    factors = {}
    for modality, encoder in model.encoders.items():
        if not has_layers(encoder):
            continue
        names = [name for name, _ in encoder.model.named_parameters()]
        # By the numbers in their names, (stage, block) of encoders of several stages.
        layers = sorted({place for name in names if (place := layer_of(name))})
        for name in names:
            place = layer_of(name)
            if place:
                above = len(layers) - 1 - layers.index(place)
            else:
                above = len(layers) if is_embedding(name) else 0
            factors[f"encoders.{modality}.model.{name}"] = layer_decay**above
    return factors


def layer_of(name: str) -> tuple[int, ...]:
    """The numbers of the layer that a parameter is in; none before and behind the layers."""
    return () if is_embedding(name) else tuple(int(number) for number in LAYER.findall(f".{name}"))


def is_embedding(name: str) -> bool:
    """Whether a parameter is of what comes before the first layer, be that a network with layers of its own."""
    return bool(EMBEDDINGS.search(LAYER.split(f".{name}", maxsplit=1)[0] + "."))


def has_layers(encoder: nn.Module) -> bool:
    """Whether an encoder is one of transformers'."""
    return isinstance(getattr(encoder, "model", None), nn.Module)


def add_adapters(model: FgmmPreTrainedModel, rank: int) -> None:
    """Freezes transformers' encoders but for low-rank adapters of all their linear layers, which are added.

    LoRA (Hu et al., ICLR 2022, equation 3), with α = 2r. Encoders that the configuration freezes get none; ours,
    projections and objective are trained whole. The statistics of batch normalisation (CLAP's) follow the clips.

    Args:
        model: changed.
        rank: of the adapters (r).

    Raises:
        UserError: when there is no layer to adapt.
    """
    from peft import LoraConfig, inject_adapter_in_model  # of an extra

    targets = [
        f"encoders.{modality}.model.{name}"
        for modality, encoder in model.encoders.items()
        if has_layers(encoder) and modality not in model.config.frozen
        for name in find_linear_layers(encoder.model)
    ]
    if not targets:
        raise UserError("lora_rank has nothing to adapt: no encoder that is trained is one of transformers'.")
    adapted = tuple({".".join(name.split(".")[:2]) + "." for name in targets})
    trained = [
        parameter
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and not name.startswith(adapted)
    ]
    options = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=targets)
    inject_adapter_in_model(options, model, adapter_name=ADAPTER)
    for parameter in trained:  # of these peft turns the gradients off, too
        parameter.requires_grad_(True)


def find_linear_layers(model: nn.Module) -> list[str]:
    """The names of the linear layers that are called as modules; PyTorch's own attention reads the weights of its."""
    inside = tuple(f"{name}." for name, module in model.named_modules() if isinstance(module, nn.MultiheadAttention))
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and not (inside and name.startswith(inside))
    ]


def merge_adapters(model: FgmmPreTrainedModel) -> None:
    """Adds what adapters have learned to the weights of their layers, and removes them: a model as it was before."""
    from peft.tuners.lora import LoraLayer

    layers = {name: module for name, module in model.named_modules() if isinstance(module, LoraLayer)}
    for name, layer in layers.items():
        layer.merge()
        parent, _, last = name.rpartition(".")
        setattr(model.get_submodule(parent), last, layer.get_base_layer())
    if hasattr(model, "peft_config"):
        del model.peft_config
