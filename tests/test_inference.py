import logging
import pickle
from pathlib import Path

import numpy as np
import pandas
import pytest
import torch
from datasets import Dataset
from helpers import LABELS, TEXTS, check_label_scores, write_sound, write_video
from huggingface_hub import HfApi, constants
from PIL import Image
from transformers import AutoModel

from modeling_fgmm import FgmmModel
from processing_fgmm import FgmmProcessor, MediaError


@pytest.fixture
def files(tmp_path):
    """Two videos, one of them with sound; two sounds of unequal length; an image."""
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8)).save(tmp_path / "a.jpg")
    return {
        "grey": str(write_video(tmp_path / "grey.mp4", seconds=2, sound=1)),
        "still": str(write_video(tmp_path / "still.mp4", seconds=1, still=True)),
        "low": str(write_sound(tmp_path / "low.wav", 0.7, pitch=200)),
        "high": str(write_sound(tmp_path / "high.wav", 1.9, pitch=3000, rate=22050)),
        "image": str(tmp_path / "a.jpg"),
    }


@pytest.fixture
def folder(model, processor, tmp_path):
    model.save_pretrained(tmp_path / "saved")
    processor.save_pretrained(tmp_path / "saved")
    return tmp_path / "saved"


def test_vectors_are_those_of_the_features(model, processor, files):
    with torch.no_grad():
        video = model.get_video_features(**processor(videos=[files["grey"], files["still"]])).pooler_output
        image = model.get_image_features(processor(images=files["image"])["pixel_values_videos"][:, 0]).pooler_output
        sound = model.get_audio_features(**processor(audio=files["low"])).pooler_output
        text = model.get_text_features(**processor(text=TEXTS)).pooler_output
    vectors = model.encode(videos=[files["grey"], files["still"]], processor=processor)
    assert isinstance(vectors, np.ndarray) and vectors.dtype == np.float32
    assert np.allclose(vectors, video, atol=1e-6)
    assert np.allclose(model.encode(images=[files["image"]], processor=processor), image, atol=1e-6)
    assert np.allclose(model.encode(audio=[files["low"]], processor=processor), sound, atol=1e-6)
    assert np.allclose(model.encode(text=TEXTS, processor=processor), text, atol=1e-6)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_one_item_gives_one_vector(model, processor, files):
    picture = Image.open(files["image"])
    for given in ({"videos": files["grey"]}, {"audio": files["low"]}, {"text": TEXTS[0]}, {"images": picture}):
        name, item = next(iter(given.items()))
        vector = model.encode(**given, processor=processor)
        assert vector.shape == (16,)
        assert np.array_equal(vector, model.encode(**{name: [item]}, processor=processor)[0])
    tensor = model.encode(text=TEXTS[0], processor=processor, convert_to_numpy=False)
    assert isinstance(tensor, torch.Tensor) and tensor.device == model.device and not tensor.requires_grad
    assert model.encode(text=[], processor=processor).shape == (0, 16)


def test_a_picture_in_a_list_of_videos_is_an_item(model, processor, files):
    image = Image.open(files["image"])
    pictures = [image, image.transpose(Image.Transpose.FLIP_TOP_BOTTOM).convert("L"), np.array(image)[:, :40]]
    expected = model.encode(images=pictures, processor=processor)
    assert len(np.unique(expected.round(4), axis=0)) == 3
    assert np.allclose(model.encode(videos=pictures, processor=processor), expected, atol=1e-5)
    tensors = [torch.from_numpy(np.array(picture.convert("RGB"))) for picture in pictures[:2]]
    assert np.allclose(model.encode(videos=tensors, processor=processor), expected[:2], atol=1e-5)
    clips = model.encode(videos=[pictures[:2], pictures[0]], processor=processor)
    assert np.abs(clips[0] - expected[0]).max() > 1e-3 and np.allclose(clips[1], expected[0], atol=1e-5)


def test_a_column_is_a_list(model, processor, files):
    expected = model.encode(text=TEXTS, processor=processor)
    for column in (
        np.array(TEXTS),
        np.array(TEXTS, dtype=object),
        pandas.Series(TEXTS),
        Dataset.from_dict({"a": TEXTS})["a"],
    ):
        assert np.allclose(model.encode(text=column, processor=processor), expected, atol=1e-6)
    names = [files["low"], files["high"]]
    expected = model.encode(audio=names, processor=processor)
    assert np.allclose(model.encode(audio=pandas.Series(names), processor=processor), expected, atol=1e-6)


