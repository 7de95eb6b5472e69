import pickle
from pathlib import Path

import pyarrow.parquet as parquet
import pytest
from helpers import prepare_benchmark, read_benchmark

from fgmm_tools.cli import UserError
from fgmm_tools.corpora.benchmarks.youcook2_interactions import load_plain
from fgmm_tools.corpora.mentions import Box, read_mentions
from fgmm_tools.publishing.dataset_push import strip_media
from processing_fgmm.corpora_fgmm import load_corpus
from processing_fgmm.media_fgmm import probe_media

ENTITIES = """<annotation><size><width>200</width><height>100</height><depth>3</depth></size>
<object><name>1</name><name>2</name><bndbox><xmin>20</xmin><ymin>10</ymin><xmax>60</xmax><ymax>50</ymax></bndbox></object>
<object><name>2</name><bndbox><xmin>100</xmin><ymin>0</ymin><xmax>210</xmax><ymax>100</ymax></bndbox></object>
<object><name>3</name><scene>1</scene><nobndbox>0</nobndbox></object></annotation>"""
SENTENCES = """[/EN#1/people A small dog] meets [/EN#2/people two men] in [/EN#3/scene a park] .
[/EN#0/notvisual Something] happens ."""


def write_entities(put):
    for split, names in (("train", "100"), ("val", "200\n400"), ("test", "300")):
        put(f"{split}.txt", names)
    for name in ("100", "200", "300"):
        put(f"flickr30k-images/{name}.jpg")
        put(f"Annotations/{name}.xml", ENTITIES if name != "300" else "<broken")
        put(f"Sentences/{name}.txt", SENTENCES)


def test_flickr30k_entities(put, tmp_path):
    write_entities(put)
    splits, _, problems = read_benchmark("flickr30k_entities", tmp_path / "source")
    [item] = splits["default"]["train"]
    assert [text for text, _, _ in item.captions] == ["A small dog meets two men in a park .", "Something happens ."]
    dog, men = item.mentions
    assert item.captions[0][0][dog.first : dog.last] == "A small dog" and dog.name == "a small dog"
    assert dog.boxes == (Box(None, 0.1, 0.1, 0.3, 0.5),)
    assert item.captions[0][0][men.first : men.last] == "two men"
    assert men.boxes == (Box(None, 0.1, 0.1, 0.3, 0.5), Box(None, 0.5, 0.0, 1.0, 1.0))  # cut at the frame's edge
    assert len(splits["default"]["validation"]) == 1 and not splits["default"]["test"]
    assert "400 is not in source" in problems and any(
        problem.startswith("300 is not as published") for problem in problems
    )


def test_a_corpus_with_mentions_is_written(put, tmp_path):
    write_entities(put)
    prepare_benchmark("flickr30k_entities", tmp_path / "source", tmp_path / "corpus")
    [row] = load_corpus(str(tmp_path / "corpus"), "train")
    dog, men = read_mentions(row)
    assert row["captions"][0]["text"][dog.first : dog.last] == "A small dog"
    assert men.boxes[1] == Box(None, 0.5, 0.0, 1.0, 1.0) and dog.start is None


def test_ids_are_published_without_mentions(put, tmp_path):
    write_entities(put)
    prepare_benchmark("flickr30k_entities", tmp_path / "source", tmp_path / "corpus")
    [shard] = (tmp_path / "corpus" / "data").glob("train-*")
    strip_media(shard, tmp_path / "stripped.parquet")
    assert b"small dog" in shard.read_bytes() and b"small dog" not in (tmp_path / "stripped.parquet").read_bytes()
    [row] = parquet.read_table(tmp_path / "stripped.parquet").to_pylist()
    assert row["mentions"] is None and row["captions"][0]["text"] is None


