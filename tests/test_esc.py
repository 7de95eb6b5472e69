import pytest
from helpers import prepare_benchmark, read_benchmark, split_sizes

from processing_fgmm.corpora_fgmm import load_corpus


def write_esc50(put):
    """Two sounds a fold, of classes 0 (in ESC-10) and 12; then a sound without a file and one of fold 6."""
    rows = []
    for fold in range(1, 6):
        rows.append([f"{fold}-1-A-0.wav", fold, 0, "dog", "True", 1, "A"])
        rows.append([f"{fold}-2-A-12.wav", fold, 12, "sea_waves", "False", 2, "A"])
    for name, *_ in rows:
        put(f"audio/{name}")
    rows += [["1-9-A-0.wav", 1, 0, "dog", "True", 9, "A"], ["6-1-A-0.wav", 6, 0, "dog", "True", 1, "A"]]
    put("audio/6-1-A-0.wav")
    put("meta/esc50.csv", [["filename", "fold", "target", "category", "esc10", "src_file", "take"], *rows])


@pytest.mark.parametrize(("name", "number"), [("esc50", 2), ("esc10", 1)])
def test_esc_folds(name, number, put, tmp_path):
    write_esc50(put)
    splits, classes, problems = read_benchmark(name, tmp_path / "source")
    assert classes == ["dog", "sea waves"][:number] and list(splits) == [f"fold{fold}" for fold in range(1, 6)]
    assert problems == ["1-9-A-0.wav is not in audio", "6-1-A-0 is of the fold '6', not 1 or 2 or 3 or 4 or 5"]
    for fold, parts in splits.items():
        assert split_sizes(parts) == {"train": 4 * number, "test": number}
        assert {item.video_id[0] for item in parts["test"]} == {fold[-1]}
        assert fold[-1] not in {item.video_id[0] for item in parts["train"]}
    assert [item.label for item in splits["fold3"]["test"]] == [0, 1][:number]


def test_a_damaged_row_is_named_and_the_others_are_read(put, tmp_path):
    write_esc50(put)
    splits, classes, problems = read_benchmark("esc50", tmp_path / "source")
    path = tmp_path / "source" / "meta" / "esc50.csv"
    head, rows = path.read_text().split("\n", 1)
    path.write_text(f"{head}\n1,1-1-A-0.wav\n{rows}")
    damaged = read_benchmark("esc50", tmp_path / "source")
    assert damaged[:2] == (splits, classes) and damaged[2][1:] == problems
    assert damaged[2][0].startswith("line 2 of esc50.csv is not as published")


def test_esc10_real_folders_end_to_end(real_data, tmp_path):
    prepare_benchmark("esc10", real_data / "esc10", tmp_path / "out", limit=20)
    corpus = load_corpus(str(tmp_path / "out"), "test", "fold2")
    assert corpus.features["label"].names[9] == "fire crackling" and corpus.features["label"].names[0] == "dog bark"
    rows = list(corpus)
    assert len(rows) == 20 and all(row["video_id"].startswith("2-") and row["captions"] == [] for row in rows)
    labels = [row["label"] for row in rows]
    assert labels != sorted(labels) and len(set(labels)) > 5  # in random order
    folder = sorted((real_data / "esc10").glob("0*"))[rows[0]["label"]]
    assert rows[0]["audio"]["bytes"] == (folder / f"{rows[0]['video_id']}.ogg").read_bytes()
    assert len(list(load_corpus(str(tmp_path / "out"), "train", "fold2"))) == 80
