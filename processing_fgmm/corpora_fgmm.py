"""What a corpus is: the columns of its rows, opening it as a stream, checking it and its captions.

A row has `video_id`; an undecoded file, `{"bytes", "path"}`, in at least one of `video`, `image` and `audio`; and
optionally `captions`, a list of `{"text", "start", "end"}` in seconds (None for captions of the whole item), and
`label`, a class or a list of classes. A folder of media files that `datasets` reads as imagefolder, audiofolder or
videofolder is a corpus too.
"""

import math
import re
import reprlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pyarrow
from datasets import (
    Audio,
    Dataset,
    DatasetInfo,
    Features,
    Image,
    IterableDataset,
    List,
    Value,
    Video,
    get_dataset_config_names,
    get_dataset_default_config_name,
    get_dataset_split_names,
    load_dataset,
    load_dataset_builder,
)
from datasets.packaged_modules.audiofolder.audiofolder import AudioFolder
from datasets.packaged_modules.folder_based_builder.folder_based_builder import FolderBasedBuilder
from datasets.packaged_modules.imagefolder.imagefolder import ImageFolder
from datasets.packaged_modules.videofolder.videofolder import VideoFolder

from .names_fgmm import explain_absence
from .sources_fgmm import find_data_files, is_pattern

MEDIA_FEATURES = {"video": Video(decode=False), "image": Image(decode=False), "audio": Audio(decode=False)}
MEDIA_COLUMNS = tuple(MEDIA_FEATURES)
CAPTION_FIELDS = ("text", "start", "end")
# The columns of a row that are read.
CORPUS_COLUMNS = ("video_id", *MEDIA_COLUMNS, "captions", "label", "group")
# Endings of the files that a local corpus consists of: shards, or media files.
CORPUS_SUFFIXES = {".parquet", *ImageFolder.EXTENSIONS, *AudioFolder.EXTENSIONS, *VideoFolder.EXTENSIONS}
# Columns of a folder's metadata.csv that hold captions of whole items.
TEXT_COLUMNS = ("text", "caption", "captions")
# Seconds by which a caption may outlast its clip without a word: subtitles and containers round their times.
MAX_OVERHANG = 1.0


class CorpusError(ValueError):
    """A corpus cannot be used; the message names it, what is wrong and what to do."""


def load_corpus(path_or_name: str, split: str, config_name: str | None = None) -> IterableDataset:
    """Opens a split of a corpus as a stream of rows with undecoded media, after checking its columns.

    Args:
        path_or_name: folder of Parquet shards or media files, or dataset on the Hub.
        split: for example `"train"`.
        config_name: one of its configurations (official splits or folds), see [`list_configs`]; None: its default, else
            the first.

    Raises:
        CorpusError: when it does not exist, has no such configuration or split, or lacks a column of the schema.
    """
    splits = list_splits(path_or_name, config_name)
    if split not in splits:
        raise CorpusError(f"{path_or_name} has no split {split!r}, only {', '.join(splits)}.")
    with corpus_errors(path_or_name):
        path, name, data_files = builder_arguments(path_or_name, config_name)
        builder = load_dataset_builder(path, name, data_files=data_files)
        if isinstance(builder, FolderBasedBuilder):
            corpus = load_folder(path_or_name, builder, split)
        else:
            corpus = load_dataset(path, name, data_files=data_files, split=split, streaming=True)
    check_schema(corpus, path_or_name)
    for column, feature in MEDIA_FEATURES.items():
        if column in corpus.column_names:
            corpus = corpus.cast_column(column, feature)
    return corpus


