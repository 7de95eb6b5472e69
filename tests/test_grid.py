from helpers import prepare_benchmark, read_benchmark

from processing_fgmm.corpora_fgmm import load_corpus

TRANSCRIPT = "0 23750 sil\n23750 29500 bin\n29500 34000 blue\n34000 35500 sp\n35500 41000 now\n41000 74500 sil\n"


def test_grid_times_and_held_out_clips(put, tmp_path):
    for index in range(11):
        put(f"s1/clip{index}.mp4")
        put(f"align/s1/clip{index}.align", TRANSCRIPT)
    splits, _, problems = read_benchmark("grid", tmp_path / "source")
    assert not problems
    names = [f"s1_{name}" for name in sorted(f"clip{index}" for index in range(11))]
    found = {split: [item.video_id for item in items] for split, items in splits["default"].items()}
    assert found["test"] == [names[4], names[9]] and found["validation"] == [names[0], names[10]]
    assert found["train"] == [names[index] for index in (1, 2, 3, 5, 6, 7, 8)]
    assert {item.captions for item in splits["default"]["train"]} == {(("bin blue now", 0.95, 1.64),)}


def test_damaged_transcripts_are_named_and_left_out(put, tmp_path):
    for name in ("good", "broken", "missing", "binary", "silent"):
        put(f"s1/{name}.mp4")
    put("align/s1/good.align", TRANSCRIPT)
    put("align/s1/broken.align", "0 x bin\n")
    put("align/s1/silent.align", "0 23750 sil\n")
    (tmp_path / "source/align/s1/binary.align").write_bytes(b"\xff\xfe\x81")
    splits, _, problems = read_benchmark("grid", tmp_path / "source")
    assert [item.video_id for part in splits["default"].values() for item in part] == ["s1_good"]
    expected = {
        "binary": "binary.align is not a text in UTF-8; download it again",
        "broken": "broken.align has a line that is not 'start end word': '0 x bin'",
        "missing": "missing.mp4 has no transcript",
        "silent": "silent.align has no word",
    }
    assert problems == list(expected.values())


def test_real_grid(real_data, tmp_path):
    prepare_benchmark("grid", real_data / "grid", tmp_path / "out", limit=10)
    rows = list(load_corpus(str(tmp_path / "out"), "test"))
    assert len(rows) == 10 and all(len(row["captions"][0]["text"].split()) == 6 for row in rows)
