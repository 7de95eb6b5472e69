import pytest
from datasets import load_dataset
from PIL import Image

from fgmm_tools.corpora.narrated import RowMaker, draw_preview
from fgmm_tools.corpora.narrated_scenes import NUM_CAPTIONS, SECONDS
from processing_fgmm.media_fgmm import probe_media


def test_corpus_streams_in_the_schema(narrated):
    rows = list(load_dataset(str(narrated), split="train", streaming=True))
    assert len(rows) == 32 and len(list(load_dataset(str(narrated), split="test", streaming=True))) == 8
    assert set(rows[0]) == {"video_id", "video", "captions", "caption_is_true"}
    for row in rows[:3]:
        assert len(row["captions"]) == len(row["caption_is_true"]) == NUM_CAPTIONS
        assert all(0 <= caption["start"] < caption["end"] <= SECONDS for caption in row["captions"])
        info = probe_media(row["video"]["bytes"])
        assert info.duration == pytest.approx(SECONDS, abs=0.2) and info.has_audio
    assert "license: apache-2.0" in (narrated / "README.md").read_text()


def test_the_same_seed_gives_the_same_bytes():
    rows = RowMaker(0, "train", 0.5)([3, 7])
    assert rows == RowMaker(0, "train", 0.5)([3, 7])
    assert rows[1:] == RowMaker(0, "train", 0.5)([7])  # whatever is rendered beside it
    other = RowMaker(1, "train", 0.5)([3])[0]
    assert other["captions"] != rows[0]["captions"] and other["video"]["bytes"] != rows[0]["video"]["bytes"]


def test_the_preview_has_room_for_every_caption(tmp_path):
    draw_preview(tmp_path / "preview.png", seed=0, noise=0.5, number=2)
    with Image.open(tmp_path / "preview.png") as picture:
        grey = picture.convert("L")
        text = grey.crop((830, 0, grey.width, grey.height))
        assert text.getextrema() == (0, 255)  # black on white
        margin = grey.crop((grey.width - 6, 0, grey.width, grey.height))
        assert margin.getextrema() == (255, 255)  # no caption is cut off
