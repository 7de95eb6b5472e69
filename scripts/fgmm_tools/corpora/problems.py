"""What is left out of a corpus or repaired, and why: named on the screen in part, and in a file as a whole."""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

# Beside the card of a corpus.
FILE_NAME = "problems.jsonl"
# Problems that are named on the screen.
MAX_NAMED = 5


@dataclass(frozen=True)
class Problem:
    """An entry of the source that is left out, in whole or in part, or repaired.

    path: the file's path relative to the source; of a benchmark the name in the publishers' list.
    reason: as the rest of a sentence that begins with the path.
    """

    path: str
    reason: str

    def __str__(self) -> str:
        return f"{self.path} {self.reason}"


class Problems:
    """The problems of a source, in the order in which they are found."""

    def __init__(self):
        self.found: list[Problem] = []

    def __iter__(self) -> Iterator[Problem]:
        return iter(self.found)

    def __len__(self) -> int:
        return len(self.found)

    def add(self, path: str | Path, reason: str) -> None:
        """Adds a problem; what UTF-8 cannot hold of its path is escaped."""
        text = Path(path).as_posix() if isinstance(path, Path) else path
        self.found.append(Problem(escape(text), escape(reason)))

    def write(self, folder: Path) -> None:
        """Writes them all into a folder, a JSON object a line, whole or not at all."""
        path = folder / FILE_NAME
        partial = path.with_name(f"{path.name}.partial")
        lines = (json.dumps({"path": problem.path, "reason": problem.reason}) for problem in self.found)
        partial.write_text("".join(f"{line}\n" for line in lines))
        os.replace(partial, path)

    def summarize(self, folder: Path) -> str:
        """The first of them, how many there are, and where the others stand, as lines for the screen."""
        if not self.found:
            return "No problems."
        lines = [f"Problem: {problem}." for problem in self.found[:MAX_NAMED]]
        return "\n".join([*lines, f"Problems: {len(self.found)}, which {folder / FILE_NAME} lists."])


def escape(text: str) -> str:
    """Text that UTF-8 can hold: bytes of file names that are no UTF-8, and half surrogate pairs, become escapes."""
    return text.encode("utf-8", "backslashreplace").decode()
