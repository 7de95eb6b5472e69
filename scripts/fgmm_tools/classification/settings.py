"""What an evaluation by classification can be told; imports nothing heavy, as a command's --help gives these
defaults."""

import math
from dataclasses import dataclass

from ..cli import UserError

PROTOCOLS = ("linear", "knn", "zero_shot", "finetune")
MODALITIES = ("video", "audio")
CLASSIFIERS = ("logistic", "svm")
NUM_WINDOWS = 4
# In place of a split's name: a fifth of the training split, which is then not trained on.
HELD_OUT = "held_out"


@dataclass(frozen=True)
class ClassificationSettings:
    """How the clips of a corpus are classified.

    Args:
        protocol: `"linear"` (a linear classifier on frozen features), `"knn"` (votes of the nearest training clips),
            `"zero_shot"` (class names as texts) or `"finetune"` (the whole encoder is trained).
        split: that is evaluated, or `HELD_OUT`.
        modality: `"video"` (or images) or `"audio"`; None: video where the corpus and the model have it.
        random_init: the model's architecture with random weights.
        num_windows: windows of each clip; None: NUM_WINDOWS, or all that stored embeddings have.
        clip_seconds: length of a window, s; None: the model's own.
        num_frames: frames of a window; None: the model's own.
        classifier: of linear, `"logistic"` (regression) or `"svm"`.
        few_shot: of linear: logistic regression on the embeddings of a few training clips a class, several draws.
        num_neighbours: of knn, training clips that vote.
        templates: of zero_shot, sentences with {} for the class name; None: those that are
            usual for the model.
        epochs: of finetune, passes over the training clips.
        learning_rate: of finetune: AdamW's, after the warm-up, then a cosine down to 0.
        weight_decay: of finetune, of matrices and kernels.
        batch_size: windows that are encoded at once; of finetune also clips a process and step.
        num_workers: decoding processes.
        seed: of random weights, of draws and parts of the training split, and of fine-tuning.

    Raises:
        UserError: naming the first setting that is out of range or does not fit the protocol.
    """

    protocol: str
    split: str = "test"
    modality: str | None = None
    random_init: bool = False
    num_windows: int | None = None
    clip_seconds: float | None = None
    num_frames: int | None = None
    classifier: str = "logistic"
    few_shot: bool = False
    num_neighbours: int = 20
    templates: list[str] | None = None
    epochs: int = 60
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    batch_size: int = 32
    num_workers: int = 2
    seed: int = 0

    def __post_init__(self):
        for name, choices in (("protocol", PROTOCOLS), ("classifier", CLASSIFIERS), ("modality", (None, *MODALITIES))):
            if getattr(self, name) not in choices:
                raise UserError(f"{name}={getattr(self, name)!r} is none of {', '.join(map(str, choices))}.")
        if self.few_shot and (self.protocol, self.classifier) != ("linear", "logistic"):
            raise UserError("few_shot is logistic regression; the protocol must be linear, the classifier logistic.")
        if self.protocol == "zero_shot" and (self.random_init or self.split == HELD_OUT):
            raise UserError(f"zero_shot trains nothing: random_init and the split {HELD_OUT} are for other protocols.")
        if any("{}" not in template for template in self.templates or []):
            raise UserError("Each template must hold {}, where the class name goes.")
        if self.clip_seconds is not None and not 0 < self.clip_seconds < math.inf:
            raise UserError(f"clip_seconds={self.clip_seconds} must be positive.")
        if not 0 < self.learning_rate < math.inf or not 0 <= self.weight_decay < math.inf:
            raise UserError("learning_rate must be positive, and weight_decay not negative; both must be finite.")
