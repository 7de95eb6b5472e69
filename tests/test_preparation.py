import pytest
from helpers import prepare_benchmark

from fgmm_tools.cli import UserError
from fgmm_tools.corpora import preparation
from fgmm_tools.corpora.benchmarks.layout import Item
from fgmm_tools.corpora.options import OwnFiles, RowSelection, TrainingNoise
from fgmm_tools.corpora.problems import Problems


def test_files_that_are_too_large_are_left_out(put, tmp_path, capsys):
    put("one.mp4")
    with (tmp_path / "source" / "large.mp4").open("wb") as file:
        file.truncate(2**31)  # a file of nothing, which takes no room
    prepare_benchmark("folder", tmp_path / "source", tmp_path / "out", own_files=OwnFiles("optional"))
    printed = capsys.readouterr().out
    assert "1 train" in printed and "large has more than 2 GB; cut it into pieces" in printed


def test_rows_listed_twice_are_left_out(tmp_path):
    (tmp_path / "a.jpg").touch()
    problems, item = Problems(), Item("a", tmp_path / "a.jpg")
    assert preparation.remove_unusable([item, item], problems) == [item]
    assert list(map(str, problems)) == ["a is listed twice"]


def test_official_splits_share_no_training_split_to_take_from(real_data, tmp_path):
    source, selection = real_data / "ucf101", RowSelection(skip=5)
    with pytest.raises(UserError, match="UCF101 has no training split of its own; leave out --skip"):
        preparation.prepare("ucf101", source, tmp_path / "out", selection, TrainingNoise(), num_proc=1)
