"""Settings of the measurement of grounding; nothing heavy is imported."""

from dataclasses import dataclass

# How a map becomes an extent: by a share of its largest value that is chosen on training clips, or its upper half.
THRESHOLDS = ("train", "median")


@dataclass(frozen=True)
class GroundingSettings:
    """What is measured.

    Args:
        threshold: which part of a map counts as its extent, one of `THRESHOLDS`.
        train_split: on which it is chosen.
        num_joined: clips that are laid end to end for the measurement in time; 1: none.
        num_negatives: clips of which phrases are compared with foreign ones; 0: none.
        limit: clips that are measured at most; None: all.
        seed: of the choice of foreign phrases.
    """

    threshold: str = "train"
    train_split: str = "train"
    num_joined: int = 4
    num_negatives: int = 200
    limit: int | None = None
    seed: int = 0
