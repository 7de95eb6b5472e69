"""Names of models and corpora: folders here, or repositories on the Hub. Misspelt ones are found at once.

transformers and datasets ask the Hub for every name that is no folder, and repeat the question for half a minute where
it cannot be reached.
"""

import difflib
import os
from pathlib import Path

from huggingface_hub import HfApi, constants
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    RepositoryNotFoundError,
)
from huggingface_hub.file_download import repo_folder_name
from huggingface_hub.utils import validate_repo_id

# How long the Hub may take to answer whether it has a repository, seconds.
TIMEOUT = 3.0
# How alike a name and one that is suggested for it are, 0 to 1; and files of a folder among which none is looked for.
SIMILARITY, MAX_ENTRIES = 0.7, 10_000


def explain_absence(name: str, repo_type: str, remedy: str) -> str | None:
    """Why there is nothing of a name, here or on the Hub.

    Args:
        name: a path, or a name on the Hub; addresses (`hf://...`) are not looked at.
        repo_type: `"model"` or `"dataset"`.
        remedy: what to give instead, where no name is like this one.

    Returns:
        the end of a sentence, from the name on; None where it can be loaded, or the Hub itself must say why not.
    """
    if "://" in name or os.path.isdir(name):
        return None
    if os.path.exists(name):
        return f"{name!r} is no folder; {remedy}."
    if os.path.islink(name):
        return f"{name!r} is a link to {os.readlink(name)!r}, which does not exist; {remedy}."
    if not is_hub_name(name):
        absence = "does not exist"
    elif (missing := explain_missing_repository(name, repo_type)) is not None:
        absence = f"is no folder here, and {missing}"
    else:
        return None
    close = find_similar_path(name)
    return f"{name!r} {absence}; {remedy if close is None else f'did you mean {close!r}'}{'?' if close else '.'}"


def is_hub_name(name: str) -> bool:
    """Whether the Hub could have a repository of this name; else it is a path."""
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return not name.startswith(".")


def explain_missing_repository(repo_id: str, repo_type: str) -> str | None:
    """Why a repository cannot be read, asked once; None where it can be tried."""
    if Path(constants.HF_HUB_CACHE, repo_folder_name(repo_id=repo_id, repo_type=repo_type)).exists():
        return None
    try:
        HfApi().repo_info(repo_id, repo_type=repo_type, timeout=TIMEOUT)
    except GatedRepoError:
        return None
    except RepositoryNotFoundError:
        return f"no {repo_type} on the Hub that you may read"
    except HfHubHTTPError:
        return None
    except (HTTPError, OSError) as error:
        return f"the Hub cannot be reached ({type(error).__name__})"
    return None


def find_similar_path(name: str) -> str | None:
    """The existing path whose parts are spelt most like those of one that does not exist; None without one."""
    path = Path(name).expanduser()
    found = Path(path.anchor)
    for part in path.relative_to(found).parts:
        if not (found / part).exists():
            try:
                entries = os.listdir(found)
            except OSError:
                return None
            close = difflib.get_close_matches(part, entries, 1, SIMILARITY) if len(entries) <= MAX_ENTRIES else []
            if not close:
                return None
            part = close[0]
        found /= part
    return str(found)


__all__ = ["explain_absence", "find_similar_path"]
