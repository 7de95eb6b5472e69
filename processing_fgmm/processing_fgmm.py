"""One call for videos, images, audio and text."""

import os
from collections.abc import Iterable, Mapping

import torch
from transformers.feature_extraction_utils import BatchFeature
from transformers.processing_utils import ProcessingKwargs, ProcessorMixin, Unpack
from transformers.video_processing_utils import VideoProcessorMixin

from .feature_extraction_fgmm import to_mono
from .hf_processors_fgmm import (
    load_feature_extractor,
    make_feature_extractor,
    make_tokenizer,
    make_video_processor,
)
from .media_fgmm import probe_media, read_waveform, unwrap_file
from .phrases_fgmm import find_phrases, to_token_spans
from .video_processing_fgmm import FgmmVideoProcessor, FgmmVideoProcessorKwargs, is_image

BAD_TEXT = "text must be a string, a list of strings, or a list of lists of candidate captions."


class FgmmProcessorKwargs(ProcessingKwargs, total=False):
    """Keyword arguments of a call, by modality, and their defaults."""

    videos_kwargs: FgmmVideoProcessorKwargs
    _defaults = {"text_kwargs": {"truncation": True, "max_length": 256}}


class FgmmProcessor(ProcessorMixin):
    """Videos, images, sounds and texts to what [`FgmmModel`] takes.

    Args:
        video_processor: [`FgmmVideoProcessor`].
        feature_extractor: [`FgmmFeatureExtractor`], or [`FgmmEncoderFeatureExtractor`], an encoder's own.
        tokenizer: any fast tokenizer (phrases are found through its offsets).
        max_phrase_words: the most words in a phrase.
        clip_seconds: length of the window that training showed of each item, and that evaluation shows.
        caption_length: None, or the tokens that each caption is cut or padded to, which are then one phrase, with the
            padding (converted MIL-NCE weights, whose maximum over words takes the padding in).
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
            raise ValueError(f"{type(tokenizer).__name__} is not a fast tokenizer, which offsets of phrases need.")
        self.max_phrase_words = max_phrase_words
        self.clip_seconds = clip_seconds
        self.caption_length = caption_length

    @classmethod
    def from_encoders(cls, video=None, audio=None, text=None, tokenizer=None, **kwargs) -> "FgmmProcessor":
        """The processor of a model that [`FgmmModel.from_encoders`] made of the same encoders.

        Args:
            video, audio: a name on the Hub or a folder, whose own image or video processor and feature extractor say
                what is done; or a configuration, to which sizes are fitted; None: our defaults.
            text: a name on the Hub or a folder, of which the tokenizer is taken.
            tokenizer: a name, a folder or a tokenizer, in place of that of `text`.
            **kwargs: of [`FgmmProcessor`].

        Raises:
            ValueError: where there is no tokenizer, or none that is fast, or something of an unknown kind.
            OSError: for a name that cannot be loaded.
        """
        tokenizer = make_tokenizer(text if tokenizer is None else tokenizer)
        return cls(make_video_processor(video), make_feature_extractor(audio), tokenizer, **kwargs)

    def __call__(
        self, images=None, text=None, videos=None, audio=None, **kwargs: Unpack[FgmmProcessorKwargs]
    ) -> BatchFeature:
        """
        Args:
            images: one or a list of PIL images, arrays, paths or what else [`FgmmVideoProcessor.preprocess_images`]
                takes; they go where videos go, as clips of one frame.
            text: a string or a list of items, each a string or a list of candidate captions.
            videos: see [`FgmmVideoProcessor.preprocess`].
            audio: one or a list of: path, bytes or file of sound or video, or `{"bytes", "path"}` (datasets' undecoded
                file); array or tensor (samples,) or (channels, samples) at `sampling_rate`, floats in [-1, 1] or whole
                numbers as in WAV files, or `{"array", "sampling_rate"}`; None, or a file without sound, is an item
                without sound.
            **kwargs: `start` and `end` of the window in seconds, `num_frames` and other settings of
                [`FgmmVideoProcessor`], for images too, `sampling_rate` in Hz, `max_length` in tokens a caption,
                `padding="max_length"` for items of at least that many; or in `videos_kwargs`, `images_kwargs`,
                `audio_kwargs`, `text_kwargs`. `return_tensors`: `"pt"` or `"np"`, for all that is returned; None is
                `"pt"`.

        Returns:
            What was asked for of: `pixel_values_videos` (B, T, 3, H, W) and `video_mask` (B,); `input_features` (B,
            time, mel), or (B, samples) for encoders of waveforms, and `input_features_mask` (B, time); `input_ids` and
            `attention_mask` (B, L), `phrase_spans` (B, M, 2), `phrase_captions` and `phrase_mask` (B, M),
            `caption_lengths` (B, K).

        Raises:
            MediaError: for a file that cannot be decoded. ValueError: when nothing, or both images and videos, or
                something of an unknown kind is given, or a setting that cannot be obeyed.
        """
        if images is not None and videos is not None:
            raise ValueError("Give either images or videos: images are clips of one frame and take the same place.")
        if images is None and text is None and videos is None and audio is None:
            raise ValueError("Give at least one of images, text, videos and audio.")
        kwargs.setdefault("return_tensors", "pt")
        # A tokenizer that was saved after it padded a batch has a max_length of None; our default holds in its place.
        own = {name: value for name, value in self.tokenizer.init_kwargs.items() if value is not None}
        merged = self._merge_kwargs(self.valid_processor_kwargs, tokenizer_init_kwargs=own, **kwargs)
        data = {}
        if images is not None:
            settings = {**merged["videos_kwargs"], **merged["images_kwargs"]}
            data.update(self.video_processor.preprocess_images(images, **settings))
        if videos is not None:
            data.update(self.video_processor(videos, **merged["videos_kwargs"]))
        if audio is not None:
            window = {key: value for key, value in merged["videos_kwargs"].items() if key in ("start", "end")}
            data.update(self._process_sounds(audio, merged["audio_kwargs"].get("sampling_rate"), **window))
        if text is not None:
            text_kwargs = merged["text_kwargs"]
            data.update(
                self._process_captions(
                    text, text_kwargs["truncation"], text_kwargs["max_length"], text_kwargs.get("padding")
                )
            )
        return BatchFeature(data, tensor_type=kwargs["return_tensors"])

    def shown_window(self, item, start: float = 0.0, end: float | None = None) -> tuple[float, float] | None:
        """The window of a file that a call with these times shows, in seconds; None for what has no times.

        Args:
            item: a file of video or sound as in a call; images, frames and waveforms in memory have no times.
            start, end: as in a call.

        Raises:
            MediaError: for a file that cannot be decoded.
        """
        item = unwrap_file(item)
        if is_image(item) or not (isinstance(item, (str, os.PathLike, bytes)) or hasattr(item, "read")):
            return None
        return start, probe_media(item).duration if end is None else end

    def _process_sounds(self, audio, sampling_rate, start=0.0, end=None) -> BatchFeature:
        own_rate = self.feature_extractor.sampling_rate
        waveforms = []
        for sound in audio if isinstance(audio, (list, tuple)) else [audio]:
            sound, rate = unwrap_file(sound), sampling_rate
            if isinstance(sound, dict) and sound.keys() >= {"array", "sampling_rate"}:
                sound, rate = sound["array"], sound["sampling_rate"]
            if isinstance(sound, (str, os.PathLike, bytes)) or hasattr(sound, "read"):
                waveforms.append(read_waveform(sound, own_rate, start, end))
            elif sound is None:
                waveforms.append(None)
            else:
                waveforms.append(to_mono(sound, rate, own_rate))
        return self.feature_extractor(waveforms)

    def _process_captions(
        self, text, truncation: bool, max_length: int, padding: bool | str | None
    ) -> dict[str, torch.Tensor]:
        items = list_captions(text)
        captions = [caption for item in items for caption in item]
        if padding not in (None, True, "longest", "max_length"):
            raise ValueError(f"padding={padding!r} is neither 'longest' (True, the default) nor 'max_length'.")
        options = {"truncation": truncation, "max_length": min(max_length, self.tokenizer.model_max_length)}
        if self.caption_length is not None:
            options = {"truncation": True, "max_length": self.caption_length, "padding": "max_length"}
        fewest = self.tokenizer.num_special_tokens_to_add() + 1
        if options["truncation"] and options["max_length"] < fewest:  # the tokenizer would not cut at all
            raise ValueError(
                f"max_length={options['max_length']} has no room for a word; it must be at least {fewest}, for the "
                "tokenizer's own tokens count."
            )
        encoded = self.tokenizer(captions, return_offsets_mapping=True, **options) if captions else {}
        # A tokenizer is saved with how it cut last, and cuts so by default when it is loaded.
        self.tokenizer.backend_tokenizer.no_truncation()
        rows, caption = [], 0
        for item in items:
            token_ids, spans, owners, lengths = [], [], [], []
            for place in range(len(item)):
                token_spans = self._find_token_spans(captions[caption], encoded["offset_mapping"][caption])
                spans += [(first + len(token_ids), last + len(token_ids)) for first, last in token_spans]
                owners += [place] * len(token_spans)
                token_ids += encoded["input_ids"][caption]
                lengths.append(len(encoded["input_ids"][caption]))
                caption += 1
            rows.append((token_ids, spans, owners, lengths))
        shortest = max_length if padding == "max_length" else 1
        length = max([shortest, *(len(token_ids) for token_ids, *_ in rows)])
        phrases = max([1, *(len(spans) for _, spans, *_ in rows)])
        tensors = {
            "input_ids": torch.full((len(rows), length), self.tokenizer.pad_token_id),
            "attention_mask": torch.zeros(len(rows), length, dtype=torch.long),
            "phrase_spans": torch.zeros(len(rows), phrases, 2, dtype=torch.long),
            "phrase_captions": torch.zeros(len(rows), phrases, dtype=torch.long),
            "phrase_mask": torch.zeros(len(rows), phrases, dtype=torch.bool),
            "caption_lengths": torch.zeros(len(rows), max([1, *map(len, items)]), dtype=torch.long),
        }
        for row, (token_ids, spans, owners, lengths) in enumerate(rows):
            tensors["input_ids"][row, : len(token_ids)] = torch.tensor(token_ids, dtype=torch.long)
            tensors["attention_mask"][row, : len(token_ids)] = 1
            tensors["caption_lengths"][row, : len(lengths)] = torch.tensor(lengths, dtype=torch.long)
            if spans:
                tensors["phrase_spans"][row, : len(spans)] = torch.tensor(spans)
                tensors["phrase_captions"][row, : len(spans)] = torch.tensor(owners)
                tensors["phrase_mask"][row, : len(spans)] = True
        return tensors

    def _find_token_spans(self, caption: str, offsets: list[tuple[int, int]]) -> list[tuple[int, int]]:
        if self.caption_length is not None:
            return [(0, self.caption_length)]
        return to_token_spans(find_phrases(caption, self.max_phrase_words), offsets)

    # Two places where the mixin goes through classes that refuse to work without torchvision, which is not needed here.
    def check_argument_for_proper_class(self, argument_name, argument):
        """Raises a TypeError when a part is not of its kind, for example after a wrong order of the parts."""
        if argument_name != "video_processor":
            return super().check_argument_for_proper_class(argument_name, argument)
        if not isinstance(argument, VideoProcessorMixin):
            raise TypeError(f"video_processor is a {type(argument).__name__}, but a video processor was expected.")
        return VideoProcessorMixin

    @classmethod
    def _get_arguments_from_pretrained(cls, pretrained_model_name_or_path, processor_dict=None, **kwargs):
        return [
            FgmmVideoProcessor.from_pretrained(pretrained_model_name_or_path, **kwargs),
            load_feature_extractor(pretrained_model_name_or_path, **kwargs),
            cls._load_tokenizer_from_pretrained("tokenizer", pretrained_model_name_or_path, **kwargs),
        ]

    def to_dict(self) -> dict:
        """As in transformers, with what AutoImageProcessor looks for; it loads the video processor's settings."""
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


def list_captions(text) -> list[list[str]]:
    """A string, or strings or lists of candidate captions, to the captions of each item.

    Raises:
        ValueError: for anything else.
    """
    items = [[item] if isinstance(item, str) else item for item in ([text] if isinstance(text, str) else as_list(text))]
    captions = [as_list(item) for item in items]
    if not all(isinstance(caption, str) for item in captions for caption in item):
        raise ValueError(BAD_TEXT)
    return captions


def as_list(items) -> list:
    """A column of texts as a list; a row of a corpus is none, and would give the names of its fields."""
    if isinstance(items, Mapping) or not isinstance(items, Iterable):
        raise ValueError(BAD_TEXT)
    return list(items)


__all__ = ["FgmmProcessor"]
