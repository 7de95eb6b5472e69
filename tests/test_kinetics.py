from helpers import read_benchmark, split_sizes


def test_kinetics(put, tmp_path):
    head = ["label", "youtube_id", "time_start", "time_end", "split"]
    train = [["zumba", "-0a", "15", "25", "train"], ["air drumming", "b_1", "0", "10", "train"]]
    put("annotations/train.csv", [head, *train, ["zumba", "c", "9", "5", "train"], ["zumba", "d", "1", "11", "train"]])
    put("annotations/val.csv", [head, ["zumba", "e", "100", "110", "val"], ["yoga", "f", "1", "11", "val"]])
    put("annotations/test.csv", [["youtube_id", "time_start", "time_end"], ["g", "1", "11"]])
    put("train/zumba/-0a_000015_000025.mp4")
    put("train/b_1_000000_000010.mp4")
    put("val/e.mp4")
    splits, classes, problems = read_benchmark("kinetics", tmp_path / "source")
    assert classes == ["air drumming", "zumba"]
    assert split_sizes(splits["default"]) == {"train": 2, "validation": 1, "test": 0}
    assert [(item.video_id, item.label) for item in splits["default"]["train"]] == [
        ("-0a_000015_000025", 1),
        ("b_1_000000_000010", 0),
    ]
    assert problems == [
        "c has the times '9' to '5'",
        "d_1 is not in source",
        "f is of the class 'yoga', which train.csv lacks",
        "g is of the class '', which train.csv lacks",
    ]
