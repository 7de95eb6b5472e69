"""Writes a corpus as Parquet shards with a dataset card: complete files only, and none that exists already."""

import json
import math
import os
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet as parquet
import yaml
from datasets import Audio as AudioFeature
from datasets import Features, Image, List, Value, Video

from ..cli import UserError
from .processes import run_jobs

ROWS_PER_SHARD = 256
# Bytes of the media in a shard, exceeded by less than one file: a worker process holds a shard in memory.
BYTES_PER_SHARD = 500_000_000
# Bounds of a row group, of which readers hold several in memory.
ROWS_PER_GROUP = 64
BYTES_PER_GROUP = 16_000_000
MEDIA = {"video": Video(decode=False), "image": Image(decode=False), "audio": AudioFeature(decode=False)}


def corpus_features(*media: str, **extra) -> Features:
    """The schema of a corpus.

    Args:
        media: its media columns, keys of MEDIA.
        extra: further columns.
    """
    caption = {"text": Value("string"), "start": Value("float64"), "end": Value("float64")}
    columns = {medium: MEDIA[medium] for medium in media}
    return Features({"video_id": Value("string"), **columns, "captions": List(caption), **extra})


def write_shard(path: Path, rows: list[dict], features: Features) -> None:
    """Writes one Parquet file, complete or not at all."""
    partial = path.with_name(path.name + ".partial")
    # Dataset.to_parquet would need torchcodec to encode an audio column, even one that is not decoded.
    table = pyarrow.Table.from_pylist(rows, schema=features.arrow_schema)
    most_rows = max(1, min(ROWS_PER_GROUP, len(rows) * BYTES_PER_GROUP // max(table.nbytes, 1)))
    num_groups = max(1, math.ceil(len(rows) / most_rows))
    parquet.write_table(table, partial, row_group_size=max(1, math.ceil(len(rows) / num_groups)))  # of like sizes
    os.replace(partial, path)


def claim_folder(output: Path, arguments: dict) -> None:
    """Records what a corpus is made from in corpus.json, so that a later run continues only the same corpus.

    Raises:
        UserError: when the folder holds a corpus made from something else or files of another kind, or cannot be
            written.
    """
    note, text = output / "corpus.json", json.dumps(arguments)
    has_begun = (output / "README.md").exists() or any((output / "data").glob("*.parquet"))
    if note.exists() and has_begun and note.read_text() != text:
        raise UserError(
            f"{output} holds a corpus made with other arguments or of another source "
            f"({describe_difference(note.read_text(), json.loads(text))}); give another --output or delete the folder."
        )
    taken = [name for name in ("README.md", "data") if (output / name).exists()]
    if taken and not note.exists():
        raise UserError(f"{output} has a {taken[0]} but holds no corpus; give another --output.")
    try:
        output.mkdir(parents=True, exist_ok=True)
        partial = note.with_name(note.name + ".partial")
        partial.write_text(text)
        os.replace(partial, note)
        (output / "data").mkdir(exist_ok=True)
    except OSError as error:
        raise UserError(f"{output} cannot be written: {error.strerror}; give another --output.") from error


def describe_difference(note: str, arguments: dict) -> str:
    """What differs between the arguments of a corpus.json and others, such as "limit was 5 and is none"."""
    try:
        former = dict(json.loads(note))
    except (TypeError, ValueError):
        return "its corpus.json is damaged"
    names = [name for name in {**former, **arguments} if former.get(name) != arguments.get(name)]
    if names == ["items"]:
        return "its files or their captions have changed"
    shown = [(name, former.get(name, "none"), arguments.get(name, "none")) for name in names if name != "items"]
    return "; ".join(f"{name} was {old} and is {new}" for name, old, new in shown)


def make_shards(
    output: Path,
    group: str,
    items: list,
    make_rows: Callable[[list], list[dict]],
    features: Features,
    num_proc: int,
    sizes: list[int] | None = None,
    engine: str = "processes",
) -> None:
    """Writes the shards of a group of rows that do not exist yet, several at a time, with a progress bar.

    Args:
        output: folder of the corpus.
        group: the first part of the shards' file names.
        items: what each row is made from; ROWS_PER_SHARD of them go into a shard, fewer where media are large.
        make_rows: items to rows, run in a worker process.
        features: the schema.
        num_proc: worker processes.
        sizes: bytes of each item's media; None: small.
        engine: that schedules the processes, see [`run_jobs`].

    Raises:
        UserError: when the existing shards were split otherwise, because the media had other sizes.
    """
    if not items:
        return
    parts = split_evenly(items, sizes or [0] * len(items))
    paths = [output / "data" / f"{group}-{index:05d}-of-{len(parts):05d}.parquet" for index in range(len(parts))]
    others = set((output / "data").glob(f"{group}-*.parquet")) - set(paths)
    if others:
        raise UserError(
            f"{min(others)} was made from media of other sizes; give another --output or delete the folder."
        )
    missing = [(path, part) for path, part in zip(paths, parts, strict=True) if not path.exists()]
    jobs = [(path, part, make_rows, features) for path, part in missing]
    rows = [len(part) for _, part in missing]
    for _ in run_jobs(make_shard, jobs, rows, num_proc, f"Writing {group}", "clip", engine):
        pass


def split_evenly(items: list, sizes: list[int]) -> list[list]:
    """Splits items into runs of neighbours, a shard each, as equal in rows and bytes as possible."""
    shares = np.maximum(np.array(sizes) / BYTES_PER_SHARD, 1 / ROWS_PER_SHARD)
    number = np.ceil(shares.sum())
    shards = ((shares.cumsum() - shares / 2) * number / shares.sum()).astype(int)
    bounds = [0, *(np.flatnonzero(np.diff(shards)) + 1).tolist(), len(items)]
    return [items[first:last] for first, last in pairwise(bounds)]


def make_shard(path: Path, part: list, make_rows: Callable[[list], list[dict]], features: Features) -> None:
    """The task of one worker process."""
    write_shard(path, make_rows(part), features)


def count_rows(output: Path, group: str) -> int:
    """The number of rows of a group, from the footers of its files."""
    return sum(parquet.read_metadata(path).num_rows for path in sorted((output / "data").glob(f"{group}-*.parquet")))


def write_card(
    output: Path,
    title: str,
    text: str,
    configs: dict[str, dict[str, list[str]]],
    license_id: str,
    tags: list[str],
    features: Features | None = None,
) -> None:
    """Writes the dataset card, README.md, whose metadata tell `load_dataset` which files make up a split.

    Args:
        output: folder of the corpus.
        title: heading of the card.
        text: description of the corpus.
        configs: {configuration: {split: its groups of rows}}; the first configuration is the default.
        license_id: as the Hub names it.
        tags: of the dataset on the Hub.
        features: of a corpus some of whose splits lack a column, which then is null there; None: all have the same.
    """
    metadata, lines = [], []
    for index, (config, splits) in enumerate(configs.items()):
        files = [
            {"split": split, "path": [f"data/{group}-*.parquet" for group in groups]}
            for split, groups in splits.items()
        ]
        metadata.append({"config_name": config, "data_files": files} | ({} if index else {"default": True}))
        lines += [
            f"| {config} | {split} | {sum(count_rows(output, group) for group in groups)} |"
            for split, groups in splits.items()
        ]
    header = {"license": license_id, "pretty_name": title, "tags": tags, "configs": metadata}
    if features:  # else `datasets` takes those of the first split for all
        described = features._to_yaml_list()
        header["dataset_info"] = [{"config_name": config, "features": described} for config in configs]
    counts = "\n".join(lines)
    (output / "README.md").write_text(
        f"---\n{yaml.safe_dump(header, sort_keys=False)}---\n\n# {title}\n\n{text}\n\n"
        f"| configuration | split | rows |\n|---|---|---|\n{counts}\n"
    )
