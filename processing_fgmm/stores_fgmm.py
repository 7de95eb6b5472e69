"""Files here and in remote stores: opened by `fsspec`, and asked for again where a store does not answer."""

import logging
import time
from collections.abc import Callable
from typing import BinaryIO, TypeVar

import fsspec
import pyarrow

logger = logging.getLogger(__name__)
Result = TypeVar("Result")

# A store that does not answer is asked again, after 1, 2, 4 and 8 s.
RETRY_SECONDS = (1, 2, 4, 8)
# Of what is not there, not allowed or damaged there is no use in asking again.
FINAL_ERRORS = (
    *(FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, pyarrow.ArrowException),
    *(LookupError, ValueError, TypeError, AttributeError),
)
# Answers of a server that say so: all 4xx but "request timeout" and "too many requests".
FINAL_STATUS = set(range(400, 500)) - {408, 429}


def open_file(file: str) -> BinaryIO:
    """Opens a path or an address; remote files are read as asked for, without a block of what follows."""
    filesystem, path = fsspec.url_to_fs(file)
    return filesystem.open(path, "rb", cache_type="none")


def read_file(file: str) -> bytes:
    """All bytes of a path or an address, also within an archive."""
    with fsspec.open(file) as stream:
        return stream.read()


def with_retries(function: Callable[[], Result], place: str) -> Result:
    """What a function returns that reads `place`; after an error of the store it is called again, up to four times."""
    for seconds in RETRY_SECONDS:
        try:
            return function()
        except Exception as error:  # the libraries of stores have errors of their own
            if is_final(error):
                raise
            logger.warning("%s cannot be read (%s); trying again in %d s.", place, error, seconds)
            time.sleep(seconds)
    return function()


def is_final(error: Exception) -> bool:
    """Whether there is no use in asking a store again that raised an error."""
    if isinstance(error, FileNotFoundError) and error.__cause__ is not None:
        return is_final(error.__cause__)  # fsspec says so of any error of a web server
    status = getattr(error, "status", None)
    return status in FINAL_STATUS if isinstance(status, int) else isinstance(error, FINAL_ERRORS)


__all__ = ["open_file", "read_file", "with_retries"]
