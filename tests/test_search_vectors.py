import errno
import os

import numpy as np
import pytest

from fgmm_tools.search import vectors as module
from fgmm_tools.search.vectors import Vectors


def unit(number, dimensions=16, seed=0):
    points = np.random.default_rng(seed).standard_normal((number, dimensions)).astype(np.float32)
    return points / np.linalg.norm(points, axis=1, keepdims=True)


def nearest(queries, points, ids, number):
    """Cosines and ids by plain NumPy."""
    scores = queries @ points.T
    order = np.argsort(-scores, axis=1)[:, :number]
    return np.take_along_axis(scores, order, 1), ids[order]


@pytest.fixture
def filled():
    points, ids = unit(300), np.random.default_rng(1).permutation(10_000)[:300]
    vectors = Vectors.empty(16)
    vectors.add(ids[:100], points[:100])
    vectors.add(ids[100:], points[100:])
    return vectors, points, ids


def test_search_equals_numpy(filled):
    vectors, points, ids = filled
    queries = unit(5, seed=2)
    scores, found = vectors.search(queries, 7)
    expected, wanted = nearest(queries, points, ids, 7)
    assert np.array_equal(found, wanted) and np.allclose(scores, expected, atol=1e-6)


def test_forgotten_windows_are_not_found(filled):
    vectors, points, ids = filled
    vectors.remove(ids[:150])
    assert len(vectors) == 150 and set(vectors.ids().tolist()) == set(ids[150:].tolist())
    _, found = vectors.search(points[:1], 150)
    assert set(found[0].tolist()) == set(ids[150:].tolist())


def test_search_among_some(filled):
    vectors, points, ids = filled
    queries, allowed = unit(3, seed=4), np.sort(ids[50:70])
    _, found = vectors.search(queries, 5, allowed)
    assert np.array_equal(found, nearest(queries, points[50:70], ids[50:70], 5)[1])
    assert vectors.search(queries, 5, np.zeros(0, np.int64))[1].shape == (3, 0)


def test_a_file_of_vectors(filled, tmp_path):
    vectors, points, _ = filled
    vectors.save(tmp_path / "video.faiss")
    for shared in (False, True):
        loaded = Vectors.load(tmp_path / "video.faiss", shared)
        assert np.array_equal(loaded.search(points[:4], 3)[1], vectors.search(points[:4], 3)[1])


def test_many_vectors_go_into_inverted_lists(filled, monkeypatch, tmp_path):
    vectors, points, ids = filled
    monkeypatch.setattr(module, "MAX_EXACT", 200)
    monkeypatch.setattr(module, "RECALL_AT", 10)
    settled = vectors.settle(unit(50, seed=3))
    assert vectors.is_exact and not settled.is_exact and len(settled) == 300
    assert np.array_equal(np.sort(settled.ids()), np.sort(ids))
    queries = unit(50, seed=5)
    _, wanted = nearest(queries, points, ids, 10)
    _, found = settled.search(queries, 10)
    assert np.mean([len(np.intersect1d(*pair)) / 10 for pair in zip(wanted, found, strict=True)]) > 0.95
    allowed = np.sort(ids[:20])
    assert np.array_equal(
        settled.search(queries, 5, allowed)[1], nearest(queries, points[:20], ids[:20], 5)[1]
    )  # exact among some
    settled.remove(ids[:30])
    settled.add(np.array([20_000]), points[:1])
    assert settled.settle(queries) is settled  # its size has not doubled
    settled.save(tmp_path / "video.faiss")
    loaded = Vectors.load(tmp_path / "video.faiss", shared=True)
    assert loaded.search(points[:1], 1)[1][0, 0] == 20_000
    loaded = Vectors.load(tmp_path / "video.faiss")
    loaded.remove(ids[30:150])
    assert loaded.settle(queries).is_exact  # there are few again


def test_a_full_disk_is_told_from_other_errors(filled, monkeypatch, tmp_path):
    def fail(*arguments):
        raise RuntimeError("could not write")

    monkeypatch.setattr(module.faiss, "write_index", fail)
    with pytest.raises(RuntimeError):
        filled[0].save(tmp_path / "video.faiss")
    usage = module.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: usage._replace(free=0))
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)) as caught:
        filled[0].save(tmp_path / "video.faiss")
    assert caught.value.errno == errno.ENOSPC
