"""What a model finds in the windows of clips: features, embeddings, or scores of classes."""

import argparse
import re
from collections.abc import Callable

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch.utils.data import DataLoader
from tqdm import tqdm

from modeling_fgmm import FgmmModel, FgmmRegionOutput, inference_fgmm
from modeling_fgmm.layers_fgmm import masked_mean
from processing_fgmm import FgmmProcessor
from processing_fgmm.clips_fgmm import Clip, collate
from processing_fgmm.streams_fgmm import EvaluationClips

from ..cli import UserError
from .folds import Split

# By a clip's video_id, what was found in each of its windows: (windows, ...).
Windows = dict[str, np.ndarray]


class WindowReader:
    """Shows a function the windows of clips, on this process' share of them, and remembers what it found: folds have
    clips in common.

    Args:
        processor, modality, accelerator: make the function's inputs, of one modality, on this process' device.
        args: num_windows a clip, batch_size in windows, num_workers that decode.
        function: model inputs of some windows to (windows, ...) values.
    """

    def __init__(
        self,
        processor: FgmmProcessor,
        modality: str,
        accelerator: Accelerator,
        args: argparse.Namespace,
        function: Callable[[dict], torch.Tensor],
    ):
        self.processor = processor
        self.flags = {f"with_{name}": name == modality for name in ("video", "audio")}
        self.accelerator = accelerator
        self.args = args
        self.function = function
        self.found: dict[str, np.ndarray | None] = {}

    def read(self, split: Split, what: str) -> Windows:
        """The values of every clip that can be shown, on every process those of all.

        Args:
            what: is read, for the progress bar.
        """
        new = split.labels.keys() - self.found.keys()
        if new:
            values = self.read_share(split.keep(new).corpus, what)
            self.found |= dict.fromkeys(new) | dict(gather_object(list(values.items())))
        return {name: self.found[name] for name in split.labels if self.found[name] is not None}

    def read_share(self, corpus, what: str) -> Windows:
        """The values of this process' share of the clips."""
        clips = EvaluationClips(
            corpus,
            self.processor,
            **self.flags,
            num_windows=self.args.num_windows,
            rank=self.accelerator.process_index,
            world_size=self.accelerator.num_processes,
        )
        loader = DataLoader(clips, batch_size=None, num_workers=self.args.num_workers)
        values, batch = {}, []
        quiet = not self.accelerator.is_main_process
        for _, items in tqdm(loader, desc=what, unit="clip", leave=False, disable=quiet):
            for item in items:
                if isinstance(item, str):
                    tqdm.write(f"A clip cannot be shown: {item}")
                else:
                    batch += item.windows
            while len(batch) >= self.args.batch_size:
                self.encode_batch(batch[: self.args.batch_size], values)
                batch = batch[self.args.batch_size :]
        if batch:
            self.encode_batch(batch, values)
        return {name: np.stack(windows) for name, windows in values.items()}

    @torch.no_grad()
    def encode_batch(self, batch: list[Clip], values: dict[str, list[np.ndarray]]) -> None:
        """Adds the values of some windows.

        Raises:
            UserError: when one is not a number.
        """
        inputs = collate(self.processor, batch, **self.flags, with_text=False)
        inputs = {name: value.to(self.accelerator.device) for name, value in inputs.items()}
        for window, value in zip(batch, self.function(inputs).float().cpu().numpy(), strict=True):
            if np.isnan(value).any():
                raise UserError(
                    f"What the model finds in {window.video_id!r} is not a number (NaN); its weights are damaged."
                )
            values.setdefault(window.video_id, []).append(value)


def encode(model: FgmmModel, inputs: dict[str, torch.Tensor]) -> FgmmRegionOutput:
    """The regions and embeddings of videos, or else of sounds."""
    return (model.get_video_features if "pixel_values_videos" in inputs else model.get_audio_features)(**inputs)


def mean_features(model: FgmmModel, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """(windows, C) the encoder's features, averaged over regions."""
    output = encode(model, inputs)
    return masked_mean(output.last_hidden_state, output.region_mask.unsqueeze(-1), 1)


def embeddings(model: FgmmModel, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """(windows, D) in the shared space."""
    return encode(model, inputs).pooler_output


def class_probabilities(classifier, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """(windows, classes); of classes that do not exclude each other, each one's own."""
    logits = classifier(**inputs).logits.float()
    return logits.sigmoid() if classifier.config.problem_type == "multi_label_classification" else logits.softmax(-1)


def make_zero_shot(
    model: FgmmModel, processor: FgmmProcessor, modality: str, names: list[str], templates: list[str]
) -> Callable[[dict], torch.Tensor]:
    """Model inputs to (windows, classes) logits, the mean over the templates; words that are not known are named.

    Raises:
        UserError: when the model was not trained to compare texts with this modality.
    """
    names = [spell(name) for name in names]
    for name in names:
        if processor.tokenizer.unk_token_id in processor.tokenizer(name)["input_ids"]:
            tqdm.write(f"The tokenizer does not know every word of {name!r}.")
    try:
        return inference_fgmm.make_zero_shot(model, processor, modality, names, templates)
    except ValueError as error:
        raise UserError(str(error)) from error


def spell(name: str) -> str:
    """A class name as it is said: BabyCrawling and baby_crawling are "baby crawling"."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])|[\W_]+", " ", name).strip().lower()
