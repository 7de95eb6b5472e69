import json

import pytest
from helpers import read_benchmark, split_sizes

from fgmm_tools.cli import UserError

FAMILY = "A family is playing basketball together on a green court outside."


def entry(qid, video, windows, query=FAMILY):
    """A line as it is published."""
    places = [place for start, end in windows for place in range(start // 2, end // 2)]
    scores = [[4, 1, 1]] * len(places)
    line = {"qid": qid, "query": query, "duration": 126, "vid": video, "relevant_windows": windows}
    return json.dumps({**line, "relevant_clip_ids": places, "saliency_scores": scores})


def test_a_text_is_a_caption_of_each_of_its_windows(put, tmp_path):
    video = "bP5KfdFJzC4_660.0_810.0"
    other = entry(3, video, [[4, 6]], "He  waves\n")
    put("highlight_train_release.jsonl", "\n".join([entry(8737, video, [[0, 16], [40, 44]]), other, ""]))
    put("highlight_val_release.jsonl", entry(4, "gone_0.0_150.0", [[2, 4]]))
    put(f"videos/{video}.mp4")
    splits, _, problems = read_benchmark("qvhighlights", tmp_path / "source")
    assert split_sizes(splits["default"]) == {"train": 1, "validation": 0}
    (item,) = splits["default"]["train"]
    assert item.video_id == video and item.path.name == f"{video}.mp4"
    assert item.captions == ((FAMILY, 0.0, 16.0), (FAMILY, 40.0, 44.0), ("He waves", 4.0, 6.0))
    assert problems == ["gone_0.0_150.0 is not in source"]


@pytest.mark.parametrize(
    "line",
    ["{", entry(1, "a_0.0_150.0", []), entry(1, "a_0.0_150.0", [[6, 4]]), '{"qid": 1, "query": "x", "vid": "a"}', "[]"],
)
def test_a_damaged_line_is_named_and_the_others_are_read(put, tmp_path, line):
    put("highlight_train_release.jsonl", f"{line}\n{entry(2, 'a_0.0_150.0', [[0, 2]])}\n")
    put("highlight_val_release.jsonl", "")
    put("videos/a_0.0_150.0.mp4")
    splits, _, problems = read_benchmark("qvhighlights", tmp_path / "source")
    assert split_sizes(splits["default"]) == {"train": 1, "validation": 0}
    assert len(problems) == 1 and problems[0].startswith("line 1 of highlight_train_release.jsonl is not as published")


def test_another_layout_is_refused(put, tmp_path):
    put("annotations.json", {})
    with pytest.raises(UserError, match=r"has no highlight_train_release.jsonl; QVHighlights is published as"):
        read_benchmark("qvhighlights", tmp_path / "source")
