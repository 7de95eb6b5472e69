"""Lock files: one process at a time works in a folder."""

import errno
import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TextIO

from .cli import UserError

# What drives answer that have no locks.
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds a lock file that says which process works in its folder.

    The lock is the kernel's, also on network drives: it ends with the process, however that ends, and its worker
    processes do not inherit it. Where a drive has no locks, the process that the file names is looked for.

    Raises:
        UserError: when another process holds it.
        OSError: when the file cannot be written.
    """
    while True:
        file = path.open("a+")
        if not try_lock(file, path):
            file.close()
            raise UserError(describe_holder(path))
        if path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()):
            break  # else its holder has just removed it
        file.close()
    try:
        file.truncate(0)
        json.dump({"process": os.getpid(), "host": socket.gethostname(), "since": f"{datetime.now():%F %T}"}, file)
        file.flush()
        yield
    finally:
        path.unlink(missing_ok=True)
        file.close()


def try_lock(file: TextIO, path: Path) -> bool:
    """Locks an open lock file; False where another process holds it."""
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in NO_LOCKS:
            return not may_be_held(path)
        if error.errno in (errno.EACCES, errno.EAGAIN):
            return False
        raise
    return True


def read_holder(path: Path) -> dict | None:
    """What a lock file says; None where it says nothing."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None


def may_be_held(path: Path) -> bool:
    """Whether the process that a lock file names may still run; one on another host may."""
    holder = read_holder(path)
    if holder is None or holder["host"] != socket.gethostname():
        return holder is not None
    try:
        os.kill(holder["process"], 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # of another user
        pass
    return holder["process"] != os.getpid()


def describe_holder(path: Path) -> str:
    """Says who works in a folder."""
    holder = read_holder(path)
    who = "{process} on {host}, since {since}".format(**holder) if holder else "unknown"
    return (
        f"Another process is working in {path.parent} (process {who}); wait for its end, or give another folder. "
        f"If that process is gone, delete {path}."
    )
