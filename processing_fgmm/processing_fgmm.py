"""The processor: videos, images, audio and text to model inputs in one call."""

import logging
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import islice, pairwise

import numpy as np
import torch
from transformers.feature_extraction_utils import BatchFeature
from transformers.processing_utils import ProcessingKwargs, ProcessorMixin, Unpack
from transformers.video_processing_utils import VideoProcessorMixin

from .feature_extraction_fgmm import to_waveform
from .hf_processors_fgmm import (
    load_feature_extractor,
    load_tokenizer,
    make_dual_processors,
    make_feature_extractor,
    make_tokenizer,
    make_video_processor,
)
from .media_fgmm import Media, read_waveform, unwrap_file
from .names_fgmm import explain_absence
from .phrases_fgmm import (
    find_content_words,
    find_phrases,
    find_unknown_words,
    replace_words,
    sample_words,
    to_token_spans,
)
from .video_processing_fgmm import FgmmVideoProcessor, FgmmVideoProcessorKwargs, is_image, list_windows

logger = logging.getLogger(__name__)

# Words that a message names.
MAX_WORDS_NAMED = 20
# With these options transformers looks elsewhere, or as somebody else, than a question about a name does.
ASKS_OTHERWISE = {"cache_dir", "local_files_only", "token"}
# Words of which foreign texts are made: at most, and at least.
MAX_FOREIGN_WORDS, MIN_FOREIGN_WORDS = 256, 8
TEXT_ERROR = "text must be a string, a list of strings, or a list of lists of candidate captions."


class FgmmProcessorKwargs(ProcessingKwargs, total=False):
    """Keyword arguments of a call for each modality, and their defaults."""

    videos_kwargs: FgmmVideoProcessorKwargs
    _defaults = {"text_kwargs": {"truncation": True, "max_length": 256}}


