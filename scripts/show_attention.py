"""Draws where phrases look: clips of a corpus, and over their frames the attention of each phrase of a caption.

python scripts/show_attention.py --model outputs/fgmm-tiny --dataset data/narrated --output attention.png
"""

import argparse
import sys
from pathlib import Path

import matplotlib
import torch
from evaluate_retrieval import load_model
from records import claim_output

from processing_fgmm import FgmmProcessor
from processing_fgmm.corpora_fgmm import CorpusError, FixedClips, collate, load_corpus
from processing_fgmm.phrases_fgmm import find_phrases

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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="model folder or name on the Hub")
    parser.add_argument("--dataset", required=True, help="folder of Parquet shards or a dataset on the Hub")
    parser.add_argument("--dataset_config", help="which of its official splits or folds, where it has several")
    parser.add_argument("--split", default="test")
    parser.add_argument("--num_clips", type=int, default=4)
    parser.add_argument("--output", type=Path, required=True, help="PNG file")
    args = parser.parse_args()
    if args.output.suffix != ".png":
        parser.error("--output is a PNG file, with the ending .png")

    claim_output(args.output)
    corpus = load_corpus(args.dataset, args.split, args.dataset_config)
    model, processor = load_model(args.model)
    rows = FixedClips(corpus.take(args.num_clips), processor, with_audio=False)
    items = [item for _, items in rows for item in items if not isinstance(item, str) and item.captions]
    if not items:
        raise CorpusError(f"None of the first {args.num_clips} clips can be decoded and has a caption.")
    figure, axes = plt.subplots(
        len(items), 1 + MAX_PHRASES, figsize=(2 * (1 + MAX_PHRASES), 2.4 * len(items)), squeeze=False
    )
    for row, item in zip(axes, items, strict=True):
        text = max(item.captions, key=lambda caption: len(find_phrases(caption, processor.max_phrase_words)))
        draw(row, item.windows[0], *attend(model, processor, item.windows[0], text))
        for axis in row:
            axis.axis("off")
    figure.tight_layout()
    figure.savefig(args.output, dpi=110)
    print(f"Drew {len(items)} clips into {args.output}.")


if __name__ == "__main__":
    try:
        main()
    except CorpusError as error:
        sys.exit(str(error))
