"""Pictures of what the phrases of a caption mean in a clip: attention over frames, and over spectrograms."""

import math
from dataclasses import dataclass
from pathlib import Path
from textwrap import fill

import matplotlib
import numpy as np
import torch
from tqdm import tqdm

from modeling_fgmm import FgmmModel, GroundedPhrase, Grounding
from modeling_fgmm.grounding_fgmm import upsample_attention
from processing_fgmm import FgmmFeatureExtractor, FgmmProcessor
from processing_fgmm.clips_fgmm import evenly_spaced_windows, fetch_media, row_duration
from processing_fgmm.corpora_fgmm import MEDIA_COLUMNS, load_corpus, usable_captions
from processing_fgmm.media_fgmm import MediaError, probe_media, read_frames, read_image, read_waveform, unwrap_file

from ..cli import UserError
from ..models import load_model
from ..records import claim_output, whole_file

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

MAX_PHRASES = 4  # of a caption
MIN_WEIGHT = 0.1  # of a phrase in its caption's score
ROW_HEIGHT, SPECTROGRAM_WIDTH, MIN_WIDTH = 2.3, 2.6, 6.8  # inches
FADING = 0.8  # of what gets no attention, towards white


@dataclass
class DrawnClip:
    """A clip of a corpus, and what the phrases of its best fitting caption mean in it.

    Args:
        video_id, caption: of the corpus.
        sources: of "video" and "audio", where the clip has them, the bytes or path; of an image the picture.
        start, end: the window that the model was shown, in seconds; end None for an image.
        groundings: of the caption, by modality.
    """

    video_id: str
    caption: str
    sources: dict
    start: float
    end: float | None
    groundings: dict[str, Grounding]

    @property
    def score(self) -> float:
        """The sum of the caption's scores with the modalities."""
        return sum(grounding.score for grounding in self.groundings.values())

    def choose_phrases(self) -> list[tuple[str, GroundedPhrase]]:
        """The phrases that contribute most to the scores, each with the modality in which it contributes most; in the
        caption's order."""
        chosen = []
        for place, phrases in enumerate(zip(*(found.phrases for found in self.groundings.values()), strict=True)):
            candidates = [
                (phrase.weight * phrase.similarity, place, modality, phrase)
                for modality, phrase in zip(self.groundings, phrases, strict=True)
                if phrase.weight >= MIN_WEIGHT
            ]
            chosen += [max(candidates, key=lambda candidate: candidate[0])] if candidates else []
        largest = sorted(chosen, key=lambda candidate: candidate[0])[-MAX_PHRASES:]
        return [(modality, phrase) for _, _, modality, phrase in sorted(largest, key=lambda candidate: candidate[1])]


def find_sources(model: FgmmModel, row: dict) -> dict:
    """The media of a row that the model compares with text: bytes or path by modality, of an image the picture.

    Raises:
        MediaError: when it cannot be read.
    """
    video, image, audio = (unwrap_file(row.get(column)) for column in MEDIA_COLUMNS)
    sound, name, sources = video if audio is None else audio, row["video_id"], {}
    if "text_video" in model.objectives and video is not None:
        sources["video"] = video
    elif "text_video" in model.objectives and image is not None:
        sources["video"] = read_image(image, name)
    if "text_audio" in model.objectives and sound is not None and probe_media(sound, name).has_audio:
        sources["audio"] = sound
    return sources


@torch.no_grad()
def ground_clip(model: FgmmModel, processor: FgmmProcessor, row: dict) -> DrawnClip | None:
    """The caption of a row with the highest scores, grounded; None for a row without captions, or without anything that
    the model compares with text.

    Raises:
        MediaError: when the clip cannot be decoded.
    """
    row = fetch_media(row)
    sources = find_sources(model, row)
    start, end = 0.0, None
    if duration := row_duration(row):
        [(start, end)] = evenly_spaced_windows(0.0, duration, processor.clip_seconds, 1)
    options = {"start": start, "end": end, "processor": processor}
    clips = []
    for caption in usable_captions(row, duration or math.inf) if sources else []:
        text = caption["text"]
        groundings = {name: model.ground(text, **{name: source}, **options) for name, source in sources.items()}
        clips.append(DrawnClip(row["video_id"], text, sources, start, end, groundings))
    return max(clips, key=lambda clip: clip.score, default=None)


def draw_frame(axis: Axes, clip: DrawnClip, phrase: GroundedPhrase, num_frames: int) -> None:
    """The frame in the middle of the moment with the most attention, in the clip's own size and shape, faded where the
    phrase does not attend at that moment; and the phrase's box."""
    peak = int(phrase.attention.sum((1, 2)).argmax())
    if clip.end is None:
        frame = np.asarray(clip.sources["video"])
    else:
        shown = int((peak + 0.5) * num_frames / len(phrase.attention))  # a moment of the grid covers several frames
        frames = read_frames(clip.sources["video"], num_frames, clip.start, clip.end, name=clip.video_id)
        frame = frames[shown].permute(1, 2, 0).numpy()
        axis.set_xlabel(f"{clip.start + (shown + 0.5) * (clip.end - clip.start) / num_frames:.1f} seconds", fontsize=8)
    height, width = frame.shape[:2]
    left, top, right, bottom = (
        round(share * size)
        for share, size in zip(clip.groundings["video"].area, (width, height, width, height), strict=True)
    )
    attention = np.zeros((height, width))  # outside of the model's crop there is none
    attention[top:bottom, left:right] = upsample_attention(phrase.attention[peak], bottom - top, right - left)
    draw_attended(axis, frame, attention, (0, width, height, 0))
    x_min, y_min, x_max, y_max = phrase.box
    corner, size = (x_min * width, y_min * height), ((x_max - x_min) * width, (y_max - y_min) * height)
    axis.add_patch(Rectangle(corner, *size, fill=False, edgecolor="black", linewidth=1.5, clip_on=False))
    axis.set_xticks([])


