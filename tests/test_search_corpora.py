import pytest

from fgmm_tools.corpora.captions import read_captions
from fgmm_tools.search import calibration, index_command
from fgmm_tools.search.corpora import format_webvtt, safe_path, unpack_corpus
from fgmm_tools.search.video_index import VideoIndex
from processing_fgmm.corpora_fgmm import load_corpus
from processing_fgmm.media_fgmm import probe_media


def test_a_corpus_becomes_files_with_subtitles(kitchen, tmp_path):
    (tmp_path / "old.mp4").touch()
    corpus = load_corpus(str(kitchen), "test")
    assert unpack_corpus(corpus, tmp_path) == []
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == sorted(f"video-{index}.mp4{end}" for index in range(4) for end in ("", ".vtt"))
    assert probe_media(str(tmp_path / "video-0.mp4")).duration == pytest.approx(12, abs=0.1)
    row = next(iter(corpus))
    assert [(cue["text"], cue["start"], cue["end"]) for cue in read_captions(tmp_path / "video-0.mp4.vtt")] == [
        (caption["text"], caption["start"], caption["end"]) for caption in row["captions"]
    ]
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    unpack_corpus(corpus, tmp_path)
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}


def test_ids_never_leave_the_folder():
    assert [str(safe_path(name)) for name in ("a/b.mp4", "../../up/x", "/top/.x", "c:\\d\n")] == [
        "a/b.mp4",
        "up/x",
        "top/x",
        "c_d_",
    ]


def test_captions_that_look_like_marks(tmp_path):
    captions = [{"text": "a < b --> c & d", "start": 0.5, "end": 1.25}, {"text": "x\n\ny", "start": 0.0, "end": 9e9}]
    (tmp_path / "a.vtt").write_text(format_webvtt(captions))
    assert [(cue["text"], cue["start"]) for cue in read_captions(tmp_path / "a.vtt")] == [
        ("x y", 0.0),
        ("a < b --> c & d", 0.5),
    ]


def test_a_corpus_is_searched(kitchen, small_model, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(calibration, "NUM_FOREIGN", 19)
    words = ["--model", small_model, "--dataset", kitchen, "--split", "test", "--index", tmp_path / "index"]
    for expected in ("Files: 3 embedded", "Files: 4 as they were"):
        monkeypatch.setattr("sys.argv", ["index", *map(str, [*words, "--num_workers", 0])])
        index_command.main(index_command.parse_arguments())
        assert expected in capsys.readouterr().out
    moment = VideoIndex(tmp_path / "index").search("crack two eggs into a bowl", top=1).moments[0]
    assert moment.path.startswith(str(tmp_path / "index" / "media" / "test")) and moment.spoken
