"""An index in Qdrant (in-process) and LanceDB (embedded): the same windows, the same nearest neighbours."""

import numpy as np
import pytest
import torch

pytest.importorskip("faiss", reason="search needs fgmm[search]")
pytest.importorskip("qdrant_client", reason="exporting needs fgmm[export]")
lancedb = pytest.importorskip("lancedb", reason="exporting needs fgmm[export]")

import export_index  # noqa: E402
from helpers import TEXTS, run_main  # noqa: E402
from searchable import index_files, write_files  # noqa: E402

from fgmm_tools.cli import UserError  # noqa: E402
from fgmm_tools.search import databases  # noqa: E402
from fgmm_tools.search.queries import make_text_queries  # noqa: E402
from fgmm_tools.search.video_index import VideoIndex  # noqa: E402
from modeling_fgmm.outputs_fgmm import as_queries  # noqa: E402
from modeling_fgmm.scoring_fgmm import attended_similarity  # noqa: E402

NUMBER = 10


@pytest.fixture(scope="module")
def index(tmp_path_factory, small_model):
    root = tmp_path_factory.mktemp("exported")
    index_files(root / "index", small_model, write_files(root / "videos"))
    return VideoIndex(root / "index")


@pytest.fixture(scope="module")
def qdrant(index):
    client = databases.QdrantClient(":memory:")
    assert databases.export_to_qdrant(index, client, "fgmm") == index.manifest.num_windows
    return client


@pytest.fixture(scope="module")
def table(index, tmp_path_factory):
    database = lancedb.connect(tmp_path_factory.mktemp("lancedb"))
    assert databases.export_to_lancedb(index, database, "fgmm") == index.manifest.num_windows
    return database.open_table("fgmm")


@pytest.fixture(scope="module")
def queries(index):
    """(Q, D) pooled embeddings of texts, and random ones."""
    comparisons = [query.comparisons[0] for query in make_text_queries(index.model, index.processor, TEXTS, ["video"])]
    random = np.random.default_rng(0).standard_normal((16, index.manifest.dimensions)).astype(np.float32)
    random /= np.linalg.norm(random, axis=1, keepdims=True)
    return np.concatenate([np.stack([comparison.embeds for comparison in comparisons]), random])


def same_ranking(scores, ids, other_scores, other_ids) -> bool:
    """Whether two rankings agree, but for windows whose scores are equal."""
    if not np.allclose(scores, other_scores, atol=1e-4):
        return False
    places = dict(zip(ids, scores, strict=True))
    return all(
        abs(places.get(window, score) - score) < 1e-4 for window, score in zip(other_ids, other_scores, strict=True)
    )


@pytest.mark.parametrize("modality", ["video", "audio"])
def test_pooled_neighbours_are_those_of_the_index(index, qdrant, table, queries, modality):
    assert index.manifest.num_windows > NUMBER
    scores, ids = index.state().windows.vectors[modality].search(queries, NUMBER)
    for query, own_scores, own_ids in zip(queries, scores, ids, strict=True):
        points = qdrant.query_points("fgmm", query=query.tolist(), using=modality, limit=NUMBER).points
        assert same_ranking(own_scores, own_ids, [point.score for point in points], [point.id for point in points])
        rows = table.search(query, vector_column_name=modality).distance_type("cosine").limit(NUMBER).to_arrow()
        cosines = 1 - np.array(rows["_distance"].to_pylist())
        assert same_ranking(own_scores, own_ids, cosines, rows["id"].to_pylist())


