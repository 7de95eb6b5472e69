import json

import numpy as np
import pytest
import torch
from helpers import TEXTS, write_video
from PIL import Image
from tiny_encoders import AUDIO, PICTURE_PROCESSORS, TEXT, VIDEO, make_model, make_picture_processor
from transformers import AutoFeatureExtractor, AutoProcessor, WhisperFeatureExtractor

from modeling_fgmm import FgmmConfig, FgmmModel
from processing_fgmm import FgmmEncoderFeatureExtractor, FgmmFeatureExtractor, FgmmProcessor, FgmmVideoProcessor
from processing_fgmm.hf_processors_fgmm import convert_settings


@pytest.mark.parametrize("name", PICTURE_PROCESSORS)
def test_pixels_equal_those_of_the_encoders_own_processor(name):
    own = make_picture_processor(name)
    ours = FgmmVideoProcessor(**convert_settings(own.to_dict()))
    ramp = np.linspace(0, 255, 108)  # scaled to whole numbers of pixels
    noise = np.random.default_rng(0).integers(0, 60, (72, 108, 3))
    picture = ((ramp[None, :, None] + noise) / 2 + [[[0, 20, 60]]]).clip(0, 255).astype(np.uint8)
    expected = torch.as_tensor(np.array(own([Image.fromarray(picture)])["pixel_values"][0])).reshape(3, 32, 32)
    pixels = ours(Image.fromarray(picture), num_frames=1)["pixel_values_videos"][0, 0]
    one_level = 1 / 255 / min(own.image_std)
    assert (pixels - expected).abs().max() < 1.5 * one_level


def test_settings_of_older_and_of_video_processors():
    clip = {
        "crop_size": 224,
        "do_center_crop": True,
        "size": 224,
        "resample": 3,
        "image_mean": [0.5] * 3,
        "image_std": [0.25] * 3,
    }
    ours = convert_settings(clip)
    assert ours["size"] == {"shortest_edge": 224} and ours["crop_size"] == {"height": 224, "width": 224}
    assert ours["resample"] == "bicubic" and ours["image_mean"] == pytest.approx([0.5] * 3)
    vit = convert_settings({"size": 384, "resample": 2, "image_mean": [0.5] * 3, "image_std": [0.5] * 3})
    assert vit["size"] == vit["crop_size"] == {"height": 384, "width": 384}
    videomae = convert_settings({"do_center_crop": True, "size": 224})
    assert videomae["crop_size"] == {"height": 224, "width": 224}
    vivit = {
        "size": {"shortest_edge": 256},
        "crop_size": {"height": 224, "width": 224},
        "do_center_crop": True,
        "rescale_factor": 1 / 127.5,
        "offset": True,
        "image_mean": [0.5] * 3,
        "image_std": [0.25] * 3,
    }
    ours = convert_settings(vivit)
    assert (0.7 - ours["image_mean"][0]) / ours["image_std"][0] == pytest.approx((0.7 * 2 - 1 - 0.5) / 0.25)
    with pytest.raises(ValueError, match="filter 1"):
        convert_settings({"size": 224, "resample": 1})


