from helpers import read_benchmark, split_sizes


def test_msvd(put, tmp_path):
    lines = ["#MSVD", "", "a-b_1_9 A bird bathes.", "a-b_1_9 Birds  bathe.", "c_2_3 A dog.", "d_4_5 A cat."]
    put("AllVideoDescriptions.txt", "\n".join(lines) + "\n")
    for part, names in (("train", "a-b_1_9\ngone_1_2\n"), ("val", "c_2_3\ne_1_2\n"), ("test", "d_4_5\n")):
        put(f"{part}_list.txt", names)
    for name in ("a-b_1_9", "c_2_3", "d_4_5", "e_1_2"):
        put(f"YouTubeClips/{name}.mp4")
    splits, _, problems = read_benchmark("msvd", tmp_path / "source")
    assert split_sizes(splits["default"]) == {"train": 1, "validation": 1, "test": 1}
    assert splits["default"]["train"][0].captions[0] == ("A bird bathes.", None, None)
    assert problems == ["gone_1_2 has no caption", "e_1_2 has no caption"]
