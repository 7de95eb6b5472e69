import pytest
from helpers import write_flickr8k

from fgmm_tools.cli import UserError
from fgmm_tools.corpora.options import RowSelection, TrainingNoise
from fgmm_tools.corpora.preparation import prepare
from processing_fgmm.corpora_fgmm import load_corpus
from processing_fgmm.media_fgmm import read_frames


def make_noisy(source, output, split="train", **noise):
    """Rows of a small Flickr8k whose training split is noisy."""
    prepare("flickr8k", source, output, RowSelection(), TrainingNoise(**noise), num_proc=1)
    return list(load_corpus(str(output), split))


def described(caption) -> int:
    """The photograph that a caption describes."""
    return int(caption["text"].split()[-1])


def test_slide_shows_have_one_or_two_true_captions_among_chatter(tmp_path):
    source = write_flickr8k(tmp_path / "source", train=4, dev=1, test=1)
    rows = make_noisy(source, tmp_path / "out", slides=2, chatter=1)
    assert rows == make_noisy(source, tmp_path / "again", slides=2, chatter=1)  # to the byte
    assert len(rows) == 4 * 5  # a show for each caption
    numbers = set()
    for row in rows:
        frames = read_frames(row["video"]["bytes"], num_frames=2)
        assert frames.shape == (2, 3, 112, 112)
        shown = [round(float(frame.float().mean()) / 20) for frame in frames]
        assert len(set(shown)) == 2 and row["caption_slides"].count(-1) == 1
        for caption, slide in zip(row["captions"], row["caption_slides"], strict=True):
            assert described(caption) == shown[slide] if slide >= 0 else described(caption) not in shown
        numbers.add(len(row["captions"]))
    assert numbers == {2, 3}  # one or two true captions, and chatter
    test = next(iter(load_corpus(str(tmp_path / "out"), "test")))
    assert test["video"] is None and test["image"]["bytes"] and test["caption_slides"] is None


def test_slides_have_the_size_asked_for(tmp_path):
    rows = make_noisy(write_flickr8k(tmp_path / "source"), tmp_path / "out", slides=3, slide_size=32)
    assert read_frames(rows[0]["video"]["bytes"], num_frames=3).shape == (3, 3, 32, 32)


def test_swapped_items_have_each_others_captions(tmp_path):
    rows = make_noisy(write_flickr8k(tmp_path / "source", train=8), tmp_path / "out", swapped=0.5)
    captions = {int(row["video_id"]): {described(caption) for caption in row["captions"]} for row in rows}
    assert sum(captions[index] != {index} for index in range(8)) == 4
    assert sorted(next(iter(one)) for one in captions.values()) == list(range(8))  # each caption once


def test_no_caption_of_a_swapped_show_describes_a_slide(tmp_path):
    rows = make_noisy(write_flickr8k(tmp_path / "source"), tmp_path / "out", slides=2, swapped=1.0)
    assert {slide for row in rows for slide in row["caption_slides"]} == {-1}


def test_too_few_photographs_are_an_error(tmp_path):
    source = write_flickr8k(tmp_path / "source", train=3)
    with pytest.raises(UserError, match="3 photographs are too few for 3 slides and 1 other captions; lower --slides"):
        make_noisy(source, tmp_path / "out", slides=3, chatter=1)
    assert not (tmp_path / "out").exists()
