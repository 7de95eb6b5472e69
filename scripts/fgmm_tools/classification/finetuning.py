"""Fine-tunes a classifier: batches of augmented, labelled clips, and the loop over them."""

import math
import sys
from dataclasses import replace

import numpy as np
import torch
from accelerate import Accelerator
from tqdm import tqdm
from transformers import get_cosine_schedule_with_warmup

from modeling_fgmm import FgmmForAudioClassification, FgmmForVideoClassification
from processing_fgmm import FgmmProcessor
from processing_fgmm.clips_fgmm import Clip, row_duration
from processing_fgmm.collation_fgmm import collate_part
from processing_fgmm.loaders_fgmm import ClipLoader
from processing_fgmm.rowgroups_fgmm import RowGroups
from processing_fgmm.streams_fgmm import NarratedClips

from ..cli import UserError
from ..training.parameter_groups import make_parameter_groups
from ..training.setup import make_optimizer
from .folds import Classes, Split
from .settings import ClassificationSettings

# Augmentation of training clips.
MIN_CROP_AREA = 0.4  # share of the picture
MAX_COLOUR_CHANGE = 0.4  # of brightness, contrast and saturation, up and down
GREY_SHARE = 0.2  # of the clips, which lose their colours
MAX_GAIN = 10.0  # dB, up and down
MAX_MASKED_BANDS = 1 / 8  # of the mel bands, as one stripe
MAX_MASKED_FRAMES = 1 / 10  # of the frames, as one stripe
# Rows that are shuffled together, fewer where their media are large.
BLOCK_SIZE = 4096
# What random numbers are drawn for, the first entry of their seeds; see orders_fgmm.
STRIPES = 100
# Of decoded clips that a process keeps.
KEPT_BYTES = 1_000_000_000
# In windows: what is no longer looks the same in each, but for the padding that codecs add.
LONGEST_KEPT = 1.05
WARMUP_SHARE = 0.05
MAX_GRAD_NORM = 1.0


class LabelledClips(NarratedClips):
    """Endless training batches with labels in place of captions; windows and augmentation differ in every epoch.

    Args:
        rows: row groups of the corpus.
        labels: of its rows, by their video_id.
        classes: of the corpus.
        **kwargs: see [`NarratedClips`].
    """

    def __init__(self, rows: RowGroups, processor: FgmmProcessor, labels: dict, classes: Classes, **kwargs):
        super().__init__([rows], processor, block_size=BLOCK_SIZE, min_crop_area=MIN_CROP_AREA, flip=True, **kwargs)
        self.labels = labels
        self.no_label = [] if classes.multi_label else 0  # of an empty item, whose loss does not count
        self.classes = classes
        self.kept: dict[str, Clip] = {}
        self.room = KEPT_BYTES

    def make_inputs(self, clips: list[Clip], numbers: list[int]) -> dict[str, torch.Tensor]:
        """Model inputs of B clips, with their sounds augmented and their labels."""
        # Audio features are made here, where stripes of them are masked.
        inputs = collate_part(
            self.processor, clips, self.with_video, self.with_audio, sends_waveforms=False, with_text=False
        )
        if self.with_audio:
            parts = zip(numbers, inputs["input_features"], inputs["input_features_mask"], strict=True)
            for number, features, mask in parts:
                mask_stripes(features[: int(mask.sum())], np.random.default_rng([STRIPES, self.seed, number]))
        labels = [self.labels.get(clip.video_id, self.no_label) for clip in clips]
        inputs["labels"] = torch.as_tensor(self.classes.model_labels(labels))
        return inputs

    def decode_window(self, row: dict, start: float, end: float) -> Clip:
        """One window of a row; a row that is hardly longer is decoded once and kept, while there is room."""
        if row["video_id"] in self.kept:
            return replace(self.kept[row["video_id"]])
        clip = super().decode_window(row, start, end)
        if row_duration(row) <= LONGEST_KEPT * self.processor.clip_seconds:
            size = sum(part.nbytes for part in (clip.frames, clip.waveform) if part is not None)
            if size <= self.room:
                self.kept[row["video_id"]], self.room = replace(clip), self.room - size
        return clip

    def sample_clip(self, row: dict, generator: np.random.Generator) -> Clip:
        """One random window of a row, its sound and its colours augmented."""
        clip = super().sample_clip(row, generator)
        if clip.waveform is not None:
            clip.waveform = vary_sound(clip.waveform, generator)
        if clip.frames is not None:
            clip.frames = vary_colours(clip.frames, generator)
        return clip


