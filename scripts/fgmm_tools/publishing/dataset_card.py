"""What the card of a published corpus holds: its columns, configurations and sizes, read from its Parquet files."""

import json
from pathlib import Path

import pyarrow.parquet as parquet
from datasets import (
    DatasetInfo,
    Features,
    SplitDict,
    SplitInfo,
    load_dataset_builder,
)
from datasets.info import DatasetInfosDict
from huggingface_hub import DatasetCard

from processing_fgmm.corpora_fgmm import MEDIA_COLUMNS, CorpusError, corpus_errors, list_configs, load_corpus

# What the columns of a corpus are.
COLUMNS = {
    "video_id": "name of the row",
    "video": "the video file, undecoded: its bytes, and a name as path",
    "image": "the photograph's file, undecoded: its bytes, and a name as path",
    "audio": "the sound file, undecoded: its bytes, and a name as path",
    "captions": "list of text, start and end (s); without start and end where a caption is of the whole item",
    "caption_is_true": "for each caption, whether it speaks of this clip",
    "caption_slides": "for each caption, the slide that it tells of, -1 for none",
    "label": "the class, or list of classes",
}
# Upper bounds of the Hub's size categories, in rows.
SIZES = ("n<1K", "1K<n<10K", "10K<n<100K", "100K<n<1M", "1M<n<10M", "10M<n<100M", "100M<n<1B")


def describe_corpus(folder: Path) -> dict:
    """What a corpus is: the record that its card is made from.

    Returns:
        {"name", "made_of": what corpus.json says, "features": as in a card's metadata, "configs": {configuration:
        {split: {"files", "rows", "bytes"}}}}; paths are within the folder, bytes those of the Parquet files.

    Raises:
        CorpusError: when it has no card of its own, or is no corpus, or a file is damaged.
    """
    if not (folder / "README.md").exists():
        raise CorpusError(
            f"{folder} has no README.md; give a folder that scripts/prepare_dataset.py or "
            "scripts/make_narrated_corpus.py made to the end, or write one that names the licence."
        )
    folder, note = folder.resolve(), folder / "corpus.json"
    configs = {}
    for config in list_configs(str(folder)):
        with corpus_errors(str(folder)):
            splits = load_dataset_builder(str(folder), config).config.data_files
            paths = {str(split): sorted(map(Path, names)) for split, names in splits.items()}
            configs[config] = {split: describe_files(folder, paths[split]) for split in paths}
        load_corpus(str(folder), next(iter(paths)), config)  # checks the columns
    features = Features.from_arrow_schema(parquet.read_schema(next(iter(paths.values()))[0]))
    return {
        "name": folder.name,
        "made_of": json.loads(note.read_text()) if note.exists() else None,
        "features": features._to_yaml_list(),
        "configs": configs,
    }


def describe_files(folder: Path, paths: list[Path]) -> dict:
    """Names, rows and bytes of the files of a split."""
    return {
        "files": [str(path.relative_to(folder)) for path in paths],
        "rows": sum(parquet.read_metadata(path).num_rows for path in paths),
        "bytes": sum(path.stat().st_size for path in paths),
    }


def with_sizes(record: dict, folder: Path) -> dict:
    """The record with the sizes of files of the same names in another folder."""
    configs = {
        config: {
            split: describe_files(folder, [folder / name for name in values["files"]])
            for split, values in splits.items()
        }
        for config, splits in record["configs"].items()
    }
    return record | {"configs": configs}


def all_files(record: dict) -> list[str]:
    """Each file of a corpus once; configurations share files."""
    names = (name for splits in record["configs"].values() for split in splits.values() for name in split["files"])
    return list(dict.fromkeys(names))


def make_table(record: dict) -> str:
    """Columns and sizes as Markdown."""
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
    """A card whose metadata has the columns and sizes of the record; which files make up a split stays as it is."""
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
    return [feature["name"] for feature in record["features"] if feature["name"] in MEDIA_COLUMNS]
