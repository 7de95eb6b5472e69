"""Decoded clips to model inputs in two steps: in a worker what is small to send, on the device what a model takes.

Frames travel as uint8 and are normalised on the device. Where that is not the CPU, waveforms travel, and our log-mel
frames are made there.
"""

import torch
import torch.nn.functional as F

from .clips_fgmm import Clip, collate
from .processing_fgmm import FgmmProcessor
from .video_processing_fgmm import uniform_indices

# What stays on the CPU, where it is looked at.
ON_CPU = ("waveform_lengths",)


def collate_part(
    processor: FgmmProcessor,
    clips: list[Clip],
    with_video: bool,
    with_audio: bool,
    sends_waveforms: bool,
    with_text: bool = True,
) -> dict[str, torch.Tensor]:
    """Clips to what travels from a worker, from which [`finish_inputs`] makes the inputs of [`collate`].

    Args:
        processor: makes the inputs.
        clips: B decoded and cropped clips.
        with_video, with_audio, with_text: modalities of the inputs.
        sends_waveforms: give `waveforms` (B, S) float32, padded by 0, and `waveform_lengths` (B,) int64, 0 without
            audio, in place of audio features.

    Returns:
        the inputs of [`collate`], but `pixel_values_videos` (B, T, 3, H, W) uint8.
    """
    part = {}
    if with_video:
        video, clips_frames = processor.video_processor, [clip.frames for clip in clips]
        longest = max((len(frames) for frames in clips_frames if frames is not None), default=1)
        cropped = [
            None if frames is None else video.resize_and_crop(video.load_frames(frames, longest))
            for frames in clips_frames
        ]
        part.update(video.stack_clips(cropped))
    if with_audio and sends_waveforms:
        waveforms = [torch.zeros(0) if clip.waveform is None else clip.waveform for clip in clips]
        part["waveforms"] = torch.nn.utils.rnn.pad_sequence(waveforms, batch_first=True)
        part["waveform_lengths"] = torch.tensor([len(waveform) for waveform in waveforms])
    with_features = with_audio and not sends_waveforms
    if with_features or with_text:
        part.update(collate(processor, clips, with_video=False, with_audio=with_features, with_text=with_text))
    return part


def join_inputs(
    parts: list[dict[str, torch.Tensor]], processor: FgmmProcessor, device: torch.device, order: list[int]
) -> dict[str, torch.Tensor]:
    """What was collated apart, as if it had been collated together.

    Args:
        parts: tensors (b, ...), with the b of each part and padded to its longest item.
        processor: that made them.
        device: that they are moved to.
        order: (B,) which item, of all parts end to end, comes first, second and so on.

    Returns:
        tensors (B, ...), padded to the longest item of all.
    """
    padding = {
        "input_ids": processor.tokenizer.pad_token_id,
        "input_features": processor.feature_extractor.padding_value,
    }
    places = torch.empty(len(order), dtype=torch.long)
    places[torch.tensor(order)] = torch.arange(len(order))
    joined = {}
    for name in parts[0]:
        place = torch.device("cpu") if name in ON_CPU else device
        tensors = [part[name].to(place, non_blocking=True) for part in parts]
        longest = [max(sizes) for sizes in zip(*(tensor.shape[1:] for tensor in tensors), strict=True)]
        whole, rows, first = tensors[0].new_empty(len(order), *longest), places.to(place), 0
        for tensor in tensors:
            whole[rows[first : first + len(tensor)]] = lengthen(name, tensor, longest, padding.get(name, 0))
            first += len(tensor)
        joined[name] = whole
    return joined


def lengthen(name: str, tensor: torch.Tensor, sizes: list[int], value: float) -> torch.Tensor:
    """Inputs (b, ...) padded to (b, *sizes) with `value`; images become videos of one frame many times."""
    if name == "pixel_values_videos" and tensor.shape[1] != sizes[0]:
        tensor = tensor[:, uniform_indices(tensor.shape[1], sizes[0]).to(tensor.device)]
    missing = [size - present for size, present in zip(sizes, tensor.shape[1:], strict=True)]
    if not any(missing):
        return tensor
    return F.pad(tensor, [count for size in reversed(missing) for count in (0, size)], value=value)


def finish_inputs(inputs: dict[str, torch.Tensor], processor: FgmmProcessor) -> dict[str, torch.Tensor]:
    """What [`collate_part`] gave to model inputs, on the device where it is."""
    finished = dict(inputs)
    if "pixel_values_videos" in inputs:
        video = {name: inputs[name] for name in processor.video_processor.model_input_names}
        finished["pixel_values_videos"] = processor.video_processor.normalize_batch(**video)
    if "waveforms" in inputs:
        waveforms, lengths = finished.pop("waveforms"), finished.pop("waveform_lengths").tolist()
        finished.update(processor.feature_extractor.extract_batch(waveforms, lengths))
    return finished


__all__ = ["collate_part", "finish_inputs", "join_inputs"]