def test_undecoded_columns_of_corpora(model, processor, files):
    """As load_dataset gives them after cast_column(..., Video(decode=False))."""
    for name, kind in (("videos", "grey"), ("images", "image"), ("audio", "low")):
        data = Path(files[kind]).read_bytes()
        column = [{"bytes": data, "path": "a"}, {"bytes": None, "path": files[kind]}, {"bytes": None, "path": None}]
        expected = model.encode(**{name: files[kind]}, processor=processor)
        vectors = model.encode(**{name: column}, processor=processor)
        assert np.allclose(vectors, [expected, expected, 0 * expected], atol=1e-5), name
        assert np.allclose(model.encode(**{name: column[0]}, processor=processor), expected, atol=1e-5), name


@pytest.mark.parametrize("batch_size", [1, 2, 32])
def test_neither_order_nor_neighbours_change_a_vector(model, processor, files, batch_size):
    items = {
        "text": [*TEXTS, "dog", "", "eggs into a bowl"],
        "audio": [files["low"], files["high"], files["grey"], files["low"]],
        "videos": [files["still"], files["grey"], files["image"]],
    }
    for name, batch in items.items():
        vectors = model.encode(**{name: batch}, processor=processor, batch_size=batch_size)
        alone = [model.encode(**{name: item}, processor=processor) for item in batch]
        assert np.allclose(vectors, alone, atol=1e-5), name


def test_what_is_absent_has_the_vector_0(model, processor, files):
    vectors = model.encode(text=["", "dog", None], processor=processor)
    assert not vectors[[0, 2]].any() and vectors[1].any()
    vectors = model.encode(audio=[files["still"], files["low"], None], processor=processor)
    assert not vectors[[0, 2]].any() and vectors[1].any()
    vectors = model.encode(videos=[None, files["grey"]], processor=processor)
    assert not vectors[0].any() and vectors[1].any()
    assert not model.encode(images=[None], processor=processor).any()
    assert not model.encode(audio=files["still"], processor=processor).any()


def test_a_window_is_shown(model, processor, files):
    window = model.encode(videos=[files["grey"]], processor=processor, start=1, end=1.5)
    with torch.no_grad():
        expected = model.get_video_features(**processor(videos=files["grey"], start=1.0, end=1.5)).pooler_output
    assert np.allclose(window, expected, atol=1e-6)
    assert np.abs(window - model.encode(videos=[files["grey"]], processor=processor)).max() > 1e-3
    first = model.encode(audio=files["high"], processor=processor, end=0.5)
    assert np.abs(first - model.encode(audio=files["high"], processor=processor)).max() > 1e-3
    wave = np.sin(np.arange(8000) / 5)
    assert not np.allclose(
        model.encode(audio=wave, processor=processor, sampling_rate=8000), model.encode(audio=wave, processor=processor)
    )


def test_each_item_has_a_window_of_its_own(model, processor, files):
    windows = [(0.0, 0.4), (0.5, 1.0), (1.2, None)]
    starts, ends = zip(*windows, strict=True)
    for name, kind in (("videos", "grey"), ("audio", "high")):
        items = {name: [files[kind]] * 3, "processor": processor}
        alone = [model.encode(**{name: files[kind]}, processor=processor, start=s, end=e) for s, e in windows]
        assert len(np.unique(np.round(alone, 4), axis=0)) == 3
        for given in (starts, list(starts), np.array(starts), pandas.Series(starts)):
            together = model.encode(**items, start=given, end=ends, batch_size=2)
            assert np.allclose(together, alone, atol=1e-5), name
        together = model.encode(**items, start=starts)
        assert np.allclose(together[2], alone[2], atol=1e-5) and np.abs(together[0] - alone[0]).max() > 1e-3
    with pytest.raises(ValueError, match="start has 2 values for 3 videos; give one, or one an item"):
        model.encode(videos=[files["grey"]] * 3, processor=processor, start=[0.0, 1.0])
    with pytest.raises(ValueError, match="end has 3 values for 1 audio"):
        model.encode(audio=files["low"], processor=processor, end=[0.1, 0.2, 0.3])


