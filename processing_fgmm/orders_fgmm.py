"""The order of a corpus' rows in an epoch, and of several corpora in one stream.

It is a function of the row groups, a seed and the epoch, and knows nothing of processes and workers. The row groups are
permuted and dealt to lanes; within a lane the rows of neighbouring row groups, a window, are permuted; the order takes
one row of each lane in turn. A reader of some lanes reads the row groups of these alone, and any place of the order is
found without those before it.
"""

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from .rowgroups_fgmm import RowGroups

# Lanes of an order at most, a number that many numbers of processes and workers divide.
MAX_LANES = 48
# Bytes of undecoded media in all windows together, in the memory of all workers of all processes.
MAX_WINDOW_BYTES = 1_000_000_000
# What random numbers are drawn for, the first entry of their seeds.
GROUP_ORDER, ROW_ORDER, CORPUS_DRAW, CLIP = range(4)
# Draws of corpora that are made at once.
DRAWS = 4096


class Place(NamedTuple):
    """Where a row of an epoch's order is: its lane, the window within the lane, its row group, its index in that."""

    lane: int
    window: int
    group: int
    row: int


class EpochOrder:
    """The order of the rows of one epoch.

    Args:
        sizes: (groups,) rows of each row group.
        num_lanes: lanes.
        window_groups: row groups of a window.
        seed, epoch: of the order.
    """

    def __init__(self, sizes: np.ndarray, num_lanes: int, window_groups: int, seed: int, epoch: int):
        groups = np.random.default_rng([GROUP_ORDER, seed, epoch]).permutation(len(sizes)).astype(np.int32)
        self.seed, self.epoch = seed, epoch
        self.window_groups = window_groups
        self.lanes = [groups[lane::num_lanes] for lane in range(num_lanes)]
        # (groups of the lane + 1,) rows of the lane before each of its groups.
        self.starts = [np.concatenate([[0], np.cumsum(sizes[lane], dtype=np.int64)]) for lane in self.lanes]
        lengths = np.array([starts[-1] for starts in self.starts])
        # After `ends[i]` turns, which are `places[i]` rows, the lanes that have no more rows are left out.
        self.ends = np.unique(np.append(lengths, 0))
        self.places = np.array([np.minimum(lengths, end).sum() for end in self.ends])
        self.active = [np.flatnonzero(lengths >= end) for end in self.ends]

    def __len__(self) -> int:
        return int(self.places[-1])

    def __getitem__(self, place: int) -> Place:
        """The row at a place, from 0 to the number of rows."""
        segment = int(np.searchsorted(self.places, place, side="right"))
        turn, index = divmod(place - int(self.places[segment - 1]), len(self.active[segment]))
        lane, turn = int(self.active[segment][index]), turn + int(self.ends[segment - 1])
        starts = self.starts[lane]
        window = (int(np.searchsorted(starts, turn, side="right")) - 1) // self.window_groups
        first = window * self.window_groups
        start, end = starts[first], starts[min(first + self.window_groups, len(starts) - 1)]
        row = start + permutation(self.seed, self.epoch, lane, window, int(end - start))[turn - start]
        group = int(np.searchsorted(starts, row, side="right")) - 1
        return Place(lane, window, int(self.lanes[lane][group]), int(row - starts[group]))


@lru_cache(maxsize=2 * MAX_LANES)
def permutation(seed: int, epoch: int, lane: int, window: int, number: int) -> np.ndarray:
    """The order of the rows of a window: (number,)."""
    return np.random.default_rng([ROW_ORDER, seed, epoch, lane, window]).permutation(number)


@dataclass(frozen=True)
class StreamState:
    """How far a stream of clips has come.

    number: its clips so far, of all corpora and epochs.
    positions: (epoch, rows of it) of each corpus.
    """

    number: int
    positions: tuple[tuple[int, int], ...]


class Draw(NamedTuple):
    """One clip of a stream: its number in the stream, its corpus, and where its row is."""

    number: int
    corpus: int
    epoch: int
    place: Place


class ClipOrder:
    """The order of the clips of one or several corpora, without end.

    Args:
        corpora: their row groups.
        weights: the share of clips of each corpus, in any unit.
        seed: of the order.
        block_size: rows of a corpus that are permuted together: windows of all lanes have about as many.
    """

    def __init__(self, corpora: list[RowGroups], weights: list[float], seed: int, block_size: int):
        self.corpora = corpora
        self.shares = np.array(weights) / np.sum(weights)
        self.seed = seed
        self.layouts = [lay_out(rows, block_size) for rows in corpora]
        self.epochs: list[EpochOrder | None] = [None] * len(corpora)

    def start(self) -> StreamState:
        """The state of a stream that has not begun."""
        return StreamState(0, ((0, 0),) * len(self.corpora))

    def next_batch(self, state: StreamState, batch_size: int) -> tuple[list[Draw], StreamState]:
        """The clips of a batch, and the state after it.

        Of one corpus the last batch of an epoch may be smaller, so that no clip is in a batch twice; several corpora
        go through their epochs each on its own.
        """
        draws, positions = [], list(state.positions)
        for number in range(state.number, state.number + batch_size):
            corpus = self.draw_corpus(number)
            epoch, position = positions[corpus]
            order = self.epoch_order(corpus, epoch)
            draws.append(Draw(number, corpus, epoch, order[position]))
            positions[corpus] = (epoch, position + 1) if position + 1 < len(order) else (epoch + 1, 0)
            if len(self.corpora) == 1 and positions[corpus][1] == 0:
                break
        return draws, replace(state, number=state.number + len(draws), positions=tuple(positions))

    def draw_corpus(self, number: int) -> int:
        """The corpus of the clip of a number."""
        if len(self.corpora) == 1:
            return 0
        return int(draw_corpora(self.seed, number // DRAWS, tuple(self.shares))[number % DRAWS])

    def epoch_order(self, corpus: int, epoch: int) -> EpochOrder:
        """The order of a corpus in an epoch, of which the last one is kept."""
        order = self.epochs[corpus]
        if order is None or order.epoch != epoch:
            # The corpora of a run that are alike must not go in step.
            seed = self.seed + corpus
            order = self.epochs[corpus] = EpochOrder(self.corpora[corpus].sizes, *self.layouts[corpus], seed, epoch)
        return order

    def num_lanes(self, corpus: int) -> int:
        return self.layouts[corpus][0]


@lru_cache(maxsize=2)
def draw_corpora(seed: int, chunk: int, shares: tuple[float, ...]) -> np.ndarray:
    """The corpora of DRAWS clips, drawn by their shares."""
    return np.random.default_rng([CORPUS_DRAW, seed, chunk]).choice(len(shares), DRAWS, p=shares)


def lay_out(rows: RowGroups, block_size: int) -> tuple[int, int]:
    """Lanes of a corpus, and row groups of a window, by its row groups alone."""
    groups_at_once = max(1, int(MAX_WINDOW_BYTES / max(rows.group_bytes, 1)))
    num_lanes = min(MAX_LANES, len(rows.sizes), groups_at_once)
    rows_of_lane = block_size / num_lanes
    window_groups = round(rows_of_lane / (rows.num_rows / len(rows.sizes)))
    return num_lanes, max(1, min(window_groups, groups_at_once // num_lanes))


__all__ = ["CLIP", "ClipOrder", "Draw", "EpochOrder", "Place", "StreamState"]
