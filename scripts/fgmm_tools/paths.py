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
    check_exists(folder, remedy)
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder; {remedy}.")


def check_exists(path: Path, remedy: str) -> None:
    """Checks that a file or folder exists; arguments and errors as of [`check_folder`]."""
    if path.exists():
        return
    from processing_fgmm.names_fgmm import find_similar_path  # not at the top: the package imports torch

    close = find_similar_path(str(path))
    raise UserError(f"{path} does not exist; {f'did you mean {close}?' if close else f'{remedy}.'}")
