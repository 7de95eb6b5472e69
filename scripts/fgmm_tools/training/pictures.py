"""Pictures of a few clips with captions and attention, while a model trains."""

from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from PIL import Image
from tqdm import tqdm

from modeling_fgmm import FgmmModel
from processing_fgmm import FgmmProcessor
from processing_fgmm.clips_fgmm import candidate_captions, evenly_spaced_windows, fetch_media, row_duration
from processing_fgmm.corpora_fgmm import list_splits, load_corpus, usable_captions
from processing_fgmm.media_fgmm import MediaError

from .configuration import PretrainConfig

# Clips of a picture; rows that are read for them at most; captions of a clip of which the best fitting one is drawn.
NUM_CLIPS, MAX_ROWS, NUM_CAPTIONS = 3, 20, 2


class AttentionPictures:
    """Draws the same clips again and again: the first of the evaluation split, or of the training split where the
    corpus has no other.

    Args:
        config: of the run.
        processor: of the model.
        folder: of the pictures, one PNG file a step.
    """

    def __init__(self, config: PretrainConfig, processor: FgmmProcessor, folder: Path):
        corpus = config.corpora[0]
        splits = list_splits(corpus.dataset, corpus.dataset_config)
        split = config.eval_split if config.eval_split in splits else corpus.train_split
        self.processor = processor
        self.folder = folder
        self.rows = read_rows(load_corpus(corpus.dataset, split, corpus.dataset_config), processor)

    def draw(self, accelerator: Accelerator, model: FgmmModel, step: int) -> None:
        """Draws the clips and gives the picture to the trackers; the model and the random state stay as they are.

        Args:
            accelerator: whose trackers get it; called by the main process alone.
            model: without wrappers.
            step: that was taken.
        """
        from ..grounding.corpus import ground_row
        from ..grounding.picture import draw_files  # wants the extra `eval`

        is_training = model.training
        model.eval()
        try:
            with torch.random.fork_rng():
                files = [ground_row(model, self.processor, row) for row in self.rows]
        except MediaError as error:
            tqdm.write(f"The attention at step {step} is not drawn: {error}")
            return
        finally:
            model.train(is_training)
        if files := [file for file in files if file is not None]:
            path = self.folder / f"step-{step:07d}.png"
            path.parent.mkdir(exist_ok=True)
            draw_files(files, path)
            log_picture(accelerator, path, step)


def read_rows(corpus, processor: FgmmProcessor) -> list[dict]:
    """The first rows of a corpus that can be decoded and have captions, with their media, and of their captions the
    nearest to the window that is drawn.

    Args:
        corpus: from [`load_corpus`].
        processor: says how long the windows are.
    """
    rows = []
    for row in corpus.take(MAX_ROWS):
        try:
            row = fetch_media(row)
            duration = row_duration(row)
        except MediaError:
            continue  # training names it
        captions = usable_captions(row, duration or float("inf"))
        [(start, end)] = evenly_spaced_windows(0.0, duration, processor.clip_seconds, 1)
        texts = candidate_captions(captions, start, end, NUM_CAPTIONS, np.random.default_rng(0))
        texts = [text for text in texts if not processor.check_words([text])[1]]  # others cannot be grounded
        if texts:
            rows.append({**row, "captions": [caption for caption in captions if caption["text"] in texts]})
        if len(rows) == NUM_CLIPS:
            break
    return rows


def log_picture(accelerator: Accelerator, path: Path, step: int) -> None:
    """Gives a PNG file to those trackers of a run that show pictures."""
    for tracker in accelerator.trackers:
        if tracker.name == "tensorboard":
            pixels = np.asarray(Image.open(path).convert("RGB"))
            tracker.log_images({"attention": pixels[None]}, step=step, dataformats="NHWC")
        elif tracker.name == "trackio":
            import trackio  # the tracker's own package

            tracker.log({"attention": trackio.Image(path)}, step=step)
