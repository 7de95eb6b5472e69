"""What the card of a published corpus says of it: columns, configurations and sizes, read from its Parquet files.

Nothing here imports a model or a processor at once, so that publishing a corpus starts at once.
"""

import glob
from pathlib import Path

import pyarrow
import pyarrow.parquet as parquet
from datasets import DatasetInfo, Features, SplitDict, SplitInfo, get_dataset_config_names, load_dataset_builder
from datasets.info import DatasetInfosDict
from huggingface_hub import DatasetCard

from ..cli import UserError
from ..corpora.parquet_shards import MEDIA
from ..paths import check_folder
from .results import read_json

# What the columns of a corpus hold.
COLUMNS = {
    "video_id": "name of the row",
    "video": "the video file, undecoded: its bytes, and a name as path",
    "image": "the photograph's file, undecoded: its bytes, and a name as path",
    "audio": "the sound file, undecoded: its bytes, and a name as path",
    "captions": "list of text, start and end (s); start and end are null where a caption describes the whole item",
    "caption_is_true": "for each caption, whether it describes this clip",
    "mentions": "what captions name: the characters `first` to `last` of a `caption`, seen (`video`) or heard "
    "(`audio`) from `start` to `end` (s), and its boxes at a time (s), in shares of the frame's sides; null where "
    "unknown",
    "caption_slides": "for each caption, the slide that it describes, -1 for none",
    "label": "the class, or list of classes",
    "group": "what stays in one split, such as a speaker or a recording",
}
# Upper bounds of the Hub's size categories, in rows.
SIZES = ("n<1K", "1K<n<10K", "10K<n<100K", "100K<n<1M", "1M<n<10M", "10M<n<100M", "100M<n<1B")


def describe_corpus(folder: Path) -> dict:
    """The record that the card of a corpus is made from.

    Returns:
        {"name", "made_of": the content of corpus.json, "features": as in a card's metadata, "configs": {configuration:
        {split: {"files", "rows", "bytes"}}}}; files are paths within the folder, bytes those of the Parquet files.

    Raises:
        UserError: when the folder holds no corpus or an incomplete one, or a file is damaged.
    """
    check_folder(folder, "give that of a corpus")
    folder, note = folder.resolve(), folder / "corpus.json"
    if note.exists() and not (folder / "README.md").exists():
        raise UserError(f"The corpus {folder} is incomplete; run the command that makes it again.")
    try:
        files = list_data_files(str(folder))
    except (OSError, ValueError) as error:
        raise UserError(f"{folder} holds no Parquet files that datasets can load: {error}") from error
    configs, features = {}, Features()
    for name, splits in files.items():
        paths = {str(split): sorted(map(Path, listed)) for split, listed in splits.items()}
        configs[name] = {split: describe_files(folder, listed) for split, listed in paths.items()}
        for listed in paths.values():  # a column that only some splits have is null in the others
            features |= Features.from_arrow_schema(parquet.read_schema(listed[0]))
    check_schema(folder, features)
    return {
        "name": folder.name,
        "made_of": read_json(note) if note.exists() else None,
        "features": Features(features)._to_yaml_list(),
        "configs": configs,
    }


def list_data_files(folder: str) -> dict[str, dict[str, list[str]]]:
    """The files of each configuration and split.

    Raises:
        OSError, ValueError: when datasets finds none.
    """
    if not glob.has_magic(folder):
        names = get_dataset_config_names(folder)
        return {name: load_dataset_builder(folder, name).config.data_files for name in names}
    from processing_fgmm.sources_fgmm import find_data_files  # not at the top: the package imports torch

    patterns = find_data_files(folder)
    return {
        name: load_dataset_builder("parquet", data_files=files).config.data_files for name, files in patterns.items()
    }


def read_card(folder: Path) -> str:
    """The card in the folder of a corpus; where there is none, one that says whose the files are."""
    path = folder / "README.md"
    if path.exists():
        return path.read_text(encoding="utf-8")
    text = "Files of the person who made this corpus. Whether they may be passed on is for their owner to say."
    return f"---\nlicense: other\n---\n\n# {folder.name}\n\n{text}\n"


def describe_files(folder: Path, paths: list[Path]) -> dict:
    """Names, rows and bytes of the files of a split.

    Raises:
        UserError: when one is damaged, or not a Parquet file.
    """
    rows = 0
    for path in paths:
        if path.suffix != ".parquet":
            raise UserError(
                f"{path} is no Parquet file; make a corpus of {folder} by scripts/prepare_dataset.py, or upload the "
                "folder as it is by `hf upload`."
            )
        try:
            rows += parquet.read_metadata(path).num_rows
        except (OSError, pyarrow.ArrowException) as error:
            raise UserError(f"{path} is damaged or no Parquet file ({error}); make the corpus anew.") from error
    return {
        "files": [str(path.relative_to(folder)) for path in paths],
        "rows": rows,
        "bytes": sum(path.stat().st_size for path in paths),
    }


def check_schema(folder: Path, features: Features) -> None:
    """Checks for the columns that every corpus has.

    Raises:
        UserError: when one is missing.
    """
    if "video_id" not in features or not MEDIA.keys() & set(features):
        raise UserError(
            f"{folder} is no corpus: it needs the column video_id and one of {', '.join(MEDIA)}, but has "
            f"{', '.join(features)}."
        )


def with_sizes(record: dict, folder: Path) -> dict:
    """The record, with the sizes of the files of the same names in another folder."""
    configs = {
        config: {
            split: describe_files(folder, [folder / name for name in values["files"]])
            for split, values in splits.items()
        }
        for config, splits in record["configs"].items()
    }
    return record | {"configs": configs}


def all_files(record: dict) -> list[str]:
    """The files of a corpus, each once, though configurations share them."""
    names = (name for splits in record["configs"].values() for split in splits.values() for name in split["files"])
    return list(dict.fromkeys(names))


def make_table(record: dict) -> str:
    """Columns and sizes of a corpus as Markdown."""
    lines = ["| column | |", "|---|---|"]
    lines += [f"| `{feature['name']}` | {COLUMNS.get(feature['name'], '')} |" for feature in record["features"]]
    lines += ["", "| configuration | split | rows | kB |", "|---|---|---:|---:|"]
    for config, splits in record["configs"].items():
        lines += [
            f"| {config} | {split} | {values['rows']:,} | {values['bytes'] / 1e3:,.0f} |"
            for split, values in splits.items()
        ]
    return "\n".join(lines)


def fill_metadata(text: str, record: dict) -> str:
    """A card with the columns and sizes of the record in its metadata; its list of files for each split stays."""
    card = DatasetCard(text)
    infos = {}
    for config, splits in record["configs"].items():
        split_infos = SplitDict()
        for split, values in splits.items():
            split_infos.add(SplitInfo(split, num_bytes=values["bytes"], num_examples=values["rows"]))
        size = sum(values["bytes"] for values in splits.values())
        features = Features._from_yaml_list(record["features"])
        infos[config] = DatasetInfo(features=features, splits=split_infos, download_size=size, dataset_size=size)
    card.data.pop("dataset_info", None)
    DatasetInfosDict(infos).to_dataset_card_data(card.data)
    rows = max(sum(values["rows"] for values in splits.values()) for splits in record["configs"].values())
    card.data["size_categories"] = [SIZES[min(max(len(str(rows)) - 3, 0), len(SIZES) - 1)]]
    return str(DatasetCard(str(card)))


def media_columns(record: dict) -> list[str]:
    """The media columns of a corpus."""
    return [feature["name"] for feature in record["features"] if feature["name"] in MEDIA]
