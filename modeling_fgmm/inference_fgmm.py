"""Inference: embeddings of files and texts, zero-shot classification, grounding of phrases."""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from tqdm.auto import tqdm
from transformers import AutoProcessor

from .grounding_fgmm import NUM_FOREIGN, ClipRegions, Grounding, find_words, ground_phrases, join_windows
from .layers_fgmm import FgmmPreTrainedModel, evaluation_mode
from .outputs_fgmm import as_keys, as_queries
from .scoring_fgmm import Keys

logger = logging.getLogger(__name__)

# Arguments of `from_pretrained` that say, beside name and token, from where a model is loaded.
SOURCE_OPTIONS = ("revision", "subfolder", "cache_dir", "local_files_only")


class FgmmInferenceMixin:
    """`encode`, `zero_shot_video_classification` and `ground`, and the processor that they need."""

    _source_options: dict = {}
    _token: str | bool | None = None
    _processor = None

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, *args, **kwargs):
        """As in transformers; remembers revision and token, with which the processor is loaded, too."""
        loaded = super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        model._source_options = {name: kwargs[name] for name in SOURCE_OPTIONS if kwargs.get(name) is not None}
        model._token = kwargs.get("token")
        return loaded

    def __getstate__(self) -> dict:
        """The state for pickling and copying, without the token, which is secret."""
        return {**self.__dict__, "_token": None}

    def load_processor(self):
        """The processor that was saved with this model; it is loaded once.

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
        start: float | Sequence[float] = 0.0,
        end: float | Sequence[float | None] | None = None,
        on_error: str = "raise",
        show_progress_bar: bool | None = None,
        convert_to_numpy: bool = True,
        **kwargs,
    ) -> np.ndarray | torch.Tensor | tuple[np.ndarray | torch.Tensor, list[tuple[int, str]]]:
        """
        Embeds items: one L2-normalised vector an item, the `pooler_output` of its features. Dot products of the vectors
        of any modalities are cosine similarities.

        Args:
            videos, images, audio, text: one of them: an item as the processor takes it, or a list or column of items.
                In a list of videos a picture is an item (an image), a list of pictures is a clip. An item without
                the modality (None, a silent file for audio, a text without words) gets the vector 0, and so does a text
                of which the tokenizer knows no word; a warning names the unknown words.
            processor: the model's. None: the one that was saved with it.
            batch_size: items that are read and encoded at once.
            start, end: the window of a file in seconds, end None: the end of the file; or a list of one an item.
            on_error: "raise", or "skip": an item that cannot be read gets the vector 0, and is listed.
            show_progress_bar: None: where this module's logger has the level INFO.
            convert_to_numpy: return an array, else a tensor on the model's device.
            **kwargs: of the processor's call: `sampling_rate` of arrays in Hz, `num_frames`.

        Returns:
            (D,) for one item, (B, D) in the order of a list; float32. With `on_error="skip"` a tuple of that and the
            items that failed, a list of (index, reason).

        Raises:
            ValueError: when not exactly one modality is given, its items cannot be counted (a generator), there is not
                one start and end an item, the model lacks its encoder, or there is no processor.
            MediaError: (a ValueError) for a file that cannot be decoded, unless it is skipped.
        """
        given = {"videos": videos, "images": images, "audio": audio, "text": text}
        given = {name: items for name, items in given.items() if items is not None}
        if len(given) != 1:
            raise ValueError(f"Give one of videos, images, audio and text, not {' and '.join(given) or 'none'}.")
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size} must be at least 1.")
        if on_error not in ("raise", "skip"):
            raise ValueError(f"on_error={on_error!r} is neither 'raise' nor 'skip'.")
        name, items = given.popitem()
        modality = "video" if name == "images" else name.removesuffix("s")
        self._encoder(modality)  # raises where the model has none
        items, single = list_items(name, items)
        if processor is None:
            processor = self.load_processor()
        reader = BatchReader(processor, name, items, start, end, kwargs)
        rows, failures = reader.order_rows(), {}
        if on_error == "skip":
            reader.check_options()
        get_features = getattr(self, f"get_{modality}_features")
        if show_progress_bar is None:
            show_progress_bar = logger.isEnabledFor(logging.INFO)
        vectors = torch.zeros(len(items), self.config.projection_dim, device=self.device)
        with evaluation_mode(self):
            for first in tqdm(range(0, len(rows), batch_size), desc="Batches", disable=not show_progress_bar):
                batch = rows[first : first + batch_size]
                try:
                    inputs = reader.read(batch)
                except ValueError:
                    if on_error == "raise":
                        raise
                    failures |= reader.find_failures(batch)
                    batch = [row for row in batch if row not in failures]
                    if not batch:
                        continue
                    inputs = reader.read(batch)
                pooled = get_features(**inputs.to(self.device, self.dtype)).pooler_output
                if len(pooled) != len(batch):
                    raise ValueError(f"The processor made {len(pooled)} items out of {len(batch)} {name}.")
                vectors[batch] = F.normalize(pooled.float(), dim=-1)  # once more, for half precision rounds
        vectors = vectors[0] if single else vectors
        vectors = vectors.cpu().numpy() if convert_to_numpy else vectors
        return (vectors, sorted(failures.items())) if on_error == "skip" else vectors

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
        Classifies videos by labels alone; the results have the form of transformers' zero-shot pipelines.

        Args:
            videos: a video or image, or a list or column of them, as [`~FgmmModel.encode`] takes them.
            candidate_labels: one label or more.
            hypothesis_template: a sentence with {} for the label; the logits of several are averaged.
            processor: the model's. None: the one that was saved with it.
            batch_size: videos that are read and encoded at once.
            **kwargs: of the processor's call: `start` and `end` of a window in seconds, `num_frames`.

        Returns:
            `{"score", "label"}` of every label, the highest score first; for a list of videos a list of such lists.
            Scores are probabilities: the softmax of the model's logits over the labels.

        Raises:
            ValueError: for labels that are not a list of strings, one of which the tokenizer knows no word, a template
                without {}, a model that does not compare text with video, or where there is no processor.
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
                inputs = processor(videos=as_clips(processor, videos[first : first + batch_size]), **kwargs)
                for scores in score(inputs.to(self.device, self.dtype)).softmax(-1).tolist():
                    ranked = sorted(zip(scores, candidate_labels, strict=True), key=lambda pair: -pair[0])
                    answers.append([{"score": score, "label": label} for score, label in ranked])
        return answers[0] if single else answers

    @torch.no_grad()
    def ground(
        self,
        text: str,
        *,
        video=None,
        image=None,
        audio=None,
        start: float = 0.0,
        end: float | None = None,
        num_frames: int | None = None,
        num_windows: int | None = None,
        batch_size: int = 8,
        processor=None,
    ) -> Grounding:
        """
        Where and when a clip shows, or sounds like, each phrase of a text: the attention that the model's objective
        gives it. A file longer than the model's clips is encoded in windows that follow each other, and the attention
        is over the regions of all of them. Objectives of pooled embeddings (`"coarse"`, `"mil_nce"`, `"siglip"`) have
        no attention: their phrases mean all of the clip, and what they can tell of places are the cosines of phrases
        with regions.

        Args:
            text: one text.
            video, image, audio: one of them: a video or image, an image, or a sound or the sound of a video, as the
                processor takes it.
            start, end: the part of a file that the model is shown, in seconds; end None is the end of the file.
            num_frames: frames of each window of a video; None: as many as the video processor takes.
            num_windows: of a file, all of the same length; None: as many as makes them most like the processor's
                `clip_seconds`.
            batch_size: windows that are encoded at once.
            processor: the model's. None: the one that was saved with it.

        Returns:
            [`Grounding`]: of each phrase its words, weight, similarity, confidence, attention, box and seconds.

        Raises:
            ValueError: when not exactly one of video, image and audio is given, a text has no word that the tokenizer
                knows, an audio no sound, the model does not compare text with the modality, or there is no processor.
            MediaError: (a ValueError) for a file that cannot be decoded.
        """
        given = {"video": video, "image": image, "audio": audio}
        if not isinstance(text, str):
            raise ValueError(f"text must be one string, not a {type(text).__name__}.")
        if sum(item is not None for item in given.values()) != 1:
            raise ValueError("Give either video, image or audio.")
        objective = self.get_objective("text", "video" if audio is None else "audio")
        if processor is None:
            processor = self.load_processor()
        texts = processor(text=[text])
        if not texts["phrase_mask"].any():
            raise ValueError(f"The text {text!r} has no word to be grounded.")
        processor.require_known_words([text])
        foreign = processor.make_foreign_texts(text, NUM_FOREIGN)
        options = {"num_frames": num_frames, "num_windows": num_windows, "batch_size": batch_size}
        clip = self.encode_regions(**given, start=start, end=end, **options, processor=processor)
        with evaluation_mode(self):
            queries = as_queries(self.get_text_features(**texts.to(self.device)))
            attention = objective(queries, clip.keys, output="attention")
            others = None
            if foreign:
                others = as_queries(self.get_text_features(**processor(text=foreign, verbose=False).to(self.device)))
                others = objective(others, clip.keys, output="weights")
        names = [*find_words(processor.tokenizer, text, texts["phrase_spans"][0]), text]
        return ground_phrases(attention, names, clip, not objective.needs_phrases, others)

    @torch.no_grad()
    def encode_regions(
        self,
        *,
        video=None,
        image=None,
        audio=None,
        start: float = 0.0,
        end: float | None = None,
        num_frames: int | None = None,
        num_windows: int | None = None,
        batch_size: int = 8,
        processor=None,
    ) -> ClipRegions:
        """
        The regions of one clip, in all of its windows, with their times: what [`~FgmmModel.ground`] compares phrases
        with.

        Args:
            video, image, audio, start, end, num_frames, num_windows, batch_size, processor: as in
                [`~FgmmModel.ground`].

        Raises:
            ValueError: when not exactly one of video, image and audio is given, an audio has no sound, or there is no
                processor.
            MediaError: (a ValueError) for a file that cannot be decoded.
        """
        given = {"video": video, "image": image, "audio": audio}
        given = {name: item for name, item in given.items() if item is not None}
        if len(given) != 1:
            raise ValueError("Give either video, image or audio.")
        for option, value in (("num_frames", num_frames), ("num_windows", num_windows), ("batch_size", batch_size)):
            if value is not None and value < 1:
                raise ValueError(f"{option}={value} must be at least 1.")
        name, item = given.popitem()
        if processor is None:
            processor = self.load_processor()
        windows = None if name == "image" else processor.list_windows(item, start, end, num_windows)
        reader = WindowReader(processor, name, item, windows, num_frames)
        get_features = self.get_audio_features if name == "audio" else self.get_video_features
        with evaluation_mode(self):
            outputs = [
                get_features(**reader.read(first, first + batch_size).to(self.device, self.dtype))
                for first in range(0, reader.num_windows, batch_size)
            ]
        return join_windows(outputs, windows, reader.area)


def list_items(name: str, items) -> tuple[Sequence, bool]:
    """A sequence of the items of an argument, and whether it was one item alone.

    Args:
        name: of the argument, for messages.
        items: one item, or a list or column; arrays of numbers are items, arrays of strings or objects are columns.

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


