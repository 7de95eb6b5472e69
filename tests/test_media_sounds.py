"""Samples as a player would give them: mixed to one channel as arrays are, never outside [-1, 1], of every format."""

import struct
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from media_files import BY_NAME, KINDS, LOUDNESS, RATE, Kind, media_bytes, sine, whole_file, write_media

from processing_fgmm import FgmmFeatureExtractor
from processing_fgmm.media_fgmm import Media, read_waveform

STEREO = [kind for kind in KINDS if kind.audio and kind.layout == "stereo"]
FORMATS = {"pcm_u8": 1 / 128, "pcm_s16le": 2**-15, "pcm_s24le": 2**-15, "pcm_s32le": 2**-15, "pcm_f32le": 1e-6}


def wav(layout: str, codec: str = "pcm_f32le", rate: int = RATE) -> Kind:
    return Kind("wav", ".wav", None, codec, sound_rate=rate, layout=layout)


@pytest.mark.parametrize("kind", STEREO, ids=str)
def test_stereo_is_as_loud_as_each_of_two_equal_channels(kind):
    beep = read_waveform(whole_file(kind), RATE, 2.08, 2.18)
    assert float(beep.square().mean().sqrt()) == pytest.approx(LOUDNESS / 2**0.5, rel=0.08)  # MP3 loses 5 %
    assert float(beep.abs().max()) == pytest.approx(LOUDNESS, rel=0.1)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.audio], ids=str)
def test_sound_begins_alike_before_and_after_other_reading(kind):
    """A tone from the first sample on, so that a packet of the encoder's delay that is left out is heard."""
    data = media_bytes(kind, seconds=2.0, sound=sine(300, 2.0, kind.sound_rate))
    with Media(data) as media:
        media.read_waveform(RATE, 1.0, 1.5)
        wave, alone = media.read_waveform(RATE, 0.0, 1.0), read_waveform(data, RATE, 0.0, 1.0)
    assert torch.allclose(wave, alone, atol=2e-3)  # AAC's decoder fills in noise


CHANNELS = {"mono": 1, "stereo": 2, "2.1": 3, "quad": 4, "5.1": 6, "7.1": 8}


@pytest.mark.parametrize("layout", CHANNELS)
def test_a_file_of_several_channels_is_their_mean_as_an_array_is(layout):
    sound = np.random.default_rng(0).uniform(-1, 1, (CHANNELS[layout], RATE)).astype(np.float32)
    wave = read_waveform(media_bytes(wav(layout), sound=sound), RATE)
    assert torch.allclose(wave, torch.from_numpy(sound.mean(0)), atol=1e-5)


@pytest.mark.parametrize("layout", ["mono", "stereo", "5.1"])
@pytest.mark.parametrize("rate", [RATE, 44100])
def test_a_file_and_an_array_give_the_same_features(layout, rate):
    noise = np.random.default_rng(1).normal(0, 0.1, (CHANNELS[layout], 2 * rate)).cumsum(1)
    sound = (noise / np.abs(noise).max(1, keepdims=True)).astype(np.float32)
    extractor = FgmmFeatureExtractor(feature_size=32)
    of_file = extractor(read_waveform(media_bytes(wav(layout, rate=rate), sound=sound), RATE), RATE)["input_features"]
    of_array = extractor(sound, rate)["input_features"]
    assert of_file.shape == of_array.shape
    # In the lower bands, where the two resamplers agree; typical sound varies by 1.
    assert float((of_file - of_array)[..., :24].abs().mean()) < 0.02


@pytest.mark.parametrize("side", [0, 1])
def test_one_silent_channel_halves_the_sound(side):
    sound = np.zeros((2, RATE), np.float32)
    sound[side] = sine(440, 1.0, RATE)
    wave = read_waveform(media_bytes(wav("stereo"), sound=sound), RATE)
    assert torch.allclose(wave, torch.from_numpy(sound.mean(0)), atol=1e-5)


def test_channels_of_opposite_sign_are_silence():
    left = sine(440, 1.0, RATE)
    wave = read_waveform(media_bytes(wav("stereo"), sound=np.stack([left, -left])), RATE)
    assert float(wave.abs().max()) < 1e-5


@pytest.mark.parametrize("codec", FORMATS)
def test_every_width_of_samples_keeps_its_values(codec):
    sound = np.array([0, 0.5, -0.5, 0.25, -0.25, 0.984375, -1.0, 0] * 200)
    wave = read_waveform(media_bytes(wav("mono", codec), sound=sound), RATE)
    assert np.abs(wave.numpy() - sound).max() <= FORMATS[codec]


