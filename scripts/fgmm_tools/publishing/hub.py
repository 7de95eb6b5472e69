"""Publishing on the Hub, for models and datasets: everything in one commit, and errors that say what to do."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, HTTPError, LocalTokenNotFoundError
from huggingface_hub.utils import validate_repo_id

from ..cli import UserError


def check_repo_id(repo_id: str, flag: str = "--repo_id") -> None:
    """Checks that a repository id is ORG/NAME in characters that the Hub accepts.

    Args:
        repo_id: the id.
        flag: the option that gave it, for the message.

    Raises:
        UserError: when it is not.
    """
    if repo_id.count("/") != 1:
        raise UserError(f"{flag} {repo_id!r} is not of the form ORG/NAME, ORG being an organisation or a user.")
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise UserError(f"{flag} {repo_id!r} is no name on the Hub: {str(error).splitlines()[0]}") from error


def publish(
    repo_id: str, repo_type: str, files: dict[str, Path | bytes], owned: tuple[str, ...], private: bool, message: str
) -> str:
    """Creates the repository if it does not exist, and uploads everything in one commit.

    The same commit deletes files of an earlier push that this one does not have. Files that the Hub already stores
    are not sent again.

    Args:
        repo_id: ORG/NAME.
        repo_type: `"model"` or `"dataset"`.
        files: what to upload, by paths in the repository.
        owned: patterns of the paths that a push of this kind writes; other files stay.
        private: whether only its owners may see it.
        message: of the commit.

    Returns:
        the address of the commit.

    Raises:
        UserError: when the Hub refuses or the connection breaks; then nothing is published, and a repository that was
            created for it is deleted.
    """
    api = HfApi()
    with explaining(repo_id, api.endpoint), created_repository(api, repo_id, repo_type, private):
        if private and not api.repo_info(repo_id, repo_type=repo_type).private:
            raise UserError(
                f"{repo_id} exists already and is public; make it private on the Hub, or leave out --private."
            )
        existing = api.list_repo_files(repo_id, repo_type=repo_type)
        stale = [path for path in existing if path not in files and any(fnmatch(path, name) for name in owned)]
        operations = [CommitOperationDelete(path) for path in stale]
        operations += [
            CommitOperationAdd(path, source if isinstance(source, bytes) else str(source))
            for path, source in files.items()
        ]
        return api.create_commit(repo_id, operations, commit_message=message, repo_type=repo_type).commit_url


@contextmanager
def created_repository(api: HfApi, repo_id: str, repo_type: str, private: bool) -> Iterator[None]:
    """Creates a repository if it does not exist; after an error it is deleted again, if it is still empty."""
    api.whoami()  # fails where the token is missing or wrong
    existed = api.repo_exists(repo_id, repo_type=repo_type)
    api.create_repo(repo_id, repo_type=repo_type, private=private or None, exist_ok=True)
    try:
        yield
    except BaseException:  # Ctrl-C, too
        if not existed:
            delete_if_empty(api, repo_id, repo_type)
        raise


def delete_if_empty(api: HfApi, repo_id: str, repo_type: str) -> None:
    """Deletes a repository that has no file but the Hub's own; prints where the Hub does not do it."""
    try:
        if set(api.list_repo_files(repo_id, repo_type=repo_type)) <= {".gitattributes"}:
            api.delete_repo(repo_id, repo_type=repo_type)
    except (HTTPError, OSError) as error:
        print(
            f"{repo_id} stays on the Hub, empty ({type(error).__name__}); the same command fills it.", file=sys.stderr
        )


@contextmanager
def explaining(repo_id: str, endpoint: str) -> Iterator[None]:
    """Turns errors of huggingface_hub into a UserError."""
    try:
        yield
    except LocalTokenNotFoundError as error:
        raise UserError("There is no token for the Hub; run `hf auth login`, or set HF_TOKEN.") from error
    except (HTTPError, OSError, RuntimeError, ValueError) as error:
        # huggingface_hub wraps an error of a single file in a RuntimeError.
        cause = error.__cause__ if type(error) is RuntimeError and error.__cause__ else error
        raise UserError(describe_error(cause, repo_id, endpoint)) from error


def describe_error(error: BaseException, repo_id: str, endpoint: str) -> str:
    """One sentence: what went wrong, and what to do."""
    status = error.response.status_code if isinstance(error, HfHubHTTPError) else None
    text = " ".join(str(error).split())
    if status == 401:
        return f"{endpoint} does not accept the token; run `hf auth login`, or set HF_TOKEN to a valid one."
    if status == 403:
        return (
            f"The token may not write to {repo_id}; name a repository of your own with --repo_id, "
            "or use a token with permission to write there."
        )
    if isinstance(error, ValueError):  # refused by the Hub before anything is sent, or a malformed answer
        return f"{endpoint} refuses the upload to {repo_id}: {text}"
    return (
        f"The upload to {repo_id} at {endpoint} broke off ({type(error).__name__}: {text}); nothing was published, "
        "and the same command continues."
    )
