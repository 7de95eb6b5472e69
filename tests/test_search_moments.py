from itertools import pairwise

import numpy as np
import pytest
from test_search_catalog import entry, windows

from fgmm_tools.search.candidates import ScoredWindow
from fgmm_tools.search.catalog import Catalog
from fgmm_tools.search.moments import find_moments


@pytest.fixture
def catalog(tmp_path):
    """Two files of windows of 10 s every 5 s: ids 1 to 9 and 10 to 12."""
    catalog = Catalog(tmp_path / "catalog.sqlite")
    catalog.add_file(entry("a.mp4", duration=50.0), windows(9), [(14.0, 19.0, "the eggs break"), (40.0, 41.0, "bye")])
    catalog.add_file(entry("b.mp4"), windows(3), [])
    yield catalog
    catalog.close()


def search(catalog, scores, first=2, top=5):
    """Moments where the windows have these scores, by id, others 0, and the best `first` are found by the search."""
    asked = []

    def score(entries):
        asked.extend(window.id for window in entries)
        return [ScoredWindow(window, scores.get(window.id, 0.0), scores.get(window.id, 0.0), 0.0) for window in entries]

    ranked = sorted(score(catalog.get_windows(range(1, 13)).values()), key=lambda window: -window.score)[:first]
    asked.clear()
    return find_moments(ranked, catalog, score, top), asked


def test_neighbours_are_one_moment_whose_ends_are_finer_than_windows(catalog):
    # 10 to 20 s is high in the windows 2 (5 to 15), 3 (10 to 20) and 4 (15 to 25): the cells 10 to 15 and 15 to 20.
    moments, asked = search(catalog, {2: 3.0, 3: 4.0, 4: 3.0, 11: 3.5})
    assert [(moment.file.name, moment.start, moment.end) for moment in moments] == [
        ("a.mp4", 10.0, 20.0),
        ("b.mp4", 5.0, 15.0),
    ]
    assert moments[0].score == 4.0 and moments[0].best.entry.id == 3 and moments[0].spoken == "the eggs break"
    assert {2, 4, 1, 5} <= set(asked)  # scored although the search had not found them
    assert [window.entry.id for window in moments[0].windows] == [1, 2, 3, 4, 5]


def test_long_moments_and_separate_ones(catalog):
    moments, _ = search(catalog, {1: 3.0, 2: 3.1, 3: 3.0, 4: 2.9, 8: 3.0, 9: 3.0}, first=6)
    assert [(moment.start, moment.end) for moment in moments] == [(0.0, 20.0), (40.0, 50.0)]


def test_moments_that_show_nearly_the_same_are_put_together(catalog):
    catalog.mark_duplicates({11: 2})
    moments, _ = search(catalog, {2: 4.0, 11: 3.5, 8: 3.0}, first=3, top=2)
    assert [moment.best.entry.id for moment in moments] == [2, 8]
    assert [other.best.entry.id for other in moments[0].duplicates] == [11]
    assert moments[0].to_dict()["duplicates"][0]["path"].endswith("b.mp4")


def test_no_more_than_are_asked_for(catalog):
    assert len(search(catalog, {1: 3.0, 5: 2.0, 9: 1.0, 12: 0.5}, first=4, top=2)[0]) == 2


def test_scores_below_the_background_are_windows_as_they_are(catalog):
    moments, _ = search(catalog, {window: -1.0 - window / 100 for window in range(1, 13)}, first=1)
    assert (moments[0].start, moments[0].end) == (0.0, 10.0)


def test_moments_of_one_file_never_overlap(catalog):
    generator = np.random.default_rng(0)
    for _ in range(20):
        scores = {window: float(generator.normal()) for window in range(1, 13)}
        moments, _ = search(catalog, scores, first=12, top=10)
        spans = sorted((moment.file.id, moment.start, moment.end) for moment in moments)
        assert all(one[0] != two[0] or one[2] <= two[1] for one, two in pairwise(spans))
        assert all(moment.start < moment.end for moment in moments)
