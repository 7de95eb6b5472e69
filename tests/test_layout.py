"""What readers share: media files by name, timed captions, class names."""

import pytest
from helpers import touch

from fgmm_tools.corpora.benchmarks.layout import AUDIO, VIDEO, MediaFolder, readable_class, timed_captions
from fgmm_tools.corpora.problems import Problems


def test_class_names_become_words():
    names = {"BabyCrawling": "baby crawling", "YoYo": "yo yo", "brush_hair": "brush hair"}
    for name, words in {**names, "010 - Fire crackling": "fire crackling", "clock_tick": "clock tick"}.items():
        assert readable_class(name) == words


def test_media_are_found_whatever_their_endings(tmp_path):
    touch(tmp_path / "a" / "b", ["x.mov.MP4", "y.webm", "y.wav", "z.txt"])
    (tmp_path / "a" / "link").symlink_to(tmp_path / "a" / "b")
    videos, problems = MediaFolder(tmp_path / "a", VIDEO), Problems()
    assert videos.find(problems, "x.mov").name == "x.mov.MP4"
    assert videos.find(problems, "none", "y.avi").suffix == ".webm"
    assert MediaFolder(tmp_path / "a" / "link", AUDIO).find(problems, "y").suffix == ".wav"
    assert not len(problems) and videos.find(problems, "z") is None and list(map(str, problems)) == ["z is not in a"]


@pytest.mark.parametrize(
    ("row", "kept"),
    [
        (("a  b\nc", "1.5", 2), ("a b c", 1.5, 2.0)),
        (("a", 0, 1), ("a", 0.0, 1.0)),
        (("a", 2, 2), None),
        (("a", -1, 2), None),
        (("a", float("nan"), 2), None),
        (("a", 0, float("inf")), None),
        (("a", None, 2), None),
        (("a", "x", 2), None),
        (("  ", 1, 2), None),
        ((None, 1, 2), None),
    ],
)
def test_captions_without_words_or_times_are_named(row, kept):
    problems = Problems()
    assert timed_captions("v7", [row], problems) == ((kept,) if kept else ())
    assert len(problems) == (kept is None) and all(problem.path == "v7" for problem in problems)
