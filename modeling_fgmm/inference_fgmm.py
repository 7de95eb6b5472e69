"""What one calls without training: files and texts to vectors, and classification by names alone."""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from tqdm.auto import tqdm
from transformers import AutoProcessor

from .layers_fgmm import FgmmPreTrainedModel, evaluation_mode
from .outputs_fgmm import as_keys, as_queries

logger = logging.getLogger(__name__)

# What says where on the Hub, or in a folder, a model was loaded from, beside its name and a token.
SOURCE_OPTIONS = ("revision", "subfolder", "cache_dir", "local_files_only")


class FgmmInferenceMixin:
    """`encode` and `zero_shot_video_classification`, and the processor that they need."""

    _source_options: dict = {}
    _token: str | bool | None = None
    _processor = None

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, *args, **kwargs):
        """As in transformers; remembers revision and token, so that the processor is of the same one."""
        loaded = super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        model._source_options = {name: kwargs[name] for name in SOURCE_OPTIONS if kwargs.get(name) is not None}
        model._token = kwargs.get("token")
        return loaded

    def __getstate__(self) -> dict:
        """What is pickled or copied: all but the token, which is for nobody else to see."""
        return {**self.__dict__, "_token": None}

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
            options = {"trust_remote_code": trusted, "token": self._token, **self._source_options}
            try:
                processor = AutoProcessor.from_pretrained(source, **options)
            except (OSError, ValueError) as error:
                cause = f"{type(error).__name__}: {error}".partition("\n")[0]
                remedy = "give processor=" if trusted else "processing_fgmm must be imported, or processor= given"
                raise ValueError(f"No processor can be loaded from {source} ({cause}); {remedy}.") from error
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
            videos, images, audio, text: one of them: an item as the processor takes it, or a list or column of
                items; of videos, a picture in the list is an item of its own, and a clip of frames is a list within the
                list. None in a list, a silent file for audio and a text without words have the vector 0.
            processor: the model's. None: the one saved where the model was loaded from.
            batch_size: items that are read and encoded at once.
            show_progress_bar: None: where this module's logger shows what is informative (INFO).
            convert_to_numpy: give an array, else a tensor on the model's device.
            **kwargs: of the processor's call: `start` and `end` of a window in seconds, `sampling_rate` of arrays in
                Hz, `num_frames`.

        Returns:
            (D,) for one item, (B, D) in the order of a list; float32.

        Raises:
            ValueError: when not exactly one of them is given, its items cannot be counted (a generator), the model
                lacks its encoder, or there is no processor.
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
        items, single = list_items(name, items)
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
        with evaluation_mode(self):
            for first in tqdm(range(0, len(items), batch_size), desc="Batches", disable=not show_progress_bar):
                rows = order[first : first + batch_size]
                inputs = processor(**{name: as_batch(name, [items[row] for row in rows])}, **kwargs)
                pooled = get_features(**inputs.to(self.device, self.dtype)).pooler_output
                if len(pooled) != len(rows):
                    raise ValueError(f"The processor made {len(pooled)} items out of {len(rows)} {name}.")
                vectors[rows] = F.normalize(pooled.float(), dim=-1)  # once more, for half precision rounds
        vectors = vectors[0] if single else vectors
        return vectors.cpu().numpy() if convert_to_numpy else vectors

    @torch.no_grad()
    def zero_shot_video_classification(
        self,
        videos,
        candidate_labels: list[str],
        *,
        hypothesis_template: str | list[str] = "This is a video of {}.",
        processor=None,
        batch_size: int = 8,
        **kwargs,
    ) -> list[dict] | list[list[dict]]:
        """
        Which of some labels a video shows, in the form in which transformers' zero-shot pipelines answer.

        Args:
            videos: a video or image, or a list or column of them, as [`~FgmmModel.encode`] takes them.
            candidate_labels: one label or more.
            hypothesis_template: a sentence with {} for the label; of several the mean of the logits counts.
            processor: the model's. None: the one saved where the model was loaded from.
            batch_size: videos that are read and encoded at once.
            **kwargs: of the processor's call, `start` and `end` of a window in seconds, `num_frames`.

        Returns:
            `{"score", "label"}` of every label, the highest score first, for a list of videos a list of such lists.
            Scores are probabilities: the softmax over the labels of the model's logits.

        Raises:
            ValueError: for labels that are not a list of strings, a template without {}, a model that does not compare
                text with video, or where there is no processor.
            MediaError: (a ValueError) for a file that cannot be decoded.
        """
        templates = [hypothesis_template] if isinstance(hypothesis_template, str) else hypothesis_template
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size} must be at least 1.")
        if processor is None:
            processor = self.load_processor()
        videos, single = list_items("videos", videos)
        answers = []
        with evaluation_mode(self):
            score = make_zero_shot(self, processor, "video", candidate_labels, templates)
            for first in range(0, len(videos), batch_size):
                inputs = processor(videos=as_batch("videos", list(videos[first : first + batch_size])), **kwargs)
                for scores in score(inputs.to(self.device, self.dtype)).softmax(-1).tolist():
                    ranked = sorted(zip(scores, candidate_labels, strict=True), key=lambda pair: -pair[0])
                    answers.append([{"score": score, "label": label} for score, label in ranked])
        return answers[0] if single else answers


