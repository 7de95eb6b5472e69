"""Models that commands are given by name."""

import hashlib
import json

import torch
from accelerate.utils import set_seed
from transformers import AutoConfig

from modeling_fgmm import FgmmModel
from modeling_fgmm.configuration_fgmm import DUAL_ENCODERS
from processing_fgmm import FgmmProcessor
from processing_fgmm.names_fgmm import explain_absence

from .cli import UserError

# Settings of a configuration or processor that do not change what a model computes; weights have their dtypes.
NAMES_OF_ORIGIN = {"_name_or_path", "name_or_path", "transformers_version", "architectures", "auto_map"}
NAMES_OF_ORIGIN |= {"processor_class", "dtype"}


def load_model(name: str) -> tuple[FgmmModel, FgmmProcessor]:
    """A model in evaluation mode, and its processor.

    Args:
        name: a folder or a model on the Hub, of fgmm, or a dual encoder of transformers, which is taken whole.

    Raises:
        UserError: when there is none of that name, it is of another kind, or its files are damaged or incomplete.
    """
    check_exists(name)
    report = {"missing_keys": []}
    try:
        kind = AutoConfig.from_pretrained(name).model_type
        if kind == "fgmm":
            model, report = FgmmModel.from_pretrained(name, output_loading_info=True)
        elif is_dual_encoder(kind):
            model = FgmmModel.from_dual_encoder(name)
        if kind == "fgmm" or is_dual_encoder(kind):
            processor = load_processor(name)
    except Exception as error:  # damaged files make transformers, safetensors and tokenizers raise whatever they meet
        raise UserError(explain_failure(name, error)) from error
    if kind != "fgmm" and not is_dual_encoder(kind):
        raise UserError(
            f"{name!r} is a model of the kind {kind}, not fgmm and none of the dual encoders "
            f"{', '.join(DUAL_ENCODERS)}; FgmmModel.from_encoders makes one of it."
        )
    if report["missing_keys"]:
        missing = sorted(report["missing_keys"])
        raise UserError(
            f"The model {name!r} has no weights for {missing[0]} and {len(missing) - 1} more; give one that "
            "scripts/pretrain.py or FgmmModel.save_pretrained saved whole."
        )
    return model.eval(), processor


def is_dual_encoder(kind: str | None) -> bool:
    """Whether a model type is that of a dual encoder of transformers that can be taken whole."""
    return kind in DUAL_ENCODERS


def load_processor(name: str) -> FgmmProcessor:
    """The processor of an fgmm model, or of a dual encoder."""
    kind = AutoConfig.from_pretrained(name).model_type
    return FgmmProcessor.from_dual_encoder(name) if is_dual_encoder(kind) else FgmmProcessor.from_pretrained(name)


def check_exists(name: str) -> None:
    """Checks at once that there is a folder or a model on the Hub of a name.

    Raises:
        UserError: when there is none.
    """
    remedy = "give a folder that scripts/pretrain.py wrote, or a model's name on the Hub"
    if absence := explain_absence(name, "model", remedy):
        raise UserError(f"The model {absence}")


def explain_failure(name: str, error: Exception) -> str:
    """Why a model cannot be loaded, and what to do."""
    if type(error) is ValueError:  # its configuration is refused, by a sentence
        return f"The model {name!r} cannot be loaded: {str(error).splitlines()[0].rstrip('.')}."
    if isinstance(error, ImportError):
        return f"The model {name!r} cannot be loaded: {' '.join(str(error).split()).rstrip('.')}."
    cause = f"{type(error).__name__}: {error}".splitlines()[0].rstrip(".")
    return (
        f"The model {name!r} cannot be loaded ({cause}); its files are damaged or incomplete: save or download it once "
        "more."
    )


def fingerprint_weights(model: FgmmModel, processor: FgmmProcessor) -> str:
    """A hash of what embeddings depend on, weights and settings; the same wherever the model is stored."""
    digest = hashlib.sha256()
    for settings in (model.config.to_dict(), processor.to_dict()):
        digest.update(json.dumps(without_origin(settings), sort_keys=True, default=str).encode())
    for name, values in sorted(model.state_dict().items()):
        digest.update(f"{name} {values.dtype} {tuple(values.shape)}".encode())
        digest.update(values.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def without_origin(settings):
    """Settings without the entries that say where they were loaded from and by which version."""
    if isinstance(settings, dict):
        return {name: without_origin(value) for name, value in settings.items() if name not in NAMES_OF_ORIGIN}
    return [without_origin(value) for value in settings] if isinstance(settings, (list, tuple)) else settings


def with_random_weights(model: FgmmModel, seed: int) -> FgmmModel:
    """The model's architecture with random weights, in evaluation mode.

    Args:
        seed: of the weights.
    """
    set_seed(seed)
    return FgmmModel(model.config).eval()