LOUD = {
    "samples-beyond-1": lambda rate: 3 * sine(440, 1.0, rate),
    "full-scale-square-wave": lambda rate: np.sign(sine(441.7, 1.0, rate) + 1e-9),
    "one-huge-sample": lambda rate: np.eye(1, rate, rate // 2)[0] * 1e30,
}


@pytest.mark.parametrize("layout", ["mono", "stereo", "5.1"])
@pytest.mark.parametrize("rate", [RATE, 44100, 8000])
@pytest.mark.parametrize("sound", LOUD)
def test_samples_stay_within_1(sound, rate, layout):
    wave = read_waveform(media_bytes(wav(layout, rate=rate), sound=LOUD[sound](rate)), RATE)
    assert wave.dtype == torch.float32 and wave.shape == (RATE,)
    assert float(wave.abs().max()) <= 1.0 and float(wave.max()) > 0.3


@pytest.mark.parametrize("name", ["mp3-xing", "ogg-opus", "m4a-aac", "ogg-vorbis"])
def test_decoders_that_overshoot_stay_within_1(name):
    kind = BY_NAME[name]
    sound = np.sign(sine(441.7, 1.0, kind.sound_rate) + 1e-9)
    wave = read_waveform(media_bytes(kind, sound=sound), RATE)
    assert 0.9 < float(wave.abs().max()) <= 1.0


@pytest.fixture(scope="module")
def ramp(tmp_path_factory):
    """A WAV file of 3 s at 16 kHz whose sample n is n/48000."""
    path = tmp_path_factory.mktemp("ramp") / "ramp.wav"
    return write_media(path, wav("mono"), sound=np.arange(3 * RATE) / (3 * RATE))


@settings(max_examples=40, deadline=None)
@given(start=st.floats(0, 2.9), seconds=st.floats(0.01, 3.0), rate=st.sampled_from([8000, 16000, 22050, 44100]))
def test_a_window_has_all_its_samples_and_silence_behind_the_end(ramp, start, seconds, rate):
    wave = read_waveform(ramp, rate, start, start + seconds)
    assert wave.shape == (round((start + seconds - start) * rate),)
    times = start + np.arange(len(wave)) / rate
    inside = times < 2.99  # the resampler rings at the end
    inside[:20] &= start == 0 or rate == RATE  # and at the beginning of a window
    assert np.abs(wave.numpy() - times / 3)[inside].max(initial=0) < 2e-3
    assert float(wave[torch.from_numpy(times > 3.01)].abs().sum()) < 1e-3


def test_a_window_at_the_rate_of_the_file_has_its_very_samples(ramp):
    whole = read_waveform(ramp, RATE)
    assert torch.equal(read_waveform(ramp, RATE, 1.0, 1.5), whole[RATE : RATE + RATE // 2])


def test_whole_numbers_of_a_wav_file_without_a_channel_mask_are_its_mean(tmp_path):
    """Six channels of 16 bits under the plain header that many recorders write."""
    sound = np.random.default_rng(2).integers(-(2**15), 2**15, (RATE, 6), dtype="<i2")
    data, size = sound.tobytes(), sound.nbytes
    head = struct.pack(
        "<4sI4s4sIHHIIHH4sI", b"RIFF", 36 + size, b"WAVE", b"fmt ", 16, 1, 6, RATE, RATE * 12, 12, 16, b"data", size
    )
    (tmp_path / "six.wav").write_bytes(head + data)
    wave = read_waveform(tmp_path / "six.wav", RATE)
    assert np.abs(wave.numpy() - sound.mean(1) / 2**15).max() < 1e-4


@pytest.mark.parametrize("layout", ["mono", "stereo"])
def test_sound_of_a_video_is_as_loud_as_that_of_a_sound_file(layout):
    kind = replace(BY_NAME["mkv-h264-flac"], layout=layout, sound_rate=RATE)
    sound = np.random.default_rng(3).uniform(-0.9, 0.9, (CHANNELS[layout], RATE)).astype(np.float32)
    of_video = read_waveform(media_bytes(kind, seconds=1, sound=sound), RATE, 0.0, 1.0)
    assert np.abs(of_video.numpy() - sound.mean(0)).max() < 1e-3
