import pytest
from helpers import read_benchmark, split_sizes

from fgmm_tools.cli import UserError


def test_a_sentence_is_a_caption_with_its_window(put, tmp_path):
    book, phone = "a person is putting a book on a shelf.", "person puts it back ## on the table"
    put("charades_sta_train.txt", f"AO8RW 0.0 6.9##{book}\nAO8RW 10.5 15##{phone}\n3MSZA 24.3 30.4##gone.\n")
    put("charades_sta_test.txt", "Y6R7T 20.8 30.0##person begins to play on a phone.\n")
    put("Charades_v1_480/AO8RW.mp4")
    put("Charades_v1_480/Y6R7T.mp4")
    splits, _, problems = read_benchmark("charades_sta", tmp_path / "source")
    assert split_sizes(splits["default"]) == {"train": 1, "test": 1}
    (item,) = splits["default"]["train"]
    assert item.video_id == "AO8RW" and item.captions == ((book, 0.0, 6.9), (phone, 10.5, 15.0))
    assert splits["default"]["test"][0].captions == (("person begins to play on a phone.", 20.8, 30.0),)
    assert problems == ["3MSZA is not in source"]


@pytest.mark.parametrize(
    "line", ["AO8RW 0.0 6.9", "AO8RW 0.0##x", "AO8RW 7 6.9##x", "AO8RW zero 1##x", "AO8RW 0 nan##x"]
)
def test_a_damaged_line_is_named_and_the_others_are_read(put, tmp_path, line):
    put("charades_sta_train.txt", f"{line}\nAO8RW 0 1##a book\n")
    put("charades_sta_test.txt", "")
    put("Charades_v1_480/AO8RW.mp4")
    splits, _, problems = read_benchmark("charades_sta", tmp_path / "source")
    assert split_sizes(splits["default"]) == {"train": 1, "test": 0}
    assert len(problems) == 1 and problems[0].startswith("line 1 of charades_sta_train.txt is not as published")


def test_another_layout_is_refused(put, tmp_path):
    put("Charades_v1_480/AO8RW.mp4")
    with pytest.raises(UserError, match=r"has no charades_sta_train.txt; Charades-STA is published as"):
        read_benchmark("charades_sta", tmp_path / "source")