class BatchReader:
    """Model inputs of some of the items of one modality.

    Args:
        processor: makes them.
        name: the argument of its call: videos, images, audio or text.
        items: B items.
        start, end: the window of all items in seconds, or a sequence of one an item.
        options: of its call.

    Raises:
        ValueError: when not all texts are strings, or there is not one start and end an item.
    """

    def __init__(self, processor, name: str, items: Sequence, start, end, options: dict):
        self.processor = processor
        self.name = name
        self.items = items
        self.windows = {"start": start, "end": end}
        self.options = options
        if name == "text":
            if not all(item is None or isinstance(item, str) for item in items):
                raise ValueError("text must be a string, or a list of strings or None.")
            self.items = [item or "" for item in items]
            self.options = {"verbose": False, **options}  # order_rows says once what is unknown
        for bound, values in self.windows.items():
            values = values.tolist() if hasattr(values, "tolist") else values
            self.windows[bound] = values
            if isinstance(values, Sequence) and len(values) != len(items):
                raise ValueError(f"{bound} has {len(values)} values for {len(items)} {name}; give one, or one an item.")

    def order_rows(self) -> list[int]:
        """The indices of the items, but for texts without a known word; texts are sorted to need little padding."""
        rows = list(range(len(self.items)))
        if self.name != "text":
            return rows
        unknown = set(self.processor.warn_of_unknown_words(self.items))
        return sorted((row for row in rows if row not in unknown), key=lambda row: len(self.items[row]))

    def read(self, rows: list[int]):
        """The inputs of the items with these indices; raises a ValueError where one cannot be read."""
        batch = [self.items[row] for row in rows]
        if self.name == "videos":
            batch = as_clips(self.processor, batch)
        windows = {
            bound: [values[row] for row in rows] if isinstance(values, Sequence) else values
            for bound, values in self.windows.items()
        }
        return self.processor(**{self.name: batch}, **self.options, **({} if self.name == "text" else windows))

    def check_options(self) -> None:
        """Raises a ValueError for options that no item could be read with."""
        if self.name != "text":
            self.processor(**{self.name: [None]}, **self.options)

    def find_failures(self, rows: list[int]) -> dict[int, str]:
        """Why items cannot be read, by their indices; those that can are left out."""
        failures = {}
        for row in rows:
            try:
                self.read([row])
            except ValueError as error:
                failures[row] = str(error)
        return failures


