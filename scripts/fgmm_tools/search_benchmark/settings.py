"""The parts of the benchmark of search, and what they can be told; imports nothing heavy."""

from dataclasses import dataclass
from pathlib import Path

PARTS = ("recall", "regions", "latency", "moments", "updating", "load")
MOMENT_LISTS = ("qvhighlights", "charades_sta")


@dataclass(frozen=True)
class BenchmarkSettings:
    """What is measured.

    Args:
        model: folder or name on the Hub, trained on the narrated corpus.
        narrated: folder of the narrated corpus, whose split `test` is searched.
        work: folder for what the parts make and share: stitched videos and their indexes.
        flickr8k: prepared corpus; None leaves it out. flickr8k_model: trained on it.
        data: folder with UCF101 and GRID in their published layouts, in `ucf101` and `grid`; None leaves them out.
        moments: folder of QVHighlights or Charades-STA in the published layout; None: stitched videos.
        moment_list: which of the two it is.
        candidates: windows that are scored finely, of a query.
        num_vectors, dim: of random vectors.
        num_queries: whose time is taken, in `latency` and `load`.
        clips: of each corpus that are stitched, at most; clips_a_video: in a stitched video.
        num_files: of the index that files are added to, a hundredth of them.
        clients: that ask a served search at once.
        num_workers: decoding processes.
        seed: of all that is random.
    """

    model: str
    narrated: str
    work: Path
    flickr8k: str | None = None
    flickr8k_model: str | None = None
    data: Path | None = None
    moments: Path | None = None
    moment_list: str = MOMENT_LISTS[0]
    candidates: int = 100
    num_vectors: int = 1_000_000
    dim: int = 128
    num_queries: int = 100
    clips: int = 100
    clips_a_video: int = 40
    num_files: int = 200
    clients: int = 16
    num_workers: int = 1
    seed: int = 0
