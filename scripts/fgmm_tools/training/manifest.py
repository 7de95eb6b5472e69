"""The list of a checkpoint's files with their hashes, by which damage is found."""

import hashlib
import json
from pathlib import Path

from ..records import write_record

NAME = "files.json"


def write_manifest(folder: Path) -> None:
    """Writes the sizes and hashes of all files of a folder, as files.json."""
    paths = [path for path in sorted(folder.iterdir()) if path.is_file() and path.name != NAME]
    files = {path.name: [path.stat().st_size, hash_file(path)] for path in paths}
    write_record(folder / NAME, files)


def find_damage(folder: Path) -> str | None:
    """What is wrong with a folder's files, as the end of a sentence; None where they are as they were written."""
    try:
        files = json.loads((folder / NAME).read_text())
    except (OSError, ValueError):
        return f"its {NAME} is missing or damaged"
    for name, (size, digest) in files.items():
        path = folder / name
        if not path.exists():
            return f"its {name} is missing"
        if path.stat().st_size != size:
            return f"its {name} has {path.stat().st_size} bytes, not {size}"
        if hash_file(path) != digest:
            return f"its {name} has been changed"
    return None


def hash_file(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
