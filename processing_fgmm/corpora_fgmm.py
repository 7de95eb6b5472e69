"""What a corpus is: the columns of its rows, opening it as a stream, checking it.

A row has `video_id`; an undecoded file, `{"bytes", "path"}`, in at least one of `video`, `image` and `audio`; and
optionally `captions`, a list of `{"text", "start", "end"}` in seconds (None for captions of the whole item), and
`label`, a class or a list of classes.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from datasets import (
    Audio,
    Image,
    IterableDataset,
    Value,
    Video,
    get_dataset_config_names,
    get_dataset_default_config_name,
    get_dataset_split_names,
    load_dataset,
)

from .sources_fgmm import explain_absence, find_data_files, is_pattern

MEDIA_FEATURES = {"video": Video(decode=False), "image": Image(decode=False), "audio": Audio(decode=False)}
MEDIA_COLUMNS = tuple(MEDIA_FEATURES)
CAPTION_FIELDS = ("text", "start", "end")


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
        raise CorpusError(f"{path_or_name} has no configuration {config_name!r}, only {', '.join(sorted(names))}.")
    with corpus_errors(path_or_name):
        source = builder_arguments(path_or_name, config_name or names[0])
        splits = get_dataset_split_names(*source)
        if split not in splits:
            raise CorpusError(f"{path_or_name} has no split {split!r}, only {', '.join(splits)}.")
        path, name, data_files = source
        corpus = load_dataset(path, name, data_files=data_files, split=split, streaming=True)
    check_schema(corpus, path_or_name)
    for column, feature in MEDIA_FEATURES.items():
        if column in corpus.column_names:
            corpus = corpus.cast_column(column, feature)
    return corpus


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
    if folder.is_dir() and not any(folder.rglob("*.parquet")):
        raise CorpusError(f"The folder {path_or_name!r} holds no Parquet files; give the folder of a corpus.")
    with corpus_errors(path_or_name):
        if is_pattern(path_or_name):
            return list(find_data_files(path_or_name))
        names = get_dataset_config_names(path_or_name)
        default = get_dataset_default_config_name(path_or_name)
        return sorted(names, key=lambda name: name != default)


def builder_arguments(path_or_name: str, config_name: str) -> tuple[str, str | None, dict[str, list[str]] | None]:
    """Path, name and data_files by which `datasets` opens a configuration of a corpus."""
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


def check_times(corpus: IterableDataset) -> None:
    """Checks that every caption of a corpus has a start and an end, without reading its media.

    Raises:
        CorpusError: with the first caption that lacks them, or when there are no captions.
    """
    num_captions, name = 0, f"the corpus {corpus.info.dataset_name!r}"
    rows = corpus.select_columns(["video_id", "captions"]) if "captions" in (corpus.column_names or []) else []
    for row in rows:
        for caption in row["captions"] or []:
            num_captions += 1
            if caption["start"] is None or caption["end"] is None:
                raise CorpusError(
                    f"The caption {caption['text']!r} of {row['video_id']} in {name} has no start and end, so it "
                    "cannot be an item of its own; evaluate whole clips of this corpus."
                )
    if not num_captions:
        raise CorpusError(f"In {name} is no caption that could be an item of its own; evaluate whole clips of it.")


__all__ = [
    "MEDIA_COLUMNS",
    "CorpusError",
    "check_schema",
    "check_times",
    "corpus_errors",
    "list_configs",
    "load_corpus",
]
