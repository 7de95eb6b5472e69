"""Log-mel spectrograms as people read them: seconds across, Hz upwards."""

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch

from modeling_fgmm.grounding_fgmm import upsample_attention
from processing_fgmm import FgmmFeatureExtractor
from processing_fgmm.media_fgmm import read_waveform

# Frequencies that are marked, Hz.
MARKS = (250, 500, 1000, 2000, 4000, 8000)
# Columns of a spectrogram at most, so that a picture of an hour is no larger than one of a minute, and the seconds
# that are read at once.
MAX_COLUMNS, CHUNK = 1200, 60.0


@dataclass(frozen=True)
class Spectrogram:
    """A sound's log-mel spectrogram.

    Args:
        levels: (bands, columns) float32 from 0 to 1, the lowest band first.
        start, end: seconds.
        highest: frequency of the upper edge, Hz.
    """

    levels: np.ndarray
    start: float
    end: float
    highest: float

    def marks(self) -> list[tuple[float, str]]:
        """The marked frequencies: place from 0 (below) to 1 (above), and label."""
        return [(hertz_to_share(hertz, self.highest), f"{hertz:,}") for hertz in MARKS if hertz <= self.highest]

    def upsample(self, attention: torch.Tensor) -> np.ndarray:
        """A map (frequency, time) at every cell, the largest value 1: (bands, columns)."""
        values = upsample_attention(attention, *self.levels.shape).numpy()
        return values / max(values.max(), 1e-9)


def hertz_to_share(hertz: float, highest: float) -> float:
    """Where a frequency is between 0 Hz and the highest on the mel scale (HTK's formula), 0 to 1."""
    return math.log1p(hertz / 700) / math.log1p(highest / 700)


def read_spectrogram(source, start: float, end: float, name: str) -> Spectrogram:
    """The spectrogram of a part of a sound, by our own feature extractor, whatever a model's encoder takes.

    Args:
        source: path or bytes.
        start, end: seconds.
        name: of the file in messages.

    Raises:
        MediaError: when it cannot be decoded.
    """
    extractor = FgmmFeatureExtractor()
    number = max(1, math.ceil((end - start) / CHUNK))
    edges = np.linspace(start, end, number + 1)
    columns_each = max(1, MAX_COLUMNS // number)
    parts = []
    for first, last in pairwise(edges.tolist()):
        waveform = read_waveform(source, extractor.sampling_rate, first, last, name=name)
        levels = extractor([waveform])["input_features"][0].T  # (bands, frames)
        columns = min(columns_each, levels.shape[1])
        parts.append(torch.nn.functional.adaptive_max_pool1d(levels[None], columns)[0].numpy())
    levels = np.concatenate(parts, axis=1)
    low, high = np.quantile(levels, 0.02), levels.max()
    levels = np.clip((levels - low) / max(high - low, 1e-9), 0, 1)
    return Spectrogram(levels.astype(np.float32), start, end, extractor.sampling_rate / 2)
