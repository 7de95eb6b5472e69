from helpers import prepare_benchmark, read_benchmark, split_sizes, write_flickr8k

from processing_fgmm.corpora_fgmm import load_corpus


def test_flickr8k_in_its_official_split(tmp_path):
    source = write_flickr8k(tmp_path / "source", train=3, dev=2, test=2)
    (source / "Flicker8k_Dataset/6.jpg").unlink()
    captions = source / "Flickr8k_text/Flickr8k.token.txt"
    captions.write_text("".join(line for line in captions.open() if not line.startswith("4.jpg")) + "7.jpg#0\n")
    splits, classes, problems = read_benchmark("flickr8k", source)
    assert classes is None and split_sizes(splits["default"]) == {"train": 3, "validation": 1, "test": 1}
    assert problems == [
        "7.jpg#0 is a caption line without text",
        "4.jpg has no caption",
        "6.jpg is not in Flicker8k_Dataset",
    ]

    prepare_benchmark("flickr8k", source, tmp_path / "out")
    rows = list(load_corpus(str(tmp_path / "out"), "train"))
    assert [row["video_id"] for row in rows] == ["0", "1", "2"]
    assert rows[1]["captions"] == 5 * [{"text": "A grey photo number 1", "start": None, "end": None}]
    assert rows[0]["image"]["bytes"] == (source / "Flicker8k_Dataset/0.jpg").read_bytes()


def test_real_flickr8k(real_data, tmp_path):
    prepare_benchmark("flickr8k", real_data / "flickr8k", tmp_path / "out", limit=20)
    for split in ("train", "validation", "test"):
        rows = list(load_corpus(str(tmp_path / "out"), split))
        assert len(rows) == 20 and all(len(row["captions"]) == 5 for row in rows)
