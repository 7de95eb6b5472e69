import hashlib
import io
import json

import av
import numpy as np
import pyarrow.parquet
import pytest
from datasets import load_dataset
from PIL import Image

from fgmm_tools.corpora.mentions import read_mentions
from fgmm_tools.corpora.narrated import RowMaker, draw_preview
from fgmm_tools.corpora.narrated_media import SIDE, draw_thing
from fgmm_tools.corpora.narrated_scenes import (
    COLORS,
    NUM_CAPTIONS,
    SCENE,
    SECONDS,
    SHAPES,
    TIMBRES,
    clip_random,
    make_scene,
)
from processing_fgmm.media_fgmm import probe_media


def test_corpus_streams_in_the_schema(narrated):
    rows = list(load_dataset(str(narrated), split="train", streaming=True))
    assert len(rows) == 32 and len(list(load_dataset(str(narrated), split="test", streaming=True))) == 8
    assert set(rows[0]) == {"video_id", "video", "captions", "caption_is_true", "mentions"}
    assert rows[0]["mentions"] is None  # the files of the training split have no such column
    columns = pyarrow.parquet.read_schema(narrated / "data" / "train-00000-of-00001.parquet").names
    assert columns == ["video_id", "video", "captions", "caption_is_true"]
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


# Of rows that published models were trained and measured on: captions, and the whole media file.
DIGESTS = {
    ("train", 3, 0.5): "93760013dddfa0e0",
    ("test", 0, 0.0): "cf184613317e851d",
}


@pytest.mark.parametrize("split,index,noise", DIGESTS)
def test_published_clips_never_change(split, index, noise):
    [row] = RowMaker(0, split, noise, with_mentions=split == "test")([index])
    row.pop("mentions", None)
    media = row["video"].pop("bytes")
    digest = hashlib.sha256(json.dumps(row).encode())
    with av.open(io.BytesIO(media)) as container:  # encoders of other versions may write other bytes
        digest.update(str([(stream.type, stream.frames) for stream in container.streams]).encode())
    assert digest.hexdigest()[:16] == DIGESTS[split, index, noise]


def test_mentions_say_where_things_are(narrated):
    """Their words are in the caption, and their boxes are where frames with the thing differ from those without it."""
    rows = list(load_dataset(str(narrated), "grounding", split="test", streaming=True))
    kinds = set()
    for index, row in enumerate(rows[:4]):
        scene = make_scene(clip_random(0, "test", index, SCENE))
        for mention in read_mentions(row):
            words = row["captions"][mention.caption]["text"][mention.first : mention.last].split()
            [thing] = [
                thing
                for thing in scene.things
                if set(words) & set(SHAPES[thing.shape] if mention.modality == "video" else TIMBRES[thing.shape])
            ]
            assert (mention.start, mention.end) == (thing.start, thing.end)
            kinds.add(mention.modality)
            assert thing.color in mention.name if mention.modality == "video" else words[-1] in mention.name
            if mention.modality == "audio":
                assert thing.audible and not mention.boxes
                continue
            assert set(words) & set(COLORS[thing.color][1])
            box = mention.boxes[len(mention.boxes) // 2]
            with_it, without = np.zeros((SIDE, SIDE, 3), np.float32), np.zeros((SIDE, SIDE, 3), np.float32)
            draw_thing(with_it, thing, box.time)
            drawn = (with_it != without).any(-1)
            rows_drawn, columns_drawn = np.flatnonzero(drawn.any(1)), np.flatnonzero(drawn.any(0))
            assert (box.x_min * SIDE, box.y_min * SIDE) == pytest.approx((columns_drawn[0], rows_drawn[0]), abs=1.01)
            assert (box.x_max * SIDE, box.y_max * SIDE) == pytest.approx(
                (columns_drawn[-1] + 1, rows_drawn[-1] + 1), abs=1.01
            )
            assert all(mention.start <= box.time < mention.end for box in mention.boxes)
    assert kinds == {"video", "audio"}


def test_training_clips_are_there_again_with_mentions(narrated):
    """The same rows; captions of other clips and chatter mention nothing."""
    located = list(load_dataset(str(narrated), "grounding", split="train", streaming=True))
    rows = list(load_dataset(str(narrated), split="train", streaming=True))
    assert len(located) == len(rows)
    for row, other in zip(located, rows, strict=True):
        mentions = read_mentions(row)
        assert {**row, "mentions": None} == other
        assert any(row["caption_is_true"]) == bool(mentions)
        assert all(row["caption_is_true"][mention.caption] for mention in mentions)


def test_the_preview_has_room_for_every_caption(tmp_path):
    draw_preview(tmp_path / "preview.png", seed=0, noise=0.5, number=2)
    with Image.open(tmp_path / "preview.png") as picture:
        grey = picture.convert("L")
        text = grey.crop((830, 0, grey.width, grey.height))
        assert text.getextrema() == (0, 255)  # black on white
        margin = grey.crop((grey.width - 6, 0, grey.width, grey.height))
        assert margin.getextrema() == (255, 255)  # no caption is cut off
