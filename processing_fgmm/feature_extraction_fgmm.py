"""Waveform to log-mel frames (torchaudio)."""

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


class FgmmFeatureExtractor(SequenceFeatureExtractor):
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

    model_input_names = ["input_features", "input_features_mask"]

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

    def __call__(self, raw_speech, sampling_rate: int | None = None, return_tensors="pt", **kwargs) -> BatchFeature:
        """
        Args:
            raw_speech: a waveform (samples,) or (channels, samples), array or tensor, in [-1, 1], or a list of them;
                None in a list is an item without sound.
            sampling_rate: of the waveforms, Hz; they are resampled where it is not this extractor's own.
            return_tensors: `"pt"`.

        Returns:
            `input_features` (B, time, mel) and `input_features_mask` (B, time), False after a sound's end.

        Raises:
            ValueError: for a waveform that is empty or of more than two axes.
        """
        batch = raw_speech if isinstance(raw_speech, (list, tuple)) else [raw_speech]
        if len(batch) and isinstance(batch[0], (int, float)):
            batch = [raw_speech]
        frames = [
            None if sound is None else self.log_mel(to_mono(sound, sampling_rate, self.sampling_rate))
            for sound in batch
        ]
        longest = max((len(item) for item in frames if item is not None), default=1)
        features = torch.full((len(batch), longest, self.feature_size), float(self.padding_value))
        mask = torch.zeros(len(batch), longest, dtype=torch.bool)
        for row, item in enumerate(frames):
            if item is not None:
                features[row, : len(item)] = item
                mask[row, : len(item)] = True
        data = {"input_features": features, "input_features_mask": mask}
        return BatchFeature(data, tensor_type=return_tensors)


def to_mono(sound, sampling_rate: int | None, own_rate: int) -> torch.Tensor:
    """(samples,) or (channels, samples) at any rate to (samples,) at `own_rate`; rates in Hz, None: it is that one."""
    waveform = torch.as_tensor(np.asarray(sound) if not isinstance(sound, torch.Tensor) else sound)
    waveform = waveform.to(torch.float32)
    if waveform.ndim == 2:
        waveform = waveform.mean(0)
    if waveform.ndim != 1 or not len(waveform):
        raise ValueError(f"A waveform of shape {tuple(waveform.shape)} is neither (samples,) nor (channels, samples).")
    if sampling_rate is not None and sampling_rate != own_rate:
        waveform = torchaudio_functional.resample(waveform, sampling_rate, own_rate)
    return waveform


__all__ = ["FgmmFeatureExtractor"]
