"""A folder of small files and its index, for what is done with an index."""

from pathlib import Path

from helpers import write_sound, write_video
from PIL import Image

from fgmm_tools.search.folder import IndexFolder
from fgmm_tools.search.indexing import Indexer


def write_files(folder: Path) -> Path:
    """Two videos, one with sound, a sound and a picture; one of them below another folder, with an odd name."""
    (folder / "trips").mkdir(parents=True)
    write_video(folder / "silent.mp4", seconds=3)
    write_video(folder / "trips" / "Käse & #1 100%.mp4", seconds=2, sound=2.0, still=True)
    write_sound(folder / "tone.wav", seconds=1.5)
    Image.new("RGB", (64, 48), (200, 30, 40)).save(folder / "red.png")
    return folder


def index_files(index: Path, model: Path, folder: Path) -> None:
    """Brings an index of a folder up to date."""
    opened = IndexFolder(index)
    with opened.locked():
        Indexer(opened, str(model), [str(folder)], num_workers=0).update()
