import io
import wave

import numpy as np
import pytest
import torch
from helpers import TEXTS, write_video
from PIL import Image
from transformers import AutoFeatureExtractor, AutoProcessor

from processing_fgmm import FgmmFeatureExtractor, FgmmImageProcessor, FgmmProcessor, FgmmVideoProcessor
from processing_fgmm.feature_extraction_fgmm import to_mono
from processing_fgmm.media_fgmm import MediaError


def write_wav(path, seconds=1.0, rate=16000, frequency=440.0):
    samples = (16000 * np.sin(2 * np.pi * frequency * np.arange(int(seconds * rate)) / rate)).astype("<i2")
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(samples.tobytes())
    return path


def test_all_modalities_in_one_call(processor, tmp_path):
    path = write_video(tmp_path / "clip.mp4", sound=2.0)
    inputs = processor(videos=[path], audio=[path], text=[TEXTS[0]], return_tensors="pt")
    assert inputs["pixel_values_videos"].shape == (1, 4, 3, 32, 32)
    assert inputs["video_mask"].tolist() == [True]
    assert inputs["input_features"].shape == (1, 101, 32) and inputs["input_features_mask"].all()
    assert inputs["phrase_spans"].tolist() == [[[0, 3], [5, 6]]]
    assert inputs["phrase_mask"].tolist() == [[True, True]] and inputs["phrase_captions"].tolist() == [[0, 0]]
    assert set(inputs) == set(processor.model_input_names)


def test_every_kind_of_video_gives_the_same_pixels(processor, tmp_path):
    path = write_video(tmp_path / "clip.mp4", seconds=0.4, size=(32, 32), rate=10)
    expected = processor(videos=[path])["pixel_values_videos"]
    frames = processor.video_processor.load(str(path), 4)
    kinds = [
        str(path),
        path.read_bytes(),
        io.BytesIO(path.read_bytes()),
        frames,
        frames.numpy(),
        frames.permute(0, 2, 3, 1).numpy(),
        frames.double() / 255,
        frames.half() / 255,
        {"bytes": path.read_bytes(), "path": None},
        {"bytes": None, "path": str(path)},
        [Image.fromarray(frame.permute(1, 2, 0).numpy()) for frame in frames],
    ]
    for kind in kinds:
        assert torch.allclose(processor(videos=[kind])["pixel_values_videos"], expected, atol=1e-6)


def test_every_kind_of_image_gives_the_same_pixels(processor, tmp_path):
    picture = np.random.default_rng(0).integers(0, 256, (40, 56, 3), dtype=np.uint8)
    path = tmp_path / "photo.png"
    Image.fromarray(picture).save(path)
    expected = processor(images=[path])["pixel_values_videos"]
    assert expected.shape == (1, 1, 3, 32, 32)
    data = path.read_bytes()
    tensor = torch.from_numpy(picture)
    for image in (
        Image.fromarray(picture),
        picture,
        picture.transpose(2, 0, 1),
        tensor,
        str(path),
        data,
        io.BytesIO(data),
        {"bytes": data, "path": "photo.png"},
    ):
        assert torch.allclose(processor(images=image)["pixel_values_videos"], expected)


def test_floating_pixels_are_of_0_to_1(processor):
    for value in (255.0, -0.5, np.nan):
        picture = np.full((40, 56, 3), 0.5)
        picture[0, 0, 0] = value
        for given in ({"images": picture}, {"videos": [torch.from_numpy(picture)[None]]}):
            with pytest.raises(ValueError, match=rf"not in \[.*{value:g}.*\]; give uint8, or divide by 255"):
                processor(**given)
    overshot = np.full((40, 56, 3), 1.005)  # of a filter that sharpens
    assert torch.equal(
        processor(images=overshot)["pixel_values_videos"],
        processor(images=np.full((40, 56, 3), 255, np.uint8))["pixel_values_videos"],
    )


def test_settings_of_a_call_hold_for_images_too(processor):
    picture = np.random.default_rng(0).integers(0, 256, (40, 56, 3), dtype=np.uint8)
    settings = {"size": {"shortest_edge": 20}, "crop_size": {"height": 16, "width": 24}}
    settings |= {"do_rescale": False, "do_normalize": False, "num_frames": 3, "start": 1.0, "end": 2.0}
    pixels = processor(images=[picture], **settings)["pixel_values_videos"]
    assert pixels.shape == (1, 1, 3, 16, 24) and pixels.max() > 100 and torch.equal(pixels, pixels.round())
    assert torch.equal(pixels[:, 0], processor(videos=[[picture]], **settings)["pixel_values_videos"][:, 0])
    within = {name: settings[name] for name in ("size", "crop_size", "do_rescale", "do_normalize")}
    assert torch.equal(pixels, processor(images=[picture], images_kwargs=within)["pixel_values_videos"])
    assert isinstance(FgmmImageProcessor()(picture, return_tensors="np")["pixel_values_videos"], np.ndarray)


