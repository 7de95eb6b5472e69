"""Files and texts to vectors in one call, for who wants nothing else of the model."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn
from tqdm.auto import tqdm
from transformers import AutoProcessor

logger = logging.getLogger(__name__)

# What says where on the Hub, or in a folder, a model was loaded from, beside its name.
SOURCE_OPTIONS = ("revision", "subfolder", "cache_dir", "local_files_only")


class FgmmEncodeMixin:
    """`encode`, and the processor that it needs."""

    _source_options: dict = {}
    _processor = None

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, *args, **kwargs):
        """As in transformers; remembers the revision, so that the processor is of the same one."""
        loaded = super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        model._source_options = {name: kwargs[name] for name in SOURCE_OPTIONS if kwargs.get(name) is not None}
        return loaded

    def load_processor(self):
        """The processor that was saved beside this model; it is loaded once.

        Raises:
            ValueError: when the model was not loaded from anywhere, or there is no processor there.
        """
        if self._processor is None:
            source = self.config.name_or_path
            if not source:
                raise ValueError("This model was not loaded from a folder or the Hub; give its processor, processor=.")
            # Who trusted a repository's code for the model has trusted it for the processor.
            trusted = type(self).__module__.startswith("transformers_modules.")
            try:
                processor = AutoProcessor.from_pretrained(source, trust_remote_code=trusted, **self._source_options)
            except (OSError, ValueError) as error:
                raise ValueError(
                    f"No processor can be loaded from {source}; processing_fgmm must be imported, or processor= given."
                ) from error
            if not hasattr(processor, "tokenizer"):  # where only parts of one are saved, transformers gives a part
                raise ValueError(f"No processor is saved in {source}, only a {type(processor).__name__}.")
            self._processor = processor
        return self._processor

    @torch.no_grad()
    def encode(
        self,
        *,
        videos=None,
        images=None,
        audio=None,
        text=None,
        processor=None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        convert_to_numpy: bool = True,
        **kwargs,
    ) -> np.ndarray | torch.Tensor:
        """
        One vector an item, L2-normalised: the `pooler_output` of the features. Cosines between vectors of any
        modalities are their dot products.

        Args:
            videos, images, audio, text: one of them: an item, or a list of items, each as the processor takes
                it. None in a list, a silent file for audio and a text without words have the vector 0.
            processor: the model's. None: the one saved where the model was loaded from.
            batch_size: items that are read and encoded at once.
            show_progress_bar: None: where this module's logger shows what is informative (INFO).
            convert_to_numpy: give an array, else a tensor on the model's device.
            **kwargs: of the processor's call: `start` and `end` of a window in seconds, `sampling_rate` of arrays in
                Hz, `num_frames`.

        Returns:
            (D,) for one item, (B, D) in the order of a list; float32.

        Raises:
            ValueError: when not exactly one of them is given, the model lacks its encoder, or there is no processor.
            MediaError: (a ValueError) for a file that cannot be decoded.
        """
        given = {"videos": videos, "images": images, "audio": audio, "text": text}
        given = {name: items for name, items in given.items() if items is not None}
        if len(given) != 1:
            raise ValueError(f"Give one of videos, images, audio and text, not {' and '.join(given) or 'none'}.")
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size} must be at least 1.")
        name, items = given.popitem()
        modality = "video" if name == "images" else name.removesuffix("s")
        self._encoder(modality)  # it says so where the model has none
        single = is_single(items)
        items = [items] if single else items
        order = list(range(len(items)))
        if name == "text":
            if not all(isinstance(item, str) for item in items):
                raise ValueError("text must be a string or a list of strings.")
            order.sort(key=lambda row: len(items[row]))  # texts of one length need little padding
        if processor is None:
            processor = self.load_processor()
        get_features = getattr(self, f"get_{modality}_features")
        if show_progress_bar is None:
            show_progress_bar = logger.isEnabledFor(logging.INFO)
        vectors = torch.zeros(len(items), self.config.projection_dim, device=self.device)
        with evaluating(self):
            for first in tqdm(range(0, len(items), batch_size), desc="Batches", disable=not show_progress_bar):
                rows = order[first : first + batch_size]
                inputs = processor(**{name: [items[row] for row in rows]}, **kwargs)
                vectors[rows] = get_features(**inputs.to(self.device, self.dtype)).pooler_output.float()
        vectors = vectors[0] if single else vectors
        return vectors.cpu().numpy() if convert_to_numpy else vectors


def is_single(items) -> bool:
    """Whether this is an item (path, bytes, file, image, array, tensor, string), not a list or column of them."""
    return isinstance(items, (str, bytes)) or not isinstance(items, Sequence)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """The model in evaluation mode; afterwards every module is in the mode in which it was."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


__all__ = ["FgmmEncodeMixin"]
