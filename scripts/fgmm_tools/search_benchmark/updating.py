"""What adding one file in a hundred to an index costs, against indexing them all."""

import shutil
from pathlib import Path

from ..retrieval.moments_stitching import read_narrated_clips
from ..search.folder import IndexFolder
from ..search.indexing import Indexer, Report
from .settings import BenchmarkSettings


def run_updating(settings: BenchmarkSettings) -> dict:
    """The part `updating`.

    Returns:
        `updating`: seconds for the files of the narrated corpus, for a hundredth more, for nothing new; the share (%)
        of the second in the first, and of files. Loading the model is not counted.
    """
    folder, index = settings.work / "updating" / "files", settings.work / "updating" / "index"
    shutil.rmtree(settings.work / "updating", ignore_errors=True)
    folder.mkdir(parents=True)
    number, more = settings.num_files, max(1, settings.num_files // 100)
    clips = read_narrated_clips(settings.narrated, "test")[: number + more]
    contents = [clip.source if isinstance(clip.source, bytes) else clip.source.read_bytes() for clip in clips]
    first = update(index, settings, folder, contents[:-more], 0)
    added = update(index, settings, folder, contents[-more:], len(contents) - more)
    nothing = update(index, settings, folder, [], 0)
    return {
        "updating": {
            "num_files": first.embedded,
            "seconds": round(first.seconds, 2),
            "added_files": added.embedded,
            "added_seconds": round(added.seconds, 2),
            "unchanged_seconds": round(nothing.seconds, 2),
            "share_of_files": round(100 * added.embedded / first.embedded, 2),
            "share_of_seconds": round(100 * added.seconds / first.seconds, 2),
        }
    }


def update(path: Path, settings: BenchmarkSettings, folder: Path, contents: list[bytes], number: int) -> Report:
    """Writes files, and brings the index of their folder up to date.

    Args:
        number: of the first of these files.
    """
    for place, content in enumerate(contents, number):
        (folder / f"{place:06d}.mp4").write_bytes(content)
    index = IndexFolder(path)
    with index.locked():
        indexer = Indexer(index, settings.model, [str(folder)], num_workers=settings.num_workers)
        _, report = indexer.update()
    return report