@pytest.mark.parametrize("batch_size", [1, 2, 8])
def test_what_cannot_be_read_is_skipped_and_listed(model, processor, files, tmp_path, batch_size):
    (tmp_path / "damaged.mp4").write_bytes(b"no video")
    videos = [files["grey"], str(tmp_path / "damaged.mp4"), files["still"], "nothing.mp4", 3.5, files["image"]]
    options = {"processor": processor, "batch_size": batch_size, "on_error": "skip"}
    vectors, failures = model.encode(videos=videos, **options)
    assert [index for index, _ in failures] == [1, 3, 4]
    assert "damaged.mp4" in failures[0][1] and "nothing.mp4" in failures[1][1] and "float" in failures[2][1]
    assert not vectors[[1, 3, 4]].any()
    for index in (0, 2, 5):
        assert np.allclose(vectors[index], model.encode(videos=videos[index], processor=processor), atol=1e-5)
    windows = {"start": [0.0, 1.0, 0.5, 0.0, 0.0, 0.0]}
    shifted, failures = model.encode(videos=videos, **options, **windows)
    expected = model.encode(videos=files["still"], processor=processor, start=0.5)
    assert len(failures) == 3 and np.allclose(shifted[2], expected, atol=1e-5)


def test_skipping_always_returns_a_list_of_failures(model, processor, files):
    options = {"processor": processor, "on_error": "skip"}
    vector, failures = model.encode(audio=files["low"], **options)
    assert vector.shape == (16,) and vector.any() and failures == []
    vector, failures = model.encode(audio="nothing.wav", **options)
    assert vector.shape == (16,) and not vector.any() and [index for index, _ in failures] == [0]
    tensor, failures = model.encode(images=["nothing.jpg"] * 3, **options, convert_to_numpy=False)
    assert isinstance(tensor, torch.Tensor) and not tensor.any() and len(failures) == 3
    vectors, failures = model.encode(text=TEXTS, **options)
    assert vectors.all(1).all() and failures == []
    with pytest.raises(ValueError, match="num_frames=0 must be at least 1"):  # wrong for every item
        model.encode(videos=[files["grey"]], **options, num_frames=0)


def test_unknown_words_are_named_once_and_unknown_texts_have_the_vector_0(model, processor, caplog):
    texts = ["a small dog", "qwertz asdf", "the zyzzyva", "small zyzzyva Dog", "", "a qwertz"]
    vectors = model.encode(text=texts, processor=processor, batch_size=1)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "'qwertz', 'asdf', 'zyzzyva'." in caplog.text and "'small'" not in caplog.text
    assert not vectors[[1, 2, 4, 5]].any() and vectors[[0, 3]].any(1).all()
    caplog.clear()
    model.encode(text=TEXTS, processor=processor)
    model.encode(text=["", "?!"], processor=processor)
    assert not caplog.records


def test_only_a_batch_is_read_at_once(model, processor, files, monkeypatch):
    read, call = [], FgmmProcessor.__call__

    def count(self, videos, **options):
        read.append(len(videos))
        return call(self, videos=videos, **options)

    monkeypatch.setattr(FgmmProcessor, "__call__", count)
    model.encode(videos=[files["still"]] * 5, processor=processor, batch_size=2)
    assert read == [2, 2, 1]


def test_every_module_keeps_its_mode(model, processor, files):
    model.train()
    model.encoders["video"].stem.eval()
    modes = {name: module.training for name, module in model.named_modules()}
    state = {name: value.clone() for name, value in model.state_dict().items()}
    vector = model.encode(videos=files["grey"], processor=processor)
    with pytest.raises(MediaError, match="nothing"):
        model.encode(videos="nothing.mp4", processor=processor)
    assert {name: module.training for name, module in model.named_modules()} == modes
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert np.array_equal(vector, model.eval().encode(videos=files["grey"], processor=processor))


def test_the_progress_bar_is_shown_when_asked_for(model, processor, capfd, caplog):
    model.encode(text=TEXTS, processor=processor, batch_size=2)
    assert "Batches" not in capfd.readouterr().err
    model.encode(text=TEXTS, processor=processor, batch_size=2, show_progress_bar=True)
    assert "2/2" in capfd.readouterr().err
    with caplog.at_level(logging.INFO, "modeling_fgmm.inference_fgmm"):
        model.encode(text=TEXTS, processor=processor)
    assert "1/1" in capfd.readouterr().err


