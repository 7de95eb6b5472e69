"""Pictures of where phrases look."""

from pathlib import Path

import matplotlib
import torch

from processing_fgmm import FgmmProcessor
from processing_fgmm.clips_fgmm import collate
from processing_fgmm.corpora_fgmm import load_corpus
from processing_fgmm.phrases_fgmm import find_phrases
from processing_fgmm.streams_fgmm import EvaluationClips

from ..cli import UserError
from ..models import load_model
from ..records import claim_output

matplotlib.use("Agg")
import matplotlib.pyplot as plt

MAX_PHRASES = 4


@torch.no_grad()
def attend(model, processor: FgmmProcessor, clip, text: str) -> tuple[list[str], torch.Tensor, torch.Tensor]:
    """What each phrase of a text finds in a clip.

    Returns:
        the phrases; (M, t, h, w) their attention over the regions; (M,) their attended similarity.
    """
    inputs = {**collate(processor, [clip], with_audio=False, with_text=False), **processor(text=[text])}
    outputs = model(**inputs)
    cosines = (outputs.phrases[0] @ outputs.video_regions[0].T).float()
    attention = (model.objectives["text_video"].sharpness() * cosines).softmax(-1)
    phrases = [text[start:end] for start, end in find_phrases(text, processor.max_phrase_words)]
    return phrases, attention.unflatten(-1, outputs.video_output.grid), (attention * cosines).sum(-1)


def draw(axes, clip, phrases: list[str], attention: torch.Tensor, similarity: torch.Tensor) -> None:
    """One clip: its middle frame, then each phrase's attention over the frame in which it is strongest."""
    frames = clip.frames
    axes[0].imshow(frames[len(frames) // 2].permute(1, 2, 0))
    for axis, phrase, weights, score in zip(axes[1:], phrases, attention, similarity, strict=False):
        peak = int(weights.amax((1, 2)).argmax())
        frame = frames[min(int((peak + 0.5) * len(frames) / len(weights)), len(frames) - 1)]
        axis.imshow(frame.float().mean(0), cmap="gray", vmin=0, vmax=255)
        height, width = frame.shape[1:]
        axis.imshow(
            weights[peak],
            cmap="inferno",
            alpha=0.55,
            extent=(-0.5, width - 0.5, height - 0.5, -0.5),
            interpolation="bilinear",
            vmin=float(weights.min()),
            vmax=float(weights.max()),
        )
        axis.set_title(f"{phrase}\n{score:.2f}", fontsize=8)


def draw_clips(
    model_name: str, dataset: str, split: str, dataset_config: str | None, num_clips: int, output: Path
) -> int:
    """Draws the first clips of a corpus that can be decoded and have a caption; gives their number."""
    claim_output(output)
    corpus = load_corpus(dataset, split, dataset_config)
    model, processor = load_model(model_name)
    rows = EvaluationClips(corpus.take(num_clips), processor, with_audio=False)
    items = [item for _, items in rows for item in items if not isinstance(item, str) and item.captions]
    if not items:
        raise UserError(f"None of the first {num_clips} clips can be decoded and has a caption.")
    figure, axes = plt.subplots(
        len(items), 1 + MAX_PHRASES, figsize=(2 * (1 + MAX_PHRASES), 2.4 * len(items)), squeeze=False
    )
    for row, item in zip(axes, items, strict=True):
        text = max(item.captions, key=lambda caption: len(find_phrases(caption, processor.max_phrase_words)))
        draw(row, item.windows[0], *attend(model, processor, item.windows[0], text))
        for axis in row:
            axis.axis("off")
    figure.tight_layout()
    figure.savefig(output, dpi=110)
    return len(items)
