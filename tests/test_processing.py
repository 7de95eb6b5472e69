import io
import json

import numpy as np
import pytest
import torch
from helpers import TEXTS, write_sound, write_video
from PIL import Image
from transformers import AutoFeatureExtractor, AutoImageProcessor, AutoProcessor

from processing_fgmm import FgmmFeatureExtractor, FgmmImageProcessor, FgmmProcessor, FgmmVideoProcessor
from processing_fgmm.media_fgmm import MediaError


def test_all_modalities_in_one_call(processor, tmp_path):
    path = write_video(tmp_path / "clip.mp4", sound=2.0)
    inputs = processor(videos=[path], audio=[path], text=[TEXTS[0]], return_tensors="pt")
    assert inputs["pixel_values_videos"].shape == (1, 4, 3, 32, 32)
    assert inputs["video_mask"].tolist() == [True]
    assert inputs["input_features"].shape == (1, 101, 32) and inputs["input_features_mask"].all()
    assert inputs["phrase_spans"].tolist() == [[[0, 3], [5, 6]]]
    assert inputs["phrase_mask"].tolist() == [[True, True]] and inputs["phrase_captions"].tolist() == [[0, 0]]
    assert set(inputs) == set(processor.model_input_names)


@pytest.mark.parametrize("name", ["12:30 talk.mp4", "http:clip.mp4", "file:clip.mp4", "[ab] %03d *.mp4", "-i.mp4"])
def test_files_may_have_any_name(processor, tmp_path, monkeypatch, name):
    expected = processor(videos=[write_video(tmp_path / "clip.mp4", sound=2.0)], audio=[tmp_path / "clip.mp4"])
    (tmp_path / "clip.mp4").rename(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    inputs = processor(videos=[name], audio=[name])
    assert all(torch.equal(inputs[key], expected[key]) for key in expected)
    image = name.replace("mp4", "png")
    Image.new("RGB", (40, 40)).save(image, "PNG")
    assert processor(images=[image])["video_mask"].all()


def test_every_kind_of_audio_gives_the_same_features(processor, tmp_path):
    path = write_sound(tmp_path / "tone.wav")
    data = path.read_bytes()
    expected = processor(audio=[path])["input_features"]
    samples = 0.5 * np.sin(2 * np.pi * 440 * np.arange(16000) / 16000)
    for audio in (
        *(str(path), data, io.BytesIO(data), {"bytes": data, "path": "tone.wav"}),
        *(samples, torch.from_numpy(samples), np.stack([samples, samples]), np.round(samples * 2**15).astype("int16")),
        {"array": samples, "sampling_rate": 16000, "path": None},
    ):
        assert torch.allclose(processor(audio=[audio], sampling_rate=16000)["input_features"], expected, atol=2e-3)
    assert not processor(audio=[{"bytes": None, "path": None}])["input_features_mask"].any()


def test_audio_at_another_rate_is_resampled(processor, tmp_path):
    samples = 0.5 * np.sin(2 * np.pi * 440 * np.arange(44100) / 44100)
    from_file = processor(audio=[write_sound(tmp_path / "tone.wav", rate=44100)])["input_features"][0, 10:-10]
    from_array = processor(audio=[samples], sampling_rate=44100)["input_features"][0, 10:-10]
    assert int(from_file.mean(0).argmax()) == int(from_array.mean(0).argmax())


def test_the_rate_of_decoded_audio_is_its_own(processor):
    samples = np.sin(np.arange(8000) / 5)
    expected = processor(audio=samples, sampling_rate=8000)["input_features"]
    assert expected.shape[1] == 51
    decoded = processor(audio=[{"array": samples, "sampling_rate": 8000}], sampling_rate=16000)
    assert torch.equal(decoded["input_features"], expected)


def test_settings_of_a_call_hold_for_images_too(processor):
    image = np.random.default_rng(0).integers(0, 256, (40, 56, 3), dtype=np.uint8)
    settings = {"size": {"shortest_edge": 20}, "crop_size": {"height": 16, "width": 24}, "do_normalize": False}
    pixels = processor(images=[image], **settings)["pixel_values_videos"]
    assert pixels.shape == (1, 1, 3, 16, 24) and 0 <= pixels.min() < pixels.max() <= 1
    assert torch.equal(pixels, processor(images=[image], images_kwargs=settings)["pixel_values_videos"])
    assert torch.equal(pixels, processor(videos=[[image]], **settings)["pixel_values_videos"][:, :1])


def test_missing_modalities_are_masked(processor, tmp_path):
    path = write_video(tmp_path / "silent.mp4")
    loud = write_video(tmp_path / "loud.mp4", sound=2.0)
    inputs = processor(videos=[path, None], audio=[path, loud], text=["", TEXTS[1]])
    assert inputs["video_mask"].tolist() == [True, False]
    assert inputs["input_features_mask"].any(1).tolist() == [False, True]
    assert inputs["phrase_mask"].any(1).tolist() == [False, True]


def test_a_batch_is_its_items_one_by_one(processor, tmp_path):
    paths = [write_video(tmp_path / f"{n}.mp4", seconds=1 + n, sound=1.0 + n) for n in range(3)]
    batch = processor(videos=paths, audio=paths, text=TEXTS[:3])
    for row, path in enumerate(paths):
        alone = processor(videos=[path], audio=[path], text=[TEXTS[row]])
        for name in alone:
            length = alone[name].shape[1] if alone[name].ndim > 1 else None
            assert torch.equal(
                batch[name][row : row + 1, :length] if length else batch[name][row : row + 1], alone[name]
            )
        assert not batch["input_features_mask"][row, alone["input_features"].shape[1] :].any()


def test_window_in_seconds(processor, tmp_path):
    path = write_video(tmp_path / "clip.mp4", seconds=4, sound=4.0)
    late = processor(videos=[path], audio=[path], start=3.0, end=4.0)
    assert late["input_features"].shape[1] == 51
    whole = processor(videos=[path])
    assert late["pixel_values_videos"].mean() > whole["pixel_values_videos"].mean() + 0.5


def test_candidate_captions_are_end_to_end(processor):
    inputs = processor(text=[["crack two eggs", "a small dog"], ["stir"]])
    assert inputs["phrase_captions"].tolist() == [[0, 1], [0, 0]]
    assert inputs["phrase_mask"].tolist() == [[True, True], [True, False]]
    ids = inputs["input_ids"][0]
    first, last = inputs["phrase_spans"][0, 1].tolist()
    assert processor.tokenizer.decode(ids[first:last]) == "small dog"


def test_captions_of_one_length_are_one_phrase_with_their_padding(processor):
    processor.caption_length = 5
    inputs = processor(text=[["crack two eggs", "a small dog barks at a loud car"], ["stir"]])
    assert inputs["caption_lengths"].tolist() == [[5, 5], [5, 0]]
    assert inputs["phrase_spans"].tolist() == [[[0, 5], [5, 10]], [[0, 5], [0, 0]]]
    pad = processor.tokenizer.pad_token_id
    assert (inputs["input_ids"] == pad).tolist() == [[False] * 3 + [True] * 2 + [False] * 5, [False] + [True] * 9]


def test_items_are_padded_to_the_length_that_was_asked_for(processor):
    inputs = processor(text=TEXTS[:2], padding="max_length", max_length=20)
    expected = processor(text=TEXTS[:2])
    number = expected["input_ids"].shape[1]
    assert inputs["input_ids"].shape == inputs["attention_mask"].shape == (2, 20)
    assert torch.equal(inputs["input_ids"][:, :number], expected["input_ids"])
    assert torch.equal(inputs["attention_mask"].sum(1), expected["attention_mask"].sum(1))
    assert processor(text=TEXTS, padding="longest")["input_ids"].shape == processor(text=TEXTS)["input_ids"].shape


@pytest.mark.parametrize(
    "text", ["", "qwertz uiop", "word " * 10_000, "🎉🔥", "把两个鸡蛋打进碗里", "عربي نص", "\u200b", "\x00", "a" * 5000]
)
def test_odd_texts_give_valid_output(processor, model, text):
    inputs = processor(text=[text, TEXTS[0]])
    spans, mask = inputs["phrase_spans"], inputs["phrase_mask"]
    assert inputs["input_ids"].shape[1] <= 256
    assert ((spans[..., 1] > spans[..., 0]) == mask).all() and spans.max() <= inputs["input_ids"].shape[1]
    assert torch.isfinite(model(**inputs).text_embeds).all()


def test_no_texts_at_all_in_an_item(processor):
    inputs = processor(text=[[], ["stir"]])
    assert inputs["phrase_mask"].any(1).tolist() == [False, True]
    assert not processor(text=[[]])["attention_mask"].any()


def test_no_items_at_all(processor):
    inputs = processor(videos=[], audio=[], text=[])
    assert set(inputs) == set(processor.model_input_names)
    assert {len(values) for values in inputs.values()} == {0}
    alone = processor(videos=[None], audio=[None], text=[""])
    assert {name: values.shape[2:] for name, values in inputs.items()} == {n: v.shape[2:] for n, v in alone.items()}


def test_columns_of_texts(processor):
    expected = processor(text=TEXTS)
    for column in (np.array(TEXTS), tuple(TEXTS), iter(TEXTS), np.array(TEXTS)[:, None]):
        inputs = processor(text=column)
        assert all(torch.equal(inputs[name], expected[name]) for name in expected)


def test_tensors_or_arrays_are_returned_as_asked_for(processor, tmp_path):
    path = write_video(tmp_path / "clip.mp4", sound=1.0)
    given = {"videos": [path], "audio": [path], "text": TEXTS[:1]}
    expected = processor(**given)
    arrays, tensors = processor(**given, return_tensors="np"), processor(**given, return_tensors=None)
    for name, values in expected.items():
        assert isinstance(arrays[name], np.ndarray) and np.array_equal(arrays[name], values)
        assert isinstance(tensors[name], torch.Tensor)
    image = np.zeros((8, 8, 3), np.uint8)
    assert isinstance(processor(images=image, return_tensors="np")["pixel_values_videos"], np.ndarray)


def test_invalid_options_are_refused(processor, encoders_at):
    for padding in ("bogus", False):
        with pytest.raises(ValueError, match=f"padding={padding!r} is neither"):
            processor(text=TEXTS, padding=padding)
    bert = FgmmProcessor.from_encoders(text=encoders_at / "bert")
    for reader, fewest in ((processor, 1), (bert, 3)):
        for length in range(fewest):
            with pytest.raises(ValueError, match=f"max_length={length} has no room .* at least {fewest},"):
                reader(text=TEXTS, max_length=length)
        assert reader(text=TEXTS, max_length=fewest)["input_ids"].shape[1] == fewest


def test_words_and_texts_that_the_tokenizer_does_not_know(processor):
    texts = ["crack the Qwertz", "asdf", "a small dog", "", "asdf, qwertz qwertz!"]
    assert processor.check_words(texts) == (["Qwertz", "asdf", "qwertz"], [1, 3, 4])
    assert processor.check_words([]) == ([], [])
    with pytest.raises(ValueError, match="knows no word of 'asdf', '', 'asdf, qwertz qwertz!'; give other"):
        processor.require_known_words(texts)
    processor.require_known_words(["crack the Qwertz"])


def test_unknown_words_are_named_once_a_call(processor, caplog):
    inputs = processor(text=[["crack qwertz eggs", "an asdf"], ["qwertz"]])
    assert caplog.messages == [
        "The tokenizer does not know these words, which have no meaning for the model: 'qwertz', 'asdf'."
    ]
    caplog.clear()
    for options in ({"verbose": False}, {"text_kwargs": {"verbose": False}}):
        quiet = processor(text=[["crack qwertz eggs", "an asdf"], ["qwertz"]], **options)
        assert all(torch.equal(inputs[name], quiet[name]) for name in inputs)
    processor(text=[*TEXTS, "THE ?!"])
    assert not caplog.messages
    processor(text=" ".join(f"word{number}" for number in range(50)))
    assert caplog.text.count("'word") == 20 and "'word19' and 30 more." in caplog.text


def test_a_truncated_text_is_looked_at_to_its_end(processor, caplog):
    processor(text="crack two eggs into a bowl " * 9 + "zyzzyva", max_length=4)
    assert "'zyzzyva'" in caplog.text


def test_items_have_windows_of_their_own(processor, tmp_path):
    path, photo = write_video(tmp_path / "clip.mp4", seconds=3, sound=3.0), np.full((32, 32, 3), 90, np.uint8)
    starts, ends = [0.0, 1.0, 0.0], [0.5, None, None]
    batch = processor(videos=[path, path, [photo]], audio=[path, path, None], start=starts, end=ends)
    for row, item in enumerate((path, path, [photo])):
        alone = processor(videos=[item], audio=[path], start=starts[row], end=ends[row])
        assert torch.equal(batch["pixel_values_videos"][row, -1], alone["pixel_values_videos"][0, -1])
        if row < 2:
            length = int(alone["input_features_mask"].sum())
            assert int(batch["input_features_mask"][row].sum()) == length
            assert torch.equal(batch["input_features"][row, :length], alone["input_features"][0, :length])
    assert not torch.equal(batch["pixel_values_videos"][0], batch["pixel_values_videos"][1])
    with pytest.raises(ValueError, match="start has 1 values for 2 items"):
        processor(videos=[path, path], start=[1.0])
    with pytest.raises(ValueError, match="end has 3 values for 1 items"):
        processor(audio=path, end=[1.0, 2.0, 3.0])


def test_a_saved_processor_is_loaded_as_it_was(processor, tmp_path):
    processor.save_pretrained(tmp_path / "saved")
    path = write_video(tmp_path / "clip.mp4", sound=2.0)
    loaded = AutoProcessor.from_pretrained(tmp_path / "saved")
    assert isinstance(loaded, FgmmProcessor)
    assert (loaded.clip_seconds, loaded.max_phrase_words) == (processor.clip_seconds, processor.max_phrase_words)
    first = processor(videos=[path], audio=[path], text=TEXTS)
    second = loaded(videos=[path], audio=[path], text=TEXTS)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert isinstance(AutoFeatureExtractor.from_pretrained(tmp_path / "saved"), FgmmFeatureExtractor)
    assert isinstance(FgmmVideoProcessor.from_pretrained(tmp_path / "saved"), FgmmVideoProcessor)


def test_published_processors_load(processor, tmp_path):
    """The names of saved settings are part of every published model."""
    processor.save_pretrained(tmp_path)
    settings = {
        "caption_length": None,
        "clip_seconds": 5.0,
        "feature_extractor": {
            "feature_extractor_type": "FgmmFeatureExtractor",
            "feature_size": 40,
            "hop_length": 200,
            "mean": -5.0,
            "n_fft": 512,
            "padding_value": 0.0,
            "sampling_rate": 8000,
            "std": 4.0,
            "win_length": 400,
        },
        "image_processor": {"image_processor_type": "FgmmImageProcessor"},
        "max_phrase_words": 3,
        "processor_class": "FgmmProcessor",
        "video_processor": {
            "crop_size": {"height": 64, "width": 48},
            "do_normalize": True,
            "do_rescale": True,
            "image_mean": [0.4, 0.5, 0.6],
            "image_std": [0.2, 0.2, 0.2],
            "num_frames": 6,
            "resample": "bicubic",
            "rescale_factor": 1 / 255,
            "size": {"shortest_edge": 70},
            "video_processor_type": "FgmmVideoProcessor",
        },
    }
    (tmp_path / "processor_config.json").write_text(json.dumps(settings))
    loaded = AutoProcessor.from_pretrained(tmp_path)
    assert (type(loaded), loaded.clip_seconds, loaded.max_phrase_words) == (FgmmProcessor, 5.0, 3)
    for part in ("feature_extractor", "video_processor"):
        for name, value in settings[part].items():
            if not name.endswith("_type"):
                assert getattr(getattr(loaded, part), name) == value
    image_processor = AutoImageProcessor.from_pretrained(tmp_path)
    assert type(image_processor) is FgmmImageProcessor and image_processor.resample == "bicubic"


def test_a_call_leaves_no_trace_in_what_is_saved(processor, tmp_path):
    expected = processor(text=TEXTS)["input_ids"]
    processor(text=TEXTS, max_length=2)
    processor.save_pretrained(tmp_path / "cut")
    processor.tokenizer(TEXTS, padding=True)
    processor.save_pretrained(tmp_path / "padded")
    for name in ("cut", "padded"):
        assert torch.equal(AutoProcessor.from_pretrained(tmp_path / name)(text=TEXTS)["input_ids"], expected)


def test_wrong_calls_are_refused(processor, tmp_path):
    with pytest.raises(ValueError, match="at least one"):
        processor()
    with pytest.raises(ValueError, match="either images or videos"):
        processor(images=[np.zeros((8, 8, 3), np.uint8)], videos=["x.mp4"])
    with pytest.raises(MediaError, match=r"nothing\.mp4"):
        processor(videos=[tmp_path / "nothing.mp4"])
    with pytest.raises(MediaError, match=r"nothing\.png"):
        processor(images=[tmp_path / "nothing.png"])
    with pytest.raises(MediaError, match=r"nothing\.wav"):
        processor(audio=[tmp_path / "nothing.wav"])
    for text in ([[3]], [3], 3, ["a", None], [["a", None]], [["a"], 3], {"text": "a"}, [{"text": "a"}], b"a"):
        with pytest.raises(ValueError, match="candidate captions"):
            processor(text=text)
    with pytest.raises(TypeError, match="video_processor cannot be a FgmmFeatureExtractor"):
        FgmmProcessor(processor.feature_extractor, processor.feature_extractor, processor.tokenizer)
