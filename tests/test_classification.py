import json
import re
import wave
from io import BytesIO

import evaluate_classification as script
import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from datasets import ClassLabel, List
from helpers import run_main, write_video
from PIL import Image
from transformers import AutoModelForAudioClassification, AutoModelForVideoClassification
from transformers.modeling_outputs import ImageClassifierOutput, SequenceClassifierOutput

from fgmm_tools.classification import features, finetuning, folds, metrics, probes
from fgmm_tools.corpora.parquet_shards import corpus_features
from modeling_fgmm import FgmmForAudioClassification, FgmmForVideoClassification, FgmmModel
from processing_fgmm import streams_fgmm
from processing_fgmm.corpora_fgmm import CorpusError, load_corpus

NAMES = ["small dog", "loud car", "red ball"]  # words that the tokenizer knows
RATE = 16000


def encode_sound(pitch: float, seconds: float, generator: np.random.Generator) -> bytes:
    """A WAV file of a sine in noise, of any loudness."""
    times = np.arange(round(seconds * RATE)) / RATE
    sound = np.sin(2 * np.pi * pitch * times) + 0.1 * generator.standard_normal(len(times))
    buffer = BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes((generator.uniform(0.05, 0.5) * 32767 * sound / 1.5).astype(np.int16).tobytes())
    return buffer.getvalue()


def write_corpus(folder, parts: dict[str, list[dict]], configs: dict[str, dict[str, list[str]]], **features):
    """Parquet files of rows, and the card that says which of them each split of each configuration has."""
    (folder / "data").mkdir(parents=True)
    medium = next(name for name in ("video", "image", "audio") if name in next(iter(parts.values()))[0])
    schema = corpus_features(medium, **features).arrow_schema
    for part, rows in parts.items():
        rows = [{"captions": [], **row} for row in rows]
        parquet.write_table(pa.Table.from_pylist(rows, schema=schema), folder / "data" / f"{part}.parquet")
    lines = ["---", "configs:"]
    for config, splits in configs.items():
        lines += [f"- config_name: {config}", "  data_files:"]
        for split, names in splits.items():
            lines += [f"  - split: {split}", f"    path: [{', '.join(f'data/{name}.parquet' for name in names)}]"]
    (folder / "README.md").write_text("\n".join([*lines, "---", ""]))
    return folder


FOLDS = {"fold1": {"train": ["b", "c"], "test": ["a"]}, "fold2": {"train": ["a", "c"], "test": ["b"]}}


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    """Two folds of sounds in three classes of pitch; recordings are named as those of ESC."""
    generator, parts = np.random.default_rng(0), {}
    for part in "abc":
        parts[part] = [
            {
                "video_id": f"{'abc'.index(part) + 1}-{number}-A-{label}",
                "audio": {"bytes": encode_sound((200, 800, 3200)[label], generator.uniform(0.5, 1), generator)},
                "label": label,
            }
            for number, label in enumerate([0, 1, 2] * 5)
        ]
    return write_corpus(tmp_path_factory.mktemp("sounds") / "corpus", parts, FOLDS, label=ClassLabel(names=NAMES))


