import subprocess
import sys

import numpy as np
import pytest
from datasets import load_dataset
from helpers import ROOT

from fgmm_tools.corpora.narrated import (
    LAG,
    NUM_CAPTIONS,
    SECONDS,
    SHAPES,
    RowMaker,
    clip_random,
    draw_frames,
    make_captions,
    make_scene,
    make_sound,
)
from processing_fgmm.media_fgmm import probe_media, read_frames


def scene_of(index, seed=0):
    return make_scene(clip_random(seed, "train", index, 0))


def run(*arguments):
    command = [sys.executable, "scripts/make_narrated_corpus.py", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_corpus_streams_in_the_schema(narrated):
    rows = list(load_dataset(str(narrated), split="train", streaming=True))
    assert len(rows) == 32 and len(list(load_dataset(str(narrated), split="test", streaming=True))) == 8
    assert set(rows[0]) == {"video_id", "video", "captions", "caption_is_true"}
    for row in rows[:3]:
        assert len(row["captions"]) == len(row["caption_is_true"]) == NUM_CAPTIONS
        assert all(0 <= c["start"] < c["end"] <= SECONDS for c in row["captions"])
        info = probe_media(row["video"]["bytes"])
        assert info.duration == pytest.approx(SECONDS, abs=0.2) and info.has_audio
    assert "license: apache-2.0" in (narrated / "README.md").read_text()


def test_same_seed_same_captions_pixels_and_sound():
    first, second = (RowMaker(0, "train", 0.5)([3, 7]) for _ in range(2))
    assert [row["captions"] for row in first] == [row["captions"] for row in second]
    for one, other in zip(first, second, strict=True):
        frames = [read_frames(row["video"]["bytes"], 8) for row in (one, other)]
        assert (frames[0] == frames[1]).all()
        assert one["video"]["bytes"] == other["video"]["bytes"]
    assert RowMaker(1, "train", 0.5)([3])[0]["captions"] != first[0]["captions"]
    assert make_captions(0, "test", 3, 0.5) != make_captions(0, "train", 3, 0.5)


def test_a_clip_is_the_same_whatever_is_rendered_beside_it():
    assert RowMaker(0, "train", 0.5)([7]) == RowMaker(0, "train", 0.5)([3, 7])[1:]


@pytest.mark.parametrize("noise", [0.0, 0.3, 0.5, 1.0])
def test_noise_is_the_share_of_captions_that_are_not_true(noise):
    true = [c["is_true"] for index in range(300) for c in make_captions(0, "train", index, noise)]
    assert 1 - np.mean(true) == pytest.approx(noise, abs=0.04)


def names_in(text):
    return {shape for shape, words in SHAPES.items() if set(words) & set(text.split())}


def test_true_captions_speak_of_a_part_of_their_clip():
    parts = []
    for index in range(200):
        shown = {thing.shape for thing in scene_of(index).things}
        for caption in make_captions(0, "train", index, 0.5):
            named = names_in(caption["text"])
            if caption["is_true"]:
                assert named and named <= shown
                parts.append(len(named) / len(shown))
    assert np.mean(parts) < 0.7


def test_false_captions_say_nothing_about_their_clip():
    agree = [
        bool(names_in(c["text"])) and names_in(c["text"]) <= {thing.shape for thing in scene_of(index).things}
        for index in range(300)
        for c in make_captions(0, "train", index, 1.0)
    ]
    assert np.mean(agree) < 0.2


def test_clips_can_be_told_apart_by_thousands():
    descriptions = {
        frozenset((t.shape, t.color, t.texture, t.size, t.motion) for t in scene_of(index).things)
        for index in range(3000)
    }
    assert len(descriptions) == 3000
    texts = {c["text"] for index in range(500) for c in make_captions(0, "train", index, 0.0)}
    assert len(texts) > 2900


def test_captions_come_early_or_late_by_a_lag():
    starts = [c["start"] for index in range(300) for c in make_captions(0, "train", index, 0.0)]
    assert np.std(starts) > 0.4 * LAG and min(starts) == 0.0


def test_every_thing_is_seen_and_moves_and_audible_ones_are_heard():
    for index in range(5):
        scene = scene_of(index)
        frames = np.stack(draw_frames(scene, clip_random(0, "train", index, 2))).astype(int)
        if any(thing.motion != "still" for thing in scene.things):
            assert np.abs(np.diff(frames, axis=0)).max() > 30
        assert len(np.unique(frames.reshape(-1, 3), axis=0)) > 10
        sound = make_sound(scene, clip_random(0, "train", index, 2))
        assert 0.05 < np.abs(sound).max() <= 1.0


def test_second_run_makes_nothing_again_and_other_arguments_are_refused(narrated):
    shards = {path: path.stat().st_mtime_ns for path in (narrated / "data").iterdir()}
    again = run("--output", narrated, "--num_train", 32, "--num_test", 8)
    assert again.returncode == 0
    assert shards == {path: path.stat().st_mtime_ns for path in (narrated / "data").iterdir()}
    other = run("--output", narrated, "--num_train", 33, "--num_test", 8)
    assert other.returncode != 0 and "other arguments" in other.stderr and "Traceback" not in other.stderr


@pytest.mark.parametrize("wrong", [("--noise", 1.5), ("--num_train", 0), ("--seed", -1)])
def test_wrong_options_are_one_sentence(tmp_path, wrong):
    answer = run("--output", tmp_path / "corpus", *wrong)
    assert answer.returncode == 2 and wrong[0] in answer.stderr and "Traceback" not in answer.stderr
    assert not (tmp_path / "corpus").exists()