def test_half_precision(model, processor, files):
    exact = model.encode(videos=files["grey"], processor=processor)
    rough = model.to(torch.bfloat16).encode(videos=files["grey"], processor=processor)
    assert rough.dtype == np.float32 and np.allclose(rough, exact, atol=0.05)
    vectors = model.encode(text=[*TEXTS, ""], processor=processor)
    assert np.allclose(np.linalg.norm(vectors, axis=1), [1, 1, 1, 1, 0], atol=1e-6)


def test_the_processor_is_found_beside_the_model(folder, model, processor, monkeypatch):
    loaded, _ = AutoModel.from_pretrained(folder, output_loading_info=True)
    assert np.allclose(loaded.encode(text=TEXTS), model.encode(text=TEXTS, processor=processor), atol=1e-6)
    monkeypatch.setattr(FgmmProcessor, "from_pretrained", None)  # it was loaded, and is kept
    assert loaded.encode(text=TEXTS[0]).shape == (16,) and loaded.load_processor().clip_seconds == 2.0


def test_the_processor_is_of_the_models_revision(model, processor, tmp_path, monkeypatch):
    """A cache as the Hub's client keeps it, of a model whose main branch has gone on with other settings."""
    repository = tmp_path / "models--org--fgmm"
    (repository / "refs").mkdir(parents=True)
    for revision, commit, seconds in (("main", "a" * 40, 2.0), ("v1", "b" * 40, 7.0)):
        snapshot = repository / "snapshots" / commit
        model.save_pretrained(snapshot)
        processor.clip_seconds = seconds
        processor.save_pretrained(snapshot)
        (repository / "refs" / revision).write_text(commit)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    for options, seconds in (({}, 2.0), ({"revision": "v1"}, 7.0)):
        loaded = AutoModel.from_pretrained("org/fgmm", cache_dir=tmp_path, **options)
        assert loaded.load_processor().clip_seconds == seconds


def test_the_token_of_a_private_model_is_kept_for_its_processor(hub_server, folder, monkeypatch, tmp_path):
    HfApi().create_repo("org/secret", private=True)
    HfApi().upload_folder(repo_id="org/secret", folder_path=folder)
    monkeypatch.delenv("HF_TOKEN")
    # Both are made of the endpoint once, when they are first asked for.
    monkeypatch.setattr("transformers.utils.hub._hf_api", None)
    template = hub_server.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    loaded = AutoModel.from_pretrained("org/secret", token="hf_owner", cache_dir=tmp_path / "cache")
    assert loaded.encode(text=TEXTS).shape == (4, 16)
    loaded.save_pretrained(tmp_path / "again")
    loaded.load_processor().save_pretrained(tmp_path / "again")
    written = [path.read_bytes() for path in (tmp_path / "again").iterdir()]
    assert not any(b"hf_owner" in data for data in [pickle.dumps(loaded), *written])
    pickle.loads(pickle.dumps(loaded))


def test_without_a_processor(model, folder, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="was not loaded from a folder"):
        model.encode(text="dog")
    model.save_pretrained(tmp_path / "alone")
    alone = AutoModel.from_pretrained(tmp_path / "alone")
    with pytest.raises(ValueError, match=r"alone \(\w+Error: .*processing_fgmm must be imported, or processor= given"):
        alone.encode(text="dog")
    monkeypatch.setattr(FgmmModel, "__module__", "transformers_modules.fgmm")  # the code is there, and not to blame
    with pytest.raises(ValueError, match=r"alone \(\w+Error: .*\); give processor="):
        alone.encode(text="dog")
    (folder / "processor_config.json").unlink()  # a tokenizer remains
    with pytest.raises(ValueError, match=r"saved"):
        AutoModel.from_pretrained(folder).encode(text="dog")


@pytest.mark.parametrize(
    "given,message",
    [
        ({}, "not none"),
        ({"text": "dog", "audio": "dog.wav"}, "not audio and text"),
        ({"text": ["dog", 3]}, "list of strings"),
        ({"text": np.array([3, 4])}, "list of strings"),
        ({"text": "dog", "batch_size": 0}, "at least 1"),
        ({"text": "dog", "on_error": "ignore"}, "neither 'raise' nor 'skip'"),
        ({"videos": {"path": "a.mp4"}}, "cannot be a dict"),
        ({"videos": (path for path in ["a.mp4"])}, "videos cannot be a generator; give a list"),
        ({"audio": {"a.wav", "b.wav"}}, "audio cannot be a set; give a list"),
        ({"text": map(str, [1, 2])}, "text cannot be a map; give a list"),
        ({"audio": ["nothing.wav"]}, "nothing.wav cannot be decoded"),
        ({"videos": ["a.mp4"], "start": np.nan}, "start=nan is no number of seconds"),
        ({"audio": ["a.wav"], "end": [np.inf]}, "end=inf is no number of seconds, or None"),
    ],
)
def test_bad_calls_are_explained(model, processor, given, message):
    with pytest.raises(ValueError, match=message):
        model.encode(**given, processor=processor)