def list_items(name: str, items) -> tuple[Sequence, bool]:
    """An item, or a list or column of items, to a sequence of them, and whether it was one item.

    Args:
        name: of the argument, in messages.
        items: a column of NumPy or pandas holds strings or objects; what holds numbers is an item.

    Raises:
        ValueError: for an iterator, a set or anything else whose items have no number or order.
    """
    if getattr(getattr(items, "dtype", None), "kind", None) in ("O", "S", "T", "U"):
        items = items.tolist()
    if isinstance(items, Sequence) and not isinstance(items, (str, bytes)):
        return items, False
    is_item = isinstance(items, (str, bytes, Mapping)) or hasattr(items, "ndim") or hasattr(items, "read")
    if isinstance(items, Iterable) and not is_item:
        raise ValueError(f"{name} cannot be a {type(items).__name__}; give a list.")
    return [items], True


def as_batch(name: str, items: list) -> list:
    """Items for one call of the processor, which takes a list of pictures for the frames of one video."""
    return [[item] if name == "videos" and is_picture(item) else item for item in items]


def is_picture(item) -> bool:
    """PIL images, and arrays or tensors of three axes."""
    return isinstance(item, Image.Image) or getattr(item, "ndim", None) == 3


@torch.no_grad()
def make_zero_shot(
    model: FgmmPreTrainedModel, processor, modality: str, labels: list[str], templates: list[str]
) -> Callable[[dict], torch.Tensor]:
    """Encodes labels, and makes the function that compares with them.

    Args:
        model, processor: an [`FgmmModel`] and its own.
        modality: "video" or "audio".
        labels: of the classes.
        templates: sentences with {} for the label.

    Returns:
        Model inputs of that modality to (B, labels) logits, the mean over the templates.

    Raises:
        ValueError: for labels that are not a list of strings, a template without {}, or a model that does not compare
            text with this modality.
    """
    if f"text_{modality}" not in model.objectives:
        raise ValueError(f"The model does not compare text with {modality}, which zero-shot classification needs.")
    if isinstance(labels, str) or not labels or not all(isinstance(label, str) for label in labels):
        raise ValueError(f"The labels must be a list of at least one string, not {labels!r}.")
    for template in templates:
        if "{}" not in template:
            raise ValueError(f"The template {template!r} has no {{}}, where the label goes.")
    texts = processor(text=[template.replace("{}", label) for template in templates for label in labels])
    queries = as_queries(model.get_text_features(**texts.to(model.device)))
    encode = model.get_video_features if modality == "video" else model.get_audio_features

    def score(inputs: dict) -> torch.Tensor:
        logits = model.objectives[f"text_{modality}"](queries, as_keys(encode(**inputs)), return_loss=False)
        return logits.T.unflatten(1, (len(templates), len(labels))).mean(1)

    return score


__all__ = ["FgmmInferenceMixin"]
