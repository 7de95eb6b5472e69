from helpers import read_benchmark, split_sizes


def test_clotho(put, tmp_path):
    head = ["file_name", *(f"caption_{number}" for number in range(1, 6))]
    for part in ("development", "validation", "evaluation"):
        rows = [[f"{part} sound.01.wav", *(f"{part}, {number}" for number in range(5))], ["gone.wav", *"abcde"]]
        put(f"clotho_captions_{part}.csv", [head, *rows])
        put(f"{part}/{part} sound.01.wav")
    splits, _, problems = read_benchmark("clotho", tmp_path / "source")
    assert split_sizes(splits["default"]) == {"train": 1, "validation": 1, "test": 1}
    item = splits["default"]["test"][0]
    assert item.video_id == "evaluation sound.01" and item.captions[1] == ("evaluation, 1", None, None)
    assert problems == [f"gone.wav is not in {part}" for part in ("development", "validation", "evaluation")]
