"""Where the checkout is, whose cards and commands the library of the commands works on; folders that users name."""

from pathlib import Path

from .cli import UserError

ROOT = Path(__file__).parents[2]
CARDS = ROOT / "model_cards"


def check_folder(folder: Path, remedy: str) -> None:
    """Checks that a folder exists.

    Args:
        folder: that the user named.
        remedy: what to give instead, where no path is spelt like this one.

    Raises:
        UserError: when it does not, with the path that was probably meant.
    """
    if folder.is_dir():
        return
    if folder.exists():
        raise UserError(f"{folder} is no folder; {remedy}.")
    from processing_fgmm.sources_fgmm import find_similar_path  # not at the top: the package imports torch

    close = find_similar_path(str(folder))
    raise UserError(f"{folder} does not exist; {f'did you mean {close}?' if close else f'{remedy}.'}")
