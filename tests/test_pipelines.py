import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from helpers import LABELS, TEXTS, check_label_scores, write_sound, write_video
from PIL import Image
from transformers import AutoImageProcessor, AutoTokenizer, pipeline

from modeling_fgmm import FgmmForAudioClassification, FgmmForVideoClassification, FgmmModel
from processing_fgmm import FgmmImageProcessor, FgmmProcessor, MediaError, read_waveform

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


@torch.no_grad()
def test_video_classification(config, processor, files, tmp_path, capfd):
    folder, model = make_classifier(FgmmForVideoClassification, config, processor, tmp_path / "classifier")
    classify = pipeline("video-classification", model=folder)
    assert "not supported" not in capfd.readouterr().err
    paths = [files["grey"], files["still"]]
    expected = model(**processor(videos=paths)).logits.softmax(-1)
    check_label_scores(classify(paths[0]), expected[0])
    for answers in (classify(paths), classify(paths, batch_size=2)):
        check_label_scores(answers[0], expected[0])
        check_label_scores(answers[1], expected[1])
    assert len(classify(paths[0], top_k=1)) == 1
    check_label_scores(
        classify(paths[0], num_frames=2), model(**processor(videos=paths[0], num_frames=2)).logits[0].softmax(-1)
    )


@torch.no_grad()
def test_audio_classification(config, processor, files, tmp_path):
    folder, model = make_classifier(FgmmForAudioClassification, config, processor, tmp_path / "classifier")
    classify = pipeline("audio-classification", model=folder)
    waveform = read_waveform(files["sound"], RATE)
    expected = model(**processor(audio=[files["sound"]])).logits[0].softmax(-1)
    check_label_scores(classify(waveform), expected)
    check_label_scores(classify({"array": waveform.numpy(), "sampling_rate": RATE}), expected)
    check_label_scores(classify([waveform, waveform[:4000]], batch_size=2)[0], expected)
    slow = read_waveform(files["sound"], 8000)
    expected = model(**processor(audio=[slow], sampling_rate=8000)).logits[0].softmax(-1)
    check_label_scores(classify({"array": slow.numpy(), "sampling_rate": 8000}), expected)


def by_hand(model, processor, texts, **given) -> torch.Tensor:
    """The outputs of a text that is one phrase of all its words, for the pipelines call the tokenizer alone."""
    return model(**processor.tokenizer(texts, padding=True, return_tensors="pt"), **processor(**given))


@torch.no_grad()
def test_zero_shot_audio_classification(folder, model, processor, files):
    classify = pipeline("zero-shot-audio-classification", model=folder)
    texts = [f"This is a sound of {label}." for label in LABELS]
    expected = by_hand(model, processor, texts, audio=[files["sound"]]).logits_per_audio[0].softmax(-1)
    waveform = read_waveform(files["sound"], RATE).numpy()
    check_label_scores(classify(waveform, candidate_labels=LABELS), expected)
    check_label_scores(classify([waveform, waveform], candidate_labels=LABELS, batch_size=2)[1], expected)


@pytest.fixture
def make_joint(encoders_at, tmp_path):
    """Makes a joint model with a named audio encoder of transformers, its processor and the folder of both."""

    def make(audio):
        torch.manual_seed(0)
        encoders = {"audio": encoders_at / audio, "text": encoders_at / "bert"}
        joint, processor = (
            FgmmModel.from_encoders(**encoders, projection_dim=16).eval(),
            FgmmProcessor.from_encoders(**encoders),
        )
        return joint, processor, save(joint, processor, tmp_path / audio)

    return make


@torch.no_grad()
@pytest.mark.parametrize("audio", ["ast", "wav2vec2", "whisper"])
def test_audio_pipelines_of_encoders_of_transformers(make_joint, audio, files, tmp_path):
    joint, processor, folder = make_joint(audio)
    texts = [f"This is a sound of {label}." for label in LABELS]
    waveform = read_waveform(files["sound"], RATE).numpy()
    sounds = [waveform, waveform[:5000]]
    classify = pipeline("zero-shot-audio-classification", model=folder)
    expected = by_hand(joint, processor, texts, audio=sounds).logits_per_audio.softmax(-1)
    for row, answer in enumerate(classify(sounds, candidate_labels=LABELS, batch_size=2)):
        check_label_scores(answer, expected[row])
    names = {"id2label": dict(enumerate(LABELS)), "label2id": {name: n for n, name in enumerate(LABELS)}}
    model = FgmmForAudioClassification.from_pretrained(folder, **names).eval()
    classify = pipeline("audio-classification", model=save(model, processor, tmp_path / "classifier"))
    expected = model(**processor(audio=sounds)).logits.softmax(-1)
    for size in (1, 2):
        for row, answer in enumerate(classify(sounds, batch_size=size)):
            check_label_scores(answer, expected[row])