class WindowReader:
    """Model inputs of the windows of one clip.

    Args:
        processor: makes them.
        name: "video", "image" or "audio".
        item: one, as the processor takes it.
        windows: seconds of each; None: the clip has no times.
        num_frames: of a window of a video; None: as many as the video processor takes.

    Attributes:
        area: the part of a frame that the model is shown, as a box, once a window has been read; None for a sound.
    """

    def __init__(self, processor, name: str, item, windows: list | None, num_frames: int | None):
        self.processor = processor
        self.name = name
        self.item = item
        self.windows = windows
        self.num_windows = len(windows) if windows else 1
        self.num_frames = num_frames or processor.video_processor.num_frames
        self.area = None

    def read(self, first: int, last: int):
        """The inputs of the windows from `first` to before `last`."""
        windows = self.windows[first:last] if self.windows else [(0.0, None)]
        if self.name == "audio":
            start, end = (list(bounds) for bounds in zip(*windows, strict=True))
            return self.processor(audio=[self.item] * len(windows), start=start, end=end)
        video_processor = self.processor.video_processor
        if self.name == "image":
            frames = [video_processor.load_image(self.item)]
        else:
            frames = [video_processor.load_frames(self.item, self.num_frames, *window) for window in windows]
        self.area = video_processor.cropped_area(*frames[0].shape[-2:])
        return self.processor(videos=frames, num_frames=len(frames[0]))


