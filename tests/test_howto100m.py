import pytest
from helpers import read_benchmark

from fgmm_tools.cli import UserError


def write_howto100m(put, form):
    captions = {
        "one": {"start": [0.5, 3.0, 9.0], "end": [2.5, 5.0, 8.0], "text": ["hi there", "  ", "backwards"]},
        "gone": {"start": [0.0], "end": [1.0], "text": ["x"]},
    }
    if form == "json":
        put("caption.json", captions)
    else:
        put("HowTo100M_v1.csv", [["video_id", "task_id"], ["one", 3]])
        for name, columns in captions.items():
            rows = zip(columns["start"], columns["end"], columns["text"], strict=True)
            put(f"howto100m_csv/{name}.csv", [["start", "end", "text"], *rows])
    put("videos/one.mp4")
    put("videos/mute.mp4")


@pytest.mark.parametrize("form", ["json", "csv"])
def test_howto100m(form, put, tmp_path):
    write_howto100m(put, form)
    splits, _, problems = read_benchmark("howto100m", tmp_path / "source")
    assert [item.captions for item in splits["default"]["train"]] == [(("hi there", 0.5, 2.5),)]
    assert sorted(problems) == [
        "gone is not in source",
        "mute has no captions",
        "one has a caption from 9.0 to 8.0 s",
        "one has a caption without text at 3.0 s",
    ]


def test_a_damaged_entry_is_named_and_the_others_are_read(put, tmp_path):
    put("caption.json", {"b": {"text": ["a"]}, "one": {"start": [0.5], "end": [2.5], "text": ["hi"]}})
    put("videos/one.mp4")
    put("videos/b.mp4")
    splits, _, problems = read_benchmark("howto100m", tmp_path / "source")
    assert [item.video_id for item in splits["default"]["train"]] == ["one"]
    assert any(problem.startswith("b is not as published") for problem in problems)


def test_damaged_howto100m_is_named(put, tmp_path):
    put("caption.json", '{"one": {"start": [0.5], "end": [')
    put("videos/one.mp4")
    with pytest.raises(UserError, match=r"caption.json cannot be read as published"):
        read_benchmark("howto100m", tmp_path / "source")