def test_what_is_known_of_each_window(index, qdrant, table):
    windows = list(databases.list_windows(index.folder.parts, index.state()))
    assert [window.id for window in windows] == sorted(window.id for window in windows)
    assert {window.kind for window in windows} == {"video", "audio", "image"}
    rows = {row["id"]: row for row in table.to_arrow().to_pylist()}
    for window in windows:
        (point,) = qdrant.retrieve("fgmm", [window.id], with_vectors=True)
        row = rows[window.id]
        for known in (point.payload, row):
            assert {name: known[name] for name in window.payload()} == window.payload()
        for modality in ("video", "audio"):
            assert (modality in point.vector) == (row[modality] is not None) == (modality in window.vectors)
            if modality in window.vectors:
                pooled, regions = window.vectors[modality]
                assert np.allclose(point.vector[modality], pooled, atol=1e-5) and np.allclose(row[modality], pooled)
                assert np.allclose(point.vector[f"{modality}_regions"], regions, atol=1e-5)
                assert np.allclose(row[f"{modality}_regions"], regions, atol=1e-6)
                assert np.allclose(np.linalg.norm(regions, axis=1), 1, atol=1e-5)


def test_maximum_similarity_is_attention_of_infinite_sharpness(index, qdrant, table):
    """Both databases give the sum over phrases of the attended similarity for γ → ∞; the model's γ is another one."""
    model, processor = index.loaded
    inputs = processor(text=[TEXTS[0]], return_tensors="pt")
    phrases = as_queries(model.get_text_features(**inputs)).without_padding().phrases.detach()  # (1, M, D)
    points = qdrant.query_points("fgmm", query=phrases[0].tolist(), using="video_regions", limit=100).points
    search = table.search(phrases[0].numpy(), vector_column_name="video_regions").distance_type("cosine").limit(100)
    distances = dict(zip(*(search.to_arrow()[name].to_pylist() for name in ("id", "_distance")), strict=True))
    differing = 0
    windows = {window.id: window for window in databases.list_windows(index.folder.parts, index.state())}
    assert len(points) > 5 and phrases.shape[1] > 1
    for point in points:
        regions = torch.from_numpy(windows[point.id].vectors["video"][1])[None]
        hard = attended_similarity(phrases, regions, sharpness=float("inf")).sum().item()
        assert point.score == pytest.approx(hard, abs=1e-4)
        assert phrases.shape[1] - distances[point.id] == pytest.approx(hard, abs=1e-4)
        soft = attended_similarity(phrases, regions, sharpness=model.get_objective("text", "video").sharpness())
        differing += abs(soft.sum().item() - hard) > 1e-3
    assert differing  # else the two would be the same on this index


def test_what_exists_is_not_replaced_unasked(index, qdrant, table, tmp_path):
    with pytest.raises(UserError, match="The collection 'fgmm' exists; give another --name, or --replace it"):
        databases.export_to_qdrant(index, qdrant, "fgmm")
    database = lancedb.connect(tmp_path)
    database.create_table("fgmm", [{"a": 1}])
    with pytest.raises(UserError, match="The table 'fgmm' exists"):
        databases.export_to_lancedb(index, database, "fgmm")
    assert database.open_table("fgmm").count_rows() == 1
    assert databases.export_to_lancedb(index, database, "fgmm", replace=True) == index.manifest.num_windows


def test_windows_that_are_missing_are_noticed():
    assert databases.check_count(3, 3, "Qdrant") == 3
    with pytest.raises(UserError, match="Qdrant has 2 windows of 3"):
        databases.check_count(2, 3, "Qdrant")


def test_the_command(index, tmp_path, monkeypatch, capsys):
    words = ["--index", index.folder.path, "--name", "mine"]
    run_main(monkeypatch, export_index, *words, "--lancedb", tmp_path / "lance")
    run_main(monkeypatch, export_index, *words, "--qdrant", tmp_path / "qdrant")
    assert capsys.readouterr().out.count(f"Wrote {index.manifest.num_windows} windows to 'mine'") == 2
    client = databases.QdrantClient(path=str(tmp_path / "qdrant"))
    assert client.count("mine").count == index.manifest.num_windows
    client.close()
    for choice in ([], ["--lancedb", "a", "--qdrant", "b"]):
        with pytest.raises(UserError, match="Give one of --qdrant and --lancedb"):
            run_main(monkeypatch, export_index, *words, *choice)
