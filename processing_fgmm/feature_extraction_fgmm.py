"""Waveforms to batches of audio features; for our audio encoder, normalised log-mel frames by torchaudio."""

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

# Integer samples of WAV files: the value of silence, and the full scale.
INTEGER_PCM = {"uint8": (128, 128), "int16": (0, 2**15), "int32": (0, 2**31)}


class WaveformFeatureExtractor(SequenceFeatureExtractor, ABC):
    """Base of the feature extractors: resamples waveforms, extracts features one by one, pads and masks the batch.

    The features of an item do not depend on the other items of its batch.
    """

    model_input_names = ["input_features", "input_features_mask"]

    @abstractmethod
    def extract(self, waveform: torch.Tensor) -> tuple[torch.Tensor, int]:
        """Features of one waveform.

        Args:
            waveform: (S,) float32 in [-1, 1] at this extractor's sampling rate.

        Returns:
            (frames, mel bands) or, for encoders of waveforms, (S,) float32; and how many of the frames or samples, from
            the first on, are not padding.
        """

    def __call__(self, raw_speech, sampling_rate: int | None = None, return_tensors="pt", **kwargs) -> BatchFeature:
        """
        Args:
            raw_speech: a waveform (S,) or (channels, S), as array, tensor or list, or a list of them: floats in
                [-1, 1], or integers as in WAV files (uint8, int16, int32); None in a list is an item without audio.
            sampling_rate: of the waveforms, Hz, which are resampled to that of this extractor; None: the same.
            return_tensors: `"pt"` or `"np"`; None means `"pt"`.

        Returns:
            `input_features` (B, frames, mel bands) float32, or (B, S) for encoders of waveforms, and
            `input_features_mask` (B, frames) or (B, S) bool, False for padding.

        Raises:
            ValueError: for a waveform of another shape or type, or one that is not finite (see [`to_waveform`]).
        """
        batch = raw_speech if isinstance(raw_speech, (list, tuple)) else [raw_speech]
        if len(batch) and isinstance(batch[0], (int, float)):
            batch = [raw_speech]
        extracted = {
            row: self.extract(to_waveform(audio, sampling_rate, self.sampling_rate))
            for row, audio in enumerate(batch)
            if audio is not None
        }
        features = [values for values, _ in extracted.values()] or [self.extract(torch.zeros(1))[0]]
        longest = max(len(values) for values in features)
        padded = torch.full((len(batch), longest, *features[0].shape[1:]), float(self.padding_value))
        mask = torch.zeros(len(batch), longest, dtype=torch.bool)
        for row, (values, length) in extracted.items():
            padded[row, : len(values)] = values
            mask[row, :length] = True
        return BatchFeature({"input_features": padded, "input_features_mask": mask}, tensor_type=return_tensors)