def vary_sound(waveform: torch.Tensor, generator: np.random.Generator) -> torch.Tensor:
    """A waveform (S,) rolled to begin anywhere, and louder or softer."""
    gain = 10 ** (generator.uniform(-MAX_GAIN, MAX_GAIN) / 20)
    return gain * waveform.roll(int(generator.integers(len(waveform))))


def vary_colours(frames: torch.Tensor, generator: np.random.Generator) -> torch.Tensor:
    """Frames (T, 3, H, W) uint8 with another brightness, contrast and saturation, alike in all; some turn grey."""
    brightness, contrast, saturation = generator.uniform(1 - MAX_COLOUR_CHANGE, 1 + MAX_COLOUR_CHANGE, 3)
    if generator.random() < GREY_SHARE:
        saturation = 0.0
    frames = frames.float() * brightness
    frames = frames.mean() + contrast * (frames - frames.mean())
    grey = frames.mean(1, keepdim=True)
    return (grey + saturation * (frames - grey)).round().clamp(0, 255).to(torch.uint8)


def mask_stripes(features: torch.Tensor, generator: np.random.Generator) -> None:
    """Sets one stripe of frames and one of mel bands of features (frames, mel bands) to 0, in place (SpecAugment).

    Of a waveform (S,) it is one stripe of samples.
    """
    for axis, share in ((0, MAX_MASKED_FRAMES), (1, MAX_MASKED_BANDS))[: features.ndim]:
        length = features.shape[axis]
        width = int(generator.integers(int(share * length) + 1))
        features.narrow(axis, int(generator.integers(length - width + 1)), width).zero_()


def finetune(
    accelerator: Accelerator,
    classifier: FgmmForVideoClassification | FgmmForAudioClassification,
    processor: FgmmProcessor,
    train: Split,
    classes: Classes,
    settings: ClassificationSettings,
) -> FgmmForVideoClassification | FgmmForAudioClassification:
    """Trains all of a classifier's weights.

    Args:
        classifier: initialised from an [`FgmmModel`], or with random weights.
        train: the clips that are trained on.

    Returns:
        the classifier, in evaluation mode.

    Raises:
        UserError: when no clip of a batch can be decoded, or the loss is not a number.
    """
    num_clips = len(train.labels)
    batch_size = min(settings.batch_size * accelerator.num_processes, num_clips)
    steps_per_epoch = math.ceil(num_clips / batch_size)
    max_steps = settings.epochs * steps_per_epoch
    clips = LabelledClips(
        train.row_groups(),
        processor,
        train.labels,
        classes,
        batch_size=batch_size,
        with_video=classifier.modality == "video",
        with_audio=classifier.modality == "audio",
        seed=settings.seed,
        rank=accelerator.process_index,
        world_size=accelerator.num_processes,
    )
    loader = ClipLoader(clips, settings.num_workers, accelerator.device)
    optimizer = make_optimizer(make_parameter_groups(classifier, settings.learning_rate, settings.weight_decay))
    scheduler = get_cosine_schedule_with_warmup(optimizer, round(WARMUP_SHARE * max_steps), max_steps)
    model, optimizer = accelerator.prepare(classifier, optimizer)
    model.train()
    batches, reported = iter(loader), set()
    bar = tqdm(range(max_steps), desc="Training", unit="step", leave=False, disable=not accelerator.is_main_process)
    for _ in bar:
        batch = next(batches)
        for failure in set(batch.failures) - reported:
            tqdm.write(f"Skipped a clip: {failure.reason}", file=sys.stderr)
        reported.update(batch.failures)
        if batch.failures and not batch.num_clips:
            raise UserError(f"None of the {len(batch.failures)} clips of a training batch can be decoded; see above.")
        with accelerator.autocast():
            loss = model(**batch.inputs).loss
        if not batch.num_clips:  # this process has no share of a small batch
            loss = 0 * loss
        if not torch.isfinite(loss):
            raise UserError("The loss is not a number; lower the learning rate.")
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(model.parameters(), MAX_GRAD_NORM)
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
        bar.set_postfix(loss=f"{loss.item():.3f}", refresh=False)
    classifier = accelerator.unwrap_model(model).eval()
    accelerator.free_memory()  # it would keep the model and optimizer of every fold
    return classifier
