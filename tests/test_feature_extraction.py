import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from processing_fgmm import FgmmFeatureExtractor
from processing_fgmm.feature_extraction_fgmm import to_waveform


def sine(seconds=1.0, frequency=440.0, rate=16000) -> np.ndarray:
    """(S,) float64, amplitude 0.5."""
    return 0.5 * np.sin(2 * np.pi * frequency * np.arange(round(seconds * rate)) / rate)


def test_integers_are_scaled_as_in_wav_files():
    samples = sine()
    for kind, silence, full_scale in (("int16", 0, 2**15), ("int32", 0, 2**31), ("uint8", 128, 128)):
        integers = np.round(samples * full_scale + silence).astype(kind)
        for audio in (integers, torch.from_numpy(integers)):
            waveform = to_waveform(audio, None, 16000)
            assert waveform.dtype == torch.float32
            assert np.abs(waveform.numpy() - samples).max() <= 0.51 / full_scale + 1e-7
    for audio in (integers.astype(np.int64), [1, 2, 3], integers > 128, np.array(["a"])):
        with pytest.raises(ValueError, match=r"Samples cannot be of type \S+; give floats"):
            to_waveform(audio, None, 16000)


def test_audio_that_would_be_misread_is_refused():
    with pytest.raises(ValueError, match=r"\(16000, 2\).* transpose it to \(channels, samples\)"):
        to_waveform(np.zeros((16000, 2)), None, 16000)
    for shape in ((2, 3, 4), (0,), ()):
        with pytest.raises(ValueError, match=r"cannot be of shape .*; give \(samples,\) or \(channels, samples\)"):
            to_waveform(np.zeros(shape), None, 16000)
    for value in (np.nan, np.inf):
        samples = sine()
        samples[7] = value
        with pytest.raises(ValueError, match="no finite numbers; remove them"):
            to_waveform(samples, None, 16000)


def test_channels_are_averaged_and_rates_converted():
    stereo = np.stack([sine(), sine(frequency=880)])
    assert torch.allclose(to_waveform(stereo, None, 16000), torch.from_numpy(stereo.mean(0)).float())
    resampled = to_waveform(sine(rate=44100), 44100, 16000)
    assert resampled.shape == (16000,)
    assert np.abs(resampled.numpy() - sine())[500:-500].max() < 1e-3


def test_log_mel_against_a_plain_sum():
    extractor = FgmmFeatureExtractor(feature_size=8, hop_length=100, win_length=200, n_fft=256)
    waveform = torch.randn(2000, generator=torch.Generator().manual_seed(0))
    frame = 7
    padded = torch.nn.functional.pad(waveform[None], (128, 128), mode="reflect")[0]
    window = torch.zeros(256)
    window[28:228] = torch.hann_window(200)
    power = torch.fft.rfft(padded[frame * 100 : frame * 100 + 256] * window).abs() ** 2
    expected = ((power @ extractor.mel_filters).clamp(min=1e-6).log() - extractor.mean) / extractor.std
    assert torch.allclose(extractor.log_mel(waveform)[frame], expected, atol=1e-4)


@settings(max_examples=20, deadline=None, derandomize=True)
@given(st.lists(st.integers(0, 3000), min_size=1, max_size=4))
def test_a_batch_is_its_items_one_by_one(lengths):
    """A length of 0 is an item without audio."""
    extractor = FgmmFeatureExtractor(feature_size=8, hop_length=160, padding_value=-2.5)
    items = [sine(length / 16000) if length else None for length in lengths]
    batch = extractor(items)
    features, mask = batch["input_features"], batch["input_features_mask"]
    assert features.dtype == torch.float32 and mask.dtype == torch.bool and features.shape[:2] == mask.shape
    for row, item in enumerate(items):
        number = int(mask[row].sum())
        assert mask[row, :number].all() and (features[row, number:] == -2.5).all()
        if item is None:
            assert number == 0
        else:
            assert torch.equal(features[row, :number], extractor(item)["input_features"][0])


def test_a_list_of_samples_is_one_item():
    extractor = FgmmFeatureExtractor()
    listed, array = extractor(sine().tolist()), extractor(sine(), return_tensors="np")
    assert isinstance(array["input_features"], np.ndarray) and array["input_features"].shape == (1, 101, 64)
    assert np.allclose(listed["input_features"], array["input_features"])
