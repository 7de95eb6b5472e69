import pytest
from helpers import read_benchmark, split_sizes


@pytest.mark.parametrize(("name", "folder"), [("coco", "val2014"), ("flickr30k", "flickr30k-images")])
def test_karpathy_split(name, folder, put, tmp_path):
    images = []
    for index, split in enumerate(("train", "restval", "val", "test", "test", "test")):
        sentences = [
            {"raw": f" Photo {index}, said {number}.", "tokens": []} for number in range(6 if index < 5 else 0)
        ]
        images.append({"filename": f"{index}.jpg", "split": split, "sentences": sentences})
        if index != 4:
            put(f"{folder}/{index}.jpg")
    put(f"dataset_{name}.json", {"images": images, "dataset": name})
    splits, _, problems = read_benchmark(name, tmp_path / "source")
    assert split_sizes(splits["default"]) == {"train": 2, "validation": 1, "test": 1}
    assert splits["default"]["test"][0].captions[4] == ("Photo 3, said 4.", None, None)
    assert [len(splits["default"][split][0].captions) for split in ("train", "test")] == [6, 5]
    assert problems == ["4.jpg is not in source", "5.jpg has no caption"]
    put(f"dataset_{name}.json", {"images": [{"filename": "0.jpg", "split": "train"}]})
    problems = read_benchmark(name, tmp_path / "source")[2]
    assert problems == [f"image 1 of dataset_{name}.json is not as published (KeyError: 'sentences')"]
