import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import TEXTS, write_sound, write_video
from PIL import Image
from transformers import AutoImageProcessor, AutoTokenizer, pipeline

from modeling_fgmm import (
    FgmmForAudioClassification,
    FgmmForVideoClassification,
    FgmmModel,
    zero_shot_video_classification,
)
from processing_fgmm import FgmmImageProcessor, MediaError, read_waveform

LABELS = ["a small dog", "the green grass", "a bowl"]
RATE = 16000


@pytest.fixture
def files(tmp_path):
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8)).save(tmp_path / "a.jpg")
    return {
        "grey": str(write_video(tmp_path / "grey.mp4", seconds=2)),
        "still": str(write_video(tmp_path / "still.mp4", seconds=1, still=True)),
        "sound": str(write_sound(tmp_path / "sound.wav", 0.8, rate=RATE)),
        "image": str(tmp_path / "a.jpg"),
    }


def save(model, processor, folder):
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return str(folder)


@pytest.fixture
def folder(model, processor, tmp_path):
    return save(model, processor, tmp_path / "model")


def make_classifier(kind, config, processor, folder):
    """A saved classifier of three classes, and itself."""
    torch.manual_seed(0)
    config.update({"id2label": dict(enumerate(LABELS)), "label2id": {name: n for n, name in enumerate(LABELS)}})
    classifier = kind(config).eval()
    return save(classifier, processor, folder), classifier


def agree(answer: list[dict], scores: torch.Tensor) -> None:
    """Checks an answer of all labels against the probability of each of LABELS."""
    assert [entry["score"] for entry in answer] == sorted((entry["score"] for entry in answer), reverse=True)
    assert {entry["label"] for entry in answer} == set(LABELS)
    for entry in answer:
        assert entry["score"] == pytest.approx(float(scores[LABELS.index(entry["label"])]), abs=1e-5)


@torch.no_grad()
def test_video_classification(config, processor, files, tmp_path, capfd):
    folder, model = make_classifier(FgmmForVideoClassification, config, processor, tmp_path / "classifier")
    classify = pipeline("video-classification", model=folder)
    assert "not supported" not in capfd.readouterr().err
    paths = [files["grey"], files["still"]]
    expected = model(**processor(videos=paths)).logits.softmax(-1)
    agree(classify(paths[0]), expected[0])
    for answers in (classify(paths), classify(paths, batch_size=2)):
        agree(answers[0], expected[0])
        agree(answers[1], expected[1])
    assert len(classify(paths[0], top_k=1)) == 1
    agree(classify(paths[0], num_frames=2), model(**processor(videos=paths[0], num_frames=2)).logits[0].softmax(-1))


@torch.no_grad()
def test_audio_classification(config, processor, files, tmp_path):
    folder, model = make_classifier(FgmmForAudioClassification, config, processor, tmp_path / "classifier")
    classify = pipeline("audio-classification", model=folder)
    waveform = read_waveform(files["sound"], RATE)
    expected = model(**processor(audio=[files["sound"]])).logits[0].softmax(-1)
    agree(classify(waveform), expected)
    agree(classify({"array": waveform.numpy(), "sampling_rate": RATE}), expected)
    agree(classify([waveform, waveform[:4000]], batch_size=2)[0], expected)
    slow = read_waveform(files["sound"], 8000)
    expected = model(**processor(audio=[slow], sampling_rate=8000)).logits[0].softmax(-1)
    agree(classify({"array": slow.numpy(), "sampling_rate": 8000}), expected)


def by_hand(model, processor, texts, **given) -> torch.Tensor:
    """The outputs of a text that is one phrase of all its words, for the pipelines call the tokenizer alone."""
    return model(**processor.tokenizer(texts, padding=True, return_tensors="pt"), **processor(**given))


