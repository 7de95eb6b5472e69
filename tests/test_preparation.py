import pytest
from helpers import prepare_benchmark

from fgmm_tools.cli import UserError
from fgmm_tools.corpora import preparation
from fgmm_tools.corpora.options import RowSelection, TrainingNoise


def test_rows_listed_twice_or_are_too_large_are_left_out(put, tmp_path, capsys):
    put("one.mp4")
    put("one.srt", "1\n00:00:01,500 --> 00:00:03,000\nhi\n")
    put("one.webm", "")
    put("large.srt", "1\n00:00:01,500 --> 00:00:03,000\nhi\n")
    with (tmp_path / "source" / "large.mp4").open("wb") as file:
        file.truncate(2**31)  # a file of nothing, which takes no room
    prepare_benchmark("folder", tmp_path / "source", tmp_path / "out")
    printed = capsys.readouterr().out
    assert "1 train; 2 entries were skipped" in printed and "one is listed twice" in printed
    assert "large has more than 2 GB; cut it into pieces" in printed


def test_official_splits_share_no_training_split_to_take_from(real_data, tmp_path):
    source, selection = real_data / "ucf101", RowSelection(skip=5)
    with pytest.raises(UserError, match="UCF101 has no training split of its own; leave out --skip"):
        preparation.prepare("ucf101", source, tmp_path / "out", selection, TrainingNoise(), num_proc=1)