def as_clips(processor, videos: Sequence) -> list:
    """Videos for one call of the processor, which takes a list of nothing but pictures as the frames of one clip."""
    return [[video] if processor.video_processor.is_frame(video) else video for video in videos]


@torch.no_grad()
def make_zero_shot(
    model: FgmmPreTrainedModel, processor, modality: str, labels: list[str], templates: list[str]
) -> Callable[[dict | Keys], torch.Tensor]:
    """Encodes labels once, for the zero-shot classification of many clips.

    Args:
        model, processor: an [`FgmmModel`] and its processor.
        modality: "video" or "audio".
        labels: of the classes.
        templates: sentences with {} for the label.

    Returns:
        A function of the model inputs of B clips, or of their [`Keys`], that gives (B, labels) logits, the mean over
        the templates.

    Raises:
        ValueError: for labels that are not a list of strings, one of which the tokenizer knows no word, a template
            without {}, or a model that does not compare text with this modality.
    """
    objective = model.get_objective("text", modality)
    if isinstance(labels, str) or not labels or not all(isinstance(label, str) for label in labels):
        raise ValueError(f"The labels must be a list of at least one string, not {labels!r}.")
    for template in templates:
        if "{}" not in template:
            raise ValueError(f"The template {template!r} has no {{}}, where the label goes.")
    processor.require_known_words(labels)
    texts = processor(text=[template.replace("{}", label) for template in templates for label in labels])
    queries = as_queries(model.get_text_features(**texts.to(model.device)))
    encode = model.get_video_features if modality == "video" else model.get_audio_features

    def score(inputs: dict | Keys) -> torch.Tensor:
        keys = inputs if isinstance(inputs, Keys) else as_keys(encode(**inputs))
        logits = objective(queries, keys, output="logits")
        return logits.T.unflatten(1, (len(templates), len(labels))).mean(1)

    return score


__all__ = ["FgmmInferenceMixin"]
