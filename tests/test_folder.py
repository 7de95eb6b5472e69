import pytest
from helpers import prepare_benchmark, read_benchmark

from processing_fgmm.corpora_fgmm import load_corpus
from processing_fgmm.media_fgmm import probe_media

ROLLING = """WEBVTT
Kind: captions

00:00:00.000 --> 00:00:02.000 align:start
~
salt &amp;<00:00:00.500><c> pepper</c>

00:00:02.000 --> 00:00:02.010 align:start
salt &amp; pepper
~

00:00:02.010 --> 00:00:04.000 align:start
salt &amp; pepper
into<00:00:03.000><c> a bowl</c>

00:00:09.000 --> 00:00:10.000
into a bowl
""".replace("~", " ")


def test_folder_end_to_end(put, tmp_path, capsys):
    put("a/first.mp4")
    put(
        "a/first.srt",
        "1\n00:00:01,500 --> 00:00:03,000\n<i>Crack</i> two\neggs\n\n2\n00:00:05,000 --> 00:00:04,000\nx\n",
    )
    put("b/first.mp4")  # the same name in another folder
    put(
        "b/first.json",
        {"text": "", "segments": [{"id": 0, "start": 0.25, "end": 1.0, "text": " Stir. "}, {"start": 2}]},
    )
    put("roll [x].mp4")
    put("roll [x].en.vtt", ROLLING)
    put("roll [x].info.json", {"title": "no captions"})
    put("list.mp4")
    put("list.json", [{"text": "fold", "start": 1, "end": 2}])
    put("list.vtt", "WEBVTT\n\n00:01.000 --> 00:02.500\nfirst of all\n")
    put("mute.mp4")
    put("two.mp4")
    put("two.en.vtt", ROLLING)
    put("two.de.vtt", ROLLING)
    put("broken.mp4")
    put("broken.json", "{")
    prepare_benchmark("folder", tmp_path / "source", tmp_path / "out")
    captions = {
        row["video_id"]: [(caption["text"], caption["start"], caption["end"]) for caption in row["captions"]]
        for row in load_corpus(str(tmp_path / "out"), "train")
    }
    assert captions == {
        "a/first": [("Crack two eggs", 1.5, 3.0)],
        "b/first": [("Stir.", 0.25, 1.0)],
        "list": [("first of all", 1.0, 2.5)],
        "roll [x]": [("salt & pepper", 0.0, 2.0), ("into a bowl", 2.01, 4.0), ("into a bowl", 9.0, 10.0)],
    }
    row = next(iter(load_corpus(str(tmp_path / "out"), "train")))
    assert probe_media(row["video"]["bytes"]).duration == pytest.approx(0.5, abs=0.1)
    problems = read_benchmark("folder", tmp_path / "source")[2]
    assert "4 train; 6 entries were skipped" in capsys.readouterr().out and len(problems) == 6
    for problem in (
        "a/first has a caption from 5.0 to 4.0 s",
        "b/first has a caption without text at 2 s",
        "mute.mp4 has no captions beside it (.srt, .vtt, .json)",
        "two.mp4 has captions in several languages, of which one is to be kept",
        "broken.mp4 has no caption that can be used",
    ):
        assert problem in problems
