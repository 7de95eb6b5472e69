"""What clips are classified by: features, embeddings or scores of classes of each of their windows."""

import math
import re
from collections.abc import Callable

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object

from modeling_fgmm import FgmmModel, FgmmRegionOutput, inference_fgmm
from modeling_fgmm.layers_fgmm import masked_mean
from modeling_fgmm.scoring_fgmm import Keys
from processing_fgmm import FgmmProcessor
from processing_fgmm.streams_fgmm import EvaluationClips

from ..cli import UserError
from ..embedding.encoding import EncodedCorpus
from ..embedding.stored import StoredEmbeddings
from ..embedding.tables import window_keys
from ..embedding.windows import Window
from .folds import Split
from .settings import NUM_WINDOWS, ClassificationSettings

# The values of each clip's windows, (windows, values), by its video_id.
Windows = dict[str, np.ndarray]


class SplitEncoder:
    """Encodes the clips of splits, shared out among the processes; clips that splits have in common only once.

    Args:
        encode: model inputs of B windows, on the accelerator's device, to (B, values).
        processor: makes model inputs.
        modality: "video" or "audio", of which inputs are made.
        accelerator: this process, its device and the others.
        settings: how many windows a clip has, and how they are decoded.
    """

    def __init__(
        self,
        encode: Callable[[dict[str, torch.Tensor]], torch.Tensor],
        processor: FgmmProcessor,
        modality: str,
        accelerator: Accelerator,
        settings: ClassificationSettings,
    ):
        self.encode = encode
        self.processor = processor
        self.modality = modality
        self.accelerator = accelerator
        self.settings = settings
        self.encoded: dict[str, np.ndarray | None] = {}  # None: cannot be decoded

    def encode_split(self, split: Split, description: str) -> Windows:
        """The values of all clips that can be decoded, in the order of `split.labels`; the same on every process.

        Args:
            description: of the progress bar.

        Raises:
            UserError: when a value is not a number.
        """
        new = split.labels.keys() - self.encoded.keys()
        if new:
            share = self.encode_share(split.keep(new).corpus, description)
            self.encoded |= dict.fromkeys(new) | dict(gather_object(list(share.items())))
        return {name: self.encoded[name] for name in split.labels if self.encoded[name] is not None}

    def encode_share(self, corpus, description: str) -> Windows:
        """The values of this process' share of a corpus."""
        num_windows = self.settings.num_windows or NUM_WINDOWS
        clips = EvaluationClips(
            corpus,
            self.processor,
            with_video=self.modality == "video",
            with_audio=self.modality == "audio",
            num_windows=num_windows,
            block_rows=math.ceil(self.settings.batch_size / num_windows),
            rank=self.accelerator.process_index,
            world_size=self.accelerator.num_processes,
        )
        encoded = EncodedCorpus(
            clips,
            lambda inputs: self.encode(inputs).float().cpu().numpy(),
            device=self.accelerator.device,
            batch_size=self.settings.batch_size,
            num_workers=self.settings.num_workers,
            description=description,
        )
        values = {}
        for item in encoded:
            values[item.video_id] = np.stack(item.windows)
            if np.isnan(values[item.video_id]).any():
                raise UserError(
                    f"The model's output for {item.video_id!r} is not a number (NaN): its weights are damaged; give an "
                    "earlier checkpoint or train it again."
                )
        encoded.report()
        return values


class StoredSplits:
    """The values of clips from stored embeddings, in place of a [`SplitEncoder`].

    Args:
        read: a window that has the modality, to (values,) float32.
        modality: "video" or "audio"; a clip without it in any window counts as one that cannot be decoded.
        accelerator: this process.
        with_regions: whether `read` needs the regions of windows.
    """

    def __init__(
        self, read: Callable[[Window], np.ndarray], modality: str, accelerator: Accelerator, with_regions: bool
    ):
        self.read = read
        self.modality = modality
        self.accelerator = accelerator
        self.with_regions = with_regions

    @torch.no_grad()
    def encode_split(self, split: Split, description: str) -> Windows:
        """The values of all clips of a split that have any, in the order of `split.labels`.

        Args:
            description: of no progress bar here, for reading is quick.
        """
        values: dict[str, list[np.ndarray]] = {}
        for window in StoredEmbeddings(*split.source).read_windows(self.with_regions):
            if window.video_id in split.labels and getattr(window, self.modality) is not None:
                values.setdefault(window.video_id, []).append(self.read(window))
        return {name: np.stack(values[name]) for name in split.labels if name in values}


def encode_regions(model: FgmmModel, inputs: dict[str, torch.Tensor]) -> FgmmRegionOutput:
    """The encoder's output for inputs of one modality, video or audio."""
    return (model.get_video_features if "pixel_values_videos" in inputs else model.get_audio_features)(**inputs)


def mean_features(model: FgmmModel, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """(B, C) the encoder's features, averaged over the N regions of each window."""
    output = encode_regions(model, inputs)
    return masked_mean(output.last_hidden_state, output.region_mask.unsqueeze(-1), 1)


def embeddings(model: FgmmModel, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """(B, D) each window's embedding in the shared space, L2-normalised."""
    return encode_regions(model, inputs).pooler_output


def class_probabilities(classifier, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """(B, classes) probabilities; each class' own where a clip may be of several, else they add up to 1."""
    logits = classifier(**inputs).logits.float()
    return logits.sigmoid() if classifier.config.problem_type == "multi_label_classification" else logits.softmax(-1)


def stored_values(modality: str, part: str) -> Callable[[Window], np.ndarray]:
    """The function of [`StoredSplits`] that takes `"embeds"` or `"features"` of the windows."""
    return lambda window: getattr(getattr(window, modality), part)


def stored_scores(score: Callable[[Keys], torch.Tensor], modality: str, device: torch.device):
    """The function of [`StoredSplits`] that compares windows with class names, by what [`make_zero_shot`] made."""
    return lambda window: score(window_keys(window, [modality])[modality].to(device))[0].float().cpu().numpy()


def make_zero_shot(
    model: FgmmModel, processor: FgmmProcessor, modality: str, names: list[str], templates: list[str]
) -> Callable[[dict[str, torch.Tensor]], torch.Tensor]:
    """Encodes class names, and makes the function that compares windows with them.

    Args:
        modality: "video" or "audio", of the windows.
        names: of the classes, as the corpus spells them.
        templates: sentences with {} for the name.

    Returns:
        model inputs of B windows, or their [`Keys`], to (B, classes) logits, the mean over the templates.

    Raises:
        UserError: when the model does not compare text with this modality, or its tokenizer knows no word of a name.
    """
    try:
        return inference_fgmm.make_zero_shot(model, processor, modality, [spell(name) for name in names], templates)
    except ValueError as error:
        raise UserError(str(error)) from error


def spell(name: str) -> str:
    """A class name as it is said: BabyCrawling and baby_crawling are "baby crawling"."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])|[\W_]+", " ", name).strip().lower()