class FgmmFeatureExtractor(WaveformFeatureExtractor):
    """Waveforms to normalised log-mel frames: (log(max(mel power, 1e-6)) - mean) / std.

    Args:
        feature_size: number of mel bands.
        sampling_rate: of the waveforms, Hz.
        hop_length: samples from one frame to the next.
        win_length: samples in the Hann window of a frame.
        n_fft: length of the Fourier transform in samples, at least `win_length`.
        mean, std: of the natural logarithm; the defaults give typical audio about mean 0 and variance 1.
        padding_value: of frames after the end of an item.
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

    def log_mel(self, waveforms: torch.Tensor) -> torch.Tensor:
        """Waveforms (..., S) float32 in [-1, 1] to (..., frames, mel bands) float32, on the device where they are.

        Frame i is centred on sample i · hop_length.
        """
        shortage = self.n_fft - waveforms.shape[-1]
        if shortage > 0:  # reflection at the borders needs more samples than half a transform
            waveforms = torch.nn.functional.pad(waveforms, (0, shortage))
        window, filters = self.window.to(waveforms.device), self.mel_filters.to(waveforms.device)
        power = torchaudio_functional.spectrogram(
            waveforms, 0, window, self.n_fft, self.hop_length, self.win_length, 2.0, False
        )
        mel = (power.transpose(-1, -2) @ filters).clamp(min=1e-6).log()
        return (mel - self.mean) / self.std

    def extract_batch(self, waveforms: torch.Tensor, lengths: list[int]) -> dict[str, torch.Tensor]:
        """The inputs of waveforms that are on a device, where they stay.

        Args:
            waveforms: (B, S) float32 in [-1, 1], padded at the end.
            lengths: (B,) samples of each; 0 for an item without audio.

        Returns:
            see [`WaveformFeatureExtractor.__call__`].
        """
        rows_of = {length: [row for row, other in enumerate(lengths) if other == length] for length in set(lengths)}
        extracted = {length: self.log_mel(waveforms[rows, :length]) for length, rows in rows_of.items() if length}
        longest = max((values.shape[1] for values in extracted.values()), default=self.log_mel(torch.zeros(1)).shape[0])
        padded = waveforms.new_full((len(waveforms), longest, self.feature_size), float(self.padding_value))
        mask = torch.zeros(len(waveforms), longest, dtype=torch.bool, device=waveforms.device)
        for length, values in extracted.items():
            padded[rows_of[length], : values.shape[1]] = values
            mask[rows_of[length], : values.shape[1]] = True
        return {"input_features": padded, "input_features_mask": mask}

    def extract(self, waveform: torch.Tensor) -> tuple[torch.Tensor, int]:
        frames = self.log_mel(waveform)
        return frames, len(frames)


def to_waveform(audio, sampling_rate: int | None, target_rate: int) -> torch.Tensor:
    """Samples of any known type, number of channels and rate to a mono waveform.

    Args:
        audio: (S,) or (channels, S) array, tensor or list: floats in [-1, 1], or integers as in WAV files (uint8,
            int16, int32).
        sampling_rate: of `audio`, Hz; None: `target_rate`.
        target_rate: of the result, Hz.

    Returns:
        (S,) float32 in [-1, 1]: the mean of the channels, resampled.

    Raises:
        ValueError: for another shape, (S, channels) included, another type, or samples that are not finite.
    """
    waveform = pcm_to_float(audio if isinstance(audio, torch.Tensor) else np.asarray(audio))
    shape = tuple(waveform.shape)
    if waveform.ndim not in (1, 2) or not waveform.numel():
        raise ValueError(f"A waveform cannot be of shape {shape}; give (samples,) or (channels, samples).")
    if waveform.ndim == 2 and shape[0] > shape[1]:
        raise ValueError(
            f"A waveform of shape {shape} has more channels than samples; transpose it to (channels, samples)."
        )
    if not waveform.isfinite().all():
        raise ValueError(f"A waveform of shape {shape} has samples that are no finite numbers; remove them.")
    waveform = waveform.mean(0) if waveform.ndim == 2 else waveform
    if sampling_rate is not None and sampling_rate != target_rate:
        waveform = torchaudio_functional.resample(waveform, sampling_rate, target_rate)
    return waveform


def pcm_to_float(samples: np.ndarray | torch.Tensor) -> torch.Tensor:
    """Floats or integer PCM of any shape to float32 in [-1, 1] of that shape.

    Raises:
        ValueError: for another type, int64 included, whose full scale is unknown.
    """
    dtype = str(samples.dtype).removeprefix("torch.")
    if "float" not in dtype and dtype not in INTEGER_PCM:
        raise ValueError(f"Samples cannot be of type {dtype}; give floats in [-1, 1], uint8, int16 or int32.")
    silence, full_scale = INTEGER_PCM.get(dtype, (0, 1))
    return (torch.as_tensor(samples).to(torch.float32) - silence) / full_scale


__all__ = ["FgmmFeatureExtractor", "WaveformFeatureExtractor", "to_waveform"]
