import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import prepare_dataset
import pytest
from helpers import ROOT, run_main, write_flickr8k, write_video

from fgmm_tools.cli import UserError
from fgmm_tools.corpora import parquet_shards
from processing_fgmm.corpora_fgmm import load_corpus


@pytest.fixture
def prepare(monkeypatch):
    """Runs the command in this process."""
    return lambda *arguments: run_main(monkeypatch, prepare_dataset, *arguments)


def make_videos(source, letter, number=3):
    """A folder of videos with captions beside them."""
    source.mkdir()
    clip = write_video(source / f"{letter}0.mp4", seconds=0.3)
    for index in range(number):
        if index:
            shutil.copy(clip, source / f"{letter}{index}.mp4")
        (source / f"{letter}{index}.srt").write_text("1\n00:00:00,000 --> 00:00:00,300\nhi\n")
    return source


def test_a_killed_run_goes_on_where_it_was(prepare, tmp_path, capsys):
    """Two shards of training photographs. The last photograph is a pipe, at which the first run waits for ever."""
    source = write_flickr8k(tmp_path / "source", train=1, dev=1, test=1)
    names = [f"{index:03d}.jpg" for index in range(300)]
    photo, pipe = source / "Flicker8k_Dataset/0.jpg", source / "Flicker8k_Dataset" / names[-1]
    for name in names[:-1]:
        shutil.copy(photo, source / "Flicker8k_Dataset" / name)
    os.mkfifo(pipe)
    with (source / "Flickr8k_text/Flickr8k.token.txt").open("a") as file:
        file.writelines(f"{name}#0\tPhoto {name} .\n" for name in names)
    (source / "Flickr8k_text/Flickr_8k.trainImages.txt").write_text("\n".join(names))
    arguments = ["flickr8k", "--source", source, "--output", tmp_path / "out"]
    first, second = (tmp_path / "out" / "data" / f"train-0000{index}-of-00002.parquet" for index in (0, 1))

    command = [sys.executable, ROOT / "scripts/prepare_dataset.py", *map(str, arguments)]
    run = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.DEVNULL, start_new_session=True)
    until = time.monotonic() + 60
    while not first.exists() and time.monotonic() < until:
        time.sleep(0.05)
    os.killpg(run.pid, signal.SIGKILL)
    run.wait()
    assert first.exists() and not second.exists() and not (tmp_path / "out" / "README.md").exists()

    before = first.stat().st_mtime_ns
    pipe.unlink()
    shutil.copy(photo, pipe)
    with pytest.raises(UserError, match="holds a corpus made with other arguments"):
        prepare(*arguments, "--limit", 200)
    prepare(*arguments)
    assert "300 train, 1 validation, 1 test" in capsys.readouterr().out
    assert first.stat().st_mtime_ns == before
    assert [row["video_id"] + ".jpg" for row in load_corpus(str(tmp_path / "out"), "train")] == names


@pytest.mark.parametrize("name", ["folder", "howto100m"])
def test_the_number_of_processes_changes_no_byte(prepare, put, tmp_path, monkeypatch, name):
    monkeypatch.setattr(parquet_shards, "ROWS_PER_SHARD", 2)
    if name == "folder":
        source = make_videos(tmp_path / "videos", "a", 5)
        (source / "a2.mp4").write_bytes(b"damaged")
    else:
        source = tmp_path / "source"
        texts = {"start": [0.0], "end": [0.3], "text": ["hi there"]}
        put("caption.json", {f"v{index}": texts for index in range(6)})
        for index in range(5):
            put(f"videos/v{index}.mp4")
    corpora = []
    for num_proc in (1, 3):
        output = tmp_path / f"out{num_proc}" / "corpus"
        prepare(name, "--source", source, "--output", output, "--num_proc", num_proc)
        corpora.append({path.relative_to(output): path.read_bytes() for path in output.rglob("*") if path.is_file()})
    assert corpora[0] == corpora[1]
    assert sum(path.suffix == ".parquet" for path in corpora[0]) > 1 and corpora[0][Path("problems.jsonl")]


def test_a_corpus_of_another_source_is_left_alone(prepare, tmp_path):
    first, second = make_videos(tmp_path / "first", "a"), make_videos(tmp_path / "second", "b")
    prepare("folder", "--source", first, "--output", tmp_path / "out")
    with pytest.raises(UserError, match=r"or of another source \(its files or their captions have changed\)"):
        prepare("folder", "--source", second, "--output", tmp_path / "out")
    with pytest.raises(UserError, match=r"other arguments .* \(captions was required and is optional\)"):
        prepare("folder", "--source", first, "--output", tmp_path / "out", "--captions", "optional")
    assert [row["video_id"] for row in load_corpus(str(tmp_path / "out"), "train")] == ["a0", "a1", "a2"]
    prepare("folder", "--source", first, "--output", tmp_path / "out")