@pytest.mark.parametrize("name", ["ast", "wav2vec2", "whisper"])
def test_features_equal_those_of_the_encoders_own_extractor(name, encoders_at):
    """Compared after the encoder: its own padding, and ours with a mask, give the same features of short audio."""
    torch.manual_seed(0)
    model = FgmmModel.from_encoders(audio=encoders_at / name, text=encoders_at / "bert")
    processor = FgmmProcessor.from_encoders(audio=encoders_at / name, text=encoders_at / "bert")
    sounds = [np.sin(np.arange(length) * 0.1).astype(np.float32) * 0.3 for length in (5000, 9000)]
    own = AutoFeatureExtractor.from_pretrained(encoders_at / name)
    inputs = processor(audio=[*sounds, None], sampling_rate=16000)
    encoder = model.encoders["audio"].model
    with torch.no_grad():
        output = model.get_audio_features(**inputs)
        for row, sound in enumerate(sounds):
            values = own(sound, sampling_rate=16000, return_tensors="pt")[own.model_input_names[0]]
            expected = encoder(values).last_hidden_state[0]
            number = output.last_hidden_state.shape[1] if name != "wav2vec2" else len(expected)
            assert torch.allclose(output.last_hidden_state[row, :number], expected[-number:], atol=1e-4)
    counts = output.region_mask.sum(1).tolist()
    assert 0 < counts[0] < counts[1] and counts[2] == 0
    seconds = {"ast": 0.6, "wav2vec2": 9000 / 16000, "whisper": 1.0}[name]
    frequencies, times = output.grid
    for row, sound in enumerate(sounds):
        assert abs(counts[row] / frequencies - times * len(sound) / 16000 / seconds) < 2.5
    assert processor.feature_extractor([None])["input_features_mask"].any().item() is False


@pytest.mark.parametrize("name", ["ast", "wav2vec2", "whisper"])
def test_feature_extractors_are_saved_with_the_settings_of_the_encoders_own(name, encoders_at, tmp_path):
    own = AutoFeatureExtractor.from_pretrained(encoders_at / name).to_dict()
    made = FgmmProcessor.from_encoders(audio=encoders_at / name, text=encoders_at / "bert")
    made.save_pretrained(tmp_path / "saved")
    processor = AutoProcessor.from_pretrained(tmp_path / "saved")
    again = FgmmProcessor.from_encoders(audio=tmp_path / "saved", text=encoders_at / "bert")
    extractors = [
        processor.feature_extractor,
        again.feature_extractor,
        AutoFeatureExtractor.from_pretrained(tmp_path / "saved"),
    ]
    for extractor in extractors:
        assert type(extractor) is FgmmEncoderFeatureExtractor
        assert extractor.wrapped.to_dict().items() >= own.items()
    arrays = extractor(np.zeros(8000), sampling_rate=8000, return_tensors="np")
    assert arrays["input_features"].shape[:2] == arrays["input_features_mask"].shape
    assert all(isinstance(values, np.ndarray) for values in arrays.values())


def test_the_encoders_own_extractor_is_wrapped_when_it_is_loaded(encoders_at, tmp_path):
    """Processors that were saved with an unwrapped extractor still load."""
    processor = FgmmProcessor.from_encoders(audio=encoders_at / "whisper", text=encoders_at / "bert")
    processor.save_pretrained(tmp_path)
    settings = json.loads((tmp_path / "processor_config.json").read_text())
    settings["feature_extractor"] = WhisperFeatureExtractor(feature_size=24, chunk_length=1).to_dict()
    (tmp_path / "processor_config.json").write_text(json.dumps(settings))
    loaded = AutoProcessor.from_pretrained(tmp_path)
    sound = np.sin(np.arange(9000) * 0.1)
    assert torch.equal(loaded(audio=sound)["input_features"], processor(audio=sound)["input_features"])
    with pytest.raises(ValueError, match="DacFeatureExtractor is none of the feature extractors ASTFeatureExtractor"):
        FgmmEncoderFeatureExtractor("DacFeatureExtractor")


def test_audio_at_another_rate_is_resampled(encoders_at):
    processor = FgmmProcessor.from_encoders(audio=encoders_at / "wav2vec2", text=encoders_at / "bert")
    sound = np.sin(np.arange(44100) / 44100 * 2 * np.pi * 440)
    assert processor(audio=[sound], sampling_rate=44100)["input_features"].shape == (1, 16000)


