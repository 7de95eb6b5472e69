"""What a retrieval evaluation can be told; imports nothing heavy, as a command's --help gives these defaults."""

from dataclasses import dataclass
from datetime import timedelta

from ..cli import UserError

# The first process waits for the shares of the others, of which one may have the longest videos.
LONGEST_WAIT = timedelta(hours=6)
SCORES = ("trained", "fine", "coarse", "coarse_then_fine")


@dataclass(frozen=True)
class RetrievalSettings:
    """How the items of a corpus are encoded and scored.

    Args:
        score: `"trained"` (what the model's objective trains), `"fine"` (regions and phrases), `"coarse"` (one vector
            each) or `"coarse_then_fine"` (the best `rerank_k` by the coarse score, re-ranked by the fine one).
        rerank_k: items of a query, and queries of an item, that `"coarse_then_fine"` re-ranks.
        num_windows: of each item, see [`EvaluationClips`]; None: the middle one, or all that stored embeddings have.
        each_caption: see [`EvaluationClips`].
        join_captions: an item's captions, in their order, are one query (paragraph retrieval); else each is one.
        skip_silent: leave clips without sound out of text-audio and audio-video retrieval; else they count as errors.
        batch_size: windows that are encoded at once.
        num_workers: decoding processes.

    Raises:
        UserError: for an unknown score, or options that exclude each other.
    """

    score: str = "trained"
    rerank_k: int = 100
    num_windows: int | None = None
    each_caption: bool = False
    join_captions: bool = False
    skip_silent: bool = False
    batch_size: int = 32
    num_workers: int = 2

    def __post_init__(self):
        if self.score not in SCORES:
            raise UserError(f"The score {self.score!r} is none of {', '.join(SCORES)}.")
        if self.each_caption and self.join_captions:
            raise UserError("With each_caption an item has one caption; leave it or join_captions out.")
