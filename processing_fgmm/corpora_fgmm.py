"""What a corpus is: the columns of its rows, opening it as a stream, checking it and its captions.

A row has `video_id`; an undecoded file, `{"bytes", "path"}`, in at least one of `video`, `image` and `audio`; and
optionally `captions`, a list of `{"text", "start", "end"}` in seconds (None for captions of the whole item), and
`label`, a class or a list of classes.
"""

import math
import reprlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from datasets import (
    Audio,
    Image,
    IterableDataset,
    Video,
    get_dataset_config_names,
    get_dataset_default_config_name,
    get_dataset_split_names,
    load_dataset,
)

MEDIA_FEATURES = {"video": Video(decode=False), "image": Image(decode=False), "audio": Audio(decode=False)}
MEDIA_COLUMNS = tuple(MEDIA_FEATURES)
CAPTION_FIELDS = ("text", "start", "end")
# Seconds by which a caption may outlast its clip without a word: subtitles and containers round their times.
MAX_OVERHANG = 1.0


class CorpusError(ValueError):
    """A corpus cannot be used; the message names it, what is wrong and what to do."""


def load_corpus(path_or_name: str, split: str, config_name: str | None = None) -> IterableDataset:
    """Opens a split of a corpus as a stream of rows with undecoded media, after checking its columns.

    Args:
        path_or_name: folder of Parquet shards, or dataset on the Hub.
        split: for example `"train"`.
        config_name: one of its configurations (official splits or folds), see [`list_configs`]; None: its default, else
            the first.

    Raises:
        CorpusError: when it does not exist, has no such configuration or split, or lacks a column of the schema.
    """
    names = list_configs(path_or_name)
    if config_name is not None and config_name not in names:
        raise CorpusError(f"{path_or_name} has no configuration {config_name!r}, only {', '.join(names)}.")
    with corpus_errors(path_or_name):
        config_name = config_name or get_dataset_default_config_name(path_or_name) or names[0]
        splits = get_dataset_split_names(path_or_name, config_name)
        if split not in splits:
            raise CorpusError(f"{path_or_name} has no split {split!r}, only {', '.join(splits)}.")
        corpus = load_dataset(path_or_name, config_name, split=split, streaming=True)
    check_schema(corpus, path_or_name)
    for column, feature in MEDIA_FEATURES.items():
        if column in corpus.column_names:
            corpus = corpus.cast_column(column, feature)
    return corpus


def list_configs(path_or_name: str) -> list[str]:
    """Names of the configurations of a corpus, one for each official split or fold; `["default"]` if it has only one.

    Raises:
        CorpusError: when the corpus does not exist or cannot be opened.
    """
    folder = Path(path_or_name)
    if (folder / "corpus.json").exists() and not (folder / "README.md").exists():
        raise CorpusError(f"The corpus {path_or_name!r} is incomplete; run the command that makes it again.")
    if folder.is_dir() and not any(folder.rglob("*.parquet")):
        raise CorpusError(f"The folder {path_or_name!r} holds no Parquet files; give the folder of a corpus.")
    with corpus_errors(path_or_name):
        return get_dataset_config_names(path_or_name)


@contextmanager
def corpus_errors(path_or_name: str) -> Iterator[None]:
    """Turns any error of opening a corpus, from the Hub, the network or its files, into a CorpusError that names it."""
    try:
        yield
    except CorpusError:
        raise
    except Exception as error:
        cause = f"{type(error).__name__}: {error}".partition("\n")[0]
        raise CorpusError(
            f"The corpus {path_or_name!r} could not be opened ({cause}); "
            "give a folder that scripts/prepare_dataset.py or scripts/make_narrated_corpus.py made, or a Hub dataset."
        ) from error


def check_schema(corpus: IterableDataset, name: str) -> None:
    """Checks that a corpus, called `name` in messages, has the columns of the schema.

    Raises:
        CorpusError: with the first column or field that is missing.
    """
    features = corpus.features or {}
    columns = ", ".join(features) or "unknown"
    if "video_id" not in features:
        raise CorpusError(f"{name} has no column 'video_id'; its columns are {columns}.")
    if not any(column in features for column in MEDIA_COLUMNS):
        raise CorpusError(f"{name} has none of the columns 'video', 'image', 'audio'; its columns are {columns}.")
    if "captions" in features:
        captions = features["captions"]
        fields = captions[0] if isinstance(captions, list) else getattr(captions, "feature", None)
        missing = [field for field in CAPTION_FIELDS if not isinstance(fields, dict) or field not in fields]
        if missing:
            raise CorpusError(
                f"The column 'captions' of {name} lacks the field {missing[0]!r}; give text, start and end (s)."
            )