class FgmmProcessor(ProcessorMixin):
    """Converts videos, images, audio and texts to the inputs of [`FgmmModel`].

    Args:
        video_processor: [`FgmmVideoProcessor`].
        feature_extractor: [`FgmmFeatureExtractor`], or [`FgmmEncoderFeatureExtractor`] for an encoder of transformers.
        tokenizer: any fast tokenizer, whose offsets map phrases to tokens.
        max_phrase_words: maximum number of words in a phrase (W).
        clip_seconds: length of the window of an item in training and evaluation, seconds.
        caption_length: None, or the tokens to which each caption is truncated or padded; all of them, padding included,
            then are its only phrase (converted MIL-NCE weights, whose maximum over words includes the padding).

    Raises:
        ValueError: when the tokenizer is not a fast one.
    """

    valid_processor_kwargs = FgmmProcessorKwargs

    def __init__(
        self,
        video_processor,
        feature_extractor,
        tokenizer,
        max_phrase_words: int = 4,
        clip_seconds: float = 10.0,
        caption_length: int | None = None,
    ):
        super().__init__(video_processor, feature_extractor, tokenizer)
        if not tokenizer.is_fast:
            raise ValueError(
                f"{type(tokenizer).__name__} is not a fast tokenizer, which phrases need; give one with offsets."
            )
        self.max_phrase_words = max_phrase_words
        self.clip_seconds = clip_seconds
        self.caption_length = caption_length

    @classmethod
    def from_encoders(cls, video=None, audio=None, text=None, tokenizer=None, **kwargs) -> "FgmmProcessor":
        """Builds the processor of a model that [`FgmmModel.from_encoders`] builds from the same encoders.

        Args:
            video, audio: name on the Hub or folder of an encoder, whose image or video processor and feature extractor
                give the settings; or its configuration, which gives sizes alone; None: our defaults.
            text: name on the Hub or folder of an encoder, for its tokenizer.
            tokenizer: name, folder or tokenizer, overrides that of `text`.
            **kwargs: of [`FgmmProcessor`].

        Raises:
            ValueError: when no tokenizer or a slow one is given, or an encoder is not supported.
            OSError: for a name that cannot be loaded.
        """
        tokenizer = make_tokenizer(text if tokenizer is None else tokenizer)
        return cls(make_video_processor(video), make_feature_extractor(audio), tokenizer, **kwargs)

    @classmethod
    def from_dual_encoder(cls, dual_encoder, video=None, audio=None, tokenizer=None, **kwargs) -> "FgmmProcessor":
        """Builds the processor of a model that [`FgmmModel.from_dual_encoder`] builds from the same encoders.

        Inputs equal those of the dual encoder's own processor. (Images are therefore resized by Pillow; sounds longer
        than CLAP's ten seconds are cropped to their middle, which CLAP crops at random.)

        Args:
            dual_encoder: name on the Hub or folder, whose image processor, feature extractor and tokenizer are used; or
                a configuration, which gives sizes alone.
            video, audio: of the modality that the dual encoder lacks, as in [`~FgmmProcessor.from_encoders`].
            tokenizer: name, folder or tokenizer, overrides that of the dual encoder.
            **kwargs: of [`FgmmProcessor`].

        Raises:
            ValueError, OSError: as [`~FgmmProcessor.from_encoders`].
        """
        video_processor, feature_extractor = make_dual_processors(dual_encoder, video, audio)
        tokenizer = make_tokenizer(dual_encoder if tokenizer is None else tokenizer)
        return cls(video_processor, feature_extractor, tokenizer, **kwargs)

    def __call__(
        self, images=None, text=None, videos=None, audio=None, **kwargs: Unpack[FgmmProcessorKwargs]
    ) -> BatchFeature:
        """
        Args:
            images: one or a list of PIL images, arrays, paths and other kinds, see
                [`FgmmVideoProcessor.preprocess_images`]; they become clips of one frame.
            text: a string or a list of items, each a string or a list of candidate captions. A warning names the words
                that the tokenizer does not know, unless `verbose` is False.
            videos: see [`FgmmVideoProcessor.preprocess`].
            audio: one or a list of: path, bytes or binary file of audio or video, or `{"bytes", "path"}` (datasets'
                undecoded file); array or tensor (S,) or (channels, S) at `sampling_rate`, floats in [-1, 1] or integers
                as in WAV files, or `{"array", "sampling_rate"}`; None, or a file without an audio stream, is an item
                without audio.
            **kwargs: `start` and `end` of the window in seconds, or lists of one an item; `num_frames` and other
                settings of [`FgmmVideoProcessor`], also for images; `sampling_rate` of arrays in Hz; `max_length` of a
                caption in tokens and `padding="max_length"`, which pads items to at least that many. The same by
                modality in `videos_kwargs`, `images_kwargs`, `audio_kwargs` and `text_kwargs`. `return_tensors`:
                `"pt"` or `"np"`; None means `"pt"`.

        Returns:
            For videos or images `pixel_values_videos` (B, T, 3, H, W) float32 and `video_mask` (B,) bool. For audio
            `input_features` (B, frames, mel bands) float32 and `input_features_mask` (B, frames) bool, or both (B, S)
            for encoders of waveforms. For text `input_ids` and `attention_mask` (B, L) int64, all captions of an item
            end to end; `phrase_spans` (B, M, 2) int64, first token and one past the last of each phrase;
            `phrase_captions` (B, M) int64 in [0, K), the caption of each phrase; `phrase_mask` (B, M) bool;
            `caption_lengths` (B, K) int64, tokens of each caption, 0 for padding.

        Raises:
            MediaError: for a file that cannot be decoded.
            ValueError: when nothing, both images and videos, or an item of an unknown kind is given, or for an invalid
                option.
        """
        if images is not None and videos is not None:
            raise ValueError("Give either images or videos: images are clips of one frame and take the same place.")
        if images is None and text is None and videos is None and audio is None:
            raise ValueError("Give at least one of images, text, videos and audio.")
        kwargs.setdefault("return_tensors", "pt")
        # A tokenizer that was saved after it padded a batch has a max_length of None, which must not hide our default.
        init_kwargs = {name: value for name, value in self.tokenizer.init_kwargs.items() if value is not None}
        merged = self._merge_kwargs(self.valid_processor_kwargs, tokenizer_init_kwargs=init_kwargs, **kwargs)
        data = {}
        if images is not None:
            settings = {**merged["videos_kwargs"], **merged["images_kwargs"]}
            data.update(self.video_processor.preprocess_images(images, **settings))
        if videos is not None:
            data.update(self.video_processor(videos, **merged["videos_kwargs"]))
        if audio is not None:
            window = {key: value for key, value in merged["videos_kwargs"].items() if key in ("start", "end")}
            data.update(self._process_audio(audio, merged["audio_kwargs"].get("sampling_rate"), **window))
        if text is not None:
            options = merged["text_kwargs"]
            padding, verbose = options.get("padding"), options.get("verbose", True)
            data.update(self._process_text(text, options["truncation"], options["max_length"], padding, verbose))
        return BatchFeature(data, tensor_type=kwargs["return_tensors"])

    def check_words(self, texts: list[str]) -> tuple[list[str], list[int]]:
        """Words of texts that the tokenizer does not know. Function words, which no phrase contains, do not count.

        Returns:
            the unknown words, each once, in the order of the texts; and the indices of the texts without a known word.
        """
        words = [find_content_words(text) for text in texts]
        distinct = list(dict.fromkeys(word for of_text in words for word in of_text))
        unknown = dict.fromkeys(find_unknown_words(distinct, self.tokenizer))
        return list(unknown), [index for index, of_text in enumerate(words) if unknown.keys() >= set(of_text)]

    def warn_of_unknown_words(self, texts: list[str]) -> list[int]:
        """Logs one warning that names the unknown words of texts; returns the indices of texts without a known word."""
        words, without_known = self.check_words(texts)
        if words:
            message = "The tokenizer does not know these words, which have no meaning for the model: %s."
            logger.warning(message, name_words(words))
        return without_known

    def require_known_words(self, texts: list[str]) -> None:
        """Checks that each text has a word that the tokenizer knows; the model cannot tell the others apart.

        Raises:
            ValueError: with the texts that have none.
        """
        _, without_known = self.check_words(texts)
        if without_known:
            raise ValueError(
                f"The tokenizer knows no word of {name_words([texts[index] for index in without_known])}; give other "
                "words, or train the model on captions that have these."
            )

    def make_foreign_texts(self, text: str, number: int) -> list[str]:
        """Texts that say something else in the same form: random words of the tokenizer's vocabulary stand in the
        places of the content words, always the same for a text.

        Returns:
            `number` texts; none where the vocabulary has fewer than `MIN_FOREIGN_WORDS` other words.
        """
        generator = np.random.default_rng(0)
        excluded = {word.lower() for word in find_content_words(text)}
        words = sample_words(self.tokenizer, MAX_FOREIGN_WORDS, excluded, generator)
        if len(words) < MIN_FOREIGN_WORDS:
            return []
        return [replace_words(text, words, generator) for _ in range(number)]

    def list_windows(
        self, item, start: float = 0.0, end: float | None = None, number: int | None = None
    ) -> list[tuple[float, float]] | None:
        """Windows of the same length that cover a part of a file one after the other.

        Args:
            item: a file of video or sound as in a call.
            start, end: the part, seconds; end None is the end of the file.
            number: of windows; None: as many as makes their length most like `clip_seconds`.

        Returns:
            Start and end of each, seconds; None for images, frames and waveforms in memory, which have no times.

        Raises:
            MediaError: for a file that cannot be decoded.
        """
        item = unwrap_file(item)
        if is_image(item) or not (isinstance(item, (str, os.PathLike, bytes)) or hasattr(item, "read")):
            return None
        with Media(item) as media:
            duration = media.duration
        # A file of one frame, or of unknown duration, is one window, whose end only reading it can tell.
        last = max(duration if end is None else min(end, duration or end), start + 1e-3)
        number = number or max(1, round((last - start) / self.clip_seconds))
        edges = np.linspace(start, last, number + 1).tolist()
        return list(pairwise(edges))

    def _process_audio(self, audio, sampling_rate: int | None, start=0.0, end=None):
        """Items of any kind to the feature extractor's batch; `sampling_rate` in Hz, `start` and `end` in seconds."""
        target_rate = self.feature_extractor.sampling_rate
        items = audio if isinstance(audio, (list, tuple)) else [audio]
        waveforms = []
        for item, window in zip(items, list_windows(start, end, len(items)), strict=True):
            item, rate = unwrap_file(item), sampling_rate
            if isinstance(item, dict) and item.keys() >= {"array", "sampling_rate"}:
                item, rate = item["array"], item["sampling_rate"]
            if isinstance(item, (str, os.PathLike, bytes)) or hasattr(item, "read"):
                waveforms.append(read_waveform(item, target_rate, *window))
            elif item is None:
                waveforms.append(None)
            else:
                waveforms.append(to_waveform(item, rate, target_rate))
        return self.feature_extractor(waveforms)

    def _process_text(
        self, text, truncation: bool, max_length: int, padding: bool | str | None, verbose: bool
    ) -> dict[str, torch.Tensor]:
        """Items of candidate captions to the padded tensors of a batch, see [`__call__`]."""
        if padding not in (None, True, "longest", "max_length"):
            raise ValueError(f"padding={padding!r} is neither 'longest' (True, the default) nor 'max_length'.")
        items = list_captions(text)
        captions = [caption for item in items for caption in item]
        if verbose:
            self.warn_of_unknown_words(captions)
        tokenized = iter(self._tokenize(captions, truncation, max_length))
        joined = [join_captions(list(islice(tokenized, len(item)))) for item in items]
        return pad_texts(joined, self.tokenizer.pad_token_id, max_length if padding == "max_length" else 1)

    def _tokenize(self, captions: list[str], truncation: bool, max_length: int) -> list["TokenizedText"]:
        """Token ids and phrases of each caption.

        Raises:
            ValueError: when `max_length` leaves no token for a word.
        """
        options = {"truncation": truncation, "max_length": min(max_length, self.tokenizer.model_max_length)}
        if self.caption_length is not None:
            options = {"truncation": True, "max_length": self.caption_length, "padding": "max_length"}
        min_length = self.tokenizer.num_special_tokens_to_add() + 1
        if options["truncation"] and options["max_length"] < min_length:  # the tokenizer would not truncate at all
            raise ValueError(
                f"max_length={options['max_length']} has no room for a word; it must be at least {min_length}, "
                "special tokens included."
            )
        encoded = self.tokenizer(captions, return_offsets_mapping=True, **options) if captions else {}
        # Tokenizers are saved with their last truncation, and truncate so by default when they are loaded again.
        self.tokenizer.backend_tokenizer.no_truncation()
        tokenized = []
        for index, caption in enumerate(captions):
            token_ids = encoded["input_ids"][index]
            if self.caption_length is not None:
                spans = [(0, self.caption_length)]
            else:
                spans = to_token_spans(find_phrases(caption, self.max_phrase_words), encoded["offset_mapping"][index])
            tokenized.append(TokenizedText(token_ids, spans, [0] * len(spans), [len(token_ids)]))
        return tokenized

    # The mixin's versions of the next two methods need torchvision, which nothing else here does.
    def check_argument_for_proper_class(self, argument_name, argument):
        """Raises a TypeError for a part of another class, for example when the parts are given in another order."""
        if argument_name != "video_processor":
            return super().check_argument_for_proper_class(argument_name, argument)
        if not isinstance(argument, VideoProcessorMixin):
            raise TypeError(f"video_processor cannot be a {type(argument).__name__}; give a FgmmVideoProcessor.")
        return VideoProcessorMixin

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, **kwargs):
        """As in transformers, which asks the Hub for half a minute for a name of nothing; here that is said at once.

        Raises:
            OSError: when there is neither a folder nor a model on the Hub of this name.
        """
        if not kwargs.keys() & ASKS_OTHERWISE:
            remedy = "give a folder with a saved processor, or a model's name on the Hub"
            if absence := explain_absence(os.fspath(pretrained_model_name_or_path), "model", remedy):
                raise OSError(f"The processor {absence}")
        return super().from_pretrained(pretrained_model_name_or_path, **kwargs)

    @classmethod
    def _get_arguments_from_pretrained(cls, pretrained_model_name_or_path, processor_dict=None, **kwargs):
        return [
            FgmmVideoProcessor.from_pretrained(pretrained_model_name_or_path, **kwargs),
            load_feature_extractor(pretrained_model_name_or_path, **kwargs),
            load_tokenizer(pretrained_model_name_or_path, **kwargs),
        ]

    def to_dict(self) -> dict:
        """As in transformers, with the entry from which AutoImageProcessor loads the video processor's settings."""
        image_processor = {
            "image_processor_type": "FgmmImageProcessor",
            "auto_map": {"AutoImageProcessor": "video_processing_fgmm.FgmmImageProcessor"},
        }
        return {**super().to_dict(), "image_processor": image_processor}

    @property
    def model_input_names(self) -> list[str]:
        return [
            *self.video_processor.model_input_names,
            *("input_features", "input_features_mask"),
            *("input_ids", "attention_mask", "phrase_spans", "phrase_captions", "phrase_mask", "caption_lengths"),
        ]


