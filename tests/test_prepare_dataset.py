import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from helpers import ROOT, write_video
from PIL import Image

from processing_fgmm.corpora_fgmm import load_corpus
from processing_fgmm.media_fgmm import read_frames


def prepare(*arguments):
    command = [sys.executable, "scripts/prepare_dataset.py", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


@pytest.fixture
def flickr8k(tmp_path):
    """Six photographs in the published layout; one is missing, one has no caption."""
    source = tmp_path / "Flickr8k"
    (source / "Flicker8k_Dataset").mkdir(parents=True)
    (source / "Flickr8k_text").mkdir()
    names = [f"{index}_abc.jpg" for index in range(6)]
    for name in names[:5]:
        Image.fromarray(np.full((20, 30, 3), 90, np.uint8)).save(source / "Flicker8k_Dataset" / name)
    lines = [f"{name}#{number}\tA dog number {number} ." for name in names if name != names[4] for number in range(5)]
    (source / "Flickr8k_text/Flickr8k.token.txt").write_text("\n".join(lines) + "\n")
    for part, chosen in (("train", names[:3]), ("dev", [names[3], names[4]]), ("test", [names[0], names[5]])):
        (source / f"Flickr8k_text/Flickr_8k.{part}Images.txt").write_text("\n".join(chosen) + "\n")
    return source


@pytest.fixture
def grid(tmp_path):
    """Six clips of one speaker; one has no transcript, one a broken one."""
    source = tmp_path / "grid"
    (source / "s1").mkdir(parents=True)
    (source / "align" / "s1").mkdir(parents=True)
    for index in range(6):
        write_video(source / "s1" / f"clip{index}.mp4", seconds=3, rate=25, sound=3.0)
        text = "0 23750 sil\n23750 29500 bin\n29500 34000 blue\n34000 35500 sp\n35500 41000 now\n41000 74500 sil\n"
        if index == 1:
            text = "0 x bin\n"
        if index != 2:
            (source / "align" / "s1" / f"clip{index}.align").write_text(text)
    return source


def test_flickr8k_in_its_official_split(flickr8k, tmp_path):
    answer = prepare("flickr8k", "--source", flickr8k, "--output", tmp_path / "out")
    assert answer.returncode == 0, answer.stderr
    assert "3 train, 1 validation, 1 test; 2 entries were skipped" in answer.stdout
    assert "5_abc.jpg is not in" in answer.stdout and "4_abc.jpg has no caption" in answer.stdout
    rows = list(load_corpus(str(tmp_path / "out"), "train"))
    assert [row["video_id"] for row in rows] == ["0_abc", "1_abc", "2_abc"]
    assert len(rows[0]["captions"]) == 5
    assert rows[0]["captions"][0] == {"text": "A dog number 0 .", "start": None, "end": None}
    assert rows[0]["image"]["bytes"] == (flickr8k / "Flicker8k_Dataset" / "0_abc.jpg").read_bytes()


def test_grid_times_and_held_out_fifth(grid, tmp_path):
    answer = prepare("grid", "--source", grid, "--output", tmp_path / "out")
    assert answer.returncode == 0, answer.stderr
    assert "2 entries were skipped" in answer.stdout and "clip1.align" in answer.stdout
    rows = {split: list(load_corpus(str(tmp_path / "out"), split)) for split in ("train", "test")}
    assert [row["video_id"] for row in rows["test"]] == ["s1_clip4"]
    assert [row["video_id"] for row in rows["train"]] == ["s1_clip0", "s1_clip3", "s1_clip5"]
    assert rows["train"][0]["captions"] == [{"text": "bin blue now", "start": 0.95, "end": 1.64}]


def test_a_killed_run_goes_on_where_it_was(flickr8k, tmp_path):
    """Two shards of training photographs. The last photograph is a pipe, at which the first run waits for ever."""
    names = [f"{index:03d}.jpg" for index in range(300)]
    photo, pipe = flickr8k / "Flicker8k_Dataset" / "0_abc.jpg", flickr8k / "Flicker8k_Dataset" / names[-1]
    for name in names[:-1]:
        shutil.copy(photo, flickr8k / "Flicker8k_Dataset" / name)
    os.mkfifo(pipe)
    with (flickr8k / "Flickr8k_text/Flickr8k.token.txt").open("a") as file:
        file.writelines(f"{name}#0\tPhoto {name} .\n" for name in names)
    (flickr8k / "Flickr8k_text/Flickr_8k.trainImages.txt").write_text("\n".join(names))
    arguments = ["flickr8k", "--source", flickr8k, "--output", tmp_path / "out"]
    first, second = (tmp_path / "out" / "data" / f"train-0000{index}-of-00002.parquet" for index in (0, 1))

    command = [sys.executable, "scripts/prepare_dataset.py", *map(str, arguments)]
    run = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL, start_new_session=True)
    until = time.monotonic() + 60
    while not first.exists() and time.monotonic() < until:
        time.sleep(0.05)
    os.killpg(run.pid, signal.SIGKILL)
    run.wait()
    assert first.exists() and not second.exists() and not (tmp_path / "out" / "README.md").exists()

    before = first.stat().st_mtime_ns
    pipe.unlink()
    shutil.copy(photo, pipe)
    assert "holds a corpus made with other arguments" in prepare(*arguments, "--limit", 200).stderr
    answer = prepare(*arguments)
    assert answer.returncode == 0 and "300 train, 1 validation, 1 test" in answer.stdout
    assert first.stat().st_mtime_ns == before
    assert [row["video_id"] + ".jpg" for row in load_corpus(str(tmp_path / "out"), "train")] == names


