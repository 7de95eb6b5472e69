"""How windows are embedded; imports nothing heavy, as a command's --help gives these defaults."""

from dataclasses import dataclass

from ..cli import UserError

PRECISIONS = ("float16", "int8")


@dataclass(frozen=True)
class EmbeddingSettings:
    """How the items of a corpus are cut into windows, and what is kept of each window.

    Args:
        num_windows: windows of the model's clip length of an item, spread evenly from one end to the other, 1: the
            middle; as evaluation takes them. None: as many as cover it end to end.
        num_regions: most regions of a window (R), see [`pool_regions`]; 0: none are kept.
        precision: of regions, `"float16"`, or `"int8"` with one scale a window.
        with_features: keep the encoders' features, averaged over regions, too: linear probes take these.
        batch_size: windows that are encoded at once; another one may change the last digits of an embedding.

    Raises:
        UserError: naming the first setting that is out of range.
    """

    num_windows: int | None = None
    num_regions: int = 32
    precision: str = "float16"
    with_features: bool = False
    batch_size: int = 32

    def __post_init__(self):
        if self.precision not in PRECISIONS:
            raise UserError(f"precision={self.precision!r} is none of {', '.join(PRECISIONS)}.")
        for name, least in (("num_windows", 1), ("num_regions", 0), ("batch_size", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise UserError(f"{name}={value} must be at least {least}.")
