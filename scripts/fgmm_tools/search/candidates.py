"""Scores of windows: coarse first for all, then the model's own for the best; and what is spoken in them.

Scores of different queries and modalities lie in different ranges. Each is therefore given in standard deviations
above the mean of the same query's scores on a background, some hundred windows of the index chosen at random.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from weakref import WeakKeyDictionary

import numpy as np
import torch

from modeling_fgmm.scoring_fgmm import Keys

from .catalog import Catalog, WindowEntry
from .parts import part_path, read_keys
from .queries import Comparison, Query
from .subtitles import make_expression
from .vectors import Vectors

# The least standard deviation of scores on the background: an index of few windows has none.
LEAST_DEVIATION = 0.02
# Captions are taken into account that begin or end so many seconds beside a window: people say what they do before or
# after they do it.
SPOKEN_MARGIN = 2.0
# Words of which it is remembered which captions hold them.
WORDS_KEPT = 128
# Captions that are looked at for each candidate window that is wanted.
CUES_A_CANDIDATE = 2


@dataclass(frozen=True)
class ScoredWindow:
    """A window with its score for a query.

    entry: of the catalog. score: `seen` plus the weight of speech times `spoken`.
    seen: standard deviations above the background; 0 where the query cannot be compared with the window.
    spoken: share of the query's words that are spoken in the window, rare ones counting more; 0 to 1.
    """

    entry: WindowEntry
    score: float
    seen: float
    spoken: float


class Windows:
    """The windows of a state of an index, and their scores.

    Args:
        catalog: of the state. vectors: by modality. parts: the folder of the parts.
        background: ids of the windows of the background, by modality.
    """

    def __init__(self, catalog: Catalog, vectors: dict[str, Vectors], parts: Path, background: dict[str, list[int]]):
        self.catalog = catalog
        self.vectors = vectors
        self.parts = parts
        self.background_ids = background
        self.num_cues = catalog.count_cues()
        self.cues_with = lru_cache(WORDS_KEPT)(catalog.cues_with)
        self.background: dict[str, Keys] = {}
        # A search scores windows several times, by the same comparisons.
        self.scales: WeakKeyDictionary[Comparison, tuple[float, float]] = WeakKeyDictionary()
        for modality, ids in background.items():
            entries = list(catalog.get_windows(ids).values())
            if entries:
                self.background[modality] = self.read_keys(entries, modality)

    def rank(
        self, query: Query, candidates: int, spoken_weight: float, allowed: np.ndarray | None = None
    ) -> list[ScoredWindow]:
        """The best windows, by their scores, the highest first.

        Args:
            candidates: windows that the model's own score is computed for, in each modality.
            spoken_weight: of words found in captions, in standard deviations; 0 leaves captions out.
            allowed: (n,) int64 ids, ascending, of the windows that may be found; None: all.
        """
        ids: set[int] = set()
        for comparison in query.comparisons:
            if comparison.modality in self.vectors:
                _, found = self.vectors[comparison.modality].search(comparison.embeds[None], candidates, allowed)
                ids.update(found[found >= 0].tolist())
        if query.text and spoken_weight:
            spoken = self.find_spoken(query.text, candidates)
            ids.update(spoken if allowed is None else np.intersect1d(spoken, allowed).tolist())
        entries = self.catalog.get_windows(ids).values()
        return sorted(self.score(query, entries, spoken_weight), key=lambda window: (-window.score, window.entry.id))

    def score(self, query: Query, entries: Iterable[WindowEntry], spoken_weight: float) -> list[ScoredWindow]:
        """Windows with their scores, in their order; arguments as of [`rank`]."""
        entries = list(entries)
        seen = self.score_seen(query, entries)
        spoken = np.zeros(len(entries))
        if query.text and spoken_weight:
            spoken = self.score_spoken(query.text, entries)
        return [
            ScoredWindow(entry, float(z + spoken_weight * words), float(z), float(words))
            for entry, z, words in zip(entries, seen, spoken, strict=True)
        ]

    def score_seen(self, query: Query, entries: list[WindowEntry]) -> np.ndarray:
        """(entries,) the model's scores in standard deviations above the background; 0 for windows that the query
        cannot be compared with.

        Those of a window's n modalities are added and divided by the square root of n (Stouffer's method), which keeps
        the deviation of windows that do not fit at 1.
        """
        total, number = np.zeros(len(entries)), np.zeros(len(entries))
        for comparison in query.comparisons:
            rows = [row for row, entry in enumerate(entries) if getattr(entry, f"has_{comparison.modality}")]
            if not rows or comparison.modality not in self.background:
                continue
            scores = comparison.score(self.read_keys([entries[row] for row in rows], comparison.modality))
            total[rows] += self.standardize(comparison, scores)
            number[rows] += 1
        return total / np.sqrt(np.maximum(number, 1))

    def standardize(self, comparison: Comparison, scores: torch.Tensor) -> np.ndarray:
        """Scores (n,) in standard deviations above the mean of the background."""
        if comparison not in self.scales:
            background = comparison.score(self.background[comparison.modality])
            deviation = max(float(background.std(correction=0)), LEAST_DEVIATION)
            self.scales[comparison] = (float(background.mean()), deviation)
        mean, deviation = self.scales[comparison]
        return ((scores - mean) / deviation).numpy()

    def read_keys(self, entries: list[WindowEntry], modality: str) -> Keys:
        """The regions and embeddings of windows, in their order."""
        files = self.catalog.get_files({entry.file for entry in entries})
        rows_of: dict[str, list[int]] = {}
        for row, entry in enumerate(entries):
            rows_of.setdefault(files[entry.file].hash, []).append(row)
        requests = [
            (part_path(self.parts, content), [entries[row].place for row in rows]) for content, rows in rows_of.items()
        ]
        order = torch.tensor([row for rows in rows_of.values() for row in rows])
        return read_keys(requests, modality).select(order.argsort())

    # Speech.

    def find_spoken(self, text: str, number: int) -> list[int]:
        """Ids of windows in which words of a text are spoken, those of the best captions."""
        expression, _ = make_expression(text)
        ids: dict[int, None] = {}
        if expression:
            for cue in self.catalog.find_spoken(expression, CUES_A_CANDIDATE * number):
                if len(ids) < number:
                    windows = self.catalog.windows_of_file(cue.file, cue.start, cue.end)
                    ids |= dict.fromkeys(window.id for window in windows)
        return list(ids)

    def score_spoken(
        self, text: str, entries: list[WindowEntry], without: tuple[int, float] | None = None
    ) -> np.ndarray:
        """(entries,) the share of a text's words that are spoken in windows, words weighted by their rarity.

        Args:
            without: (file, start) of a caption that is left out.
        """
        _, words = make_expression(text)
        holding = [self.cues_with(word) for word in words]
        rarity = np.array([self.rarity_of(len(cues)) for cues in holding])
        if not rarity.sum() or not any(map(len, holding)):
            return np.zeros(len(entries))
        cues = self.catalog.cues_of_windows(entries, SPOKEN_MARGIN)
        if without is not None:
            cues = [[cue for cue in of_window if (cue[1], cue[2]) != without] for of_window in cues]
        found = np.zeros((len(entries), len(words)))
        for row, of_window in enumerate(cues):
            ids = [cue[0] for cue in of_window]
            found[row] = [bool(np.isin(ids, held).any()) for held in holding]
        return found @ rarity / rarity.sum()

    def rarity_of(self, number: int) -> float:
        """The inverse document frequency of a word that so many captions hold, as in BM25."""
        return math.log((self.num_cues - number + 0.5) / (number + 0.5) + 1)