def test_grey_and_transparent_and_turned_images(processor, tmp_path):
    grey = Image.fromarray(np.full((40, 40), 100, dtype=np.uint8))
    clear = Image.new("RGBA", (40, 40), (100, 100, 100, 255))
    pixels = processor(images=[grey, clear])["pixel_values_videos"]
    assert torch.allclose(pixels[0], pixels[1])
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 48, 3), dtype=np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by 90 degrees
    photo.save(tmp_path / "turned.png", exif=exif)
    turned = processor(images=[tmp_path / "turned.png"])["pixel_values_videos"]
    upright = processor(images=[photo.transpose(Image.Transpose.ROTATE_270)])["pixel_values_videos"]
    assert torch.allclose(turned, upright)


def test_every_kind_of_sound_gives_the_same_features(processor, tmp_path):
    path = write_wav(tmp_path / "tone.wav")
    expected = processor(audio=[path])["input_features"]
    samples = (16000 * np.sin(2 * np.pi * 440 * np.arange(16000) / 16000)).astype("<i2") / 32768
    for sound in (str(path), path.read_bytes(), io.BytesIO(path.read_bytes()), samples, torch.from_numpy(samples)):
        assert torch.allclose(processor(audio=[sound], sampling_rate=16000)["input_features"], expected, atol=2e-3)
    assert torch.allclose(processor(audio=[np.stack([samples, samples])])["input_features"], expected, atol=2e-3)
    data = path.read_bytes()
    for sound in ({"bytes": data, "path": "tone.wav"}, {"array": samples, "sampling_rate": 16000, "path": None}):
        assert torch.allclose(processor(audio=sound)["input_features"], expected, atol=2e-3)
    assert not processor(audio=[{"bytes": None, "path": None}])["input_features_mask"].any()


def test_the_rate_of_a_decoded_sound_is_its_own(processor):
    samples = np.sin(np.arange(8000) / 5)
    expected = processor(audio=samples, sampling_rate=8000)["input_features"]
    assert expected.shape[1] == 51
    decoded = processor(audio=[{"array": samples, "sampling_rate": 8000}], sampling_rate=16000)
    assert torch.equal(decoded["input_features"], expected)


def test_whole_numbers_are_scaled_as_in_wav_files(processor):
    samples = 0.5 * np.sin(2 * np.pi * 440 * np.arange(16000) / 16000)
    for kind, silence, loudest in (("int16", 0, 2**15), ("int32", 0, 2**31), ("uint8", 128, 128)):
        whole = np.round(samples * loudest + silence).astype(kind)
        for sound in (whole, torch.from_numpy(whole)):
            mono = to_mono(sound, None, 16000)
            assert mono.dtype == torch.float32 and np.abs(mono.numpy() - samples).max() <= 0.51 / loudest + 1e-7
    for sound in (whole.astype(np.int64), [1, 2, 3], whole > 128, np.array(["a"])):
        with pytest.raises(ValueError, match=r"Samples cannot be of type \S+; give floats"):
            processor(audio=[sound])


def test_sounds_that_would_be_misread_are_refused(processor):
    sound = np.zeros((16000, 2))
    with pytest.raises(ValueError, match=r"\(16000, 2\).* transpose it to \(channels, samples\)"):
        processor(audio=[sound])
    assert processor(audio=[sound.T])["input_features"].shape == processor(audio=[sound[:, 0]])["input_features"].shape
    for value in (np.nan, np.inf):
        sound[7] = value
        with pytest.raises(ValueError, match="no finite numbers"):
            processor.feature_extractor([sound[:, 0]])


def test_sound_at_another_rate_is_resampled(processor, tmp_path):
    path = write_wav(tmp_path / "tone.wav", rate=44100)
    samples = np.sin(2 * np.pi * 440 * np.arange(44100) / 44100) * 16000 / 32768
    from_file = processor(audio=[path])["input_features"][0, 10:-10]
    from_array = processor(audio=[samples], sampling_rate=44100)["input_features"][0, 10:-10]
    assert int(from_file.mean(0).argmax()) == int(from_array.mean(0).argmax())


def test_log_mel_against_a_plain_sum(processor):
    extractor = FgmmFeatureExtractor(feature_size=8, hop_length=100, win_length=200, n_fft=256)
    sound = torch.randn(2000, generator=torch.Generator().manual_seed(0))
    frame = 7
    padded = torch.nn.functional.pad(sound[None], (128, 128), mode="reflect")[0]
    window = torch.zeros(256)
    window[28:228] = torch.hann_window(200)
    power = torch.fft.rfft(padded[frame * 100 : frame * 100 + 256] * window).abs() ** 2
    expected = ((power @ extractor.mel_filters).clamp(min=1e-6).log() - extractor.mean) / extractor.std
    assert torch.allclose(extractor.log_mel(sound)[frame], expected, atol=1e-4)


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