def load_rows(path_or_name: str, split: str, config_name: str) -> Dataset:
    """A split of a corpus with any row at hand: `datasets` copies it into its cache on disk. Of a folder of media files
    it is the paths, in memory.

    Args, Raises: see [`load_corpus`].
    """
    corpus = load_corpus(path_or_name, split, config_name)
    with corpus_errors(path_or_name):
        path, name, data_files = builder_arguments(path_or_name, config_name)
        builder = load_dataset_builder(path, name, data_files=data_files)
        if not isinstance(builder, FolderBasedBuilder):
            # By its files: the cache of a folder is found by its name alone, and would be that of another.
            files = {split: list(builder.config.data_files[split])}
            return load_dataset("parquet", data_files=files, split=split, features=corpus.features)
    table = pyarrow.Table.from_pylist(list(corpus), schema=corpus.features.arrow_schema)
    return Dataset(table, DatasetInfo(features=corpus.features))


def load_folder(path_or_name: str, builder: FolderBasedBuilder, split: str) -> IterableDataset:
    """Opens a split of a folder of media files: imagefolder, audiofolder or videofolder of `datasets`.

    Rows without a `video_id` are named by the paths of their files within the folder; classes are kept; texts in one
    of the TEXT_COLUMNS of its metadata.csv become captions of the whole item.

    Args:
        path_or_name: of the folder, or dataset on the Hub.
        builder: that `datasets` chose for it.
        split: for example `"train"`.
    """
    features = builder.as_streaming_dataset(split).features
    text = next((column for column in TEXT_COLUMNS if is_text(features.get(column))), None)
    media = {column: MEDIA_FEATURES[column] for column in MEDIA_COLUMNS if column in features}
    named = Features({**features, **media, "video_id": Value("string")})
    if text:
        named["captions"] = List({"text": Value("string"), "start": Value("float64"), "end": Value("float64")})
    undecoded = Features({**features, **media, **({"audio": Undecoded()} if "audio" in media else {})})
    builder.config.features = builder.info.features = undecoded
    builder.config.decode_num_threads = 0  # threads that decode what is on the Hub, whatever the features say
    root = str(Path(path_or_name).resolve())
    return builder.as_streaming_dataset(split).map(partial(make_folder_row, root=root, text=text), features=named)


class Undecoded(Audio):
    """An audio column of paths, which are encoded without torchcodec: `Audio` needs it to encode them."""

    def __init__(self):
        super().__init__(decode=False)

    def encode_example(self, value: str) -> dict:
        return {"bytes": None, "path": value}


def is_text(feature) -> bool:
    """Whether a column holds a string, or a list of them."""
    return getattr(getattr(feature, "feature", feature), "dtype", None) in ("string", "large_string")


def make_folder_row(row: dict, root: str, text: str | None) -> dict:
    """The columns that a row of a folder of media files lacks to be one of a corpus; see [`load_folder`].

    Args:
        row: with undecoded files in its media columns.
        root: path of the folder, which is left out of names.
        text: its column of captions.
    """
    columns = {}
    if "video_id" not in row:
        path = next((row[column]["path"] for column in MEDIA_COLUMNS if row.get(column)), "")
        # zip://PATH::ARCHIVE, and hf://datasets/ORG/NAME@REVISION/PATH
        name = re.sub(r"^(zip://|hf://datasets/[^/]+/[^/]+/)", "", path.partition("::")[0])
        columns["video_id"] = name.removeprefix(root).lstrip("/")
    if text:
        texts = row[text] if isinstance(row[text], list) else [row[text]]
        columns["captions"] = [{"text": text, "start": None, "end": None} for text in texts]
    return columns


def list_configs(path_or_name: str) -> list[str]:
    """Names of the configurations of a corpus, one for each official split or fold; `["default"]` if it has only one.

    The default is the first.

    Raises:
        CorpusError: when the corpus does not exist or cannot be opened.
    """
    remedy = "give a folder that scripts/prepare_dataset.py or scripts/make_narrated_corpus.py made, or a Hub dataset"
    if absence := explain_absence(path_or_name, "dataset", remedy):
        raise CorpusError(f"The corpus {absence}")
    folder = Path(path_or_name)
    if (folder / "corpus.json").exists() and not (folder / "README.md").exists():
        raise CorpusError(f"The corpus {path_or_name!r} is incomplete; run the command that makes it again.")
    if folder.is_dir() and not any(path.suffix.lower() in CORPUS_SUFFIXES for path in folder.rglob("*")):
        raise CorpusError(
            f"The folder {path_or_name!r} holds neither Parquet files nor media files; give the folder of a corpus."
        )
    if is_pattern(path_or_name) and not any(folder.rglob("*.parquet")):
        raise CorpusError(
            f"The folder {path_or_name!r} of media files has a character in its path that `datasets` takes for a "
            "pattern, such as [ or *; rename it."
        )
    with corpus_errors(path_or_name):
        if is_pattern(path_or_name):
            return list(find_data_files(path_or_name))
        names = get_dataset_config_names(path_or_name)
        default = get_dataset_default_config_name(path_or_name)
        return sorted(names, key=lambda name: name != default)


