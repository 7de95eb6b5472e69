"""A folder of embeddings: Parquet shards of windows, and a manifest that says of which model and corpus they are.

The shards have the names of the corpus' own, and the card the same configurations and splits, so that `load_dataset`
opens them. A shard is renamed into place when it is whole; the problems that were met are in its footer.
"""

import fnmatch
import json
import os
import re
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

import pyarrow.parquet as parquet
import yaml
from datasets import Features

from ..cli import UserError
from ..corpora.problems import Problems
from ..records import write_record, write_whole
from .settings import EmbeddingSettings
from .tables import to_table
from .windows import MODALITIES, Window

NAME = "embeddings.json"
# Windows of a row group of a shard: of 32 regions of 256 dimensions in float16 they have 16 MB.
WINDOWS_PER_GROUP = 1024
# Columns with few different values, which dictionaries make shorter. Parquet has int8 in 4 bytes without one.
WITH_DICTIONARY = ["video_id", "label", "group"]
INT8_COLUMNS = ["video_regions.list.element", "audio_regions.list.element"]
# The entry of a shard's footer.
FOOTER = b"fgmm_embeddings"


def write_windows(path: Path, windows: Iterable[Window], features: Features, problems: Problems) -> None:
    """Writes a shard, whole or not at all.

    Args:
        path: of the file.
        windows: as they come; WINDOWS_PER_GROUP of them are in memory at a time.
        features: of the columns, see [`window_features`].
        problems: that are met while the windows are made.

    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    number, items, media, held = 0, set(), set(), []
    is_int8 = any(f"{name}_scale" in features for name in MODALITIES)
    columns = WITH_DICTIONARY + (INT8_COLUMNS if is_int8 else [])
    try:
        with parquet.ParquetWriter(partial, features.arrow_schema, use_dictionary=columns) as writer:
            for window in windows:
                held.append(window)
                number += window.is_decoded
                items.add(window.video_id)
                media |= window.media
                if len(held) == WINDOWS_PER_GROUP:
                    writer.write_table(to_table(held, features))
                    held = []
            writer.write_table(to_table(held, features))
            found = [[problem.path, problem.reason] for problem in problems]
            summary = {"items": len(items), "windows": number, "media": sorted(media), "problems": found}
            writer.add_key_value_metadata({FOOTER: json.dumps(summary).encode()})
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def claim_embeddings(output: Path, manifest: dict) -> None:
    """Writes the manifest of a run that begins or goes on, without what only a finished run can say.

    Args:
        output: folder of the embeddings.
        manifest: of this run, see [`describe_embeddings`].

    Raises:
        UserError: when the folder has embeddings of another model, of another corpus or with other settings, or other
            files, or cannot be written.
    """
    if (output / NAME).exists():
        changes = explain_changes(read_manifest(output), manifest)
        if changes:
            raise UserError(f"{output} holds other embeddings: {'; '.join(changes)}. Give another --output.")
    elif output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise UserError(f"{output} exists and holds no embeddings; give another --output.")
    try:
        output.mkdir(parents=True, exist_ok=True)
        (output / "README.md").unlink(missing_ok=True)
        write_record(output / NAME, {**manifest, "complete": False})
    except OSError as error:
        raise UserError(f"{output} cannot be written: {error.strerror}; give another --output.") from error


def describe_embeddings(
    model: str, fingerprint: str, clip_seconds: float, dataset: str, corpora: dict, settings: EmbeddingSettings
) -> dict:
    """The manifest of a run.

    Args:
        model, fingerprint: name, and [`fingerprint_weights`].
        clip_seconds: of the model, s.
        dataset: name of the corpus.
        corpora: by "CONFIGURATION/SPLIT" the fingerprint of its rows.
        settings: of the windows.
    """
    return {
        "model": model,
        "fingerprint": fingerprint,
        "clip_seconds": clip_seconds,
        "dataset": dataset,
        "corpora": corpora,
        "settings": asdict(settings),
    }


def explain_changes(old: dict, new: dict) -> list[str]:
    """What differs between the manifests of a folder and of a run, as phrases; names of models and corpora may."""
    changes = []
    if old["fingerprint"] != new["fingerprint"]:
        changes.append(f"they are of another model, {old['model']!r}, than {new['model']!r}")
    if old["corpora"] != new["corpora"]:
        changes.append(f"they are of another corpus or other splits, {old['dataset']!r}, or its files have changed")
    changes += [
        f"{name} was {value} and is {new['settings'].get(name)}"
        for name, value in old["settings"].items()
        if value != new["settings"].get(name)
    ]
    return changes


def read_manifest(folder: Path) -> dict:
    """The manifest of a folder of embeddings.

    Raises:
        UserError: when it is damaged.
    """
    try:
        return json.loads((folder / NAME).read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{folder / NAME} is damaged; delete the folder and embed the corpus again.") from error


def finish_embeddings(output: Path, shards: list[str], configs: dict[str, dict[str, list[str]]]) -> dict:
    """Writes the journal of problems and the card of a folder whose shards are all there, and says so in the manifest.

    Args:
        output: folder of the embeddings.
        shards: relative names, in the order of the corpus.
        configs: by configuration and split their names.

    Returns:
        the manifest, with the numbers of windows, items and problems, and which of video, image and audio there are.
    """
    problems, media, numbers = Problems(), set(), {"items": 0, "windows": 0}
    for name in shards:
        summary = json.loads(parquet.read_metadata(output / name).metadata[FOOTER])
        numbers = {kind: number + summary[kind] for kind, number in numbers.items()}
        media |= set(summary["media"])
        for path, reason in summary["problems"]:
            problems.add(path, reason)
    problems.write(output)
    numbers |= {"problems": len(problems), "shards": len(shards)}
    manifest = {**read_manifest(output), "complete": True, "media": sorted(media), **numbers}
    write_whole(output / "README.md", make_card(manifest, configs, shards))
    write_record(output / NAME, manifest)
    return manifest


def make_card(manifest: dict, configs: dict[str, dict[str, list[str]]], shards: list[str]) -> str:
    """README.md of a folder of embeddings, whose metadata tell `load_dataset` which files make up a split."""
    metadata = [
        {
            "config_name": config,
            "data_files": [{"split": split, "path": as_pattern(names, shards)} for split, names in splits.items()],
            **({} if index else {"default": True}),
        }
        for index, (config, splits) in enumerate(configs.items())
    ]
    header = yaml.safe_dump({"configs": metadata, "tags": ["fgmm", "embeddings"]}, sort_keys=False)
    return (
        f"---\n{header}---\n\n# Embeddings of {Path(manifest['dataset']).name}\n\n{manifest['windows']} windows of "
        f"{manifest['clip_seconds']:g} s of {manifest['items']} items, by the model {Path(manifest['model']).name}; "
        f"{manifest['problems']} problems are listed in problems.jsonl.\n"
    )


def as_pattern(names: list[str], shards: list[str]) -> str | list[str]:
    """A pattern that fits some file names and no other of the folder; the names where their ends do not tell."""
    patterns = {re.sub(r"\d{5}(?=-of-)", "*", name) for name in names}
    if len(names) > 1 and len(patterns) == 1 and fnmatch.filter(shards, min(patterns)) == names:
        return patterns.pop()
    return names
