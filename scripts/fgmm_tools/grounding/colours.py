"""How maps are coloured: lightness tells how much attention there is, so that colour-blind people see the same."""

import matplotlib
import numpy as np
import torch
from PIL import Image

from modeling_fgmm.grounding_fgmm import Box, upsample_attention

# Blue to yellow, the same for people with and without colour vision deficiency (Nuñez et al., 2018).
COLOUR_MAP = "cividis"
# What frames fade to where there is no attention, and how far; and how dark a spectrogram is there.
PALE, FADING, DIMMED = 232.0, 0.68, 0.42
OUTLINE = (255, 255, 255)


def map_over_frame(values: torch.Tensor, area: Box, height: int, width: int) -> np.ndarray:
    """A map (h, w) at every pixel of a frame, 0 where the model was not shown it: (height, width) float32, 0 to 1.

    Args:
        values: 0 to 1.
        area: the part of the frame that it covers.
    """
    left, top, right, bottom = (
        round(share * size) for share, size in zip(area, (width, height, width, height), strict=True)
    )
    pixels = np.zeros((height, width), np.float32)
    pixels[top:bottom, left:right] = upsample_attention(values.float(), bottom - top, right - left).numpy()
    return pixels


def fade(frame: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """A frame (height, width, 3) uint8, in its own colours where there is attention, and pale elsewhere.

    Args:
        heat: (height, width) 0 to 1.
    """
    share = FADING * (1 - np.clip(heat, 0, 1)[..., None])
    return ((1 - share) * frame + share * PALE).astype(np.uint8)


def colour_spectrogram(levels: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """A spectrogram (bands, columns) 0 to 1 in grey, dark where there is no attention and in the colours of the map
    where there is: (bands, columns, 3) uint8.

    Args:
        heat: (bands, columns) 0 to 1.
    """
    share = heat[..., None]
    grey = 255 * levels[..., None] * (DIMMED + (1 - DIMMED) * share)
    return ((1 - 0.55 * share) * grey + 0.55 * share * colour_levels(heat)).astype(np.uint8)


def colour_levels(levels: np.ndarray) -> np.ndarray:
    """Levels (height, width) from 0 to 1 as colours (height, width, 3) uint8."""
    return (255 * matplotlib.colormaps[COLOUR_MAP](levels)[..., :3]).astype(np.uint8)


def scale_to(values: torch.Tensor) -> torch.Tensor:
    """A map over its largest value: 0 to 1; of one without any attention 0."""
    largest = values.max()
    return values / largest if largest > 0 else torch.zeros_like(values)


def to_picture(frame: np.ndarray, height: int) -> Image.Image:
    """A frame (H, W, 3) uint8 at another height, pixels; small frames keep their pixels visible."""
    picture = Image.fromarray(frame)
    resampling = Image.Resampling.NEAREST if frame.shape[0] < height else Image.Resampling.BILINEAR
    return picture.resize((max(1, round(frame.shape[1] * height / frame.shape[0])), height), resampling)
