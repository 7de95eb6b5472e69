"""Whole indexes of a few real files: what is taken in, kept and forgotten, and what goes wrong."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import ROOT, TEXTS, write_sound, write_video
from PIL import Image

from fgmm_tools.cli import UserError
from fgmm_tools.search import calibration, candidates, indexing, parts, states
from fgmm_tools.search.catalog import Catalog
from fgmm_tools.search.folder import VERSION, IndexFolder, read_manifest
from fgmm_tools.search.indexing import Indexer
from fgmm_tools.search.settings import IndexSettings
from fgmm_tools.search.video_index import VideoIndex
from modeling_fgmm import FgmmModel

ODD = 'Ünï "q" %20 #7&?;\n😀.mp4'


@pytest.fixture(autouse=True)
def few_foreign_texts(monkeypatch):
    monkeypatch.setattr(calibration, "NUM_FOREIGN", 19)


@pytest.fixture
def videos(tmp_path):
    folder = tmp_path / "videos"
    (folder / "trips").mkdir(parents=True)
    write_video(folder / "trips" / "a.mp4", seconds=2, sound=2.0)
    write_video(folder / ODD, seconds=1, rate=12)
    write_sound(folder / "b.wav", seconds=1.2)
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 60, 3), np.uint8)).save(folder / "c.png")
    (folder / "trips" / "a.srt").write_text("1\n00:00:00,200 --> 00:00:00,900\ncrack two eggs\n")
    (folder / "d.mp4").write_bytes(b"no video")
    return folder


def update(index, model, *videos, **options):
    """Indexes folders, in this process."""
    folder = IndexFolder(index)
    with folder.locked():
        return Indexer(folder, model and str(model), list(map(str, videos)), num_workers=0, **options).update()


def names(index):
    """The files that searches can find."""
    catalog = Catalog(IndexFolder(index).current() / "catalog.sqlite", read_only=True)
    return sorted(file.name for file in catalog.list_files() if file.problem is None)


def test_an_index_of_all_kinds_of_files(videos, small_model, tmp_path):
    manifest, report = update(tmp_path / "index", small_model, videos)
    assert manifest.complete and (report.embedded, report.damaged, manifest.num_files) == (4, 1, 4)
    assert names(tmp_path / "index") == sorted(["trips/a.mp4", ODD, "b.wav", "c.png"])
    problems = [json.loads(line) for line in (tmp_path / "index" / "problems.jsonl").read_text().splitlines()]
    assert len(problems) == 1 and problems[0]["path"].endswith("d.mp4") and "cannot be decoded" in problems[0]["reason"]
    index = VideoIndex(tmp_path / "index")
    found = {Path(moment.path).name for moment in index.search(TEXTS[0], top=100).moments}
    assert found == {"a.mp4", ODD, "b.wav", "c.png"}


def test_only_what_changed_is_embedded_again(videos, small_model, tmp_path, monkeypatch):
    index, embedded = tmp_path / "index", []
    take_in = Indexer.take_in

    def note(self, file, *rest):
        embedded.append(file.name)
        take_in(self, file, *rest)

    monkeypatch.setattr(Indexer, "take_in", note)
    update(index, small_model, videos)
    before = IndexFolder(index).current()
    embedded.clear()
    manifest, report = update(index, None)
    assert not embedded and manifest.complete and report.kept == 5 and IndexFolder(index).current() == before
    # Renamed, copied, touched, new, changed, forgotten, with other captions.
    (videos / "trips" / "a.mp4").rename(videos / "trips" / "renamed.mp4")
    (videos / "trips" / "a.srt").rename(videos / "trips" / "renamed.srt")
    shutil.copy(videos / ODD, videos / "copy.mp4")
    os.utime(videos / "c.png", ns=(1, 1))
    write_video(videos / "new.mp4", seconds=0.7, rate=11)
    write_sound(videos / "b.wav", seconds=0.9)
    (videos / "d.mp4").unlink()
    (videos / "new.srt").write_text("1\n00:00:00,000 --> 00:00:00,500\nstir the sauce\n")
    manifest, report = update(index, None, videos)
    assert sorted(embedded) == ["b.wav", "new.mp4"]
    assert (report.renamed, report.copied, report.forgotten, report.kept) == (1, 1, 1, 2) and manifest.complete
    assert names(index) == sorted(["trips/renamed.mp4", ODD, "copy.mp4", "c.png", "b.wav", "new.mp4"])
    found = VideoIndex(index).search("two eggs", top=1).moments[0]
    assert found.path.endswith("renamed.mp4") and found.spoken == "crack two eggs"
    catalog = Catalog(IndexFolder(index).current() / "catalog.sqlite", read_only=True)
    assert next(file.modified for file in catalog.list_files() if file.name == "c.png") == 1
    (videos / "new.srt").write_text("1\n00:00:00,000 --> 00:00:00,500\nthe small dog barks\n")
    embedded.clear()
    update(index, None)
    assert not embedded and VideoIndex(index).search("small dog", top=1).moments[0].spoken == "the small dog barks"


def test_what_nothing_refers_to_is_removed(videos, small_model, tmp_path):
    index = tmp_path / "index"
    update(index, small_model, videos)
    for number in range(3):  # the state before is kept, for a search may just be reading it
        (videos / "b.wav").unlink(missing_ok=True)
        write_sound(videos / "e.wav", seconds=0.5 + number / 10)
        update(index, None)
    assert len(list((index / "states").iterdir())) == 2
    assert len(list((index / "parts").rglob("*.safetensors"))) == 5  # one of the state before


def test_copies_are_near_duplicates(small_model, tmp_path):
    videos = tmp_path / "videos"
    videos.mkdir()
    generator = np.random.default_rng(0)
    for number in range(6):
        coarse = Image.fromarray(generator.integers(0, 255, (6, 6, 3), np.uint8))
        coarse.resize((96, 96), Image.Resampling.BICUBIC).save(videos / f"{number}.png")
    with Image.open(videos / "0.png") as picture:
        picture.save(videos / "small copy.jpg", quality=90)
    update(tmp_path / "index", small_model, videos)
    moments = VideoIndex(tmp_path / "index").search(TEXTS[0], top=10).moments
    assert len(moments) == 6
    doubled = next(moment for moment in moments if moment.duplicates)
    assert {Path(doubled.path).name, Path(doubled.duplicates[0].path).name} == {"0.png", "small copy.jpg"}


def test_another_model_or_other_settings_are_refused(videos, small_model, tmp_path, tokenizer):
    index = tmp_path / "index"
    update(index, small_model, videos)
    other = tmp_path / "other"
    shutil.copytree(small_model, other)
    model = FgmmModel.from_pretrained(other)
    with torch.no_grad():
        next(model.parameters()).add_(0.01)
    model.save_pretrained(other)
    with pytest.raises(UserError, match=r"not the one that the index .* was made with.*; give that model, or make"):
        update(index, other)
    with pytest.raises(UserError, match=r"other settings \(stride\); leave them out, or make another index"):
        update(index, None, settings=IndexSettings(stride=0.25))
    shutil.copytree(small_model, tmp_path / "moved")
    manifest, _ = update(index, tmp_path / "moved")  # the same weights elsewhere
    assert manifest.complete


def test_a_new_index_needs_a_model_and_folders(small_model, tmp_path):
    with pytest.raises(UserError, match="needs --videos"):
        update(tmp_path / "index", small_model)
    with pytest.raises(UserError, match=r"nowhere is not there; connect its drive"):
        update(tmp_path / "index", small_model, tmp_path / "nowhere")
    (tmp_path / "videos").mkdir()
    with pytest.raises(UserError, match="needs --model"):
        update(tmp_path / "index", None, tmp_path / "videos")


def test_a_drive_that_is_gone_does_not_empty_the_index(videos, small_model, tmp_path):
    index = tmp_path / "index"
    update(index, small_model, videos)
    videos.rename(tmp_path / "unplugged")
    with pytest.raises(UserError, match="connect its drive"):
        update(index, None)
    assert len(names(index)) == 4


def test_folders_that_hold_something_else_and_newer_versions_are_refused(tmp_path):
    (tmp_path / "index").mkdir()
    (tmp_path / "index" / "thesis.tex").touch()
    with pytest.raises(UserError, match=r"something else than an index \(thesis.tex\)"):
        IndexFolder(tmp_path / "index")
    (tmp_path / "newer").mkdir()
    (tmp_path / "newer" / "current.json").write_text(json.dumps({"version": VERSION + 1, "state": "000001"}))
    with pytest.raises(UserError, match=f"has version {VERSION + 1}.*install a newer fgmm"):
        VideoIndex(tmp_path / "newer")
    with pytest.raises(UserError, match="holds no index that can be searched; python scripts/index_videos"):
        VideoIndex(tmp_path / "nothing")


def test_a_file_that_changes_while_it_is_read_is_not_taken_in(videos, small_model, tmp_path, monkeypatch):
    index, embed = tmp_path / "index", Indexer.embed

    def write_meanwhile(self, files, report):
        write_sound(videos / "b.wav", seconds=0.6)
        embed(self, files, report)

    monkeypatch.setattr(Indexer, "embed", write_meanwhile)
    manifest, report = update(index, small_model, videos)
    assert report.changing == 1 and not manifest.complete and "b.wav" not in names(index)
    assert not VideoIndex(index).search(TEXTS[0]).complete
    monkeypatch.setattr(Indexer, "embed", embed)
    manifest, report = update(index, None)
    assert report.embedded == 1 and manifest.complete and "b.wav" in names(index)


def test_on_a_full_disk_what_was_done_is_kept(videos, small_model, tmp_path, monkeypatch):
    index, written, replace = tmp_path / "index", [], os.replace

    def fill(source, target):
        if str(target).endswith(".safetensors"):
            if len(written) == 2:
                raise OSError(errno.ENOSPC, "No space left on device", str(target))
            written.append(target)
        replace(source, target)

    monkeypatch.setattr(parts.os, "replace", fill)
    with pytest.raises(OSError, match="No space left"):
        update(index, small_model, videos)
    monkeypatch.setattr(parts.os, "replace", replace)
    assert not list(index.rglob("*.partial"))
    manifest, report = update(index, None)
    assert manifest.complete and report.kept >= 2 and report.embedded == 2


def test_a_state_that_cannot_be_written_leaves_the_one_before(videos, small_model, tmp_path, monkeypatch):
    index = tmp_path / "index"
    update(index, small_model, videos)
    opened = VideoIndex(index)
    write_sound(videos / "late.wav", seconds=0.7)

    def fail(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(states, "write_calibration", fail)
    with pytest.raises(OSError, match="No space left"):
        update(index, None)
    assert "late.wav" not in names(index) and len(opened.search(TEXTS[0]).moments) == 4
    monkeypatch.undo()
    update(index, None)
    assert "late.wav" in names(index) and not list(index.rglob("*.partial"))
    assert len(opened.search(TEXTS[0]).moments) == 5  # without being opened anew


def test_a_search_sees_the_state_before_while_the_folder_is_indexed(videos, small_model, tmp_path, monkeypatch):
    index = tmp_path / "index"
    update(index, small_model, videos)
    opened, seen = VideoIndex(index), []
    for name in ("c.png", "b.wav"):
        (videos / name).unlink()
    write_video(videos / "late.mp4", seconds=0.7, rate=11)
    take_in = Indexer.take_in

    def search_first(self, *arguments):
        take_in(self, *arguments)
        seen.append(sorted(Path(moment.path).name for moment in opened.search(TEXTS[0]).moments))

    monkeypatch.setattr(Indexer, "take_in", search_first)
    monkeypatch.setattr(indexing, "PUBLISH_SECONDS", 1e9)
    update(index, None)
    assert seen == [sorted(["a.mp4", ODD, "b.wav", "c.png"])]
    assert {Path(moment.path).name for moment in opened.search(TEXTS[0]).moments} == {"a.mp4", ODD, "late.mp4"}


def test_long_indexing_can_be_searched_and_says_that_it_is_not_complete(videos, small_model, tmp_path, monkeypatch):
    manifests, make_state = [], indexing.make_state
    monkeypatch.setattr(indexing, "make_state", lambda *rest: manifests.append(make_state(*rest)) or manifests[-1])
    monkeypatch.setattr(indexing, "PUBLISH_SECONDS", 0.0)
    update(tmp_path / "index", small_model, videos)
    assert [manifest.complete for manifest in manifests] == [False] * (len(manifests) - 1) + [True]
    assert len(manifests) == 6 and manifests[0].num_pending == 4


def test_a_damaged_part_is_found_and_made_anew(videos, small_model, tmp_path):
    index = tmp_path / "index"
    update(index, small_model, videos)
    part = next((index / "parts").rglob("*.safetensors"))
    part.write_bytes(part.read_bytes()[:-3])
    write_sound(videos / "late.wav", seconds=0.7)
    manifest, _ = update(index, None)
    assert not manifest.complete
    manifest, report = update(index, None)
    assert manifest.complete and report.embedded == 1 and manifest.num_files == 5


def start(index, model, videos, *options):
    command = [sys.executable, str(ROOT / "scripts/index_videos.py"), "--index", str(index), "--model", str(model)]
    command += ["--videos", str(videos), "--num_workers", "0", *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def test_a_killed_indexing_goes_on_and_two_at_once_are_refused(small_model, tmp_path):
    """In a process of its own: it is killed after some files, and while it runs another one is refused."""
    videos, index = tmp_path / "videos", tmp_path / "index"
    videos.mkdir()
    for number in range(150):
        write_sound(videos / f"{number:03d}.wav", seconds=0.5, pitch=200 + number)
    process = start(index, small_model, videos, "--batch_size", "4")
    while not len(list((index / "parts").rglob("*.safetensors"))) > 3:
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.05)
    process.send_signal(signal.SIGSTOP)
    with pytest.raises(UserError, match=rf"Another process is working in .*process {process.pid} on"):
        with IndexFolder(index).locked():
            pass
    process.kill()
    process.wait()
    done = len(list((index / "parts").rglob("*.safetensors")))
    assert done < 150
    manifest, report = update(index, None)
    assert manifest.complete and manifest.num_files == 150 and report.embedded <= 150 - done + 1


@pytest.mark.skipif("FGMM_SLOW" not in os.environ, reason="takes a minute; FGMM_SLOW=1 runs it")
def test_ten_thousand_tiny_files(small_model, tmp_path):
    videos = tmp_path / "videos"
    for number in range(10_000):
        path = videos / f"{number % 100:02d}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4), (number % 251, number // 251, 0)).save(path)
    manifest, _ = update(tmp_path / "index", small_model, videos)
    assert manifest.complete and manifest.num_files == 10_000
    started = time.monotonic()
    manifest, report = update(tmp_path / "index", None)
    assert report.kept == 10_000 and time.monotonic() - started < 20


def test_watching_takes_in_what_comes(videos, small_model, tmp_path, monkeypatch):
    pytest.importorskip("watchfiles")
    monkeypatch.setattr(indexing, "WATCH_PATIENCE", 100)
    folder = IndexFolder(tmp_path / "index")
    with folder.locked():
        indexer = Indexer(folder, str(small_model), [str(videos)], num_workers=0)
        indexer.update()
        watched = indexer.watch()
        subprocess.Popen(["/bin/sh", "-c", f"sleep 1; cp '{videos}/b.wav' '{videos}/e.wav'; rm '{videos}/c.png'"])
        seen = {}
        while not {"e.wav"} <= set(names(folder.path)) or "c.png" in names(folder.path):
            seen = next(watched)[0]
        assert seen.complete and read_manifest(folder.current()).num_files == 4
        watched.close()


def test_a_search_outlives_the_removal_of_what_it_reads(videos, small_model, tmp_path, monkeypatch):
    """Two newer states are made while a search is at work, so that parts of its state are removed."""
    index = tmp_path / "index"
    update(index, small_model, videos)
    opened, read_keys = VideoIndex(index), candidates.read_keys

    def update_first(*arguments):
        monkeypatch.setattr(candidates, "read_keys", read_keys)
        for number in range(2):
            (videos / "c.png").unlink(missing_ok=True)
            write_sound(videos / "b.wav", seconds=0.5 + number / 10)
            update(index, None)
        return read_keys(*arguments)

    monkeypatch.setattr(candidates, "read_keys", update_first)
    found = {Path(moment.path).name for moment in opened.search(TEXTS[0]).moments}
    assert found == {"a.mp4", ODD, "b.wav"}
    for part in (index / "parts").rglob("*.safetensors"):
        part.unlink()
    with pytest.raises(UserError, match="lacks a part; run index_videos"):
        opened.search(TEXTS[0])