def test_a_folder_of_other_files_is_left_alone(prepare, tmp_path):
    source, other = make_videos(tmp_path / "source", "a", 1), tmp_path / "other"
    other.mkdir()
    (other / "README.md").write_text("mine")
    with pytest.raises(UserError, match=r"has a README\.md but holds no corpus"):
        prepare("folder", "--source", source, "--output", other)
    assert (other / "README.md").read_text() == "mine" and not (other / "data").exists()
    (other / "corpus.json").write_text("{")
    with pytest.raises(UserError, match=r"its corpus\.json is damaged"):
        prepare("folder", "--source", source, "--output", other)
    with pytest.raises(UserError, match="is the folder that is read; give another one for the corpus"):
        prepare("folder", "--source", source, "--output", source)


def test_a_broken_link_is_left_out(prepare, tmp_path, capsys):
    source = make_videos(tmp_path / "source", "a", 2)
    (source / "a0.mp4").unlink()
    (source / "a0.mp4").symlink_to(tmp_path / "nothing.mp4")
    prepare("folder", "--source", source, "--output", tmp_path / "out")
    printed = capsys.readouterr().out
    assert "Problem: a0.mp4 is a broken link." in printed and "Problems: 1, which" in printed and "1 train" in printed


def test_rows_are_limited_and_skipped(prepare, tmp_path):
    source = write_flickr8k(tmp_path / "source", train=4, dev=2)
    options = ["--skip", 1, "--limit", 2]
    prepare("flickr8k", "--source", source, "--output", tmp_path / "out", *options)
    ids = {split: [row["video_id"] for row in load_corpus(str(tmp_path / "out"), split)] for split in ("train", "test")}
    assert ids == {"train": ["1", "2"], "test": ["6", "7"]}
    assert "`python scripts/prepare_dataset.py flickr8k --limit 2 --skip 1`" in (tmp_path / "out/README.md").read_text()
    with pytest.raises(UserError, match="other arguments"):  # the folder holds other rows
        prepare("flickr8k", "--source", source, "--output", tmp_path / "out")


def test_help_lists_the_benchmarks(prepare, capsys):
    with pytest.raises(SystemExit) as answer:
        prepare("--help")
    printed = capsys.readouterr().out
    assert answer.value.code == 0
    assert "classification: ucf101, hmdb51" in printed and "your own files: folder, classes" in printed


@pytest.mark.parametrize(
    ("name", "file", "message"),
    [
        ("flickr8k", None, "source does not exist; --source is the folder of Flickr8k"),
        ("esc10", "", "source is not a folder; --source is the folder of ESC-10"),
        ("flickr8k", "a.txt", "Flicker8k_Dataset does not exist; Flickr8k is published as"),
        ("grid", "align/s1/a.align", "has no folder of a speaker"),
    ],
)
def test_a_wrong_source_is_named(prepare, tmp_path, name, file, message):
    source = tmp_path / "source"
    if file is not None:
        (source / file).parent.mkdir(parents=True, exist_ok=True)
        (source / file).touch()
    with pytest.raises(UserError, match=message):
        prepare(name, "--source", source, "--output", tmp_path / "out")


def test_a_misspelt_source_is_told_what_was_meant(prepare, tmp_path):
    (tmp_path / "videos").mkdir()
    with pytest.raises(UserError, match=r"vidoes does not exist; did you mean .*/videos\?$"):
        prepare("folder", "--source", tmp_path / "vidoes", "--output", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_slide_shows_need_photographs(prepare, put, tmp_path):
    put("s1/a.mp4")
    put("align/s1/a.align", "0 10 hi\n")
    with pytest.raises(UserError, match="GRID has no photographs"):
        prepare("grid", "--source", tmp_path / "source", "--output", tmp_path / "out", "--slides", 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--chatter", 1], "--chatter needs --slides or --joined"),
        (["--slide_size", 32], "--slide_size needs --slides"),
        (["--test_share", 0.5, "--validation_share", 0.5], "leave nothing to train on"),
        (["--group_pattern", "("], "'(' is no regular expression"),
        (["--columns", "file=path"], "'file=path' is not NAME=OWN, where NAME is one of path, label"),
        (["--slides", 2, "--slide_size", 33], "33 is not positive and even"),
        (["--slides", 0], "0 is less than 1"),
        (["--swapped", 1.5], "1.5 is not between 0 and 1"),
    ],
)
def test_wrong_options_are_explained(prepare, tmp_path, capsys, options, message):
    with pytest.raises(SystemExit) as answer:
        prepare("flickr8k", "--source", tmp_path, "--output", tmp_path / "out", *options)
    assert answer.value.code == 2 and message in capsys.readouterr().err
    with pytest.raises(SystemExit):
        prepare("flickr9k", "--source", tmp_path, "--output", tmp_path / "out")
    assert "invalid choice" in capsys.readouterr().err
