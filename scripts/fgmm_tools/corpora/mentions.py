"""What the captions of a row name, and where and when it is seen or heard: the column `mentions`."""

from collections.abc import Sequence
from dataclasses import dataclass

from datasets import List, Value

NUMBER = Value("float64")
BOX = {"time": NUMBER, "x_min": NUMBER, "y_min": NUMBER, "x_max": NUMBER, "y_max": NUMBER}
# The feature of the column, which corpora for the measurement of grounding have beside those of every corpus.
MENTIONS = List(
    {
        "caption": Value("int32"),
        "name": Value("string"),
        "first": Value("int32"),
        "last": Value("int32"),
        "modality": Value("string"),
        "start": NUMBER,
        "end": NUMBER,
        "boxes": List(BOX),
    }
)


@dataclass(frozen=True)
class Box:
    """Where something is seen.

    Args:
        time: seconds; None in an image, and where it holds for all of the row.
        x_min, y_min, x_max, y_max: in shares of the frame's width and height, 0 to 1.
    """

    time: float | None
    x_min: float
    y_min: float
    x_max: float
    y_max: float

    @classmethod
    def scaled(
        cls, time: float | None, corners: Sequence[float], width: float = 1.0, height: float = 1.0
    ) -> "Box | None":
        """A box of (x_min, y_min, x_max, y_max) in pixels of frames of a size, without what is outside of the frame;
        None for one without an area."""
        edges = [min(max(edge / size, 0.0), 1.0) for edge, size in zip(corners, (width, height) * 2, strict=True)]
        return cls(time, *edges) if edges[0] < edges[2] and edges[1] < edges[3] else None

    @property
    def corners(self) -> tuple[float, float, float, float]:
        """(x_min, y_min, x_max, y_max)."""
        return self.x_min, self.y_min, self.x_max, self.y_max


@dataclass(frozen=True)
class Mention:
    """Words of a caption that name something that is seen or heard.

    Args:
        caption: index of the caption in its row.
        name: of the thing, the same wherever the corpus names a thing of its kind: a class, an entity, a step.
        first, last: characters of the caption's text, the last exclusive.
        modality: `"video"` of what is seen, in a video or an image, `"audio"` of what is heard.
        start, end: from when to when, seconds; None where that is unknown, and in an image.
        boxes: where it is seen; several of one time where it is several things.
    """

    caption: int
    name: str
    first: int
    last: int
    modality: str
    start: float | None = None
    end: float | None = None
    boxes: tuple[Box, ...] = ()


def read_mentions(row: dict) -> list[Mention]:
    """The mentions of a row of a corpus; none where the column is absent or empty."""
    return [
        Mention(**{**entry, "boxes": tuple(Box(**box) for box in entry["boxes"] or ())})
        for entry in row.get("mentions") or ()
    ]