def make_videos(source, letter, number=3):
    """A folder of videos with captions beside them."""
    source.mkdir()
    for index in range(number):
        write_video(source / f"{letter}{index}.mp4", seconds=0.3)
        (source / f"{letter}{index}.srt").write_text("1\n00:00:00,000 --> 00:00:00,300\nhi\n")
    return source


def test_a_corpus_of_another_source_is_left_alone(tmp_path):
    first, second = make_videos(tmp_path / "first", "a"), make_videos(tmp_path / "second", "b")
    assert prepare("folder", "--source", first, "--output", tmp_path / "out").returncode == 0
    answer = prepare("folder", "--source", second, "--output", tmp_path / "out")
    assert answer.returncode == 1 and "or of another source" in answer.stderr and "Traceback" not in answer.stderr
    assert [row["video_id"] for row in load_corpus(str(tmp_path / "out"), "train")] == ["a0", "a1", "a2"]
    assert prepare("folder", "--source", first, "--output", tmp_path / "out").returncode == 0


def test_a_folder_of_other_files_is_left_alone(tmp_path):
    source = make_videos(tmp_path / "source", "a", 1)
    (source / "README.md").write_text("mine")
    answer = prepare("folder", "--source", source, "--output", source)
    assert answer.returncode == 1 and "has a README.md that is not a corpus'" in answer.stderr
    assert (source / "README.md").read_text() == "mine" and not (source / "data").exists()
    (source / "corpus.json").write_text("{")
    answer = prepare("folder", "--source", source, "--output", source)
    assert answer.returncode == 1 and "other arguments" in answer.stderr and "Traceback" not in answer.stderr


def test_links_to_nothing_are_left_out(tmp_path):
    source = make_videos(tmp_path / "source", "a", 2)
    (source / "a0.mp4").unlink()
    (source / "a0.mp4").symlink_to(tmp_path / "nothing.mp4")
    answer = prepare("folder", "--source", source, "--output", tmp_path / "out")
    assert answer.returncode == 0, answer.stderr
    assert "a0 has a file that cannot be read" in answer.stdout and "1 train; 1 entries" in answer.stdout


STOP_SCRIPT = """
import sys, time
from pathlib import Path
from fgmm_tools.corpora import parquet_shards

def make_rows(items):
    time.sleep(0.2)
    return [{"video_id": str(item), "video": {"bytes": b"x", "path": None}, "captions": []} for item in items]

parquet_shards.ROWS_PER_SHARD = 1
output = Path(sys.argv[1])
(output / "data").mkdir(parents=True)
parquet_shards.make_shards(output, "train", list(range(100)), make_rows, parquet_shards.corpus_features("video"), 1)
"""


def test_an_interrupted_run_stops_at_once(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "scripts")}
    command = [sys.executable, "-c", STOP_SCRIPT, str(tmp_path / "out")]
    restore = lambda: signal.signal(signal.SIGINT, signal.default_int_handler)  # noqa: E731
    run = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, start_new_session=True, preexec_fn=restore)
    until = time.monotonic() + 60
    while not list((tmp_path / "out").glob("data/*.parquet")) and time.monotonic() < until:
        time.sleep(0.05)
    os.killpg(run.pid, signal.SIGINT)
    run.communicate(timeout=60)
    assert 1 <= len(list((tmp_path / "out" / "data").glob("*.parquet"))) < 50


def test_help_lists_the_benchmarks():
    answer = prepare("--help")
    assert "classification: ucf101, hmdb51" in answer.stdout and "pretraining: howto100m, folder" in answer.stdout


def test_wrong_sources_are_one_sentence(flickr8k, grid, tmp_path):
    (tmp_path / "empty").mkdir()
    shutil.rmtree(grid / "s1")
    for name, source, named in (
        ("flickr8k", tmp_path / "nowhere", "nowhere"),
        ("flickr8k", tmp_path / "empty", "Flicker8k_Dataset"),
        ("grid", grid, "no folder of a speaker"),
        ("esc10", grid / "align" / "s1" / "clip0.align", "is not a folder"),
    ):
        answer = prepare(name, "--source", source, "--output", tmp_path / "out")
        assert answer.returncode == 1 and named in answer.stderr and len(answer.stderr.splitlines()) == 1
        assert not (tmp_path / "out").exists()
    assert "invalid choice" in prepare("flickr9k", "--source", flickr8k, "--output", tmp_path / "out").stderr


