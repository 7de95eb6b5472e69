"""What a corpus is: its schema, opening and checking it."""

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

MEDIA_COLUMNS = ("video", "image", "audio")


class CorpusError(ValueError):
    """A corpus that cannot be used: where it is, what is wrong with it and what to do."""


def load_corpus(path_or_name: str, split: str, config_name: str | None = None) -> IterableDataset:
    """Streams the rows of a corpus, media undecoded, after its columns are checked.

    Args:
        path_or_name: a folder of Parquet shards or a dataset on the Hub.
        split: for example `"train"`.
        config_name: which of its official splits or folds, where it has several; see [`list_configs`]. None: its
            default, else the first.

    Raises:
        CorpusError: when it does not exist, has no such split, or its columns are not those of the schema.
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
    for name, feature in (("video", Video), ("image", Image), ("audio", Audio)):
        if name in corpus.column_names:
            corpus = corpus.cast_column(name, feature(decode=False))
    return corpus


def list_configs(path_or_name: str) -> list[str]:
    """The names of a corpus' configurations: one for each official split or fold, `["default"]` where there is one.

    Raises:
        CorpusError: when the corpus does not exist or cannot be opened.
    """
    folder = Path(path_or_name)
    if (folder / "corpus.json").exists() and not (folder / "README.md").exists():
        raise CorpusError(
            f"The corpus {path_or_name!r} is not prepared to the end; run the command that makes it again."
        )
    if folder.is_dir() and not any(folder.rglob("*.parquet")):
        raise CorpusError(f"The folder {path_or_name!r} holds no Parquet files, in itself or in a folder within.")
    with corpus_errors(path_or_name):
        return get_dataset_config_names(path_or_name)


@contextmanager
def corpus_errors(path_or_name: str) -> Iterator[None]:
    """Whatever the Hub, the network or the files give becomes a CorpusError: the user needs the corpus' name."""
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
    """Checks the columns of a corpus.

    Raises:
        CorpusError: naming the first field that is missing or of the wrong kind.
    """
    features = corpus.features or {}
    if "video_id" not in features:
        raise CorpusError(f"{name} has no column 'video_id'; its columns are {', '.join(features) or 'unknown'}.")
    if not any(column in features for column in MEDIA_COLUMNS):
        raise CorpusError(f"{name} has none of the columns 'video', 'image', 'audio'; it has {', '.join(features)}.")
    if "captions" in features:
        captions = features["captions"]
        entry = captions[0] if isinstance(captions, list) else getattr(captions, "feature", None)
        missing = [key for key in ("text", "start", "end") if not isinstance(entry, dict) or key not in entry]
        if missing:
            raise CorpusError(
                f"The column 'captions' of {name} lacks the field {missing[0]!r} (text, start, end in s)."
            )


def check_times(corpus: IterableDataset) -> None:
    """Checks that each caption of a corpus has a start and an end; media are left unread.

    Raises:
        CorpusError: naming the first caption without, or saying that there is no caption.
    """
    number = 0
    rows = corpus.select_columns(["video_id", "captions"]) if "captions" in (corpus.column_names or []) else []
    for row in rows:
        for caption in row["captions"] or []:
            number += 1
            if caption["start"] is None or caption["end"] is None:
                raise CorpusError(
                    f"The caption {caption['text']!r} of {row['video_id']} has no start and end, so that it cannot be "
                    "an item of its own; evaluate whole clips of this corpus."
                )
    if not number:
        raise CorpusError("The corpus has no caption that could be an item of its own; evaluate whole clips of it.")