def test_candidate_captions_stand_end_to_end(processor):
    inputs = processor(text=[["crack two eggs", "a small dog"], ["stir"]])
    assert inputs["phrase_captions"].tolist() == [[0, 1], [0, 0]]
    assert inputs["phrase_mask"].tolist() == [[True, True], [True, False]]
    ids = inputs["input_ids"][0]
    first, last = inputs["phrase_spans"][0, 1].tolist()
    assert processor.tokenizer.decode(ids[first:last]) == "small dog"


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


def test_everything_is_of_the_kind_that_was_asked_for(processor, tmp_path):
    path = write_video(tmp_path / "clip.mp4", sound=1.0)
    given = {"videos": [path], "audio": [path], "text": TEXTS[:1]}
    expected = processor(**given)
    arrays, tensors = processor(**given, return_tensors="np"), processor(**given, return_tensors=None)
    for name, values in expected.items():
        assert isinstance(arrays[name], np.ndarray) and np.array_equal(arrays[name], values)
        assert isinstance(tensors[name], torch.Tensor)
    picture = np.zeros((8, 8, 3), np.uint8)
    assert isinstance(processor(images=picture, return_tensors="np")["pixel_values_videos"], np.ndarray)


def test_settings_that_cannot_be_obeyed_are_refused(processor, encoders_at):
    frames = torch.zeros(4, 3, 32, 32, dtype=torch.uint8)
    for number in (0, -1):
        with pytest.raises(ValueError, match=f"num_frames={number} must be at least 1"):
            processor(videos=[frames], num_frames=number)
    for padding in ("bogus", False):
        with pytest.raises(ValueError, match=f"padding={padding!r} is neither"):
            processor(text=TEXTS, padding=padding)
    assert processor(text=TEXTS, padding="longest")["input_ids"].shape == processor(text=TEXTS)["input_ids"].shape
    bert = FgmmProcessor.from_encoders(text=encoders_at / "bert")
    for reader, fewest in ((processor, 1), (bert, 3)):
        for length in range(fewest):
            with pytest.raises(ValueError, match=f"max_length={length} has no room .* at least {fewest},"):
                reader(text=TEXTS, max_length=length)
        assert reader(text=TEXTS, max_length=fewest)["input_ids"].shape[1] == fewest


def test_round_trip(processor, tmp_path):
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


def test_a_call_leaves_no_trace_in_what_is_saved(processor, tmp_path):
    expected = processor(text=TEXTS)["input_ids"]
    processor(text=TEXTS, max_length=2)
    processor.save_pretrained(tmp_path / "cut")
    processor.tokenizer(TEXTS, padding=True)
    processor.save_pretrained(tmp_path / "padded")
    for name in ("cut", "padded"):
        assert torch.equal(AutoProcessor.from_pretrained(tmp_path / name)(text=TEXTS)["input_ids"], expected)


def test_wrong_calls_say_what_is_wrong(processor, tmp_path):
    with pytest.raises(ValueError, match="at least one"):
        processor()
    with pytest.raises(ValueError, match="either images or videos"):
        processor(images=[np.zeros((8, 8, 3), np.uint8)], videos=["x.mp4"])
    with pytest.raises(MediaError, match=r"nothing\.mp4"):
        processor(videos=[tmp_path / "nothing.mp4"])
    (tmp_path / "torn.png").write_bytes(b"\x89PNG\r\n\x1a\nrubbish")
    for name in ("torn.png", "nothing.png"):
        with pytest.raises(MediaError, match=name):
            processor(images=[tmp_path / name])
    with pytest.raises(ValueError, match="shape"):
        processor(videos=[np.zeros((4, 7, 32, 32), np.uint8)])
    with pytest.raises(ValueError, match="cannot be a int"):
        processor(videos=[3])
    with pytest.raises(ValueError, match="shape"):
        processor(audio=[np.zeros((2, 3, 4))])
    for text in ([[3]], [3], 3, ["a", None], [["a", None]], [["a"], 3], {"text": "a"}, [{"text": "a"}], b"a"):
        with pytest.raises(ValueError, match="candidate captions"):
            processor(text=text)
    with pytest.raises(TypeError, match="video_processor"):
        FgmmProcessor(processor.feature_extractor, processor.feature_extractor, processor.tokenizer)


def test_training_crops_follow_their_generator():
    video_processor = FgmmVideoProcessor(
        num_frames=2, size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}
    )
    frames = torch.randint(0, 256, (2, 3, 40, 60), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    crops = [video_processor.random_crop(frames, np.random.default_rng(seed), 0.3, True) for seed in (1, 1, 2)]
    assert crops[0].shape == (2, 3, 16, 16)
    assert torch.equal(crops[0], crops[1]) and not torch.equal(crops[0], crops[2])


def test_pixels_are_normalised(processor):
    pixels = processor(images=[np.full((32, 32, 3), 255, np.uint8)])["pixel_values_videos"]
    assert torch.allclose(pixels, torch.full_like(pixels, (1 - 0.45) / 0.225))