def test_real_flickr8k(real_data, tmp_path):
    answer = prepare("flickr8k", "--source", real_data / "flickr8k", "--output", tmp_path / "out", "--limit", 20)
    assert answer.returncode == 0, answer.stderr
    assert "20 train, 20 validation, 20 test; 0 entries were skipped" in answer.stdout
    assert all(len(row["captions"]) == 5 for row in load_corpus(str(tmp_path / "out"), "test"))


def test_real_grid(real_data, tmp_path):
    answer = prepare("grid", "--source", real_data / "grid", "--output", tmp_path / "out", "--limit", 10)
    assert answer.returncode == 0, answer.stderr
    rows = list(load_corpus(str(tmp_path / "out"), "test"))
    assert len(rows) == 10 and all(len(row["captions"][0]["text"].split()) == 6 for row in rows)


def test_slide_shows_have_one_or_two_true_captions_among_chatter(flickr8k, tmp_path):
    """Three training photographs, of one grey level each, so that every slide can be recognised."""
    for index in range(3):
        picture = np.full((20, 30, 3), 60 * index + 40, np.uint8)
        Image.fromarray(picture).save(flickr8k / "Flicker8k_Dataset" / f"{index}_abc.jpg")
    lines = [f"{index}_abc.jpg#{number}\tPhoto {index} ." for index in range(4) for number in range(5)]
    (flickr8k / "Flickr8k_text/Flickr8k.token.txt").write_text("\n".join(lines) + "\n")
    command = ["flickr8k", "--source", flickr8k, "--slides", 2, "--chatter", 1]
    for name in ("out", "again"):
        answer = prepare(*command, "--output", tmp_path / name)
        assert answer.returncode == 0, answer.stderr
    assert "15 train, 1 validation, 1 test" in answer.stdout
    rows, again = (list(load_corpus(str(tmp_path / name), "train")) for name in ("out", "again"))
    assert rows == again  # bytes too
    counts = set()
    for row in rows:
        frames = read_frames(row["video"]["bytes"], num_frames=2)
        shown = [round((float(frame.float().mean()) - 40) / 60) for frame in frames]
        told = [int(caption["text"].split()[1]) for caption in row["captions"]]
        assert len(set(shown)) == 2 and row["caption_slides"].count(-1) == 1
        for photo, slide in zip(told, row["caption_slides"], strict=True):
            assert photo == shown[slide] if slide >= 0 else photo not in shown
        counts.add(len(told))
    assert counts == {2, 3}  # one or two true captions
    test = next(iter(load_corpus(str(tmp_path / "out"), "test")))
    assert test["video"] is None and test["image"]["bytes"] and test["caption_slides"] is None


def test_rows_are_left_out_and_slides_have_the_size_asked_for(flickr8k, tmp_path):
    command = ["flickr8k", "--source", flickr8k, "--slides", 2, "--slide_size", 32]
    answer = prepare(*command, "--skip", 1, "--output", tmp_path / "out")
    assert answer.returncode == 0, answer.stderr
    rows = list(load_corpus(str(tmp_path / "out"), "train"))
    assert {row["video_id"].partition("_")[0] for row in rows} == {"1", "2"}
    assert read_frames(rows[0]["video"]["bytes"], num_frames=2).shape == (2, 3, 32, 32)
    assert prepare(*command, "--output", tmp_path / "out").returncode != 0  # the folder holds other rows


def test_swapped_items_have_each_others_captions(flickr8k, tmp_path):
    lines = [f"{index}_abc.jpg#{number}\tPhoto {index} ." for index in range(4) for number in range(5)]
    (flickr8k / "Flickr8k_text/Flickr8k.token.txt").write_text("\n".join(lines) + "\n")
    prepare("flickr8k", "--source", flickr8k, "--swapped", 0.67, "--output", tmp_path / "out")
    rows = list(load_corpus(str(tmp_path / "out"), "train"))
    own = [f"Photo {row['video_id'][0]} ." == row["captions"][0]["text"] for row in rows]
    assert own.count(False) == 2
    assert {row["captions"][0]["text"] for row in rows} == {"Photo 0 .", "Photo 1 .", "Photo 2 ."}


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("flickr8k", ["--slides", 3, "--chatter", 1], "3 photographs are too few for 3 slides and 1 other captions"),
        ("flickr8k", ["--chatter", 1], "--chatter and --slide_size need --slides"),
        ("flickr8k", ["--slides", 2, "--slide_size", 33], "33 is not positive and even"),
        ("flickr8k", ["--slides", 0], "0 is less than 1"),
        ("flickr8k", ["--swapped", 1.5], "1.5 is not between 0 and 1"),
        ("grid", ["--slides", 2], "GRID has no photographs"),
    ],
)
def test_noise_that_cannot_be_made_is_explained(flickr8k, grid, tmp_path, name, options, message):
    source = {"flickr8k": flickr8k, "grid": grid}[name]
    answer = prepare(name, "--source", source, "--output", tmp_path / "out", *options)
    assert answer.returncode != 0 and message in answer.stderr and "Traceback" not in answer.stderr
    assert not (tmp_path / "out").exists()
