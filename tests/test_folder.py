import json
import os

import av
import numpy as np
import pytest
from helpers import prepare_benchmark, write_sound
from PIL import Image

from fgmm_tools.cli import UserError
from fgmm_tools.corpora.options import OwnFiles
from processing_fgmm.corpora_fgmm import load_corpus

SPOKEN = "1\n00:00:00,100 --> 00:00:00,400\nhi\n"


@pytest.fixture
def prepare(tmp_path):
    """Makes the corpus of the folder `source`, or of a file in it: {split: {video_id: row}}."""

    def make(source="", **options):
        options = {"captions": "optional", **options}
        prepare_benchmark("folder", tmp_path / "source" / source, tmp_path / "out", own_files=OwnFiles(**options))
        splits = sorted({path.name.partition("-")[0] for path in (tmp_path / "out/data").iterdir()})
        return {split: {row["video_id"]: row for row in load_corpus(str(tmp_path / "out"), split)} for split in splits}

    return make


@pytest.fixture
def problems(tmp_path):
    """The content of problems.jsonl, {path: reason}."""
    return lambda: {
        problem["path"]: problem["reason"]
        for problem in map(json.loads, (tmp_path / "out/problems.jsonl").read_text().splitlines())
    }


def texts(row):
    return [(caption["text"], caption["start"], caption["end"]) for caption in row["captions"]]


def write_gif(path, frames):
    pictures = [Image.fromarray(np.full((16, 24, 3), 50 * index, np.uint8)) for index in range(frames)]
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=100)