def name_words(words: list[str]) -> str:
    """Words in quotation marks for a message; of many the first, and how many more there are."""
    named = ", ".join(map(repr, words[:MAX_WORDS_NAMED]))
    return named if len(words) <= MAX_WORDS_NAMED else f"{named} and {len(words) - MAX_WORDS_NAMED} more"


@dataclass
class TokenizedText:
    """One caption, or the captions of one item end to end.

    token_ids: of all tokens.
    spans: first token and one past the last of each phrase.
    phrase_captions: for each phrase the index of its caption.
    caption_lengths: tokens of each caption.
    """

    token_ids: list[int] = field(default_factory=list)
    spans: list[tuple[int, int]] = field(default_factory=list)
    phrase_captions: list[int] = field(default_factory=list)
    caption_lengths: list[int] = field(default_factory=list)


def join_captions(captions: list[TokenizedText]) -> TokenizedText:
    """The captions of one item end to end: spans become those of the joined tokens."""
    item = TokenizedText()
    for index, caption in enumerate(captions):
        offset = len(item.token_ids)
        item.spans += [(first + offset, last + offset) for first, last in caption.spans]
        item.phrase_captions += [index] * len(caption.spans)
        item.caption_lengths += caption.caption_lengths
        item.token_ids += caption.token_ids
    return item