def check_captions(captions: list[dict] | None, duration: float = math.inf) -> list[tuple[dict | None, str | None]]:
    """What can be used of each caption of a row, and what is wrong with it: one rule for training and evaluation.

    A caption is left out when

    - its text is null, has neither a letter nor a digit, or has half of a surrogate pair, which UTF-8 cannot hold;
    - it has an end but no start, or a time that is no number;
    - it does not end after its start, or lies outside of the clip.

    It is repaired when its end is null, which becomes the start of the next caption, else the end of the clip; and when
    it reaches beyond the clip, where it is cut. A time of NaN, which is pandas' null, counts as null. A caption without
    start and end describes the whole item.

    Args:
        captions: `{"text", "start", "end"}`, seconds, of one row.
        duration: of the row's clip, s; infinite where it is unknown, and for images.

    Returns:
        for each caption what is used of it, None where it is left out; and what is wrong, such as "has the caption
        'stir' from 3.0 to 2.0 s, which does not end after its start: left out", None where nothing is.
    """
    captions = [{**dict.fromkeys(CAPTION_FIELDS), **(caption or {})} for caption in captions or []]
    checked = []
    for place, caption in enumerate(captions):
        try:
            usable, problem = repair_caption(caption, captions[place + 1 :], duration)
        except ValueError as error:
            usable, problem = None, f"{error}: left out"
        if problem:
            text, start, end = (caption[field] for field in CAPTION_FIELDS)
            times = "" if start is None and end is None else f" from {start} to {end} s"
            problem = f"has the caption {reprlib.repr(text)}{times}, which {problem}"
        checked.append((usable, problem))
    return checked


def repair_caption(caption: dict, following: list[dict], duration: float) -> tuple[dict, str | None]:
    """A caption as it is used, and what was repaired.

    Args:
        caption, duration: as of [`check_captions`].
        following: the captions after it.

    Raises:
        ValueError: when it cannot be used, with the reason.
    """
    text, start, end = caption["text"], parse_time(caption["start"]), parse_time(caption["end"])
    if not isinstance(text, str) or not any(map(str.isalnum, text)):
        raise ValueError("has no word")
    if any("\ud800" <= letter <= "\udfff" for letter in text):
        raise ValueError("has half of a surrogate pair")
    if start is None and end is None:
        return {**caption, "start": None, "end": None}, None
    if start is None:
        raise ValueError("has no start")
    if start >= duration:
        raise ValueError(f"begins after the clip of {duration:g} s")
    repairs = []
    if end is None:
        end = min(next_start(start, following), duration)
        repairs.append(f"has no end: it ends at {end:g} s")
    if not start < end:
        raise ValueError("does not end after its start")
    if end <= 0:
        raise ValueError("ends before the clip begins")
    if start < 0:
        repairs.append("begins before the clip: it is cut")
    if duration + MAX_OVERHANG < end < math.inf:
        repairs.append(f"outlasts the clip of {duration:g} s: it is cut")
    return {**caption, "start": max(start, 0.0), "end": min(end, duration)}, ", ".join(repairs) or None


def next_start(start: float, following: list[dict]) -> float:
    """The first start after `start`, s, among the captions that follow; infinite where there is none."""
    for caption in following:
        try:
            time = parse_time(caption["start"])
        except ValueError:  # that caption is left out itself
            continue
        if time is not None and time > start:
            return time
    return math.inf


def parse_time(value: object) -> float | None:
    """A time of a caption, s; None where it is null or NaN.

    Raises:
        ValueError: when it is no number.
    """
    try:
        time = math.nan if value is None else float(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError("has a time that is no number") from error
    return None if math.isnan(time) else time


def usable_captions(row: dict, duration: float = math.inf, problems: list[str] | None = None) -> list[dict]:
    """The captions of a row that can be used, repaired where need be; see [`check_captions`].

    Args:
        row: of a corpus.
        duration: of its clip, s; infinite where it is unknown, and for images.
        problems: list to which a sentence, beginning with the row's id, is added for each that is left out or repaired.
    """
    checked = check_captions(row.get("captions"), duration)
    if problems is not None:
        problems += [f"{row['video_id']} {problem}." for _, problem in checked if problem]
    return [usable for usable, _ in checked if usable]


def check_times(corpus: IterableDataset) -> None:
    """Checks that every caption of a corpus has a start and an end, without reading its media.

    Raises:
        CorpusError: with the first caption that lacks them, or when there are no captions.
    """
    num_captions = 0
    rows = corpus.select_columns(["video_id", "captions"]) if "captions" in (corpus.column_names or []) else []
    for row in rows:
        for caption in usable_captions(row):
            num_captions += 1
            if caption["start"] is None:
                raise CorpusError(
                    f"The caption {caption['text']!r} of {row['video_id']} has no start and end, so it cannot be an "
                    "item of its own; evaluate whole clips of this corpus."
                )
    if not num_captions:
        raise CorpusError("The corpus has no caption that could be an item of its own; evaluate whole clips of it.")


__all__ = [
    "MEDIA_COLUMNS",
    "CorpusError",
    "check_captions",
    "check_schema",
    "check_times",
    "corpus_errors",
    "list_configs",
    "load_corpus",
    "usable_captions",
]