def write_m4a(path):
    with av.open(str(path), "w", format="ipod") as container:
        stream = container.add_stream("aac", rate=16000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        frame.sample_rate = 16000
        container.mux([*stream.encode(frame), *stream.encode()])


def test_every_kind_of_media_becomes_a_row(prepare, put, problems, tmp_path):
    put("clip.mp4")
    put("deep/er/clip.mp4")
    put("deep/photo.jpg")
    put("deep/both.mp4")
    write_sound(tmp_path / "source/deep/both.wav")
    write_sound(tmp_path / "source/sound.wav")
    write_m4a(tmp_path / "source/phone.M4A")
    write_gif(tmp_path / "source/moving.gif", 3)
    write_gif(tmp_path / "source/still.gif", 1)
    (tmp_path / "source/.hidden.mp4").touch()
    rows = prepare()["train"]
    media = {name: [key for key in ("video", "image", "audio") if row[key]] for name, row in rows.items()}
    assert media == {
        "clip": ["video"],
        "deep/both": ["video", "audio"],
        "deep/er/clip": ["video"],
        "deep/photo": ["image"],
        "moving": ["video"],
        "phone": ["audio"],
        "sound": ["audio"],
        "still": ["image"],
    }
    assert problems() == {} and not any(row["captions"] for row in rows.values())


def test_captions_are_found_by_name(prepare, put, problems, tmp_path):
    names = ("a", "b", "c [x]", "d", "two", "mute", "bad", "gone")
    for name in names:
        put(f"{name}.mp4")
    put("a.mp4.srt", SPOKEN)
    put("b.German.srt", SPOKEN)
    put("c [x].en.vtt", "WEBVTT\n\nNOTE no\n\nid\n00:00.000 --> 00:00.300\nx < 3 and y > 5\n")
    put("c [x].info.json", {"title": "no captions"})
    put("d.json", {"text": "", "chunks": [{"text": " Stir. ", "timestamp": [0.1, None]}]})
    put("two.en.vtt", "WEBVTT\n\n00:00.000 --> 00:00.300\nsalt\n")
    put("two.de.vtt", "WEBVTT\n\n00:00.000 --> 00:00.300\nSalz\n")
    put("bad.srt", "1\n00:00:00,3 --> 00:00:00,2\nhi\n\n2\n00:00:07 --> 00:00:09\nhi\n")
    put("alone.srt", SPOKEN)
    (tmp_path / "source/gone.srt").symlink_to(tmp_path / "nothing.srt")
    rows = prepare(captions="required")["train"]
    assert {name: texts(row) for name, row in rows.items()} == {
        "a": [("hi", 0.1, 0.4)],
        "b": [("hi", 0.1, 0.4)],
        "c [x]": [("x < 3 and y > 5", 0.0, 0.3)],
        "d": [("Stir.", 0.1, pytest.approx(0.5, abs=0.1))],
    }
    found = problems()
    assert found.keys() == {"two.mp4", "mute.mp4", "bad.mp4", "bad.srt", "gone.mp4", "gone.srt", "alone.srt", "d.json"}
    assert found["two.mp4"] == "has captions in de, en; --language chooses one"
    assert found["mute.mp4"] == "has no captions beside it (.srt, .vtt, .json, .txt)"
    assert found["gone.srt"] == "cannot be read: No such file or directory"
    assert found["alone.srt"] == "belongs to no video, sound or image beside it, or to several"
    assert "has no end: it ends at" in found["d.json"]


@pytest.mark.parametrize(("language", "text"), [("de", "Salz"), ("EN", "salt")])
def test_a_language_is_chosen(prepare, put, language, text):
    put("two.mp4")
    put("two.en-orig.vtt", "WEBVTT\n\n00:00.000 --> 00:00.300\nsalt\n")
    put("two.de.vtt", "WEBVTT\n\n00:00.000 --> 00:00.300\nSalz\n")
    assert texts(prepare(captions="required", language=language)["train"]["two"]) == [(text, 0.0, 0.3)]


def test_damage_is_found_and_named_with_the_whole_path(prepare, put, problems, tmp_path, media):
    put("good.mp4")
    put("a/deep/empty.mp4", "")
    put("a/deep/cut.mp4")
    os.truncate(tmp_path / "source/a/deep/cut.mp4", 900)
    put("a/text.jpg", "no picture")
    put("a/text.wav", "no sound")
    put("a/text.mkv", "no video")
    put("a/same.jpg")
    put("a/same.jpeg", "of the same name")
    (tmp_path / "source/a/link.mp4").symlink_to("nothing.mp4")
    (tmp_path / "source/a/folder.mp4").mkdir()
    (tmp_path / "source" / os.fsdecode(b"caf\xe9.mp4")).write_bytes(media[".mp4"].read_bytes())
    assert prepare()["train"].keys() == {"good", "a/same.jpg"}
    found = problems()
    assert {path: found.pop(path) for path in ("a/deep/empty.mp4", "a/link.mp4", "caf\\udce9.mp4")} == {
        "a/deep/empty.mp4": "is empty",
        "a/link.mp4": "is a broken link",
        "caf\\udce9.mp4": "has a name that is not UTF-8; rename it",
    }
    assert found.keys() == {"a/deep/cut.mp4", "a/text.jpg", "a/text.wav", "a/text.mkv", "a/same.jpeg"}
    assert "cannot be decoded at its header" in found["a/text.mkv"]


def test_a_folder_of_damaged_files_alone_says_so(prepare, put, problems):
    put("a.mp4", "no video")
    with pytest.raises(UserError, match=r"Nothing in .*source can be used\.\nProblem: a\.mp4 cannot be decoded"):
        prepare()
    assert problems().keys() == {"a.mp4"}


@pytest.mark.parametrize(
    ("files", "options", "message"),
    [
        (["a.txt"], {}, "source holds no video, sound or image, but 1 .txt; they are told by their endings"),
        ([".mp4"], {}, "source holds no video, sound or image, and no other file"),
        (["a.mp4"], {"captions": "required"}, "has no captions .* --captions optional takes them without"),
        (["a.mp4"], {"columns": {"path": "file"}}, "--columns does not apply to .*source, which is a folder"),
        (["a.mp4"], {"label_separator": ";"}, "--label_separator does not apply"),
        (["a.mp4"], {"group_pattern": "^x"}, "'\\^x' is found in no id; the first id is 'a'"),
        (["a.mp4"], {"test_share": 0.5}, "cannot be divided so that --test_share leaves something to train on"),
        (["train/a.mp4", "test/a.mp4"], {"test_share": 0.5}, "has a split 'test' of its own; leave out --test_share"),
    ],
)
def test_what_cannot_be_done_is_said_before_anything_is_written(prepare, touch, tmp_path, files, options, message):
    touch(*files)
    with pytest.raises(UserError, match=message):
        prepare(**options)
    assert not (tmp_path / "out").exists()


@pytest.fixture
def touch(tmp_path):
    """Writes files that are never decoded."""

    def write(*names):
        for name in names:
            path = tmp_path / "source" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("x")

    return write


def test_folders_are_splits_where_they_are_called_so(prepare, put, problems):
    for name in ("train/a", "train/kitchen/a", "val/a", "TEST/a", "a"):
        put(f"{name}.jpg")
    rows = prepare()
    ids = {split: list(rows_of) for split, rows_of in rows.items()}
    assert ids == {"train": ["train/a", "train/kitchen/a"], "validation": ["val/a"], "test": ["TEST/a"]}
    assert problems() == {"a": "is in no folder of a split, as others are"}


def test_a_folder_that_is_called_a_split_among_others_is_none(prepare, put):
    for name in ("train/a", "plane/a", "boat/a"):  # means of transport
        put(f"{name}.jpg")
    assert prepare()["train"].keys() == {"train/a", "plane/a", "boat/a"}


def test_no_group_is_in_two_splits(prepare, put):
    for index in range(20):
        put(f"speaker{index % 5}_{index}.jpg")
    rows = prepare(group_pattern=r"speaker(\d+)", test_share=0.2, validation_share=0.2)
    groups = {split: {row["group"] for row in rows_of.values()} for split, rows_of in rows.items()}
    assert sorted(map(len, groups.values())) == [1, 1, 3] and len(set().union(*groups.values())) == 5


def test_a_table_lists_captions(prepare, put, problems):
    put("media/a.mp4")
    put("media/a.jpg")
    put("b.jpg")
    put(
        "list.csv",
        [
            ["file", "caption", "start", "end", "split", "group"],
            ["media/a.mp4", "stir", "0.1", "0.3", "train", "x"],
            ["media/a.mp4", "fold", "0.3", "", "train", "x"],
            ["media/a.jpg", "a pan", "", "", "train", "x"],
            ["b.jpg", "a pot", "", "", "test", "y"],
            ["b.jpg", "late", "x", "1", "test", "y"],
            ["c.jpg", "lost", "", "", "test", "y"],
        ],
    )
    rows = prepare("list.csv", captions="required", columns={"path": "file"})
    assert texts(rows["train"]["media/a.mp4"]) == [
        ("stir", 0.1, 0.3),
        ("fold", 0.3, pytest.approx(0.5, abs=0.1)),
    ]
    assert texts(rows["train"]["media/a.jpg"]) == [("a pan", None, None)]
    assert texts(rows["test"]["b"]) == [("a pot", None, None)] and rows["test"]["b"]["group"] == "y"
    found = problems()
    assert found["c.jpg"] == "is not there (line 7 of list.csv)"
    assert found["list.csv"].endswith("which has a time that is no number: left out (b)")


def test_a_completed_corpus_is_not_decoded_again(prepare, put, monkeypatch, capsys):
    put("a.jpg")
    prepare()
    monkeypatch.setattr("fgmm_tools.corpora.preparation.check_own_files", None)
    assert prepare()["train"].keys() == {"a"} and "out is complete: 1 train." in capsys.readouterr().out