@pytest.mark.parametrize(
    ("video", "audio", "text"),
    [("videomae", "ast", "bert"), ("clip", "whisper", "clip"), ("siglip", "wav2vec2", "bert")],
)
def test_files_through_processor_and_model(encoders_at, video, audio, text, tmp_path):
    encoders = {"video": encoders_at / video, "audio": encoders_at / audio, "text": encoders_at / text}
    model, processor = FgmmModel.from_encoders(**encoders), FgmmProcessor.from_encoders(**encoders)
    clip = write_video(tmp_path / "clip.mp4", sound=1.0)
    long = write_video(tmp_path / "long.mp4", seconds=3.0, sound=3.0)
    photo = tmp_path / "photo.jpg"
    Image.fromarray(np.full((40, 60, 3), 120, np.uint8)).save(photo)
    texts = [[TEXTS[0], "a small dog"], [TEXTS[1]]]
    inputs = processor(videos=[clip, long.read_bytes()], audio=[clip, long], text=texts, start=0.5, end=1.0)
    outputs = model(**inputs)
    assert torch.isfinite(outputs.logits_per_text).all() and outputs.logits_per_audio.shape == (2, 2)
    assert inputs["pixel_values_videos"].shape[1] == (4 if video == "videomae" else 8)
    assert inputs["caption_lengths"].sum(1).tolist() == inputs["attention_mask"].sum(1).tolist()
    tokenizer = processor.tokenizer
    first, last = inputs["phrase_spans"][0, -1].tolist()
    assert tokenizer.decode(inputs["input_ids"][0, first:last]).replace(" ", "") == "smalldog"
    assert not set(tokenizer.all_special_ids) & set(inputs["input_ids"][0, first:last].tolist())
    assert torch.isfinite(model(**processor(images=[photo])).video_embeds).all()
    alone = model(**processor(text=["a small dog"])).text_output
    assert torch.allclose(outputs.text_output.caption_embeds[0, 1], alone.caption_embeds[0, 0], atol=1e-5)

    processor.save_pretrained(tmp_path / "saved")
    loaded = AutoProcessor.from_pretrained(tmp_path / "saved")
    assert isinstance(loaded, FgmmProcessor) and type(loaded.feature_extractor) is type(processor.feature_extractor)
    again = loaded(videos=[clip, long.read_bytes()], audio=[clip, long], text=texts, start=0.5, end=1.0)
    assert all(torch.equal(inputs[name], again[name]) for name in inputs)


def test_processors_of_configurations_fit_their_encoders(word_tokenizer, tmp_path):
    clip = write_video(tmp_path / "clip.mp4", sound=1.0)
    for video, audio in (("videomae", "whisper"), ("vjepa2", "ast"), ("dinov2", "hubert")):
        model = make_model(video, audio, "bert")
        processor = FgmmProcessor.from_encoders(VIDEO[video], AUDIO[audio], tokenizer=word_tokenizer)
        assert torch.isfinite(model(**processor(videos=[clip], audio=[clip], text=TEXTS[:1])).logits_per_text).all()
    own = FgmmConfig(audio_config={"num_mel_bins": 40})
    assert FgmmProcessor.from_encoders(audio=own.audio_config, text=word_tokenizer).feature_extractor.feature_size == 40


def test_texts_are_truncated_to_the_encoders_length(encoders_at):
    processor = FgmmProcessor.from_encoders(text=encoders_at / "bert")
    assert processor.tokenizer.model_max_length == 64
    assert processor(text=[["dog " * 500, "dog"]])["caption_lengths"].tolist() == [[64, 3]]
    processor.tokenizer.model_max_length = 10_000
    model = make_model(text="clip", audio=None)
    with pytest.raises(ValueError, match="takes at most 77"):
        model(**processor(text=["dog " * 500]))


def test_a_processor_needs_a_fast_tokenizer(encoders_at):
    for text in (None, TEXT["bert"]):
        with pytest.raises(ValueError, match="needs a tokenizer"):
            FgmmProcessor.from_encoders(text=text)

    class SlowTokenizer:
        is_fast = False
        model_max_length = 10

    with pytest.raises((ValueError, TypeError), match="tokenizer"):
        FgmmProcessor.from_encoders(text=SlowTokenizer())
    assert isinstance(FgmmProcessor.from_encoders(text=encoders_at / "bert").feature_extractor, FgmmFeatureExtractor)
