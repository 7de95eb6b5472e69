from datasets import ClassLabel, List
from helpers import prepare_benchmark, read_benchmark

from processing_fgmm.corpora_fgmm import list_configs, load_corpus


def write_audioset(put):
    head = "# Segments csv created Sun Mar  5 10:54:31 2017\n# num_ytids=2\n# YTID, start_seconds, end_seconds, ...\n"
    put("class_labels_indices.csv", 'index,mid,display_name\n0,/m/a,"Speech, male"\n1,/m/b,Dog\n2,/m/c,Rain\n')
    put("balanced_train_segments.csv", head + '--PJ, 30.000, 40.000, "/m/c,/m/a"\ngone, 0.000, 10.000, "/m/b"\n')
    rows = 'two, 10.000, 20.000, "/m/b"\nbad, 9.000, 4.000, "/m/b"\nworse, soon, 4.000, "/m/b"\n'
    put("unbalanced_train_segments.csv", head + rows)
    put("eval_segments.csv", head + 'three, 0.000, 10.000, "/m/c"\nfour, 0.000, 10.000, "/m/b,/m/z"\n')
    put("audio/Y--PJ.wav")
    put("audio/two_10.000_20.000.wav")
    put("audio/three_0.wav")
    put("audio/four.wav")


def test_audioset_end_to_end(put, tmp_path, capsys):
    write_audioset(put)
    prepare_benchmark("audioset", tmp_path / "source", tmp_path / "out")
    printed = capsys.readouterr().out
    assert "balanced: 1 train, 1 test; full: 2 train, 1 test." in printed and "Problems: 4, which" in printed
    assert "Problem: gone_0 is not in source." in printed and "Problem: bad has the times 9.000 to 4.000." in printed
    assert "four is of the class '/m/z', which class_labels_indices.csv lacks" in printed
    assert list_configs(str(tmp_path / "out")) == ["balanced", "full"]
    corpus = load_corpus(str(tmp_path / "out"), "train", "full")
    assert corpus.features["label"] == List(ClassLabel(names=["Speech, male", "Dog", "Rain"]))
    assert sorted((row["video_id"], row["label"]) for row in corpus) == [("--PJ", [2, 0]), ("two", [1])]
    assert [row["label"] for row in load_corpus(str(tmp_path / "out"), "test", "balanced")] == [[2]]
    (tmp_path / "source" / "unbalanced_train_segments.csv").unlink()
    assert list(read_benchmark("audioset", tmp_path / "source")[0]) == ["balanced"]
