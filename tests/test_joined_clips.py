import numpy as np
import pytest
import torch
from helpers import prepare_benchmark, write_flickr8k, write_sound, write_video

from fgmm_tools.cli import UserError
from fgmm_tools.corpora.benchmarks.layout import Item
from fgmm_tools.corpora.joined_clips import encode_joined, join_neighbours
from fgmm_tools.corpora.options import TrainingNoise
from processing_fgmm.clips_fgmm import row_duration
from processing_fgmm.corpora_fgmm import load_corpus
from processing_fgmm.media_fgmm import read_waveform


def make_items(number: int, folder=None) -> list[Item]:
    return [Item(f"clip{index}", index, ((f"caption {index}", 0.5, 1.5),)) for index in range(number)]


def test_each_clip_is_followed_by_its_neighbours():
    items = make_items(7)
    joined = join_neighbours(items, 2, 3, np.random.default_rng(0))
    assert [item.video_id for item in joined] == [item.video_id for item in items]
    told = set()
    for index, item in enumerate(joined):
        assert item.path == (index, (index + 1) % 7)
        assert all(start is None and end is None for _, start, end in item.captions)
        captions = [int(text.split()[1]) for text, _, _ in item.captions]
        own = [number for number in captions if number in item.path]
        assert len(captions) == len(set(captions)) == 4 and len(own) == 1
        told.add(item.path.index(own[0]))
    assert told == {0, 1}  # not always the first one's
    with pytest.raises(ValueError, match="7 clips are too few"):
        join_neighbours(items, 5, 3, np.random.default_rng(0))


def test_sounds_stand_end_to_end(tmp_path):
    paths = tuple(write_sound(tmp_path / f"{pitch}.wav", 0.5, pitch) for pitch in (440, 880))
    whole = read_waveform(encode_joined(paths), 16000)
    parts = [read_waveform(str(path), 16000) for path in paths]
    assert torch.allclose(whole, torch.cat(parts), atol=1e-4) and whole.abs().max() > 0.4


def test_training_clips_alone_are_joined(put, tmp_path):
    for index in range(11):
        put(f"s1/clip{index:02d}.mp4")
        write_video(tmp_path / f"source/s1/clip{index:02d}.mp4", seconds=0.5, sound=0.5)
        put(f"align/s1/clip{index:02d}.align", f"0 2500 sil\n2500 9500 word{index}\n")
    prepare_benchmark("grid", tmp_path / "source", tmp_path / "out", joined=2, chatter=1)
    rows = list(load_corpus(str(tmp_path / "out"), "train"))
    assert len(rows) == 7 and all(len(row["captions"]) == 2 and row["video"] is None for row in rows)
    assert all(row_duration(row) == pytest.approx(1.0, abs=0.1) for row in rows)
    (test, _) = load_corpus(str(tmp_path / "out"), "test")
    assert test["video"]["bytes"] and len(test["captions"]) == 1


def test_clips_without_sound_are_named(tmp_path):
    silent = write_video(tmp_path / "silent.mp4", seconds=0.5)
    with pytest.raises(UserError, match=r"silent\.mp4 has no sound to join"):
        encode_joined((silent,))


def test_photographs_have_no_sound_to_join(tmp_path):
    write_flickr8k(tmp_path / "source")
    with pytest.raises(UserError, match=r"no sound to join; leave out --joined"):
        prepare_benchmark("flickr8k", tmp_path / "source", tmp_path / "out", joined=2)


def test_the_card_says_what_was_joined():
    text = TrainingNoise(joined=2, chatter=1).describe()
    assert "joins 2 clips, with the caption of one and 1 captions of others" in text
