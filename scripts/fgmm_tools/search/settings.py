"""What indexing and a search can be told; imports nothing heavy, as a command's --help gives these defaults."""

from dataclasses import dataclass

from ..cli import UserError

# How often the state that searches see is renewed while a long indexing is at work, s.
PUBLISH_SECONDS = 600.0


@dataclass(frozen=True)
class IndexSettings:
    """How files become windows; an index keeps the settings that it was made with.

    Args:
        window_seconds: length of a window, s; None: the processor's clip_seconds.
        stride: from the start of a window to that of the next, as a share of its length, above 0 and at most 1.
        num_regions: to which the regions of a window are pooled, at most.
        precision: of regions, `"float16"`, or `"int8"` with a scale for each window.
    """

    window_seconds: float | None = None
    stride: float = 0.5
    num_regions: int = 32
    precision: str = "int8"

    def __post_init__(self):
        if self.window_seconds is not None and not self.window_seconds > 0:
            raise UserError(f"--window_seconds {self.window_seconds:g} must be more than 0.")
        if not 0 < self.stride <= 1:
            raise UserError(f"--stride {self.stride:g} must be more than 0 and at most 1.")
        if self.num_regions < 1:
            raise UserError(f"--num_regions {self.num_regions} must be at least 1.")


@dataclass(frozen=True)
class SearchSettings:
    """How a search ranks.

    Args:
        top: moments that are returned, at most.
        candidates: windows that the model's own score is computed for, the best by pooled embeddings.
        spoken: factor of the calibrated weight of words found in subtitles; 0 leaves subtitles out.
    """

    top: int = 10
    candidates: int = 100
    spoken: float = 1.0

    def __post_init__(self):
        for name in ("top", "candidates"):
            if getattr(self, name) < 1:
                raise UserError(f"{name}={getattr(self, name)} must be at least 1.")
        if not self.spoken >= 0:
            raise UserError(f"spoken={self.spoken:g} must be 0 or more.")