@torch.no_grad()
def test_zero_shot_audio_classification(folder, model, processor, files):
    classify = pipeline("zero-shot-audio-classification", model=folder)
    texts = [f"This is a sound of {label}." for label in LABELS]
    expected = by_hand(model, processor, texts, audio=[files["sound"]]).logits_per_audio[0].softmax(-1)
    waveform = read_waveform(files["sound"], RATE).numpy()
    agree(classify(waveform, candidate_labels=LABELS), expected)
    agree(classify([waveform, waveform], candidate_labels=LABELS, batch_size=2)[1], expected)


@torch.no_grad()
def test_zero_shot_image_classification(folder, model, processor, files):
    classify = pipeline("zero-shot-image-classification", model=folder)
    expected = by_hand(model, processor, LABELS, images=[files["image"]]).logits_per_image[0].softmax(-1)
    agree(classify(files["image"], candidate_labels=LABELS, hypothesis_template="{}"), expected)
    pictures = [files["image"], Image.open(files["image"])]
    for answer in classify(pictures, candidate_labels=LABELS, hypothesis_template="{}", batch_size=2):
        agree(answer, expected)


@torch.no_grad()
def test_feature_extraction(folder, model, processor, files):
    extract = pipeline("feature-extraction", model=folder)
    texts = [TEXTS[0], "dog"]
    tokens = AutoTokenizer.from_pretrained(folder)(texts, padding=True, return_tensors="pt")
    expected = model.get_text_features(**tokens).pooler_output
    assert np.allclose(extract(texts[0]), expected[:1], atol=1e-5)
    assert np.allclose(np.array(extract(texts))[:, 0], expected, atol=1e-5)
    assert torch.allclose(extract(texts[1], return_tensors=True), expected[1:], atol=1e-5)
    seen = pipeline("image-feature-extraction", model=folder)(files["image"])
    assert np.allclose(seen[0], model.encode(images=files["image"], processor=processor), atol=1e-5)


def test_the_image_processor_has_the_video_processors_settings(folder, processor, files, tmp_path):
    loaded = AutoImageProcessor.from_pretrained(folder)
    assert type(loaded) is FgmmImageProcessor and loaded.crop_size == processor.video_processor.crop_size
    expected = processor(images=[files["image"]])["pixel_values_videos"]
    assert torch.equal(loaded(images=[Image.open(files["image"])])["pixel_values_videos"], expected)
    processor.from_pretrained(folder).save_pretrained(tmp_path / "again")
    assert AutoImageProcessor.from_pretrained(tmp_path / "again").to_dict() == loaded.to_dict()


REMOTE = """
import json, sys
import numpy
from transformers import AutoModel, pipeline

folder, video, image, labels = json.loads(sys.argv[1])
options = {"model": folder, "trust_remote_code": True}
model = AutoModel.from_pretrained(folder, trust_remote_code=True)
print(json.dumps({
    "zero-shot-audio-classification": pipeline("zero-shot-audio-classification", **options)(
        numpy.sin(numpy.arange(8000)), candidate_labels=labels),
    "zero-shot-image-classification": pipeline("zero-shot-image-classification", **options)(
        image, candidate_labels=labels),
    "feature-extraction": pipeline("feature-extraction", **options)("a small dog"),
    "video-classification": pipeline("video-classification", **options)(video),
    "audio-classification": pipeline("audio-classification", **options)(numpy.sin(numpy.arange(8000))),
    "encode": model.encode(videos=[video], text=None).tolist(),
}))
assert not {"modeling_fgmm", "processing_fgmm"} & set(sys.modules)
"""


