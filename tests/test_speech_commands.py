from helpers import read_benchmark, split_sizes


def test_speech_commands(put, tmp_path):
    for name in ("yes/a_nohash_0", "yes/b_nohash_0", "no/a_nohash_0", "no/c_nohash_1", "_background_noise_/pink"):
        put(f"{name}.wav")
    put("validation_list.txt", "no/a_nohash_0.wav\nno/gone_nohash_0.wav\n")
    put("testing_list.txt", "yes/b_nohash_0.wav\nmaybe/a_nohash_0.wav\n")
    splits, classes, problems = read_benchmark("speech_commands", tmp_path / "source")
    assert classes == ["no", "yes"] and split_sizes(splits["default"]) == {"train": 2, "validation": 1, "test": 1}
    assert [(item.video_id, item.label) for item in splits["default"]["test"]] == [("yes/b_nohash_0", 1)]
    assert problems == [
        "no/gone_nohash_0.wav of validation_list.txt is not there",
        "maybe/a_nohash_0.wav of testing_list.txt is of a word without a folder",
    ]
