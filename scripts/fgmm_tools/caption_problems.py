"""Names and counts the captions that are left out or repaired while a corpus is read."""

import sys
from collections.abc import Iterable

from tqdm import tqdm

# Captions that are named; the others are counted.
MAX_NAMED = 5


class CaptionProblems:
    """The captions of a run that were left out or repaired, each once, however often its row is read.

    Attributes:
        found: their sentences, see [`usable_captions`](processing_fgmm.corpora_fgmm.usable_captions).
    """

    def __init__(self):
        self.found: dict[str, None] = {}

    def add(self, problems: Iterable[str]) -> None:
        """Adds the problems of some rows, and names the first of all on stderr."""
        for problem in problems:
            if problem not in self.found:
                self.found[problem] = None
                if len(self.found) <= MAX_NAMED:
                    tqdm.write(problem, file=sys.stderr)

    def summarize(self) -> str:
        """How many there are, as a sentence; empty where there is none."""
        number = len(self.found)
        if not number:
            return ""
        named = "named above" if number <= MAX_NAMED else f"the first {MAX_NAMED} of which are named above"
        return f"{number} captions were left out or repaired, {named}."