def test_with_the_code_that_travels_with_the_weights(folder, model, processor, files, tmp_path):
    """Outside the repository, without the packages; the classifiers begin from the joint model, with random layers."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_MODULES_CACHE": str(tmp_path / "modules")}
    environment.pop("PYTHONPATH", None)
    arguments = json.dumps([folder, files["grey"], files["image"], LABELS])
    command = [sys.executable, "-c", REMOTE, arguments]
    run = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    answers = json.loads(run.stdout.splitlines()[-1])
    here = pipeline("zero-shot-image-classification", model=folder)(files["image"], candidate_labels=LABELS)
    there = answers["zero-shot-image-classification"]
    assert [entry["label"] for entry in there] == [entry["label"] for entry in here]
    assert there[0]["score"] == pytest.approx(here[0]["score"], abs=1e-4)
    assert np.allclose(answers["encode"], model.encode(videos=[files["grey"]], processor=processor), atol=1e-5)
    assert np.allclose(answers["feature-extraction"], pipeline("feature-extraction", model=folder)("a small dog"))
    assert len(answers["video-classification"]) == len(answers["audio-classification"]) == 2
    assert len(answers["zero-shot-audio-classification"]) == 3


@torch.no_grad()
def test_zero_shot_video_classification(model, processor, files):
    templates = ["{}", "a dog barks at {}"]
    paths = [files["grey"], files["still"], files["image"]]
    videos = processor(videos=paths)
    texts = [processor(text=[template.format(label) for label in LABELS]) for template in templates]
    expected = torch.stack([model(**text, **videos).logits_per_video for text in texts]).mean(0).softmax(-1)
    answers = zero_shot_video_classification(
        paths, LABELS, model, processor, hypothesis_template=templates, batch_size=2
    )
    assert len(answers) == 3
    for answer, scores in zip(answers, expected, strict=True):
        agree(answer, scores)
    single = zero_shot_video_classification(paths[0], LABELS, model, processor, hypothesis_template=templates)
    agree(single, expected[0])
    # Braces in a label are a label's.
    odd = zero_shot_video_classification(paths[0], ["{dog}"], model, processor)
    assert odd == [{"score": 1.0, "label": "{dog}"}]


@torch.no_grad()
def test_zero_shot_takes_a_window_and_the_saved_processor(folder, processor, files):
    model = FgmmModel.from_pretrained(folder).train()
    answer = zero_shot_video_classification(files["grey"], LABELS, model, start=1, end=2)
    assert model.training and all(module.training for module in model.modules())
    texts = processor(text=[f"This is a video of {label}." for label in LABELS])
    outputs = model.eval()(**texts, **processor(videos=files["grey"], start=1.0, end=2.0))
    agree(answer, outputs.logits_per_video[0].softmax(-1))
    absent = zero_shot_video_classification([None], LABELS, model)[0]
    assert [entry["score"] for entry in absent] == pytest.approx([1 / 3] * 3)


@pytest.mark.parametrize(
    "change,message",
    [
        ({"candidate_labels": "dog"}, "list of at least one string"),
        ({"candidate_labels": []}, "list of at least one string"),
        ({"hypothesis_template": "a video"}, "has no {}"),
        ({"batch_size": 0}, "at least 1"),
        ({"videos": "nothing.mp4"}, "nothing.mp4 cannot be decoded"),
        ({"processor": None}, "was not loaded from a folder"),
    ],
)
def test_bad_calls_are_explained(model, processor, files, change, message):
    call = {"videos": files["grey"], "candidate_labels": LABELS, "model": model, "processor": processor}
    with pytest.raises(ValueError, match=message):
        zero_shot_video_classification(**{**call, **change})


def test_a_model_without_video_is_refused(config, processor):
    config.modalities = ["audio", "text"]
    with pytest.raises(ValueError, match="does not compare text with video"):
        zero_shot_video_classification("a.mp4", LABELS, FgmmModel(config), processor)


def test_a_damaged_video_is_named(config, processor, tmp_path):
    folder, _ = make_classifier(FgmmForVideoClassification, config, processor, tmp_path / "classifier")
    (tmp_path / "torn.mp4").write_bytes(b"no video")
    with pytest.raises(MediaError, match=r"torn\.mp4 cannot be decoded"):
        pipeline("video-classification", model=folder)(str(tmp_path / "torn.mp4"))
