"""Models that commands are given by name."""

from pathlib import Path

from safetensors import SafetensorError
from transformers import AutoModel, AutoProcessor

from modeling_fgmm import FgmmModel
from processing_fgmm import FgmmProcessor

from .cli import UserError


def load_model(name: str) -> tuple[FgmmModel, FgmmProcessor]:
    """A model for evaluation, and its processor.

    Raises:
        UserError: when there is none of that name, it is damaged, or it is no fgmm model.
    """
    try:
        model = AutoModel.from_pretrained(name).eval()
        if model.config.model_type != "fgmm":
            raise UserError(f"{name!r} is a model of the kind {model.config.model_type}, not fgmm.")
        return model, AutoProcessor.from_pretrained(name)
    except UserError:
        raise
    except (OSError, ValueError, SafetensorError) as error:
        place = "" if Path(name).is_dir() else " is no folder here, and"
        raise UserError(f"The model {name!r}{place} could not be loaded: {str(error).splitlines()[0]}") from error