def pad_texts(items: list[TokenizedText], pad_token_id: int, min_length: int) -> dict[str, torch.Tensor]:
    """Items to the padded tensors of a batch, see [`FgmmProcessor.__call__`]; L is at least `min_length`."""
    length = max([min_length, *(len(item.token_ids) for item in items)])
    num_phrases = max([1, *(len(item.spans) for item in items)])
    num_captions = max([1, *(len(item.caption_lengths) for item in items)])
    return {
        "input_ids": pad([item.token_ids for item in items], length, pad_token_id),
        "attention_mask": pad([[1] * len(item.token_ids) for item in items], length, 0),
        "phrase_spans": pad([item.spans for item in items], num_phrases, (0, 0)),
        "phrase_captions": pad([item.phrase_captions for item in items], num_phrases, 0),
        "phrase_mask": pad([[1] * len(item.spans) for item in items], num_phrases, 0).bool(),
        "caption_lengths": pad([item.caption_lengths for item in items], num_captions, 0),
    }


def pad(rows: list[list], length: int, value: int | tuple[int, ...]) -> torch.Tensor:
    """Lists of integers, or of tuples of them, to (B, length) or (B, length, tuple size) int64, padded with `value`."""
    padded = [[*row, *[value] * (length - len(row))] for row in rows]
    return torch.tensor(padded, dtype=torch.long).reshape(len(rows), length, *np.shape(value))


def list_captions(text) -> list[list[str]]:
    """The candidate captions of each item, from a string or a column of strings or lists of strings.

    Raises:
        ValueError: for anything else.
    """
    items = [[item] if isinstance(item, str) else item for item in ([text] if isinstance(text, str) else as_list(text))]
    captions = [as_list(item) for item in items]
    if not all(isinstance(caption, str) for item in captions for caption in item):
        raise ValueError(TEXT_ERROR)
    return captions


def as_list(items) -> list:
    """A list, array or other column as a list; a mapping, such as a row of a corpus, would give its keys.

    Raises:
        ValueError: for a mapping, or what cannot be iterated over.
    """
    if isinstance(items, Mapping) or not isinstance(items, Iterable):
        raise ValueError(TEXT_ERROR)
    return list(items)


__all__ = ["FgmmProcessor"]