def draw_spectrogram(axis: Axes, clip: DrawnClip, phrase: GroundedPhrase) -> None:
    """The log-mel spectrogram of the sound, faded where the phrase does not attend; and the phrase's seconds."""
    extractor = FgmmFeatureExtractor()  # ours, whatever the encoder takes
    waveform = read_waveform(clip.sources["audio"], extractor.sampling_rate, clip.start, clip.end, name=clip.video_id)
    levels = extractor([waveform])["input_features"][0].T.flip(0)  # (mel, time), the lowest band at the bottom
    levels = (levels - levels.min()) / (levels.max() - levels.min())
    attention = upsample_attention(phrase.attention.flip(0), *levels.shape).numpy()
    draw_attended(axis, plt.get_cmap("magma")(levels.numpy())[..., :3], attention, (clip.start, clip.end, 0, 1))
    for second in phrase.seconds:
        axis.axvline(second, color="black", linewidth=1.5)
    axis.set_aspect("auto")
    axis.tick_params(labelsize=8)
    axis.set_xlabel("seconds", fontsize=8)


def draw_attended(axis: Axes, picture: np.ndarray, attention: np.ndarray, extent: tuple) -> None:
    """A picture (height, width, 3), faded to white where its attention (height, width) is low."""
    axis.imshow(picture, extent=extent)
    fading = FADING * (1 - attention / attention.max())
    axis.imshow(np.ones(picture.shape), alpha=fading, extent=extent)
    axis.set_yticks([])


def draw_clips(
    model_name: str, dataset: str, split: str, dataset_config: str | None, num_clips: int, output: Path
) -> int:
    """Draws the first clips of a corpus that can be decoded and have a caption.

    Args:
        model_name: folder or name on the Hub.
        dataset, split, dataset_config: of the corpus.
        num_clips: rows that are read.
        output: a PNG file.

    Returns:
        The number of clips that were drawn.

    Raises:
        UserError: when nothing can be drawn, the model cannot be loaded, or the file cannot be written.
    """
    claim_output(output)
    corpus = load_corpus(dataset, split, dataset_config)
    model, processor = load_model(model_name)
    clips = []
    for row in tqdm(corpus.take(num_clips), desc="Grounding", unit="clip", total=num_clips, leave=False):
        try:
            clips.append(ground_clip(model, processor, row))
        except MediaError as error:
            tqdm.write(f"Skipped a clip: {error}")
    clips = [clip for clip in clips if clip is not None]
    if not clips:
        raise UserError(
            f"None of the first {num_clips} clips of {dataset} can be decoded, has a caption and has what {model_name} "
            "compares with text."
        )
    draw(clips, processor.video_processor.num_frames, output)
    return len(clips)


def draw(clips: list[DrawnClip], num_frames: int, output: Path) -> None:
    """The picture: a row for each clip, a panel for each phrase.

    Args:
        num_frames: of a video that the model was shown.
        output: a PNG file.
    """
    rows = [clip.choose_phrases() for clip in clips]
    widths = [[panel_width(clip, modality) for modality, _ in row] for clip, row in zip(clips, rows, strict=True)]
    full = max(MIN_WIDTH, *map(sum, widths))
    figure = plt.figure(figsize=(full, ROW_HEIGHT * len(clips)), layout="constrained")
    for part, clip, row, sizes in zip(
        figure.subfigures(len(clips), squeeze=False).flat, clips, rows, widths, strict=True
    ):
        part.suptitle(fill(clip.caption, int(13 * full)), x=0.01, ha="left", fontsize=10)
        axes = part.subplots(1, len(row) + 1, width_ratios=[*sizes, full - sum(sizes) + 1e-6], squeeze=False)[0]
        axes[-1].axis("off")  # keeps the panels of a short row at the left
        for axis, (modality, phrase) in zip(axes, row, strict=False):
            axis.set_title(f"{phrase.phrase}\nweight {phrase.weight:.2f}, cosine {phrase.similarity:.2f}", fontsize=8)
            if modality == "video":
                draw_frame(axis, clip, phrase, num_frames)
            else:
                draw_spectrogram(axis, clip, phrase)
    try:
        with whole_file(output) as partial:
            figure.savefig(partial, dpi=110)
    finally:
        plt.close(figure)


def panel_width(clip: DrawnClip, modality: str) -> float:
    """Inches of a phrase's panel: those of a frame of the clip's shape, or of a spectrogram."""
    if modality == "audio":
        return SPECTROGRAM_WIDTH
    source = clip.sources["video"]
    if clip.end is None:
        return ROW_HEIGHT * 0.7 * source.width / source.height
    info = probe_media(source, clip.video_id)
    return ROW_HEIGHT * 0.7 * info.width / info.height
