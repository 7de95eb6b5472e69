"""Writes a corpus as Parquet shards with a dataset card: whole files only, and none that is there already."""

import json
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pyarrow
import pyarrow.parquet as parquet
import yaml
from datasets import Audio as AudioFeature
from datasets import Features, Image, List, Value, Video
from tqdm import tqdm

ROWS_PER_SHARD = 256
# Of media in a shard on average: a worker holds one shard in memory.
BYTES_PER_SHARD = 500_000_000
# Of a row group, which a reader holds in memory.
ROWS_PER_GROUP = 64
BYTES_PER_GROUP = 100_000_000
MEDIA = {"video": Video(decode=False), "image": Image(decode=False), "audio": AudioFeature(decode=False)}


def corpus_features(*media: str, **extra) -> Features:
    """The schema of a corpus with these kinds of media, and columns beyond it."""
    caption = {"text": Value("string"), "start": Value("float64"), "end": Value("float64")}
    columns = {medium: MEDIA[medium] for medium in media}
    return Features({"video_id": Value("string"), **columns, "captions": List(caption), **extra})


def write_shard(path: Path, rows: list[dict], features: Features) -> None:
    """Writes one Parquet file, whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    # Not through Dataset: its encoding of sounds asks for torchcodec, even where nothing is decoded.
    table = pyarrow.Table.from_pylist(rows, schema=features.arrow_schema)
    rows_per_group = min(ROWS_PER_GROUP, len(rows) * BYTES_PER_GROUP // max(table.nbytes, 1))
    parquet.write_table(table, partial, row_group_size=max(1, rows_per_group))
    os.replace(partial, path)


def claim_folder(output: Path, arguments: dict) -> None:
    """Notes what a corpus is made of, so that a later run goes on only with the same.

    Raises:
        SystemExit: when the folder holds a corpus made of something else, or cannot be written.
    """
    note = output / "corpus.json"
    if note.exists() and json.loads(note.read_text()) != arguments:
        raise SystemExit(
            f"{output} holds a corpus made with other arguments ({note.read_text().strip()}); "
            "give another --output or delete the folder."
        )
    try:
        (output / "data").mkdir(parents=True, exist_ok=True)
        note.write_text(json.dumps(arguments))
    except OSError as error:
        raise SystemExit(f"{output} cannot be written: {error.strerror}; give another --output.") from error


def make_shards(
    output: Path,
    group: str,
    items: list,
    make_rows: Callable[[list], list[dict]],
    features: Features,
    num_proc: int,
    num_bytes: int = 0,
) -> None:
    """Makes the shards of a group of rows that are not there yet, several at a time, with a progress bar.

    Args:
        output: the corpus' folder.
        group: its name in the files' names.
        items: what each row is made of; ROWS_PER_SHARD of them a shard, or fewer for large media.
        make_rows: items to rows, run in a worker process; items that cannot be used are left out.
        features: the schema.
        num_proc: worker processes.
        num_bytes: size of all media, where it is known.
    """
    number = min(len(items), max(-(-len(items) // ROWS_PER_SHARD), -(-num_bytes // BYTES_PER_SHARD)))
    jobs = []
    for index in range(number):
        path = output / "data" / f"{group}-{index:05d}-of-{number:05d}.parquet"
        part = items[index * len(items) // number : (index + 1) * len(items) // number]
        if not path.exists():
            jobs.append((path, part))
    if not jobs:
        return
    with tqdm(total=sum(len(part) for _, part in jobs), desc=f"Writing {group}", unit="clip") as bar:
        with ProcessPoolExecutor(num_proc) as pool:
            futures = [pool.submit(make_shard, path, part, make_rows, features) for path, part in jobs]
            for future, (_, part) in zip(futures, jobs, strict=True):
                future.result()
                bar.update(len(part))


def make_shard(path: Path, part: list, make_rows: Callable[[list], list[dict]], features: Features) -> None:
    """One worker's job."""
    write_shard(path, make_rows(part), features)


def count_rows(output: Path, group: str) -> int:
    """Rows of a group, from the files' footers."""
    return sum(parquet.read_metadata(path).num_rows for path in sorted((output / "data").glob(f"{group}-*.parquet")))


def write_card(
    output: Path, title: str, text: str, configs: dict[str, dict[str, list[str]]], license_id: str, tags: list[str]
) -> None:
    """The dataset card: metadata that `load_dataset` reads, and what people read.

    Args:
        output: the corpus' folder.
        title, text: what it is.
        configs: {configuration: {split: groups of rows that make it up}}; the first is the default.
        license_id, tags: as the Hub has them.
    """
    metadata, lines = [], []
    for place, (config, splits) in enumerate(configs.items()):
        files = [
            {"split": split, "path": [f"data/{group}-*.parquet" for group in groups]}
            for split, groups in splits.items()
        ]
        metadata.append({"config_name": config, "data_files": files} | ({} if place else {"default": True}))
        lines += [
            f"| {config} | {split} | {sum(count_rows(output, group) for group in groups)} |"
            for split, groups in splits.items()
        ]
    header = {"license": license_id, "pretty_name": title, "tags": tags, "configs": metadata}
    counts = "\n".join(lines)
    (output / "README.md").write_text(
        f"---\n{yaml.safe_dump(header, sort_keys=False)}---\n\n# {title}\n\n{text}\n\n"
        f"| configuration | split | rows |\n|---|---|---|\n{counts}\n"
    )