def test_a_processor_that_joins_items_is_refused(model, processor, monkeypatch):
    call = FgmmProcessor.__call__
    monkeypatch.setattr(FgmmProcessor, "__call__", lambda self, text, **options: call(self, text=text[:1], **options))
    with pytest.raises(ValueError, match="made 1 items out of 2 text"):
        model.encode(text=TEXTS[:2], processor=processor)


def test_a_missing_encoder_is_named(config, processor):
    config.modalities = ["audio", "text"]
    with pytest.raises(ValueError, match="no video encoder"):
        FgmmModel(config).encode(images=["nothing.jpg"], processor=processor)


@torch.no_grad()
def test_zero_shot_video_classification(model, processor, files):
    templates = ["{}", "a dog barks at {}"]
    paths = [files["grey"], files["still"], files["image"]]
    videos = processor(videos=paths)
    texts = [processor(text=[template.format(label) for label in LABELS]) for template in templates]
    expected = torch.stack([model(**text, **videos).logits_per_video for text in texts]).mean(0).softmax(-1)
    options = {"candidate_labels": LABELS, "hypothesis_template": templates, "processor": processor}
    answers = model.zero_shot_video_classification(paths, **options, batch_size=2)
    assert len(answers) == 3
    for answer, scores in zip(answers, expected, strict=True):
        check_label_scores(answer, scores)
    check_label_scores(model.zero_shot_video_classification(paths[0], **options), expected[0])
    picture = Image.open(files["image"])
    for answer in model.zero_shot_video_classification([picture, picture], **options):  # no clip of two frames
        check_label_scores(answer, expected[2])
    # Braces in a label are a label's, and some known words are enough.
    model.zero_shot_video_classification(paths[0], ["a dog zyzzyva", "a bowl"], processor=processor)
    odd = model.zero_shot_video_classification(paths[0], ["{dog}"], processor=processor)
    assert odd == [{"score": 1.0, "label": "{dog}"}]


@torch.no_grad()
def test_zero_shot_takes_a_window_and_the_saved_processor(folder, processor, files):
    model = FgmmModel.from_pretrained(folder).train()
    answer = model.zero_shot_video_classification(files["grey"], LABELS, start=1, end=2)
    assert model.training and all(module.training for module in model.modules())
    texts = processor(text=[f"This is a video of {label}." for label in LABELS])
    outputs = model.eval()(**texts, **processor(videos=files["grey"], start=1.0, end=2.0))
    check_label_scores(answer, outputs.logits_per_video[0].softmax(-1))
    absent = model.zero_shot_video_classification([None], LABELS)[0]
    assert [entry["score"] for entry in absent] == pytest.approx([1 / 3] * 3)


@pytest.mark.parametrize(
    "change,message",
    [
        ({"candidate_labels": "dog"}, "list of at least one string"),
        ({"candidate_labels": []}, "list of at least one string"),
        (
            {"candidate_labels": ["a dog", "the zyzzyva", "qwertz asdf", ""]},
            "no word of 'the zyzzyva', 'qwertz asdf', ''",
        ),
        ({"hypothesis_template": "a video"}, "has no {}"),
        ({"batch_size": 0}, "at least 1"),
        ({"videos": "nothing.mp4"}, "nothing.mp4 cannot be decoded"),
        ({"processor": None}, "was not loaded from a folder"),
    ],
)
def test_bad_zero_shot_calls_are_explained(model, processor, files, change, message):
    call = {"videos": files["grey"], "candidate_labels": LABELS, "processor": processor}
    with pytest.raises(ValueError, match=message):
        model.zero_shot_video_classification(**{**call, **change})


def test_a_model_without_video_is_refused(config, processor):
    config.modalities = ["audio", "text"]
    with pytest.raises(ValueError, match="does not compare text with video"):
        FgmmModel(config).zero_shot_video_classification("a.mp4", LABELS, processor=processor)
