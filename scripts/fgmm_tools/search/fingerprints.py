"""Whether a model is the one that an index was made with."""

from pathlib import Path

from modeling_fgmm import FgmmModel
from processing_fgmm import FgmmProcessor

from ..cli import UserError
from ..models import fingerprint_weights


def check_fingerprint(model: FgmmModel, processor: FgmmProcessor, expected: str, name: str, index: Path) -> None:
    """Checks that a model has the fingerprint of an index.

    Args:
        expected: the fingerprint. name: of the model. index: the folder, for the message.

    Raises:
        UserError: when it has another one.
    """
    if fingerprint_weights(model, processor) != expected:
        raise UserError(
            f"The model {name!r} is not the one that the index {index} was made with, so that their embeddings cannot "
            "be compared; give that model, or make another index by index_videos.py --index."
        )