@torch.no_grad()
def test_zero_shot_image_classification(folder, model, processor, files):
    classify = pipeline("zero-shot-image-classification", model=folder)
    expected = by_hand(model, processor, LABELS, images=[files["image"]]).logits_per_image[0].softmax(-1)
    check_label_scores(classify(files["image"], candidate_labels=LABELS, hypothesis_template="{}"), expected)
    pictures = [files["image"], Image.open(files["image"])]
    for answer in classify(pictures, candidate_labels=LABELS, hypothesis_template="{}", batch_size=2):
        check_label_scores(answer, expected)


@torch.no_grad()
def test_feature_extraction(folder, model, processor, files):
    extract = pipeline("feature-extraction", model=folder)
    texts = [TEXTS[0], "dog"]
    tokens = AutoTokenizer.from_pretrained(folder)(texts, padding=True, return_tensors="pt")
    expected = model.get_text_features(**tokens).pooler_output
    assert np.allclose(extract(texts[0]), expected[:1], atol=1e-5)
    assert np.allclose(np.array(extract(texts))[:, 0], expected, atol=1e-5)
    assert torch.allclose(extract(texts[1], return_tensors=True), expected[1:], atol=1e-5)
    see = pipeline("image-feature-extraction", model=folder)
    vector = model.encode(images=files["image"], processor=processor)
    assert np.allclose(see(files["image"])[0], vector, atol=1e-5)
    batched = see([files["image"]] * 4, batch_size=4)  # more items than the grid has numbers
    assert np.allclose(np.array(batched)[:, 0], [vector] * 4, atol=1e-5)


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
    "zero-shot-video-classification": model.zero_shot_video_classification(video, labels),
}))
assert not {"modeling_fgmm", "processing_fgmm"} & set(sys.modules)
"""


REMOTE_SOUND = """
import json, sys
import numpy
from transformers import pipeline

folder, labels = json.loads(sys.argv[1])
options = {"model": folder, "trust_remote_code": True}
print(json.dumps({
    "zero-shot-audio-classification": pipeline("zero-shot-audio-classification", **options)(
        numpy.sin(numpy.arange(8000)), candidate_labels=labels),
    "audio-classification": pipeline("audio-classification", **options)(numpy.sin(numpy.arange(8000))),
}))
assert not {"modeling_fgmm", "processing_fgmm"} & set(sys.modules)
"""


def run_away(code: str, arguments: list, folder):
    """What code prints outside the repository, without the packages."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_MODULES_CACHE": str(folder / "modules")}
    environment.pop("PYTHONPATH", None)
    command = [sys.executable, "-c", code, json.dumps(arguments)]
    run = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout.splitlines()[-1])


def test_code_of_an_encoders_feature_extractor_travels_with_the_weights(make_joint, tmp_path):
    _, _, folder = make_joint("whisper")
    answers = run_away(REMOTE_SOUND, [folder, LABELS], tmp_path)
    here = pipeline("zero-shot-audio-classification", model=folder)(np.sin(np.arange(8000)), candidate_labels=LABELS)
    there = answers["zero-shot-audio-classification"]
    assert [entry["label"] for entry in there] == [entry["label"] for entry in here]
    assert there[0]["score"] == pytest.approx(here[0]["score"], abs=1e-4)
    assert len(answers["audio-classification"]) == 2


def test_with_the_code_that_travels_with_the_weights(folder, model, processor, files, tmp_path):
    """The classifiers begin from the joint model, with random layers."""
    answers = run_away(REMOTE, [folder, files["grey"], files["image"], LABELS], tmp_path)
    here = pipeline("zero-shot-image-classification", model=folder)(files["image"], candidate_labels=LABELS)
    there = answers["zero-shot-image-classification"]
    assert [entry["label"] for entry in there] == [entry["label"] for entry in here]
    assert there[0]["score"] == pytest.approx(here[0]["score"], abs=1e-4)
    assert np.allclose(answers["encode"], model.encode(videos=[files["grey"]], processor=processor), atol=1e-5)
    here = model.zero_shot_video_classification(files["grey"], LABELS, processor=processor)
    there = answers["zero-shot-video-classification"]
    assert [entry["label"] for entry in there] == [entry["label"] for entry in here]
    assert there[0]["score"] == pytest.approx(here[0]["score"], abs=1e-4)
    assert np.allclose(answers["feature-extraction"], pipeline("feature-extraction", model=folder)("a small dog"))
    assert len(answers["video-classification"]) == len(answers["audio-classification"]) == 2
    assert len(answers["zero-shot-audio-classification"]) == 3


def test_a_damaged_video_is_named(config, processor, tmp_path):
    folder, _ = make_classifier(FgmmForVideoClassification, config, processor, tmp_path / "classifier")
    (tmp_path / "torn.mp4").write_bytes(b"no video")
    with pytest.raises(MediaError, match=r"torn\.mp4 cannot be decoded"):
        pipeline("video-classification", model=folder)(str(tmp_path / "torn.mp4"))
