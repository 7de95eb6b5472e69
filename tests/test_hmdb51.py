import csv

from helpers import read_benchmark, touch


def test_hmdb51_real_lists_say_what_mil_nce_lists(real_data, tmp_path):
    folder = real_data / "annotations" / "hmdb51_splits"
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "testTrainMulti_7030_splits").symlink_to(folder)
    rows = list(csv.DictReader((folder / "hmdb51_milnce.csv").open()))
    touch(tmp_path / "source" / "clips", (row["video_id"] for row in rows[1:]))
    splits, classes, problems = read_benchmark("hmdb51", tmp_path / "source")
    assert len(classes) == 51 and classes[:2] == ["brush hair", "cartwheel"]
    assert problems == [f"{rows[0]['video_id']} is not in source"]
    flags = {"train": "1", "test": "2", "validation": "none"}
    for config, parts in splits.items():
        for split, items in parts.items():
            wanted = {row["video_id"] for row in rows[1:] if row[config] == flags[split]}
            assert {item.path.name for item in items} == wanted
            assert len(items) == {"train": 51 * 70, "test": 51 * 30, "validation": 0}[split] - (
                rows[0][config] == flags[split]
            )
    label_of = {row["video_id"]: row["label"].removesuffix("_test").replace("_", " ") for row in rows}
    assert all(classes[item.label] == label_of[item.path.name] for item in splits["split2"]["train"])
