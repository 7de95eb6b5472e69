"""Hundreds of damaged files through every function of media_fgmm, in a process of little memory."""

import io
import sys
import zlib

import numpy as np
import pytest
from media_files import KINDS, media_bytes, missing_of, picture_of
from PIL import Image

from fgmm_tools.media_fuzzing import MUTATIONS, Reader, list_faults, mutate

MUTATED = 8  # files of each kind
GROWTH = 150 << 20  # bytes that the process may take in the last two thirds of its work


def photo_bytes(form: str, **options) -> bytes:
    exif, file = Image.Exif(), io.BytesIO()
    exif[0x0112] = 6
    Image.fromarray(picture_of(77, True, (128, 96))).save(file, format=form, exif=exif, **options)
    return file.getvalue()


# {name: (suffix, what makes its bytes)}
WHOLE = {kind.name: (kind.suffix, lambda kind=kind: media_bytes(kind, seconds=1.2)) for kind in KINDS} | {
    "photo-png": (".png", lambda: photo_bytes("png")),
    "photo-jpeg": (".jpg", lambda: photo_bytes("jpeg", quality=80)),
    "photo-progressive-jpeg": (".jpg", lambda: photo_bytes("jpeg", quality=80, progressive=True)),
    "photo-webp": (".webp", lambda: photo_bytes("webp")),
    "photo-tiff": (".tiff", lambda: photo_bytes("tiff", compression="tiff_lzw")),
    "photo-bmp": (".bmp", lambda: photo_bytes("bmp")),
}
LACKING = {kind.name: lacking for kind in KINDS if (lacking := missing_of(kind))}


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> dict[str, dict]:
    """{file: how reading it ended}, files of all kinds mixed, so that memory is compared over like files."""
    if not sys.platform.startswith("linux"):
        pytest.skip("memory is limited as Linux does it")
    folder, files = tmp_path_factory.mktemp("fuzz"), []
    for name in WHOLE.keys() - LACKING.keys():
        suffix, make = WHOLE[name]
        whole = make()
        for number in range(MUTATED):
            files.append(folder / f"{name}.{number}{suffix}")
            files[-1].write_bytes(mutate(whole, zlib.crc32(files[-1].name.encode())))
    files.sort(key=lambda file: zlib.crc32(file.name.encode()))
    with Reader() as reader:
        return {file.name: reader.read(file) for file in files}


@pytest.mark.parametrize("name", WHOLE)
def test_only_media_errors_leave_for_damaged_files(results, name):
    if name in LACKING:
        pytest.skip(f"this build of FFmpeg lacks {LACKING[name]}")
    of_kind = {file: result for file, result in results.items() if file.split(".")[0] == name}
    assert len(of_kind) == MUTATED
    assert {file: faults for file, result in of_kind.items() if (faults := list_faults(result))} == {}


def test_some_damaged_files_are_read_and_some_refused(results):
    """Else the damage were too small or too large to show anything."""
    ends = [end for result in results.values() for end, _ in result.get("ends", {}).values()]
    assert 0.2 < ends.count("MediaError") / len(ends) < 0.8


def test_memory_stays_level(results):
    memory = [result["memory"] for result in results.values() if "memory" in result]
    assert max(memory) - max(memory[: len(memory) // 3]) < GROWTH


def test_damage_is_the_same_for_the_same_seed():
    data = bytes(range(256)) * 40
    assert mutate(data, 5) == mutate(data, 5)
    assert len({mutate(data, seed) for seed in range(50)}) == 50


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.__name__)
@pytest.mark.parametrize("size", [1, 3, 5000])
def test_each_damage_changes_the_file(mutation, size):
    data = bytes(np.random.default_rng(1).integers(256, size=size, dtype=np.uint8))
    changed = [bytes(mutation(bytearray(data), np.random.default_rng(seed))) != data for seed in range(20)]
    assert any(changed)
