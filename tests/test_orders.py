import itertools
import time
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from processing_fgmm.orders_fgmm import ClipOrder, EpochOrder, StreamState, lay_out
from processing_fgmm.rowgroups_fgmm import RowGroups


class Sizes(RowGroups):
    """Row groups of given sizes, which hold nothing."""

    def __init__(self, sizes, group_bytes=1000.0):
        self.sizes, self.group_bytes = np.array(sizes, np.int32), group_bytes

    def read(self, group):
        raise AssertionError

    read_ids = read


@given(
    st.lists(st.integers(0, 9), min_size=1, max_size=40).filter(any), st.integers(1, 12), st.integers(1, 4), st.data()
)
def test_an_epoch_has_every_row_once_and_any_place_is_found(sizes, num_lanes, window_groups, data):
    order = EpochOrder(
        np.array(sizes), min(num_lanes, len(sizes)), window_groups, seed=3, epoch=data.draw(st.integers(0, 9))
    )
    places = [order[place] for place in range(len(order))]
    rows = sorted((place.group, place.row) for place in places)
    assert rows == [(group, row) for group, size in enumerate(sizes) for row in range(size)]
    # A window of a lane is left before the next one begins, so that a reader holds one window a lane.
    for lane in {place.lane for place in places}:
        windows = [place.window for place in places if place.lane == lane]
        assert windows == sorted(windows)
        assert max(len({p.group for p in places if (p.lane, p.window) == (lane, w)}) for w in windows) <= window_groups


def test_lanes_take_turns():
    order = EpochOrder(np.array([3, 3, 3, 3]), 4, 1, seed=0, epoch=0)
    assert [order[place].lane for place in range(12)] == [0, 1, 2, 3] * 3


def test_epochs_and_seeds_differ():
    def groups(seed, epoch):
        order = EpochOrder(np.full(50, 4), 5, 2, seed, epoch)
        return tuple((order[place].group, order[place].row) for place in range(len(order)))

    assert len({groups(seed, epoch) for seed in (0, 1) for epoch in (0, 1)}) == 4


def test_the_layout_follows_the_sizes_of_row_groups():
    assert lay_out(Sizes([64]), 1024) == (1, 16)
    assert lay_out(Sizes([64] * 9), 1024) == (9, 2)
    assert lay_out(Sizes([64] * 1000), 1024) == (48, 1)
    assert lay_out(Sizes([8] * 1000), 1024) == (48, 3)
    assert lay_out(Sizes([8] * 1000, 16e6), 4096) == (48, 1)  # of MAX_WINDOW_BYTES
    assert lay_out(Sizes([2] * 1000, 3e8), 1024) == (3, 1)
    assert lay_out(Sizes([2] * 1000, 3e12), 1024) == (1, 1)


def test_the_last_batch_of_an_epoch_may_be_smaller():
    order = ClipOrder([Sizes([5, 6])], [1.0], seed=0, block_size=4)
    state, numbers = order.start(), []
    for _ in range(6):
        draws, state = order.next_batch(state, 4)
        numbers.append([draw.number for draw in draws])
        assert len({draw.epoch for draw in draws}) == 1
    assert [len(batch) for batch in numbers] == [4, 4, 3] * 2
    assert list(itertools.chain(*numbers)) == list(range(22)) and state == StreamState(22, ((2, 0),))


def test_corpora_are_mixed_by_weight_each_in_its_own_order():
    corpora = [Sizes([7, 8, 9]), Sizes([40, 2])]
    order = ClipOrder(corpora, [1, 3], seed=5, block_size=8)
    state, draws = order.start(), []
    while len(draws) < 4000:
        batch, state = order.next_batch(state, 50)
        draws += batch
        assert len(batch) == 50
    assert sum(draw.corpus for draw in draws) / len(draws) == pytest.approx(0.75, abs=0.03)
    for corpus, rows in enumerate(corpora):
        own = [draw for draw in draws if draw.corpus == corpus]
        for epoch in range(own[-1].epoch):
            seen = sorted((draw.place.group, draw.place.row) for draw in own if draw.epoch == epoch)
            assert seen == [(group, row) for group, size in enumerate(rows.sizes) for row in range(size)]
        assert state.positions[corpus] == divmod(len(own), rows.num_rows)
    again, _ = ClipOrder(corpora, [1, 3], seed=5, block_size=8).next_batch(order.start(), 4000)
    assert again == draws


def test_a_hundred_million_rows_are_laid_out_in_seconds_and_megabytes():
    """Also what is drawn next at row ten million."""
    tracemalloc.start()
    started = time.monotonic()
    order = ClipOrder([Sizes(np.full(100_000_000 // 64, 64), 16e6)], [1.0], seed=0, block_size=1024)
    draws, _ = order.next_batch(StreamState(10_000_000, ((0, 10_000_000),)), 64)
    seconds, (_, peak) = time.monotonic() - started, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len({draw.place for draw in draws}) == 64
    assert seconds < 10 and peak < 100e6
