import json
import os

import numpy as np
import pyarrow.parquet as parquet
import pytest
import torch
from datasets import ClassLabel, List
from helpers import CLASS_NAMES, FOLDS, encode_sound, run_processes, write_labelled_corpus, write_video
from PIL import Image

from fgmm_tools.classification.evaluation import choose_modality, evaluate_classification
from fgmm_tools.classification.settings import ClassificationSettings
from fgmm_tools.cli import UserError
from modeling_fgmm import FgmmModel
from processing_fgmm.corpora_fgmm import CorpusError


@pytest.fixture(scope="module")
def chords(tmp_path_factory):
    """Sounds of any number of three pitches at once."""
    generator, rows = np.random.default_rng(0), {}
    for part in ("a", "b"):
        rows[part] = []
        for number in range(16):
            label = [index for index in range(3) if (number + 1) >> index & 1]
            parts = [np.frombuffer(encode_sound((200, 800, 3200)[i], 0.5, generator)[44:], np.int16) for i in label]
            samples = sum((part.astype(int) for part in parts), np.zeros(8000, int)) // 3
            sound = encode_sound(1, 0.5, generator)[:44] + samples.astype(np.int16).tobytes()
            rows[part].append({"video_id": f"{part}{number}", "audio": {"bytes": sound}, "label": label})
    configs = {"default": {"train": ["a"], "test": ["b"]}}
    folder = tmp_path_factory.mktemp("chords") / "corpus"
    return write_labelled_corpus(folder, rows, configs, label=List(ClassLabel(names=CLASS_NAMES)))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Dark and bright photographs."""
    generator, folder = np.random.default_rng(0), tmp_path_factory.mktemp("pictures")
    rows = {"a": [], "b": []}
    for part in rows:
        for number in range(12):
            level = (60, 190)[number % 2] + generator.integers(-40, 40, (40, 48, 3))
            Image.fromarray(level.astype(np.uint8)).save(folder / "picture.jpg")
            image = {"bytes": (folder / "picture.jpg").read_bytes()}
            rows[part].append({"video_id": f"{part}{number}", "image": image, "label": number % 2})
    configs = {"default": {"train": ["a"], "test": ["b"]}}
    return write_labelled_corpus(folder / "corpus", rows, configs, label=ClassLabel(names=["DarkNight", "bright_day"]))


def evaluate(folder, dataset, protocol, *, config_names=None, num_workers=0, **fields):
    settings = ClassificationSettings(protocol, num_workers=num_workers, **fields)
    return evaluate_classification(str(folder), str(dataset), settings, config_names)


@pytest.mark.parametrize(
    "protocol,fields",
    [
        ("linear", {}),
        ("linear", {"classifier": "svm", "num_windows": 2}),
        ("linear", {"few_shot": True}),
        ("knn", {"num_neighbours": 3}),
        ("finetune", {"epochs": 8, "batch_size": 8, "random_init": True}),
    ],
)
def test_pitches_are_learnt(small_model, sounds, protocol, fields):
    results = evaluate(small_model, sounds, protocol, **fields)
    means, spread = results.summarize()
    assert means["top1"] > 50  # chance is 33
    assert set(results.runs) == set(FOLDS) and results.class_names == CLASS_NAMES
    top1 = [run["top1"] for run in results.runs.values()]
    assert means["top1"] == pytest.approx(sum(top1) / 2) and spread["top1"] == pytest.approx(np.std(top1, ddof=1))
    assert set(means["per_class"]) == set(CLASS_NAMES)
    assert {run["num_clips"] for run in results.runs.values()} == {15}
    num_draws = 10 if "few_shot" in fields else 1
    assert results.confusion.sum(1).tolist() == 3 * [num_draws * 10]
    for fold, metrics in results.draws.items():
        assert len(metrics) == num_draws
        assert results.runs[fold]["top1"] == pytest.approx(np.mean([draw["top1"] for draw in metrics]))
    table = results.format_table().splitlines()
    assert [line.split()[0] for line in table[:5]] == ["top1", "fold1", "fold2", "mean", "spread"]
    assert len(table) == 5 + ("few_shot" in fields)


@pytest.mark.parametrize("protocol,fields", [("linear", {}), ("knn", {}), ("finetune", {"epochs": 2})])
def test_several_labels_give_map(small_model, chords, protocol, fields):
    results = evaluate(small_model, chords, protocol, **fields)
    means, spread = results.summarize()
    assert set(means) == {"mAP", "per_class", "num_clips", "num_undecodable"} and spread == {"mAP": None}
    assert means["mAP"] > (75 if protocol == "linear" else 0)  # each pitch is in about half of the sounds
    assert results.confusion is None


@pytest.mark.parametrize("protocol,fields", [("linear", {}), ("finetune", {"epochs": 10, "batch_size": 6})])
def test_images_are_classified(small_model, pictures, protocol, fields):
    results = evaluate(small_model, pictures, protocol, **fields)
    assert results.summarize()[0]["top1"] > 75 and "video" in results.protocol


def test_videos_are_classified_by_picture_or_sound(small_model, tmp_path, monkeypatch):
    encoded, get_video_features = set(), FgmmModel.get_video_features
    monkeypatch.setattr(
        FgmmModel,
        "get_video_features",
        lambda self, pixel_values_videos, **masks: (
            encoded.add(tuple(pixel_values_videos.shape[1:])) or get_video_features(self, pixel_values_videos, **masks)
        ),
    )
    rows = []
    for number in range(8):
        label = number % 2
        path = write_video(tmp_path / f"{number}.mp4", seconds=1, still=bool(label), sound=1 if label else None)
        rows.append({"video_id": f"v{number}", "video": {"bytes": path.read_bytes()}, "label": label})
    configs, label = {"default": {"train": ["a"], "test": ["a"]}}, ClassLabel(names=["grey", "colourful"])
    folder = write_labelled_corpus(tmp_path / "corpus", {"a": rows}, configs, label=label)
    window = {"clip_seconds": 0.5, "num_frames": 2, "num_windows": 1}
    results = evaluate(small_model, folder, "knn", num_neighbours=1, **window)
    assert results.runs["default"]["top1"] == 100
    assert results.protocol.endswith("1 windows of 0.5 s in 2 frames") and encoded == {(2, 3, 32, 32)}
    # A silent clip counts as an error, and silent clips are not trained on.
    run = evaluate(small_model, folder, "knn", modality="audio").runs["default"]
    assert run["num_undecodable"] == 4 and run["per_class"] == {"grey": 0, "colourful": 100}


def test_zero_shot_needs_no_training_split(small_model, sounds, tmp_path):
    rows = parquet.read_table(sounds / "data" / "a.parquet").to_pylist()
    configs, label = {"default": {"test": ["a"]}}, ClassLabel(names=CLASS_NAMES)
    folder = write_labelled_corpus(tmp_path / "corpus", {"a": rows}, configs, label=label)
    templates = ["{}", "the dog barks, {}"]
    results = evaluate(small_model, folder, "zero_shot", templates=templates)
    assert results.runs["default"]["num_clips"] == 15 and repr(templates[1]) in results.protocol


def test_zero_shot_with_equal_scores_is_chance_and_says_so(small_model, sounds, tmp_path):
    """Classes that differ in nothing but unknown words."""
    parts = {part: parquet.read_table(sounds / "data" / f"{part}.parquet").to_pylist() for part in "abc"}
    label = ClassLabel(names=["dog qwertz", "dog asdf", "dog zyzzyva"])
    folder = write_labelled_corpus(tmp_path / "corpus", parts, FOLDS, label=label)
    results = evaluate(small_model, folder, "zero_shot")
    means, _ = results.summarize()
    assert means["top1"] == pytest.approx(100 / 3) and means["mean_class"] == pytest.approx(100 / 3)
    assert means["num_tied"] == 15
    assert np.allclose(results.confusion, np.full((3, 3), 10 / 3))
    assert results.format_table().endswith(
        "30 of 30 clips have the same highest score for their class and others; each counts as the chance of a random "
        "choice among these."
    )
    label = ClassLabel(names=["dog", "qwertz", "asdf zyzzyva"])
    folder = write_labelled_corpus(tmp_path / "unknown", parts, FOLDS, label=label)
    with pytest.raises(UserError, match="knows no word of 'qwertz', 'asdf zyzzyva'"):
        evaluate(small_model, folder, "zero_shot")


def test_random_init_forgets_the_weights(small_model, sounds, tmp_path):
    model = FgmmModel.from_pretrained(small_model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    save_changed(model, small_model, tmp_path)
    empty = evaluate(tmp_path, sounds, "linear", config_names=["fold1"])
    assert empty.runs["fold1"]["top1"] < 35
    random = evaluate(tmp_path, sounds, "linear", config_names=["fold1"], random_init=True)
    assert random.runs["fold1"]["top1"] > 60 and random.protocol.startswith("random weights")


def save_changed(model, folder, output):
    """The model beside the processor of another folder."""
    for path in folder.iterdir():
        (output / path.name).write_bytes(path.read_bytes())
    model.save_pretrained(output)


def test_held_out_never_reads_the_test_split(small_model, sounds, tmp_path):
    rows = parquet.read_table(sounds / "data" / "a.parquet").to_pylist()
    configs, label = {"default": {"train": ["a"]}}, ClassLabel(names=CLASS_NAMES)
    folder = write_labelled_corpus(tmp_path / "corpus", {"a": rows}, configs, label=label)
    results = evaluate(small_model, folder, "linear", split="held_out")
    assert 0 < results.runs["default"]["num_clips"] < 15


@pytest.mark.parametrize("protocol,fields", [("linear", {}), ("finetune", {"epochs": 1})])
def test_damaged_clips_are_named_and_count_as_errors(small_model, sounds, tmp_path, capfd, protocol, fields):
    parts = {part: parquet.read_table(sounds / "data" / f"{part}.parquet").to_pylist() for part in "ab"}
    parts["a"][0]["audio"]["bytes"] = parts["b"][0]["audio"]["bytes"] = b"nothing"
    configs, label = {"default": {"train": ["a"], "test": ["b"]}}, ClassLabel(names=CLASS_NAMES)
    folder = write_labelled_corpus(tmp_path / "corpus", parts, configs, label=label)
    run = evaluate(small_model, folder, protocol, **fields).runs["default"]
    assert run["num_undecodable"] == 1 and run["num_clips"] == 15 and run["per_class"][CLASS_NAMES[0]] <= 80
    error = capfd.readouterr().err
    assert parts["a"][0]["video_id"] in error and parts["b"][0]["video_id"] in error


def test_a_split_without_a_clip_that_can_be_decoded_is_named(small_model, sounds, tmp_path):
    rows = parquet.read_table(sounds / "data" / "a.parquet").to_pylist()
    damaged = [{**row, "video_id": f"damaged {row['video_id']}", "audio": {"bytes": b"nothing"}} for row in rows]
    label = ClassLabel(names=CLASS_NAMES)
    for train, test, message in (("a", "b", "split 'test' can be decoded"), ("b", "a", "split 'train' can be")):
        configs = {"default": {"train": [train], "test": [test]}}
        parts = {"a": rows, "b": damaged}
        folder = write_labelled_corpus(tmp_path / train, parts, configs, label=label)
        with pytest.raises(UserError, match=message):
            evaluate(small_model, folder, "knn")


@pytest.mark.parametrize("protocol", ["linear", "knn"])
def test_damaged_weights_are_one_sentence(small_model, sounds, model, tmp_path, protocol):
    with torch.no_grad():
        for weights in model.encoders["audio"].parameters():
            weights.fill_(float("nan"))
    save_changed(model, small_model, tmp_path)
    with pytest.raises(UserError, match="NaN") as error:
        evaluate(tmp_path, sounds, protocol, config_names=["fold1"])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "fields,error,message",
    [
        ({"config_names": ["fold9"]}, CorpusError, "fold9"),
        ({"split": "validation"}, CorpusError, "no split 'validation'"),
        ({"modality": "video"}, UserError, "Video cannot be classified"),
    ],
)
def test_mistakes_are_one_sentence(small_model, sounds, fields, error, message):
    with pytest.raises(error, match=message) as caught:
        evaluate(small_model, sounds, "linear", **fields)
    assert "\n" not in str(caught.value)


def test_few_shot_needs_one_class_a_clip(small_model, chords):
    with pytest.raises(UserError, match="few_shot draws clips of one class"):
        evaluate(small_model, chords, "linear", few_shot=True)


def test_the_modality_is_what_corpus_and_model_have():
    every = ["video", "audio", "text"]
    assert choose_modality(None, every, ["video_id", "video", "label"], "x") == "video"
    assert choose_modality(None, every, ["video_id", "image", "label"], "x") == "video"
    assert choose_modality(None, every, ["video_id", "audio", "label"], "x") == "audio"
    assert choose_modality("audio", every, ["video_id", "video", "label"], "x") == "audio"
    assert choose_modality(None, ["audio", "text"], ["video_id", "video", "label"], "x") == "audio"
    with pytest.raises(UserError, match="Video or audio cannot be classified"):
        choose_modality(None, ["text"], ["video_id", "video", "label"], "x")
    with pytest.raises(UserError, match=r"Audio cannot be classified.* x the columns video_id, image"):
        choose_modality("audio", every, ["video_id", "image", "label"], "x")


def run_process(rank: int, world: int, port: int, bounds: list[int], folder: str) -> None:
    """One of several processes."""
    os.environ.update(MASTER_ADDR="localhost", MASTER_PORT=str(port), RANK=str(rank), WORLD_SIZE=str(world))
    os.environ.update(LOCAL_RANK=str(rank), ACCELERATE_USE_CPU="true")
    torch.set_num_threads(1)
    results = evaluate(f"{folder}/model", f"{folder}/sounds", "knn", num_windows=2, batch_size=5)
    torch.save(results and json.dumps(results.draws), f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


def test_several_processes_equal_one(small_model, sounds, tmp_path):
    (tmp_path / "model").symlink_to(small_model)
    (tmp_path / "sounds").symlink_to(sounds)
    alone = evaluate(small_model, sounds, "knn", num_windows=2, batch_size=5).draws
    for world in (2, 3):
        main, *others = run_processes(run_process, list(range(world + 1)), tmp_path)
        assert others == [None] * (world - 1) and json.loads(main) == alone
