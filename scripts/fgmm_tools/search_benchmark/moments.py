"""Moments of long videos, found by text through an index, and the time that this index takes."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from ..corpora.benchmarks import charades_sta, qvhighlights
from ..corpora.benchmarks.layout import VIDEO, MediaFolder
from ..corpora.benchmarks.moment_queries import MomentQuery
from ..corpora.problems import Problems
from ..retrieval.moments import MAX_PREDICTIONS, measure_moments
from ..retrieval.moments_stitching import read_benchmark_clips, read_narrated_clips, stitch_videos
from ..search.folder import IndexFolder
from ..search.indexing import Indexer
from ..search.video_index import VideoIndex
from .settings import BenchmarkSettings

READERS = {"qvhighlights": (qvhighlights, "validation"), "charades_sta": (charades_sta, "test")}


def run_moments(settings: BenchmarkSettings) -> dict:
    """The part `moments`.

    Returns:
        `moments`: of each set of videos the metrics of moment retrieval, those of random windows under `chance`, and
        for stitched videos of several corpora those of each corpus' queries; `index_hours_an_hour`: hours of media that
        are indexed in an hour; `index_bytes_a_window`: of the whole index on the disk.
    """
    results: dict[str, dict] = {"moments": {}, "index_hours_an_hour": {}, "index_bytes_a_window": {}}
    for name, source, module, split in moment_sets(settings):
        index_path = settings.work / "indexes" / source.name
        shutil.rmtree(index_path, ignore_errors=True)  # its making is measured
        speed = index_folder(index_path, settings, source)
        index = VideoIndex(index_path)
        queries = module.read_queries(source, split, Problems())
        results["moments"][name] = measure_queries(index, queries, source, settings.seed)
        results["index_bytes_a_window"][name] = round(folder_bytes(index_path) / index.manifest.num_windows)
        results["index_hours_an_hour"][name] = round(speed, 2)
    return results


def moment_sets(settings: BenchmarkSettings):
    """Name, folder, reader and split of each set of videos, which are stitched where they are not there yet."""
    if settings.moments:
        module, split = READERS[settings.moment_list]
        yield settings.moment_list, settings.moments, module, split
        return
    narrated = read_narrated_clips(settings.narrated, "test")
    sets = {"narrated": narrated[: settings.clips]}
    if settings.data:
        others = [read_benchmark_clips(name, settings.data / name, "test") for name in ("ucf101", "grid")]
        # Other clips of the narrated corpus than those of the set before, where it has so many.
        narrated = narrated[settings.clips : 2 * settings.clips] or narrated
        sets["mixed"] = [clip for clips in (narrated, *others) for clip in clips[: settings.clips]]
    for name, clips in sets.items():
        # Named by what they are made with, so that others are made when that changes.
        folder = settings.work / "stitched" / f"{name}-{settings.clips}-{settings.clips_a_video}-{settings.seed}"
        if not (folder / qvhighlights.LISTS["validation"]).exists():  # written last
            stitch_videos(folder, clips, settings.clips_a_video, settings.seed)
        yield name, folder, qvhighlights, "validation"


def index_folder(path: Path, settings: BenchmarkSettings, videos: Path) -> float:
    """Brings an index of videos up to date.

    Returns:
        seconds of media that were embedded in a second.
    """
    folder = IndexFolder(path)
    with folder.locked():
        indexer = Indexer(folder, settings.model, [str(videos)], num_workers=settings.num_workers)
        _, report = indexer.update()
    return report.media_seconds / report.seconds


def measure_queries(index: VideoIndex, queries: Sequence[MomentQuery], source: Path, seed: int) -> dict:
    """Moment retrieval by the protocol of the field: each query in its own video, by what is seen and heard alone.

    Args:
        index: of the videos. source: their folder.
        seed: of the random windows of `chance`.

    Returns:
        metrics of all queries; `chance`; `num_without_known_word`, which find nothing; and by origin, where the ids of
        queries name several.
    """
    videos = MediaFolder(source, VIDEO)
    generator = np.random.default_rng(seed)
    predictions, chance, kept, without = [], [], [], 0
    for query in tqdm(queries, desc="Finding moments", unit="query", leave=False):
        path = videos.paths.get(query.video)
        if path is None:
            continue
        found = index.search(query.text, inside=path.absolute(), top=MAX_PREDICTIONS, spoken=0.0).moments
        predictions.append([(moment.start, moment.end) for moment in found])
        chance.append(random_windows(index, path, generator))
        without += not found
        kept.append(query)
    truths = [query.windows for query in kept]
    results = {**measure_moments(predictions, truths), "num_without_known_word": without}
    results["chance"] = measure_moments(chance, truths)
    origins = [query.query_id.rpartition("-")[0] for query in kept]
    for origin in sorted(set(origins)) if len(set(origins)) > 1 else ():
        rows = [row for row, other in enumerate(origins) if other == origin]
        results[origin] = {
            **measure_moments([predictions[row] for row in rows], [truths[row] for row in rows]),
            "chance": measure_moments([chance[row] for row in rows], [truths[row] for row in rows]),
        }
    return results


def random_windows(index: VideoIndex, path: Path, generator: np.random.Generator) -> list[tuple[float, float]]:
    """Windows of a video that the index has, in a random order."""
    catalog = index.state().catalog
    windows = list(catalog.get_windows(catalog.select_windows(str(path.absolute()), None)).values())
    chosen = generator.permutation(len(windows))[:MAX_PREDICTIONS]
    return [(windows[place].start, windows[place].end) for place in chosen]


def folder_bytes(folder: Path) -> int:
    """The size of all files in a folder and below it."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
