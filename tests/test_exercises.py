import csv

from helpers import prepare_benchmark, read_benchmark

from processing_fgmm.clips_fgmm import row_duration
from processing_fgmm.corpora_fgmm import load_corpus

HEAD = ["id", "start_image", "end_image", "steps", "split"]


def write_table(put, tmp_path, *rows):
    put("image/a_0.jpg")
    put("image/a_1.jpg")
    (tmp_path / "source").mkdir(exist_ok=True)
    with (tmp_path / "source/annotations.csv").open("w", newline="") as file:
        csv.writer(file).writerows([HEAD, *rows])


def test_exercises_are_clips_of_two_photographs_with_a_caption_a_step(put, tmp_path):
    photographs = ["image/a_0.jpg", "image/a_1.jpg"]
    write_table(
        put, tmp_path, ["a", *photographs, "Lie down. | Sit up.", "train"], ["b", *photographs, "Jump.", "valid"]
    )
    prepare_benchmark("exercises", tmp_path / "source", tmp_path / "out")
    (row,) = load_corpus(str(tmp_path / "out"), "train")
    assert [caption["text"] for caption in row["captions"]] == ["Lie down.", "Sit up."]
    assert row["captions"][0]["start"] is None and row_duration(row) == 2.0
    assert len(list(load_corpus(str(tmp_path / "out"), "validation"))) == 1


def test_rows_that_cannot_be_used_are_named(put, tmp_path):
    photographs = ["image/a_0.jpg", "image/a_1.jpg"]
    rows = (["a", *photographs, "Jump.", "test"], ["b", *photographs, " | ", "test"], ["c", *photographs, "Go.", "dev"])
    write_table(put, tmp_path, *rows)
    splits, _, problems = read_benchmark("exercises", tmp_path / "source")
    assert [item.video_id for item in splits["default"]["test"]] == ["a"]
    assert len(problems) == 2 and problems[0] == "b has no step" and problems[1].startswith("c in annotations.csv")
