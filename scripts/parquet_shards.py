"""Writes a corpus as Parquet shards with a dataset card: whole files only, and none that is there already."""

import json
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as parquet
from datasets import Audio as AudioFeature
from datasets import Dataset, Features, Image, List, Value, Video
from tqdm import tqdm

ROWS_PER_SHARD = 256
MEDIA = {"video": Video(decode=False), "image": Image(decode=False), "audio": AudioFeature(decode=False)}


@dataclass(frozen=True)
class Item:
    """What a row is made of: its id, the media file (or the photographs of a slide show), and captions as
    (text, start, end) in seconds or None. Of a slide show also the slide that each caption tells of, -1 for none."""

    video_id: str
    path: Path | tuple[Path, ...]
    captions: tuple[tuple[str, float | None, float | None], ...]
    caption_slides: tuple[int, ...] | None = None


def corpus_features(*media: str, **extra) -> Features:
    """The schema of a corpus with these kinds of media, and columns beyond it."""
    caption = {"text": Value("string"), "start": Value("float64"), "end": Value("float64")}
    columns = {medium: MEDIA[medium] for medium in media}
    return Features({"video_id": Value("string"), **columns, "captions": List(caption), **extra})


def write_shard(path: Path, rows: list[dict], features: Features) -> None:
    """Writes one Parquet file, whole or not at all."""
    columns = {name: [row[name] for row in rows] for name in features}
    partial = path.with_name(path.name + ".partial")
    table = Dataset.from_dict(columns, features=features).with_format("arrow")[:]
    parquet.write_table(table, partial, row_group_size=64)
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
    output: Path, split: str, items: list, make_rows: Callable[[list], list[dict]], features: Features, num_proc: int
) -> None:
    """Makes the shards of a split that are not there yet, several at a time, with a progress bar.

    Args:
        output: the corpus' folder.
        split: its name in the files' names.
        items: what each row is made of; ROWS_PER_SHARD of them a shard.
        make_rows: items to rows, run in a worker process; items that cannot be used are left out.
        features: the schema.
        num_proc: worker processes.
    """
    number = -(-len(items) // ROWS_PER_SHARD)
    jobs = []
    for index in range(number):
        path = output / "data" / f"{split}-{index:05d}-of-{number:05d}.parquet"
        part = items[index * len(items) // number : (index + 1) * len(items) // number]
        if not path.exists():
            jobs.append((path, part))
    if not jobs:
        return
    with tqdm(total=sum(len(part) for _, part in jobs), desc=f"Writing {split}", unit="clip") as bar:
        with ProcessPoolExecutor(num_proc) as pool:
            futures = [pool.submit(make_shard, path, part, make_rows, features) for path, part in jobs]
            for future, (_, part) in zip(futures, jobs, strict=True):
                future.result()
                bar.update(len(part))


def make_shard(path: Path, part: list, make_rows: Callable[[list], list[dict]], features: Features) -> None:
    """One worker's job."""
    write_shard(path, make_rows(part), features)


def count_rows(output: Path, split: str) -> int:
    """Rows of a split, from the files' footers."""
    return sum(parquet.read_metadata(path).num_rows for path in sorted((output / "data").glob(f"{split}-*.parquet")))


def write_card(output: Path, title: str, text: str, splits: Iterable[str], license_id: str, tags: list[str]) -> None:
    """The dataset card: metadata that `load_dataset` reads, and what people read."""
    splits = list(splits)
    files = "".join(f"  - split: {split}\n    path: data/{split}-*.parquet\n" for split in splits)
    tag_lines = "".join(f"- {tag}\n" for tag in tags)
    counts = "\n".join(f"| {split} | {count_rows(output, split)} |" for split in splits)
    (output / "README.md").write_text(
        f"---\nlicense: {license_id}\npretty_name: {title}\ntags:\n{tag_lines}configs:\n- config_name: default\n"
        f"  data_files:\n{files}---\n\n# {title}\n\n{text}\n\n| split | rows |\n|---|---|\n{counts}\n"
    )