def list_splits(path_or_name: str, config_name: str | None = None) -> list[str]:
    """Names of the splits of a configuration of a corpus; None: its default, else the first.

    Raises:
        CorpusError: when the corpus does not exist, cannot be opened or has no such configuration.
    """
    with corpus_errors(path_or_name):
        return get_dataset_split_names(*builder_arguments(path_or_name, config_name))


def list_files(path_or_name: str, split: str, config_name: str | None = None) -> list[str]:
    """The files of a split of a corpus: paths, or addresses on the Hub, which hold the commit.

    Args, Raises: see [`load_corpus`].
    """
    with corpus_errors(path_or_name):
        path, name, data_files = builder_arguments(path_or_name, config_name)
        return list(load_dataset_builder(path, name, data_files=data_files).config.data_files[split])


def builder_arguments(
    path_or_name: str, config_name: str | None
) -> tuple[str, str | None, dict[str, list[str]] | None]:
    """Path, name and data_files by which `datasets` opens a configuration of a corpus; None: its default, else the
    first.

    Raises:
        CorpusError: when it has no such configuration.
    """
    names = list_configs(path_or_name)
    if config_name is not None and config_name not in names:
        raise CorpusError(f"{path_or_name} has no configuration {config_name!r}, only {', '.join(sorted(names))}.")
    config_name = config_name or names[0]
    if is_pattern(path_or_name):
        return "parquet", None, find_data_files(path_or_name)[config_name]
    return path_or_name, config_name, None


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
    if {"video_embeds", "audio_embeds"} & set(features):
        raise CorpusError(f"{name} holds the embeddings of a corpus and no media; give the corpus itself.")
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
        check_type(fields["text"], ("string", "large_string"), f"The field 'text' of the captions of {name}")
    check_type(features["video_id"], ("string", "large_string"), f"The column 'video_id' of {name}")
    for column in features.keys() & set(MEDIA_COLUMNS):
        check_type(
            features[column], ("string", "large_string", "binary", "large_binary"), f"The column {column!r} of {name}"
        )


def check_type(feature, dtypes: tuple[str, ...], place: str) -> None:
    """Checks the type of a column's values; files may also be undecoded, `{"bytes", "path"}`.

    Raises:
        CorpusError: naming the place, when it is another.
    """
    if isinstance(feature, Value) and feature.dtype not in dtypes:
        raise CorpusError(f"{place} holds {feature.dtype}, not {' or '.join(dtypes[::2])}; make the corpus again.")


def check_captions(captions: list[dict] | None, duration: float = math.inf) -> list[tuple[dict | None, str | None]]:
    """Validates and repairs the captions of a row; training and evaluation share these rules.

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
        for each caption the repaired caption, None if it is left out; and the problem, such as "has the caption 'stir'
        from 3.0 to 2.0 s, which does not end after its start: left out", None without one.
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
        raise CorpusError("No caption of the corpus could be an item of its own; evaluate whole clips of it.")


__all__ = [
    "MEDIA_COLUMNS",
    "CorpusError",
    "check_captions",
    "check_schema",
    "check_times",
    "corpus_errors",
    "list_configs",
    "list_files",
    "list_splits",
    "load_corpus",
    "load_rows",
    "usable_captions",
]
