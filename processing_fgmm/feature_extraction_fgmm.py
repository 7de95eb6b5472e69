"""Sounds to batches of what an encoder takes; for ours, waveforms to log-mel frames (torchaudio)."""

from abc import ABC, abstractmethod

import numpy as np
import torch

try:
    import torchaudio.functional as torchaudio_functional
except OSError as error:
    raise ImportError(
        "torchaudio's compiled files are linked against another build of torch; delete "
        "`lib/_torchaudio*` and `lib/libtorchaudio*` in its package folder, without which it works "
        "(`bash scripts/setup_environment.sh` does so)."
    ) from error

from transformers.feature_extraction_sequence_utils import SequenceFeatureExtractor
from transformers.feature_extraction_utils import BatchFeature

# What WAV files hold as whole numbers: the one that is silence, and how far the loudest is from it.
INTEGER_PCM = {"uint8": (128, 128), "int16": (0, 2**15), "int32": (0, 2**31)}


class SoundFeatureExtractor(SequenceFeatureExtractor, ABC):
    """Sounds of any kind to a batch; what an item is does not depend on the length of its neighbours."""

    model_input_names = ["input_features", "input_features_mask"]

    @abstractmethod
    def extract(self, waveform: torch.Tensor) -> tuple[torch.Tensor, int]:
        """One sound's values, (time, mel) or (samples,), and how many of them, from the first on, are not padding."""

    def __call__(self, raw_speech, sampling_rate: int | None = None, return_tensors="pt", **kwargs) -> BatchFeature:
        """
        Args:
            raw_speech: a waveform (samples,) or (channels, samples), array or tensor, floats in [-1, 1] or whole
                numbers as in WAV files (uint8, int16, int32), or a list of them; None in a list is an item without
                sound.
            sampling_rate: of the waveforms, Hz; they are resampled where it is not this extractor's own.
            return_tensors: `"pt"` or `"np"`; None is `"pt"`.

        Returns:
            `input_features` (B, time, mel), or (B, samples) for encoders of waveforms, and `input_features_mask` (B,
            time), False after a sound's end.

        Raises:
            ValueError: for what [`to_mono`] refuses.
        """
        batch = raw_speech if isinstance(raw_speech, (list, tuple)) else [raw_speech]
        if len(batch) and isinstance(batch[0], (int, float)):
            batch = [raw_speech]
        waveforms = [None if sound is None else to_mono(sound, sampling_rate, self.sampling_rate) for sound in batch]
        sounds = [None if waveform is None else self.extract(waveform) for waveform in waveforms]
        values = [sound[0] for sound in sounds if sound is not None] or [self.extract(torch.zeros(1))[0]]
        longest = max(len(value) for value in values)
        features = torch.full((len(sounds), longest, *values[0].shape[1:]), float(self.padding_value))
        mask = torch.zeros(len(sounds), longest, dtype=torch.bool)
        for row, sound in enumerate(sounds):
            if sound is not None:
                features[row, : len(sound[0])] = sound[0]
                mask[row, : sound[1]] = True
        data = {"input_features": features, "input_features_mask": mask}
        return BatchFeature(data, tensor_type=return_tensors)


class FgmmFeatureExtractor(SoundFeatureExtractor):
    """Mono waveforms to normalised log-mel frames.

    Args:
        feature_size: mel bands.
        sampling_rate: of the waveforms, Hz.
        hop_length: samples between two frames.
        win_length: samples under a frame's Hann window.
        n_fft: length of the Fourier transform, at least `win_length`.
        mean, std: taken off, and divided by, after the logarithm, so that typical sound has mean 0 and variance 1.
        padding_value: of frames after the sound's end.
    """

    def __init__(
        self,
        feature_size: int = 64,
        sampling_rate: int = 16000,
        hop_length: int = 160,
        win_length: int = 400,
        n_fft: int = 512,
        mean: float = -5.0,
        std: float = 4.0,
        padding_value: float = 0.0,
        **kwargs,
    ):
        super().__init__(feature_size, sampling_rate, padding_value, **kwargs)
        self.hop_length = hop_length
        self.win_length = win_length
        self.n_fft = n_fft
        self.mean = mean
        self.std = std
        self.window = torch.hann_window(win_length)
        self.mel_filters = torchaudio_functional.melscale_fbanks(
            n_fft // 2 + 1, 0.0, sampling_rate / 2, feature_size, sampling_rate, norm="slaney", mel_scale="htk"
        )

    def log_mel(self, waveform: torch.Tensor) -> torch.Tensor:
        """Samples (float, mono) to (frames, mel), one frame every `hop_length` samples, centred on its sample."""
        shortage = self.n_fft - len(waveform)
        if shortage > 0:  # reflection at the borders needs more samples than half a window
            waveform = torch.nn.functional.pad(waveform, (0, shortage))
        power = torchaudio_functional.spectrogram(
            waveform, 0, self.window, self.n_fft, self.hop_length, self.win_length, 2.0, False
        )
        mel = (power.T @ self.mel_filters).clamp(min=1e-6).log()
        return (mel - self.mean) / self.std

    def extract(self, waveform: torch.Tensor) -> tuple[torch.Tensor, int]:
        frames = self.log_mel(waveform)
        return frames, len(frames)


def to_mono(sound, sampling_rate: int | None, own_rate: int) -> torch.Tensor:
    """(samples,) or (channels, samples) at any rate to (samples,) at `own_rate`, floats in [-1, 1].

    Args:
        sound: array, tensor or list, of floats in [-1, 1], or of whole numbers as in WAV files: uint8, int16 or int32.
        sampling_rate, own_rate: Hz; None: it is at `own_rate`.

    Raises:
        ValueError: for another shape, (samples, channels) among them, another type, or samples that are not finite.
    """
    waveform = scale_samples(sound if isinstance(sound, torch.Tensor) else np.asarray(sound))
    shape = tuple(waveform.shape)
    if waveform.ndim not in (1, 2) or not waveform.numel():
        raise ValueError(f"A waveform of shape {shape} is neither (samples,) nor (channels, samples).")
    if waveform.ndim == 2 and shape[0] > shape[1]:
        raise ValueError(
            f"A waveform of shape {shape} has more channels than samples; transpose it to (channels, samples)."
        )
    if not waveform.isfinite().all():
        raise ValueError(f"A waveform of shape {shape} has samples that are no finite numbers; take them out.")
    waveform = waveform.mean(0) if waveform.ndim == 2 else waveform
    if sampling_rate is not None and sampling_rate != own_rate:
        waveform = torchaudio_functional.resample(waveform, sampling_rate, own_rate)
    return waveform


def scale_samples(sound: np.ndarray | torch.Tensor) -> torch.Tensor:
    """Samples of a known type to float32 in [-1, 1].

    Raises:
        ValueError: for another type; of whole numbers of 64 bits nobody knows which is the loudest.
    """
    kind = str(sound.dtype).removeprefix("torch.")
    if "float" not in kind and kind not in INTEGER_PCM:
        raise ValueError(f"Samples cannot be of type {kind}; give floats in [-1, 1], uint8, int16 or int32.")
    silence, loudest = INTEGER_PCM.get(kind, (0, 1))
    return (torch.as_tensor(sound).to(torch.float32) - silence) / loudest


__all__ = ["FgmmFeatureExtractor", "SoundFeatureExtractor"]
