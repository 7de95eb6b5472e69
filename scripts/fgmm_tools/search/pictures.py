"""Small pictures of moments as data URIs: frames with the attention of a text over them, spectrograms of sounds."""

import base64
import io
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from PIL import Image

from modeling_fgmm import FgmmModel
from modeling_fgmm.grounding_fgmm import Grounding, upsample_attention
from processing_fgmm import FgmmProcessor
from processing_fgmm.media_fgmm import MediaError, read_frames, read_image, read_waveform

from .moments import Moment

# Height of a picture, pixels; its quality as JPEG.
HEIGHT, QUALITY = 180, 80
# Of a heat map: the colour of full attention (RGB), and how much of the picture it covers there.
HEAT, COVER = (255, 80, 0), 0.55
# Of a spectrogram: samples of its window and between two windows, mel-like bands, width in pixels.
WINDOW, BANDS, SPECTROGRAM_WIDTH, SOUND_RATE = 1024, 90, 320, 16000


@dataclass(frozen=True)
class Picture:
    """A picture of a moment.

    plain, heat: JPEG as data URIs, without and with the attention of the text; heat None where there is none.
    phrases: (words, weight) of the text, in its order.
    """

    plain: str
    heat: str | None
    phrases: list[tuple[str, float]]


def draw(moment: Moment, model: FgmmModel, processor: FgmmProcessor, text: str | None) -> Picture | None:
    """The picture of a moment's best window; None where its file cannot be read any more.

    Args:
        text: that was searched for, whose attention is drawn; None: none is.
    """
    entry = moment.best.entry
    window = (0.0, None) if moment.file.kind == "image" else (entry.start, entry.end)
    try:
        if not entry.has_video:
            image, grounding = (
                draw_sound(moment.path, window),
                ground(model, processor, text, moment.path, "audio", window),
            )
            heat = None if grounding is None else mark_times(image, grounding)
        else:
            grounding = ground(model, processor, text, moment.path, "video", window)
            image = read_middle(moment, grounding, window)
            heat = None if grounding is None else lay_over(image, grounding)
    except (MediaError, OSError):
        return None
    phrases = [] if grounding is None else [(phrase.phrase, phrase.weight) for phrase in grounding.phrases]
    return Picture(to_uri(image), None if heat is None else to_uri(heat), phrases)


def ground(
    model: FgmmModel, processor: FgmmProcessor, text: str | None, path: str, modality: str, window: tuple
) -> Grounding | None:
    """Where the phrases of a text are in a window; None where the model does not compare them or knows no word."""
    if text is None or f"text_{modality}" not in model.objectives or processor.check_words([text])[1]:
        return None
    if not model.objectives[f"text_{modality}"].needs_phrases:  # all regions weigh the same
        return None
    try:
        return model.ground(text, **{modality: path}, start=window[0], end=window[1], processor=processor)
    except MediaError:
        raise
    except ValueError:  # the text has no phrase, the window no sound
        return None


def read_middle(moment: Moment, grounding: Grounding | None, window: tuple) -> Image.Image:
    """The frame in the middle of a window, or of the moment to which the text attends most."""
    if moment.file.kind == "image":
        image = read_image(moment.path).convert("RGB")
        return image.resize((max(1, round(image.width * HEIGHT / image.height)), HEIGHT))
    start, end = window
    if grounding is not None:
        over_time = total_attention(grounding).sum((1, 2))
        step = (end - start) / len(over_time)
        start = start + int(over_time.argmax()) * step
        end = start + step
    frames = read_frames(moment.path, 1, start, end, HEIGHT)
    image = Image.fromarray(frames[0].permute(1, 2, 0).numpy())
    return image.resize((max(1, round(image.width * HEIGHT / image.height)), HEIGHT))


def total_attention(grounding: Grounding) -> torch.Tensor:
    """The attention of all phrases by their weights: (t, h, w) or (frequency, time)."""
    return sum(phrase.weight * phrase.attention for phrase in grounding.phrases)


def lay_over(image: Image.Image, grounding: Grounding) -> Image.Image:
    """A picture with the attention at its moment as a colour over the part of the frame that the model was shown."""
    attention = total_attention(grounding)
    attention = attention[int(attention.sum((1, 2)).argmax())]
    left, top, right, bottom = (
        round(share * size) for share, size in zip(grounding.area, (image.width, image.height) * 2, strict=True)
    )
    heat = np.zeros((image.height, image.width), np.float32)
    area = upsample_attention(attention / attention.max().clamp(min=1e-9), bottom - top, right - left)
    heat[top:bottom, left:right] = area.clamp(0, 1).numpy()
    return tint(image, heat)


def tint(image: Image.Image, heat: np.ndarray) -> Image.Image:
    """A picture with a colour where heat (H, W), 0 to 1, is."""
    pixels, share = np.asarray(image, np.float32), COVER * heat[..., None]
    return Image.fromarray((pixels * (1 - share) + np.array(HEAT) * share).round().astype(np.uint8))


def draw_sound(path: str, window: tuple) -> Image.Image:
    """The spectrogram of a window: time to the right, frequency up, on a logarithmic scale, as loud as it is bright."""
    waveform = read_waveform(path, SOUND_RATE, window[0], window[1])
    if waveform is None:
        raise MediaError(f"{path} has no sound")
    waveform = torch.nn.functional.pad(waveform, (0, max(0, WINDOW - len(waveform))))
    hop = max(1, len(waveform) // SPECTROGRAM_WIDTH)
    spectrum = torch.stft(waveform, WINDOW, hop, window=torch.hann_window(WINDOW), return_complex=True).abs()
    edges = np.geomspace(2, len(spectrum) - 1, BANDS + 1).astype(int)
    bands = torch.stack([spectrum[low : max(low + 1, high)].mean(0) for low, high in pairwise(edges)])
    decibels = 20 * bands.clamp(min=1e-5).log10()
    level = ((decibels - decibels.max() + 70) / 70).clamp(0, 1).flip(0)
    grey = Image.fromarray((level * 255).byte().numpy()).resize((SPECTROGRAM_WIDTH, HEIGHT))
    return Image.merge("RGB", [grey.point(lambda value, gain=gain: int(value * gain)) for gain in (0.75, 0.85, 1.0)])


def mark_times(image: Image.Image, grounding: Grounding) -> Image.Image:
    """A spectrogram with the attention over time as a colour."""
    over_time = total_attention(grounding).sum(0)
    over_time = over_time / over_time.max().clamp(min=1e-9)
    heat = upsample_attention(over_time[None], image.height, image.width).clamp(0, 1).numpy()
    return tint(image, heat)


def to_uri(image: Image.Image) -> str:
    """A picture as a JPEG in a data URI."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
