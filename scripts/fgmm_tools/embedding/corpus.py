"""Embeds a corpus into a folder, shard by shard, in any number of processes or on a Ray cluster."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from datasets import Features

from modeling_fgmm import FgmmModel
from processing_fgmm import FgmmProcessor
from processing_fgmm.corpora_fgmm import list_configs, list_splits
from processing_fgmm.rowgroups_fgmm import ParquetRows, RowGroupError, RowGroups, open_row_groups

from ..corpora.problems import Problems
from ..corpora.processes import run_jobs
from ..models import fingerprint_weights, load_model
from .settings import EmbeddingSettings
from .storage import claim_embeddings, describe_embeddings, finish_embeddings, write_windows
from .tables import window_features
from .windows import Window, WindowEncoder

# Row groups, of 64 rows, of a shard of embeddings of what is no Parquet: a folder of media files.
GROUPS_PER_SHARD = 16


@dataclass(frozen=True)
class Shard:
    """A part of a corpus that becomes a file of its own: a Parquet file, or some rows of a folder of media files.

    name: of the file within the folder of embeddings.
    source: dataset, split and configuration that has it.
    groups: its row groups, first and one past the last.
    num_rows: of these.
    """

    name: str
    source: tuple[str, str, str]
    groups: tuple[int, int]
    num_rows: int


@dataclass(frozen=True)
class CorpusPlan:
    """All shards of a corpus, or of one split.

    shards: each once, though several configurations may have it.
    configs: by configuration and split the names of its shards.
    fingerprints: by "CONFIGURATION/SPLIT" the fingerprint of the rows.
    extra: columns `label` and `group`, where the corpus has them.
    """

    shards: list[Shard]
    configs: dict[str, dict[str, list[str]]]
    fingerprints: dict[str, str]
    extra: Features


def plan_shards(dataset: str, config_name: str | None, split: str | None) -> CorpusPlan:
    """The shards of a corpus.

    Args:
        dataset: folder or name on the Hub.
        config_name: None: all configurations.
        split: None: all splits.

    Raises:
        CorpusError: when the corpus, the configuration or the split does not exist.
    """
    dataset, shards = absolute(dataset), {}
    configs, fingerprints, extra = {}, {}, Features()
    for config in [config_name] if config_name else list_configs(dataset):
        for name in [split] if split else list_splits(dataset, config):
            rows = open_row_groups(dataset, name, config)
            parts = list_shards(rows, (dataset, name, config))
            shards |= {part.name: part for part in parts if part.name not in shards}
            configs.setdefault(config, {})[name] = [part.name for part in parts]
            fingerprints[f"{config}/{name}"] = rows.fingerprint
            features = rows.features if isinstance(rows, ParquetRows) else rows.table.features
            extra = Features({column: features[column] for column in ("label", "group") if column in features})
    return CorpusPlan(list(shards.values()), configs, fingerprints, extra)


def list_shards(rows: RowGroups, source: tuple[str, str, str]) -> list[Shard]:
    """The shards of one split; arguments as of [`Shard`]."""
    if isinstance(rows, ParquetRows):
        names = [name_of(file, source[0]) for file in rows.files]
        firsts = rows.first_groups.tolist()
    else:
        firsts = list(range(0, len(rows.sizes), GROUPS_PER_SHARD))
        names = [f"data/{source[1]}-{place:05d}-of-{len(firsts):05d}.parquet" for place in range(len(firsts))]
    bounds = zip(firsts, [*firsts[1:], len(rows.sizes)], strict=True)
    return [
        Shard(name, source, (first, last), int(rows.sizes[first:last].sum()))
        for name, (first, last) in zip(names, bounds, strict=True)
    ]


def name_of(file: str, dataset: str) -> str:
    """The name of a Parquet file within its corpus."""
    folder = Path(dataset)
    if folder.is_dir():
        return Path(file).relative_to(folder.resolve()).as_posix()
    return re.sub(r"^\w+://(datasets/[^/]+/[^/]+/)?", "", file)


def embed_corpus(
    model_name: str,
    dataset: str,
    output: Path,
    settings: EmbeddingSettings,
    *,
    config_name: str | None = None,
    split: str | None = None,
    num_processes: int = 1,
    engine: str = "processes",
) -> dict:
    """Embeds a corpus into a folder; goes on where an earlier run was stopped. The files are the same, byte for byte,
    for all numbers of processes, engines and interruptions. This process, which is forked, must not have used a GPU.

    Args:
        model_name: folder or name on the Hub.
        dataset, config_name, split: see [`plan_shards`].
        output: folder for the embeddings.
        settings: of the windows, and of what is kept of them.
        num_processes: shards that are embedded at a time.
        engine: see [`run_jobs`].

    Returns:
        the manifest of the folder, see [`finish_embeddings`].

    Raises:
        CorpusError: when the corpus does not exist.
        UserError: when the model cannot be loaded or is damaged, the folder holds something else, or workers are
            killed again and again.
    """
    plan = plan_shards(dataset, config_name, split)
    load_once.cache_clear()  # the folder may hold another model by now
    model, processor = load_once(absolute(model_name))
    fingerprint = fingerprint_weights(model, processor)
    features = window_features(model.config.modalities, model.config.projection_dim, settings, **plan.extra)
    claim_embeddings(
        output,
        describe_embeddings(model_name, fingerprint, processor.clip_seconds, dataset, plan.fingerprints, settings),
    )
    missing = [shard for shard in plan.shards if not (output / shard.name).exists()]
    embed = ShardEmbedder(absolute(model_name), settings, output.resolve(), features)
    sizes = [shard.num_rows for shard in missing]
    for _ in run_jobs(embed, [(shard,) for shard in missing], sizes, num_processes, "Embedding", "row", engine):
        pass
    return finish_embeddings(output, [shard.name for shard in plan.shards], plan.configs)


def absolute(name: str) -> str:
    """The absolute path of a folder here, which workers elsewhere see under it; a name on the Hub as it is."""
    return str(Path(name).resolve()) if Path(name).exists() else name


@dataclass(frozen=True)
class ShardEmbedder:
    """Embeds one shard: the task of a worker process, to which names travel and no media.

    model_name: of the model, which each process loads once.
    settings: of the windows.
    output: folder of the embeddings, absolute.
    features: of the tables.
    """

    model_name: str
    settings: EmbeddingSettings
    output: Path
    features: Features

    def __call__(self, shard: Shard) -> None:
        """Writes the file of a shard, where it is not there already.

        Raises:
            UserError: when an embedding is not a number.
        """
        path = self.output / shard.name
        if path.exists():
            return
        encoder = WindowEncoder(*prepare_worker(self.model_name), self.settings)
        rows, problems = open_once(*shard.source), Problems()
        windows = (
            window for group in range(*shard.groups) for window in embed_row_group(encoder, rows, group, problems)
        )
        write_windows(path, windows, self.features, problems)


def embed_row_group(encoder: WindowEncoder, rows: RowGroups, group: int, problems: Problems) -> Iterator[Window]:
    """The windows of a row group, which no other row group changes; then an empty one for each item without any, which
    counts where results are of all items. A row group that cannot be read is a problem."""
    try:
        read_row = rows.read(group)
    except RowGroupError as error:
        problems.add(error.place, str(error).removeprefix(f"{error.place} "))
        return
    empty: dict[str, Window] = {}

    def read(place: int) -> dict:
        row = read_row(place)
        empty[row["video_id"]] = Window(row["video_id"], None, None, label=row.get("label"), group=row.get("group"))
        return row

    for window in encoder.encode_rows(map(read, range(int(rows.sizes[group]))), problems):
        empty.pop(window.video_id, None)
        yield window
    yield from empty.values()


def prepare_worker(model_name: str) -> tuple[FgmmModel, FgmmProcessor]:
    """The model and processor of a worker process, on the GPU that is its share of those there are.

    On a CPU one thread computes: sums by several would differ with their number, and processes are the better use of
    cores.
    """
    torch.set_num_threads(1)
    model, processor = load_once(model_name)
    if torch.cuda.is_available():
        model = model.to(torch.device("cuda", os.getpid() % torch.cuda.device_count()))
    return model, processor


@lru_cache(maxsize=1)
def load_once(model_name: str) -> tuple[FgmmModel, FgmmProcessor]:
    """A model, loaded once in a process and those that it forks."""
    return load_model(model_name)


@lru_cache(maxsize=4)
def open_once(dataset: str, split: str, config_name: str) -> RowGroups:
    """The rows of a split, opened once in a worker process."""
    return open_row_groups(dataset, split, config_name)
