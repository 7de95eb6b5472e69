"""Hundreds of damaged files through every function of media_fgmm, and what finds out how they end."""

import io
import json
import os
import signal
import subprocess
import sys
import threading
import zlib

import numpy as np
import pytest
from helpers import ROOT
from media_files import BY_NAME, KINDS, media_bytes, missing_of, picture_of
from PIL import Image

from fgmm_tools import media_fuzzing
from fgmm_tools.cli import UserError
from fgmm_tools.media_fuzzing import MUTATIONS, Reader, call, list_faults, mutate, read_given, render_files, summarise

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


def test_another_exception_is_a_fault():
    def bomb(path):
        raise Image.DecompressionBombError("too large")

    ends = {"read_image": call(bomb, "clip"), "probe_media": call(str.upper, "clip")}
    assert ends["probe_media"] == ("result", "CLIP")
    assert list_faults({"ends": ends}) == ["read_image: DecompressionBombError: too large"]


def test_a_hang_and_a_crash_are_faults_and_the_next_file_is_read(tmp_path, monkeypatch):
    whole, pipe = tmp_path / "whole.png", tmp_path / "pipe"
    whole.write_bytes(photo_bytes("png"))
    os.mkfifo(pipe)  # which nobody writes to, so that opening it takes for ever
    with Reader() as reader:
        monkeypatch.setattr(media_fuzzing, "STUCK", 0.5)
        assert "hangs" in list_faults(reader.read(pipe))[0]
        monkeypatch.setattr(media_fuzzing, "STUCK", 60)
        assert reader.read(whole)["ends"]["read_image"] == ("result", "(96, 128)")
        threading.Timer(0.5, os.kill, (reader.process.pid, signal.SIGKILL)).start()
        assert list_faults(reader.read(pipe)) == ["dies with status -9"]


def test_the_command_counts_how_calls_end(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "photo.png").write_bytes(photo_bytes("png"))
    (tmp_path / "sound.mp3").write_bytes(media_bytes(BY_NAME["mp3-xing"], seconds=1))
    command = [sys.executable, str(ROOT / "scripts" / "fuzz_media.py"), "--mutations", "12", "--output", "out.json"]
    subprocess.run([*command, "--files", "folder", "sound.mp3"], check=True, cwd=tmp_path, capture_output=True)
    record = json.loads((tmp_path / "out.json").read_text())
    results = record["results"]
    assert results["files_by_name"] == {"photo.png": 6, "sound.mp3": 6}
    assert sum(results["calls_by_outcome"].values()) == results["calls"] == 72
    assert results["faults"] == [] and results["peak_memory_mb"] > 50 and results["longest_call"]["seconds"] < 10
    assert record["command"].startswith("python scripts/fuzz_media.py --mutations 12")


def test_what_is_summed_up():
    results = [
        {
            "ends": {"a": ("result", "1"), "b": ("MediaError", "x")},
            "seconds": {"a": 0.5, "b": 2.0},
            "memory": 3 << 20,
            "peak": 9 << 20,
        },
        {"died": "hangs"},
        {"ends": {"a": ("KeyError", "x")}, "seconds": {"a": 1.0}, "memory": 5 << 20, "peak": 9 << 20},
    ]
    summary = summarise([{**result, "number": number, "name": "clip.mp4"} for number, result in enumerate(results)])
    assert summary["files"] == 3 and summary["calls"] == 3 and summary["died"] == 1
    assert summary["calls_by_outcome"] == {"result": 1, "MediaError": 1, "KeyError": 1}
    assert [fault["number"] for fault in summary["faults"]] == [1, 2]
    assert summary["longest_call"] == {"seconds": 2.0, "function": "b", "number": 0, "name": "clip.mp4"}
    assert summary["peak_memory_mb"] == 9 and summary["memory_left_mb_by_tenths"] == [3, 5]


def test_files_to_damage_are_refused_where_there_are_none_or_two_of_a_name(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
    with pytest.raises(UserError, match="names no file"):
        read_given([tmp_path])
    for folder in ("a", "b"):
        (tmp_path / folder / "clip.mp4").write_bytes(b"x")
    with pytest.raises(UserError, match="of the same name"):
        read_given([tmp_path])
    assert read_given([tmp_path / "a"]) == {"clip.mp4": b"x"}


def test_rendered_files_are_of_every_container():
    names = {name for name, *_ in media_fuzzing.CONTAINERS} | {*media_fuzzing.IMAGES}
    lacking = names - render_files().keys()
    assert len(lacking) < 3, lacking
