from helpers import read_benchmark, split_sizes


def test_didemo_as_paragraphs_and_as_moments(put, tmp_path):
    def entry(video, text, *times):
        return {"annotation_id": 1, "video": video, "description": text, "times": times, "num_segments": 6}

    video = "12090392@N02_13482799053_87ef417396.mov"
    put("train_data.json", [entry(video, "a cat jumps. ", [2, 2], [1, 2], [1, 2]), entry(video, "it sleeps", [5, 5])])
    put("val_data.json", [entry("gone.avi", "a dog", [0, 0])])
    put("test_data.json", [entry("x.3gp", "a dog", [3, 1])])
    put(f"videos/{video}.mp4")
    put("videos/x.mp4")
    splits, _, problems = read_benchmark("didemo", tmp_path / "source")
    assert splits["default"]["train"][0].captions == (("a cat jumps. it sleeps", None, None),)
    assert splits["default"]["train"][0].video_id == video.removesuffix(".mov") and problems == [
        "gone.avi is not in source"
    ]
    splits, _, problems = read_benchmark("didemo_moments", tmp_path / "source")
    assert splits["default"]["train"][0].captions == (("a cat jumps.", 5.0, 15.0), ("it sleeps", 25.0, 30.0))
    assert split_sizes(splits["default"]) == {"train": 1, "validation": 0, "test": 0}
    assert "x.3gp has a caption from 15 to 10 s" in problems and "x.3gp has no sentence that can be used" in problems


def test_a_damaged_entry_is_named_and_the_others_are_read(put, tmp_path):
    whole = [{"video": "a.mp4", "description": "a cat", "times": [[0, 0]]}]
    put("train_data.json", [{"video": "b.mp4"}, *whole])
    for part in ("val", "test"):
        put(f"{part}_data.json", whole)
    put("videos/a.mp4")
    splits, _, problems = read_benchmark("didemo", tmp_path / "source")
    assert split_sizes(splits["default"]) == {"train": 1, "validation": 1, "test": 1}
    assert len(problems) == 1 and problems[0].startswith("entry 1 of train_data.json is not as published")