@pytest.mark.parametrize("form", ["list", "dict"])
def test_grounding_youtube(put, tmp_path, media, form):
    info = probe_media(media[".mp4"])
    width, height = info.width, info.height
    seconds = [
        (7, [0, 0, width // 2, height // 2], "crack_egg"),
        (8, [width // 2, 0, 2 * width, height], "crack_egg"),
        (9, [5, 5, 5, 9], "add salt"),
        (12, [0, 0, width, height], "add salt"),
    ]
    if form == "list":
        listed = [{"second": second, "box": box, "step_name": step} for second, box, step in seconds]
        put("annotations/box_anno.json", {"abc": listed, "gone": listed, "odd": [{"second": 1}]})
    else:
        listed = {str(second): {"box": box, "step": step} for second, box, step in seconds}
        put("annotations/GoundingYouTubeBox.json", {"abc": listed, "gone": listed, "odd": {"1": {}}})
    put("videos/abc.mp4")
    splits, _, problems = read_benchmark("grounding_youtube", tmp_path / "source")
    [item] = splits["default"]["test"]
    assert item.captions == (("crack egg", 7.0, 9.0), ("add salt", 9.0, 10.0), ("add salt", 12.0, 13.0))
    first, second, third = item.mentions
    assert first.boxes == (Box(7.0, 0.0, 0.0, 0.5, 0.5), Box(8.0, 0.5, 0.0, 1.0, 1.0)) and not second.boxes
    assert (third.start, third.end, third.name, third.caption) == (12.0, 13.0, "add salt", 2)
    assert problems[0] == "gone is not in source" and problems[1].startswith("odd is not as published")


def write_pickles(tmp_path, boxes, segments):
    (tmp_path / "source").mkdir(exist_ok=True)
    for name, content in (("annotations", boxes), ("segments", segments)):
        (tmp_path / "source" / f"final_dataset_{name}.pkl").write_bytes(pickle.dumps(content))


def test_youcook2_interactions(put, tmp_path, media):
    info = probe_media(media[".mp4"])
    width, height = min(info.width, 640), min(info.height, 360)
    steps = [
        {"segment": [2, 5], "id": 0, "sentence": "melt butter"},
        {"segment": [6, 8], "id": 1, "sentence": "fry the  egg"},
    ]
    put("youcookii_annotations_trainval.json", {"database": {name: {"annotations": steps} for name in ("abc", "gone")}})
    put("validation/abc.mp4")
    boxes = {"abc": {1: (0, 0, 1, 1), 7: (0, 0, width, height // 2), 8: (width // 2, 0, width + 9, height)}, "gone": {}}
    write_pickles(tmp_path, boxes, [("abc", 6, 8), ("gone", 2, 5)])
    splits, _, problems = read_benchmark("youcook2_interactions", tmp_path / "source")
    [item] = splits["default"]["validation"]
    assert item.captions == (("fry the egg", 6.0, 8.0),) and problems == ["gone is not in source"]
    [mention] = item.mentions
    assert [box.time for box in mention.boxes] == [7.0, 8.0] and (mention.first, mention.last) == (0, 11)
    assert mention.boxes[1].corners == (pytest.approx(0.5, abs=0.01), 0.0, 1.0, 1.0)


def test_pickles_that_would_run_code_are_refused(put, tmp_path):
    write_pickles(tmp_path, {"abc": Path("x")}, [])
    put("youcookii_annotations_trainval.json", {"database": {}})
    with pytest.raises(pickle.UnpicklingError, match="asks for"):
        load_plain(tmp_path / "source" / "final_dataset_annotations.pkl")
    with pytest.raises(UserError, match=r"final_dataset_annotations\.pkl cannot be read as published"):
        read_benchmark("youcook2_interactions", tmp_path / "source")


def test_vggss(put, tmp_path):
    entries = [
        {"file": "abc_000032", "class": "elk bugling", "bbox": [[0.4, -0.1, 0.6, 0.75], [0.1, 1.0, 0.2, 1.0]]},
        {"file": "flat_000001", "class": "playing tambourine", "bbox": [[0.2, 1.0, 0.7, 1.0]]},
        {"file": "gone_000000", "class": "elk bugling", "bbox": [[0.4, 0.2, 0.6, 0.75]]},
        {"class": "no file"},
    ]
    put("vggss.json", entries)
    put("videos/abc_000032.mp4")
    splits, _, problems = read_benchmark("vggss", tmp_path / "source")
    [item] = splits["default"]["test"]
    assert item.captions == (("elk bugling", None, None),) and item.mentions[0].boxes == (
        Box(5.0, 0.4, 0.0, 0.6, 0.75),
    )
    assert problems[:2] == ["flat_000001 has no box with an area", "gone_000000 is not in source"]
    assert problems[2].startswith("entry 4 of vggss.json is not as published")


@pytest.mark.parametrize("name", ["flickr30k_entities", "grounding_youtube", "youcook2_interactions", "vggss"])
def test_another_layout_is_explained(tmp_path, name):
    (tmp_path / "source").mkdir()
    with pytest.raises(UserError, match="is published as"):
        read_benchmark(name, tmp_path / "source")