@pytest.fixture(scope="module")
def chords(tmp_path_factory):
    """Sounds of any number of three pitches at once."""
    generator, rows = np.random.default_rng(0), {}
    for part in ("a", "b"):
        rows[part] = []
        for number in range(16):
            label = [index for index in range(3) if (number + 1) >> index & 1]
            parts = [np.frombuffer(encode_sound((200, 800, 3200)[i], 0.5, generator)[44:], np.int16) for i in label]
            samples = sum((part.astype(int) for part in parts), np.zeros(RATE // 2, int)) // 3
            sound = encode_sound(1, 0.5, generator)[:44] + samples.astype(np.int16).tobytes()
            rows[part].append({"video_id": f"{part}{number}", "audio": {"bytes": sound}, "label": label})
    configs = {"default": {"train": ["a"], "test": ["b"]}}
    folder = tmp_path_factory.mktemp("chords") / "corpus"
    return write_corpus(folder, rows, configs, label=List(ClassLabel(names=NAMES)))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Dark and bright photographs."""
    generator, rows = np.random.default_rng(0), {}
    for part in ("a", "b"):
        rows[part] = []
        for number in range(12):
            buffer = BytesIO()
            level = (60, 190)[number % 2] + generator.integers(-40, 40, (40, 48, 3))
            Image.fromarray(level.astype(np.uint8)).save(buffer, "JPEG")
            image = {"bytes": buffer.getvalue()}
            rows[part].append({"video_id": f"{part}{number}", "image": image, "label": number % 2})
    configs = {"default": {"train": ["a"], "test": ["b"]}}
    folder = tmp_path_factory.mktemp("pictures") / "corpus"
    return write_corpus(folder, rows, configs, label=ClassLabel(names=["DarkNight", "bright_day"]))


@pytest.fixture
def saved(model, processor, tmp_path):
    """The folder of a model with random weights, that shows half a second."""
    processor.clip_seconds = 0.5
    model.save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def evaluate(monkeypatch, tmp_path, model, dataset, protocol, *options):
    """The record that the script writes."""
    output = tmp_path / "results" / f"{protocol}.json"
    what = ["--model", model, "--dataset", dataset, "--protocol", protocol]
    run_main(monkeypatch, script, *what, "--num_workers", 0, "--output", output, *options)
    return json.loads(output.read_text())


# The models


@pytest.mark.parametrize("kind", [FgmmForVideoClassification, FgmmForAudioClassification])
def test_the_encoder_is_the_models_and_the_head_is_new(model, tmp_path, kind):
    model.save_pretrained(tmp_path)
    classifier, report = kind.from_pretrained(tmp_path, num_labels=5, output_loading_info=True)
    assert report["missing_keys"] == {"classifier.weight", "classifier.bias"} and not report["unexpected_keys"]
    assert list(classifier.encoders) == [kind.modality]
    for name, value in model.encoders[kind.modality].state_dict().items():
        assert torch.equal(value, classifier.encoders[kind.modality].state_dict()[name])
    assert classifier.classifier.weight.shape[0] == 5 and classifier.classifier.weight.std() > 0


@pytest.mark.parametrize(
    "kind,auto,inputs",
    [
        (FgmmForVideoClassification, AutoModelForVideoClassification, {"pixel_values_videos": (2, 4, 3, 32, 32)}),
        (FgmmForAudioClassification, AutoModelForAudioClassification, {"input_features": (2, 48, 32)}),
    ],
)
def test_save_and_load(config, tmp_path, kind, auto, inputs):
    config.id2label, config.label2id = dict(enumerate(NAMES)), {name: index for index, name in enumerate(NAMES)}
    classifier = kind(config).eval()
    classifier.save_pretrained(tmp_path)
    loaded, report = auto.from_pretrained(tmp_path, output_loading_info=True)
    assert type(loaded) is kind and not report["missing_keys"] and not report["unexpected_keys"]
    inputs = {name: torch.randn(shape) for name, shape in inputs.items()}
    assert torch.equal(loaded(**inputs).logits, classifier(**inputs).logits)
    assert loaded.config.id2label == dict(enumerate(NAMES))


def test_loss_and_logits_are_the_plain_ones(config):
    config.num_labels, config.classifier_dropout = 4, 0.0
    classifier = FgmmForVideoClassification(config).eval()
    pixels = torch.randn(3, 4, 3, 32, 32)
    output = classifier(pixels, labels=torch.tensor([0, 3, 1]), output_hidden_states=True)
    features = output.hidden_states[-1].flatten(2)
    logits = features.mean(2) @ classifier.classifier.weight.T + classifier.classifier.bias
    assert isinstance(output, ImageClassifierOutput) and torch.allclose(output.logits, logits, atol=1e-5)
    expected = -logits.log_softmax(-1)[range(3), [0, 3, 1]].mean()
    assert output.loss.item() == pytest.approx(expected.item(), abs=1e-5)
    assert classifier(pixels).loss is None and classifier(pixels).hidden_states is None
    assert torch.equal(classifier(pixels, return_dict=False)[0], output.logits)


def test_multi_label_loss_is_the_plain_one(config):
    config.num_labels, config.problem_type = 3, "multi_label_classification"
    classifier = FgmmForAudioClassification(config).eval()
    labels = torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 0.0]])
    output = classifier(torch.randn(2, 48, 32), labels=labels)
    expected = -(labels * F.logsigmoid(output.logits) + (1 - labels) * F.logsigmoid(-output.logits)).mean()
    assert isinstance(output, SequenceClassifierOutput)
    assert output.loss.item() == pytest.approx(expected.item(), abs=1e-6)


def test_padding_changes_nothing(config):
    classifier = FgmmForAudioClassification(config).eval()
    sounds = torch.randn(2, 48, 32).requires_grad_()
    mask = torch.tensor([[True] * 48, [True] * 30 + [False] * 18])
    output = classifier(sounds, mask, output_hidden_states=True)
    mean = output.hidden_states[-1][1, :, :, :4].mean((1, 2))  # the network halves three times: 30 frames, 4 regions
    assert torch.allclose(output.logits[1], classifier.classifier(mean), atol=1e-5)
    assert torch.allclose(output.logits[1], classifier(sounds[1:, :30]).logits[0], atol=1e-5)
    changed = sounds.detach().clone()
    changed[1, 30:] = 1e3
    assert torch.equal(output.logits, classifier(changed, mask).logits)
    output.logits.sum().backward()
    assert (sounds.grad[1, 30:] == 0).all() and sounds.grad[1, :30].abs().max() > 0
    silent = classifier(sounds, torch.zeros_like(mask)).logits
    assert torch.equal(silent, classifier.classifier.bias.expand_as(silent))


def test_an_image_is_a_clip_of_one_frame(config):
    classifier = FgmmForVideoClassification(config).eval()
    image = torch.randn(2, 1, 3, 32, 32)
    still = classifier(image.expand(-1, 4, -1, -1, -1)).logits
    assert torch.allclose(classifier(image).logits, still, atol=1e-4)


def test_a_model_without_the_encoder_is_refused(config):
    config.modalities = ["audio", "text"]
    with pytest.raises(ValueError, match="no video encoder"):
        FgmmForVideoClassification(config)


# The protocols


@pytest.mark.parametrize(
    "protocol,options",
    [
        ("linear", []),
        ("linear", ["--classifier", "svm", "--num_windows", "2"]),
        ("linear", ["--few_shot"]),
        ("knn", ["--num_neighbours", "3"]),
        ("finetune", ["--epochs", "8", "--batch_size", "8", "--random_init"]),
    ],
)
def test_pitches_are_learnt(saved, sounds, monkeypatch, tmp_path, protocol, options):
    record = evaluate(monkeypatch, tmp_path, saved, sounds, protocol, *options)
    runs = record["runs"]
    assert set(runs) == set(FOLDS)
    if "--few_shot" in options:
        draws = {fold: [draw["top1"] for draw in results] for fold, results in record["draws"].items()}
        assert all(len(values) == 10 for values in draws.values())
        assert all(runs[fold]["top1"] == pytest.approx(np.mean(values)) for fold, values in draws.items())
    assert record["metrics"]["top1"] > 50  # chance is 33
    top1 = [run["top1"] for run in runs.values()]
    assert record["metrics"]["top1"] == pytest.approx(sum(top1) / len(top1))
    assert record["spread"]["top1"] == pytest.approx(np.std(top1, ddof=1))
    assert set(record["metrics"]["per_class"]) == set(NAMES)
    assert {run["num_clips"] for run in runs.values()} == {15}
    assert set(record) >= {"model", "dataset", "split", "protocol", "seed", "command", "commit", "device", "date"}
    picture = np.asarray(Image.open(tmp_path / "results" / f"{protocol}.png").convert("RGB")).astype(int)
    assert picture.shape[0] > 300 and picture.std() > 20


@pytest.mark.parametrize("protocol,options", [("linear", []), ("knn", []), ("finetune", ["--epochs", "2"])])
def test_several_labels_give_map(saved, chords, monkeypatch, tmp_path, protocol, options):
    record = evaluate(monkeypatch, tmp_path, saved, chords, protocol, *options)
    assert set(record["metrics"]) == {"mAP", "per_class", "num_clips", "num_undecodable"}
    assert record["spread"]["mAP"] is None
    assert record["metrics"]["mAP"] > (75 if protocol == "linear" else 0)  # each pitch is in about half of the sounds
    assert not (tmp_path / "results" / f"{protocol}.png").exists()


@pytest.mark.parametrize("protocol,options", [("linear", []), ("finetune", ["--epochs", "10", "--batch_size", "6"])])
def test_images_are_classified(saved, pictures, monkeypatch, tmp_path, protocol, options):
    record = evaluate(monkeypatch, tmp_path, saved, pictures, protocol, *options)
    assert record["metrics"]["top1"] > 75 and "video" in record["protocol"]


def test_videos_are_classified_by_picture_or_sound(saved, tmp_path, monkeypatch):
    shown, encode_video = set(), FgmmModel.get_video_features
    monkeypatch.setattr(
        FgmmModel,
        "get_video_features",
        lambda self, pixel_values_videos, **masks: (
            shown.add(tuple(pixel_values_videos.shape[1:])) or encode_video(self, pixel_values_videos, **masks)
        ),
    )
    rows = []
    for number in range(8):
        label = number % 2
        path = write_video(tmp_path / f"{number}.mp4", seconds=1, still=bool(label), sound=1 if label else None)
        rows.append({"video_id": f"v{number}", "video": {"bytes": path.read_bytes()}, "label": label})
    configs = {"default": {"train": ["a"], "test": ["a"]}}
    folder = write_corpus(tmp_path / "corpus", {"a": rows}, configs, label=ClassLabel(names=["grey", "colourful"]))
    window = ["--clip_seconds", "0.5", "--num_frames", "2", "--num_windows", "1"]
    record = evaluate(monkeypatch, tmp_path, saved, folder, "knn", "--num_neighbours", "1", *window)
    assert record["metrics"]["top1"] == 100
    assert record["protocol"].endswith("1 windows of 0.5 s in 2 frames") and shown == {(2, 3, 32, 32)}
    # A silent clip counts as an error, and silent clips are not trained on.
    record = evaluate(monkeypatch, tmp_path, saved, folder, "knn", "--modality", "audio")
    assert record["metrics"]["num_undecodable"] == 4 and record["metrics"]["per_class"] == {"grey": 0, "colourful": 100}


def test_zero_shot_takes_the_models_own_scores(saved, sounds, model, processor, monkeypatch, tmp_path):
    templates = ["{}", "the dog barks, {}"]
    options = [option for template in templates for option in ("--template", template)]
    record = evaluate(monkeypatch, tmp_path, saved, sounds, "zero_shot", *options)
    assert set(record["runs"]) == set(FOLDS) and repr(templates[1]) in record["protocol"]
    rows = [row["audio"]["bytes"] for row in load_corpus(str(sounds), "test", "fold1")]
    inputs = processor(audio=rows[:6], end=0.5)
    with torch.no_grad():
        scores = features.make_zero_shot(model, processor, "audio", ["smallDog", *NAMES[1:]], templates)(inputs)
        texts = [processor(text=[template.format(name) for name in NAMES]) for template in templates]
        logits = torch.stack([model(**text, **inputs).logits_per_audio for text in texts]).mean(0)
    assert scores.shape == (6, 3) and torch.allclose(scores, logits, atol=1e-4)


def test_random_init_forgets_the_weights(saved, sounds, monkeypatch, tmp_path):
    model = FgmmModel.from_pretrained(saved)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    model.save_pretrained(saved)
    empty = evaluate(monkeypatch, tmp_path, saved, sounds, "linear", "--dataset_config", "fold1")
    assert empty["metrics"]["top1"] < 35
    record = evaluate(monkeypatch, tmp_path, saved, sounds, "linear", "--dataset_config", "fold1", "--random_init")
    assert record["metrics"]["top1"] > 60 and record["protocol"].startswith("random weights")


def test_held_out_never_reads_the_test_split(saved, sounds, monkeypatch, tmp_path):
    rows = parquet.read_table(sounds / "data" / "a.parquet").to_pylist()
    configs = {"default": {"train": ["a"]}}
    folder = write_corpus(tmp_path / "corpus", {"a": rows}, configs, label=ClassLabel(names=NAMES))
    record = evaluate(monkeypatch, tmp_path, saved, folder, "linear", "--split", "held_out")
    assert record["split"] == "held_out" and 0 < record["metrics"]["num_clips"] < 15
    classes = folds.read_classes(load_corpus(str(folder), "train"), str(folder))
    train, judged = folds.read_fold(str(folder), "default", "held_out", classes, 0)
    assert not set(train.labels) & set(judged.labels) and len(train.labels) + len(judged.labels) == 15
    assert {row["video_id"] for row in train.corpus} == set(train.labels)


@pytest.mark.parametrize("protocol,options", [("linear", []), ("finetune", ["--epochs", "1"])])
def test_damaged_clips_are_named_and_count_as_errors(saved, sounds, monkeypatch, tmp_path, capfd, protocol, options):
    parts = {part: parquet.read_table(sounds / "data" / f"{part}.parquet").to_pylist() for part in "ab"}
    parts["a"][0]["audio"]["bytes"] = parts["b"][0]["audio"]["bytes"] = b"nothing"
    configs = {"default": {"train": ["a"], "test": ["b"]}}
    folder = write_corpus(tmp_path / "corpus", parts, configs, label=ClassLabel(names=NAMES))
    record = evaluate(monkeypatch, tmp_path, saved, folder, protocol, *options)
    assert record["metrics"]["num_undecodable"] == 1 and record["metrics"]["num_clips"] == 15
    assert record["metrics"]["per_class"][NAMES[0]] <= 80
    printed = "".join(capfd.readouterr())
    assert parts["a"][0]["video_id"] in printed and parts["b"][0]["video_id"] in printed


# Mistakes


@pytest.mark.parametrize(
    "protocol,options,message",
    [
        ("linear", ["--dataset_config", "fold9"], "fold9"),
        ("linear", ["--split", "validation"], "no split 'validation'"),
        ("linear", ["--modality", "video"], "Video cannot be classified"),
        ("knn", ["--output", "/"], "--output / is a folder"),
        ("knn", ["--model", "/nowhere/model"], "/nowhere/model"),
        ("knn", ["--dataset", "/nowhere/corpus"], "/nowhere/corpus"),
    ],
)
def test_mistakes_are_one_sentence(saved, sounds, monkeypatch, tmp_path, protocol, options, message):
    with pytest.raises(CorpusError, match=message) as caught:
        evaluate(monkeypatch, tmp_path, saved, sounds, protocol, *options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "protocol,options,message",
    [
        ("knn", ["--few_shot"], "--protocol linear"),
        ("zero_shot", ["--random_init"], "trains nothing"),
        ("zero_shot", ["--template", "a sound"], "must hold {}"),
        ("finetune", ["--epochs", "0"], "less than 1"),
        ("knn", ["--output", "results.png"], "is the JSON file"),
        ("guess", [], "invalid choice"),
    ],
)
def test_options_that_do_not_fit_are_refused(saved, sounds, monkeypatch, tmp_path, capsys, protocol, options, message):
    with pytest.raises(SystemExit):
        evaluate(monkeypatch, tmp_path, saved, sounds, protocol, *options)
    assert message in capsys.readouterr().err


def test_corpora_without_usable_labels_are_refused(saved, chords, sounds, monkeypatch, tmp_path):
    with pytest.raises(CorpusError, match="--few_shot draws clips of one class"):
        evaluate(monkeypatch, tmp_path, saved, chords, "linear", "--few_shot")
    rows = parquet.read_table(sounds / "data" / "a.parquet").to_pylist()
    configs = {"default": {"train": ["a"], "test": ["a"]}}
    label = ClassLabel(names=NAMES)
    for name, kept, message in (
        ("plain", [{"video_id": "a", "audio": rows[0]["audio"]}], "no column 'label'"),
        ("twice", [rows[0], *rows], "twice"),
        ("unlabelled", [{**rows[0], "label": None}, *rows[1:]], "no label"),
        ("single", [row for row in rows if row["label"] == 1], "fewer than two classes"),
    ):
        features = {"label": label} if "label" in kept[0] else {}
        folder = write_corpus(tmp_path / name, {"a": kept}, configs, **features)
        with pytest.raises(CorpusError, match=message):
            evaluate(monkeypatch, tmp_path, saved, folder, "linear")


# The numbers


def test_top_k_and_class_accuracy_by_hand():
    scores = np.array([[3, 2, 1, 0, 0, 0.0], [1, 2, 3, 0, 0, 0], [1, 1, 1, 1, 1, 1], [9, 8, 7, 6, 5, 4]])
    targets = np.eye(6, dtype=int)[[0, 0, 1, 5]]
    result = metrics.single_label_metrics(scores, targets, list("abcdef"))
    assert result["top1"] == 25  # equal scores are an error
    assert result["top5"] == 50  # the third has all classes before its own, and so has the fourth
    assert result["per_class"] == {"a": 50, "b": 0, "c": None, "d": None, "e": None, "f": 0}
    assert result["mean_class"] == pytest.approx(50 / 3)


def test_average_precision_by_hand():
    scores = np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.6, 0.4]])
    targets = np.array([[1, 0], [0, 0], [1, 0], [0, 0]])
    result = metrics.multi_label_metrics(scores, targets, ["a", "b"])
    assert result["mAP"] == pytest.approx(100 * (1 + 2 / 3) / 2) and result["per_class"]["b"] is None


def test_windows_are_averaged_and_confusions_counted():
    classes = folds.Classes(["a", "b"], False)
    scores = {"x": np.array([[1.0, 0.0], [0.0, 2.0]]), "y": np.array([[1.0, 0.0]])}
    labels = {"x": 1, "y": 1, "z": 0}
    result = metrics.compute_metrics(scores, labels, classes)
    assert result["per_class"] == {"a": 0, "b": 50} and result["num_undecodable"] == 1
    assert metrics.count_confusions(scores, labels, classes).tolist() == [[0, 0], [1, 1]]


@pytest.mark.parametrize("protocol", ["linear", "knn"])
def test_damaged_weights_are_one_sentence(saved, sounds, model, monkeypatch, tmp_path, protocol):
    with torch.no_grad():
        for weights in model.encoders["audio"].parameters():
            weights.fill_(float("nan"))
    model.save_pretrained(saved)
    with pytest.raises(CorpusError, match="NaN") as error:
        evaluate(monkeypatch, tmp_path, saved, sounds, protocol, "--dataset_config", "fold1")
    assert "\n" not in str(error.value)


def test_clips_that_are_not_shown_come_last():
    scores = {"x": np.array([[0.2, 0.0]]), "y": np.array([[0.1, 0.9]])}
    labels = {"x": [0], "y": [1], "z": [0, 1]}
    result = metrics.compute_metrics(scores, labels, folds.Classes(["a", "b"], True))
    assert result["per_class"] == {name: pytest.approx(100 * (1 + 2 / 3) / 2) for name in "ab"}


@pytest.mark.parametrize(
    "video_id,group",
    [
        ("v_PushUps_g07_c03", "v_PushUps_g07"),
        ("1-100032-A-0", "1-100032"),
        ("bed/00176480_nohash_1", "00176480"),
        ("kitchen-01", "kitchen-01"),
    ],
)
def test_recordings_are_read_from_names(video_id, group):
    assert folds.group_of(video_id) == group


@pytest.mark.parametrize("several", [False, True])
def test_no_recording_is_in_both_parts(several):
    generator = np.random.default_rng(0)
    groups = [f"g{number // 3}" for number in range(60)]
    targets = np.eye(2, dtype=int)[generator.integers(2, size=60)] + several
    for train, judged in folds.split_groups(targets, groups, 0):
        assert not {groups[i] for i in train} & {groups[i] for i in judged}
        assert len(train) + len(judged) == 60


def test_neighbours_vote_by_their_cosines():
    train, targets = np.eye(3), np.array([[1, 0], [0, 1], [0, 1]])
    test = np.array([[0.8, 0.6, 0.0]])
    votes = np.exp(np.array([0.8, 0.6]) / probes.TEMPERATURE)
    assert np.allclose(probes.neighbour_scores(train, targets, test, 2), [votes])
    assert np.allclose(probes.neighbour_scores(train, targets, test, 20), [[votes[0], votes[1] + 1]])


def test_a_class_that_was_not_shown_comes_last():
    features = np.random.default_rng(0).standard_normal((8, 2))
    for shown in ([0, 2] * 4, [0, 1, 3, 3] * 2):
        classifier = probes.LogisticRegression().fit(features, shown)
        scores = probes.class_scores(classifier, features, 4)
        assert np.array_equal(scores.argmax(1), classifier.predict(features))
        assert (scores[:, [i for i in range(4) if i not in shown]] < scores[:, shown].min()).all()


def test_shots_are_eight_a_class(monkeypatch):
    sizes = []
    fit = probes.LogisticRegression.fit
    monkeypatch.setattr(
        probes.LogisticRegression, "fit", lambda self, x, y: sizes.append(np.bincount(y)) or fit(self, x, y)
    )
    train = np.random.default_rng(0).standard_normal((40, 2))
    list(probes.few_shot_scores(train, np.eye(2, dtype=int)[[0, 1, 1, 1] * 10], train, 0))
    assert len(sizes) == 10 and all(size.tolist() == [8, 8] for size in sizes)


# Training


def test_training_clips_differ_in_every_epoch_and_never_between_runs(sounds, processor):
    corpus = load_corpus(str(sounds), "train", "fold1")
    classes = folds.read_classes(corpus, str(sounds))

    def batches(number):
        clips = finetuning.LabelledClips(corpus, processor, classes, batch_size=30, with_video=False)
        return [batch.inputs for batch, _ in zip(clips, range(number), strict=False)]

    (first, second), (again,) = batches(2), batches(1)
    assert set(first) == {"input_features", "input_features_mask", "labels"}
    assert torch.equal(first["input_features"], again["input_features"])
    assert torch.bincount(first["labels"]).tolist() == torch.bincount(second["labels"]).tolist() == [10, 10, 10]
    assert first["input_features"].shape != second["input_features"].shape or not torch.equal(
        first["input_features"], second["input_features"]
    )


def test_what_is_shown_whole_is_decoded_once_and_longer_clips_anew(sounds, processor, monkeypatch):
    classes = folds.read_classes(load_corpus(str(sounds), "train"), str(sounds))
    rows = list(load_corpus(str(sounds), "train").take(3))
    decoded = []
    read_clip = streams_fgmm.read_clip
    monkeypatch.setattr(streams_fgmm, "read_clip", lambda row, *rest: decoded.append(row) or read_clip(row, *rest))

    def show_twice(clip_seconds: float, room: int) -> int:
        """How often three rows are decoded for two batches, which must be those of a stream that keeps nothing."""
        monkeypatch.setattr(processor, "clip_seconds", clip_seconds)
        corpus = load_corpus(str(sounds), "train")
        keeping, forgetting = (
            finetuning.LabelledClips(corpus, processor, classes, batch_size=3, with_video=False) for _ in range(2)
        )
        keeping.room, forgetting.room = room, 0
        first, second = ([clips.make_batch(epoch, 0, rows) for epoch in (0, 1)] for clips in (forgetting, keeping))
        for batch, other in zip(first, second, strict=True):
            assert torch.equal(batch.inputs["input_features"], other.inputs["input_features"])
        number = len(decoded) - 6
        decoded.clear()
        return number

    assert show_twice(10.0, 10**9) == 3
    assert show_twice(0.2, 10**9) == 6
    assert show_twice(10.0, 0) == 6


def test_a_trained_classifier_is_all_that_is_kept(sounds, config, processor):
    corpus = load_corpus(str(sounds), "train", "fold1")
    classes = folds.read_classes(corpus, str(sounds))
    config.num_labels = len(classes.names)
    accelerator = Accelerator()
    settings = finetuning.TrainingSettings(1, 15, 1e-3, 0.0, 0, 0)
    classifier = FgmmForAudioClassification(config)
    finetuning.finetune(accelerator, classifier, corpus, 30, processor, classes, settings)
    assert not accelerator._models and not accelerator._optimizers


def test_sound_is_turned_round_and_scaled():
    waveform, generator = torch.randn(1000), np.random.default_rng(0)
    gains, moved = [], 0
    for _ in range(50):
        varied = finetuning.vary_sound(waveform, generator)
        spectra = [torch.fft.rfft(sound).abs() for sound in (waveform, varied)]
        gains.append((spectra[1] / spectra[0]).mean().item())
        assert torch.allclose(spectra[1], gains[-1] * spectra[0], rtol=1e-2, atol=1e-2)
        moved += not torch.allclose(varied, gains[-1] * waveform, atol=1e-2)
    assert moved > 40
    decibels = 20 * np.log10(gains)
    assert np.abs(decibels).max() <= finetuning.MAX_GAIN + 1e-2 and decibels.std() > 3


def test_colours_are_varied_alike_in_all_frames():
    frames = torch.randint(60, 190, (1, 3, 8, 8), dtype=torch.uint8).expand(4, -1, -1, -1)
    generator, grey, contrasts = np.random.default_rng(0), 0, []
    for _ in range(100):
        varied = finetuning.vary_colours(frames, generator)
        assert varied.dtype == torch.uint8 and torch.equal(varied[:1].expand_as(varied), varied)
        grey += torch.equal(varied[:, 0], varied[:, 1])
        contrasts.append((varied.float().mean(1).std() / frames.float().mean(1).std()).item())
    assert 10 <= grey <= 30  # a fifth
    assert min(contrasts) < 0.6 and 1.4 < max(contrasts) < 1.4**2 + 0.1  # brightness stretches them as well


def test_stripes_are_masked():
    generator, shares = np.random.default_rng(0), []
    for _ in range(50):
        features = torch.ones(100, 32)
        finetuning.mask_stripes(features, generator)
        frames, bands = (features == 0).all(1).sum().item(), (features == 0).all(0).sum().item()
        assert frames <= 10 and bands <= 4
        assert (features == 0).sum() == frames * 32 + bands * 100 - frames * bands
        shares.append((frames, bands))
    assert np.max(shares, axis=0).tolist() == [10, 4]


def test_class_names_are_spelt_out():
    assert [features.spell(name) for name in ("BabyCrawling", "brush_hair", "Dog bark", "TaiChi")] == [
        "baby crawling",
        "brush hair",
        "dog bark",
        "tai chi",
    ]
    assert not re.search("[A-Z]", features.spell("HandstandPushups"))
