"""The time of one query among a million random vectors: an index' own vectors, NumPy, and LanceDB's scan.

Each engine searches in a process of its own, which opens what lies on the disk, so that its first query and its memory
are those of a program that just started. Its files are taken out of the system's cache first, as far as that follows.
"""

import functools
import importlib.util
import os
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from ..cli import UserError
from ..scoring_benchmark import read_status, reset_peak
from .settings import BenchmarkSettings

TOP = 100
CHUNK = 100_000
# What an index uses, all float32 and all float16 vectors in FAISS one after the other, and others.
ENGINES = ("index", "exact", "float16", "numpy", "lancedb")


def run_latency(settings: BenchmarkSettings) -> dict:
    """The part `latency`.

    Returns:
        `latency_ms` of what an index uses at this size: {p50, p99, first}, where `first` is from opening files to an
        answer; and of each engine the same with `open` (ms, the part of `first` before the query), `memory_bytes`,
        `disk_bytes` and `recall`, the share (%) of the hundred nearest that it finds.
    """
    folder = settings.work / "vectors"
    folder.mkdir(parents=True, exist_ok=True)
    write_vectors(folder, settings)
    results: dict[str, dict] = {}
    for engine in ENGINES:
        if engine == "lancedb" and importlib.util.find_spec("lancedb") is None:
            results[engine] = {"failed": "lancedb is not installed: pip install fgmm[export]"}
            continue
        build(engine, folder)
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            results[engine] = pool.submit(measure, engine, folder, settings.num_queries).result()
    nearest = results["numpy"].pop("found")
    for engine, result in results.items():
        found = result.pop("found", None if engine == "numpy" else [])
        if found:
            shares = [len(set(own) & set(true)) / TOP for own, true in zip(found, nearest, strict=True)]
            result["recall"] = round(100 * float(np.mean(shares)), 2)
    ours = {name: results["index"][name] for name in ("p50", "p99", "first")}
    size = {"num_vectors": settings.num_vectors, "dim": settings.dim, "top": TOP}
    return {"latency_ms": {**ours, **size, "engines": results}}


def write_vectors(folder: Path, settings: BenchmarkSettings) -> None:
    """Random L2-normalised vectors and queries, once."""
    path, shape = folder / "vectors.npy", (settings.num_vectors, settings.dim)
    if path.exists() and np.load(path, mmap_mode="r").shape == shape:
        return
    for old in ("index.faiss", "exact.faiss", "float16.faiss", "lancedb.done"):
        (folder / old).unlink(missing_ok=True)
    generator = np.random.default_rng(settings.seed)
    array = np.lib.format.open_memmap(folder / "vectors.partial.npy", "w+", np.float32, shape)
    for first in range(0, shape[0], CHUNK):
        array[first : first + CHUNK] = unit_vectors(generator, min(CHUNK, shape[0] - first), shape[1])
    array.flush()
    np.save(folder / "queries.npy", unit_vectors(generator, settings.num_queries, shape[1]))
    (folder / "vectors.partial.npy").rename(path)


def unit_vectors(generator: np.random.Generator, number: int, dim: int) -> np.ndarray:
    """(number, dim) float32, uniform on the sphere."""
    vectors = generator.standard_normal((number, dim), np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def build(engine: str, folder: Path) -> None:
    """Writes what an engine opens, once."""
    array = np.load(folder / "vectors.npy", mmap_mode="r")
    if engine in ("index", "exact", "float16") and not (folder / f"{engine}.faiss").exists():
        import faiss

        from ..search.vectors import Vectors

        vectors = Vectors.empty(array.shape[1])
        if engine == "float16":
            half = faiss.ScalarQuantizer.QT_fp16
            quantizer = faiss.IndexScalarQuantizer(array.shape[1], half, faiss.METRIC_INNER_PRODUCT)
            vectors = Vectors(faiss.IndexIDMap(quantizer))
        for first in range(0, len(array), CHUNK):
            piece = array[first : first + CHUNK]
            vectors.add(np.arange(first, first + len(piece)), piece)
        if engine == "index":
            vectors = vectors.settle(np.load(folder / "queries.npy"))
        vectors.save(folder / f"{engine}.faiss")
    if engine == "lancedb" and not (folder / "lancedb.done").exists():
        import lancedb
        import pyarrow

        schema = pyarrow.schema([("id", pyarrow.int64()), ("vector", pyarrow.list_(pyarrow.float32(), array.shape[1]))])
        table = lancedb.connect(folder / "lancedb").create_table("windows", schema=schema, mode="overwrite")
        for first in range(0, len(array), CHUNK):
            piece = array[first : first + CHUNK]
            flat = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(piece.ravel()), array.shape[1])
            ids = pyarrow.array(np.arange(first, first + len(piece)))
            table.add(pyarrow.table({"id": ids, "vector": flat}, schema=schema))
        (folder / "lancedb.done").touch()


def files_of(engine: str, folder: Path) -> list[Path]:
    """What an engine opens."""
    if engine == "lancedb":
        return [path for path in (folder / "lancedb").rglob("*") if path.is_file()]
    return [folder / ("vectors.npy" if engine == "numpy" else f"{engine}.faiss")]


def open_engine(engine: str, folder: Path) -> Callable[[np.ndarray], list[int]]:
    """An engine, open: a query (D,) to the ids of its nearest vectors."""
    if engine == "numpy":
        vectors = np.load(folder / "vectors.npy")
        return functools.partial(search_numpy, vectors)
    if engine == "lancedb":
        import lancedb

        table = lancedb.connect(folder / "lancedb").open_table("windows")
        return lambda query: (
            table.search(query).distance_type("dot").limit(TOP).select(["id", "_distance"]).to_arrow()["id"].to_pylist()
        )
    from ..search.vectors import Vectors

    vectors = Vectors.load(folder / f"{engine}.faiss", shared=True)
    return lambda query: vectors.search(query[None], TOP)[1][0].tolist()


def search_numpy(vectors: np.ndarray, query: np.ndarray) -> list[int]:
    """The ids of the nearest of vectors (n, D), by cosine."""
    scores = vectors @ query
    best = np.argpartition(scores, -TOP)[-TOP:]
    return best[scores[best].argsort()[::-1]].tolist()


def measure(engine: str, folder: Path, num_queries: int) -> dict:
    """Times an engine in this process; see [`run_latency`]."""
    if engine != "numpy":
        importlib.import_module("lancedb" if engine == "lancedb" else "faiss")
    drop_from_cache(files_of(engine, folder))
    queries = np.load(folder / "queries.npy")[:num_queries]
    held = reset_peak("cpu")
    started = time.perf_counter()
    search = open_engine(engine, folder)
    opened = time.perf_counter()
    search(queries[0])
    answered = time.perf_counter()
    found, seconds = [], []
    for query in queries:
        before = time.perf_counter()
        found.append(search(query))
        seconds.append(time.perf_counter() - before)
    p50, p99 = np.percentile(seconds, [50, 99])
    return {
        "p50": round(1000 * float(p50), 2),
        "p99": round(1000 * float(p99), 2),
        "first": round(1000 * (answered - started), 2),
        "open": round(1000 * (opened - started), 2),
        "memory_bytes": read_status("VmHWM") - held,
        "disk_bytes": sum(path.stat().st_size for path in files_of(engine, folder)),
        "found": found,
    }


def drop_from_cache(paths: list[Path]) -> None:
    """Asks the system to forget the content of files, so that the next reading comes from the disk."""
    if not hasattr(os, "posix_fadvise"):
        raise UserError("The benchmark of latency needs Linux, whose cache it can empty; leave out that part.")
    for path in paths:
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
