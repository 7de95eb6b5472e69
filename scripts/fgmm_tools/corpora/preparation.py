"""A benchmark in its publishers' layout to a corpus: Parquet shards with a dataset card."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from datasets import List, Value

from ..cli import UserError
from .benchmarks import load_benchmark
from .benchmarks.layout import SPLITS, Benchmark, Item, Reading, require
from .joined_clips import encode_joined, join_neighbours
from .options import SLIDE_SIZE, RowSelection, TrainingNoise
from .parquet_shards import claim_folder, corpus_features, count_rows, make_shards, write_card
from .slide_shows import encode_slide_show, make_slide_shows, swap_captions

# Publishers list labelled rows class by class; this seed orders them.
ORDER_SEED = 0
# A cell of an Arrow table holds no more.
MAX_FILE_BYTES = 2**31 - 1


def prepare(
    name: str, source: Path, output: Path, selection: RowSelection, noise: TrainingNoise, num_proc: int
) -> None:
    """Reads a benchmark and writes its corpus; continues where an earlier run was stopped.

    Args:
        name: the benchmark, see `benchmarks.MODULES`.
        source: folder in the publishers' layout.
        output: folder for the corpus.
        selection: which rows are taken.
        noise: what is done to the training split.
        num_proc: shards written at a time.

    Raises:
        UserError: when the source has another layout, nothing in it can be used, or it cannot be made into what the
            options ask for.
    """
    benchmark = load_benchmark(name)
    problems: list[str] = []
    reading = read_source(benchmark, source, problems)
    check_options(benchmark, reading, selection, noise)
    groups = {group: remove_unusable(items, problems) for group, items in reading.groups.items()}
    if reading.label:
        groups = {group: shuffle(items) for group, items in groups.items()}
    groups = {group: items[selection.skip if group == "train" else 0 :] for group, items in groups.items()}
    groups = {group: items[: selection.limit] for group, items in groups.items()}
    if "train" in groups:
        groups["train"] = add_noise(groups["train"], noise)
    if not any(groups.values()):
        raise UserError(f"Nothing in {source} can be used; the first of {len(problems)} problems: {problems[:1]}.")
    write_corpus(output, benchmark, reading, groups, selection, noise, num_proc)
    for problem in problems[:5]:
        print(f"Skipped: {problem}.")
    configs = used_configs(reading.configs, groups)
    print(f"Wrote {output}: {describe_sizes(output, configs)}; {len(problems)} entries were skipped.")


def read_source(benchmark: Benchmark, source: Path, problems: list[str]) -> Reading:
    """Runs the benchmark's reader on an existing folder."""
    layout = f"--source is the folder of {benchmark.title}"
    if not require(source, layout).is_dir():
        raise UserError(f"{source} is not a folder; {layout}.")
    return benchmark.read(source, problems)


def check_options(benchmark: Benchmark, reading: Reading, selection: RowSelection, noise: TrainingNoise) -> None:
    """Raises a UserError for an option that does not apply to this benchmark."""
    if noise.slides and benchmark.medium != "image":
        raise UserError(f"{benchmark.title} has no photographs to make slide shows of; leave out --slides.")
    if noise.joined and benchmark.medium == "image":
        raise UserError(f"{benchmark.title} has no sound to join; leave out --joined.")
    if "train" not in reading.groups and (selection.skip or noise.swapped):
        raise UserError(f"{benchmark.title} has no training split of its own; leave out --skip and --swapped.")


def remove_unusable(items: list[Item], problems: list[str]) -> list[Item]:
    """The items without duplicates and without files that cannot be read or are too large; each is noted."""
    kept: dict[str, Item] = {}
    for item in items:
        if item.video_id in kept:
            problems.append(f"{item.video_id} is listed twice")
        elif not all(os.access(path, os.R_OK) for path in item.paths()):
            problems.append(f"{item.video_id} has a file that cannot be read, or a broken link")
        elif item.num_bytes() > MAX_FILE_BYTES:
            problems.append(f"{item.video_id} has more than 2 GB; cut it into pieces")
        else:
            kept[item.video_id] = item
    return list(kept.values())


def shuffle(items: list[Item]) -> list[Item]:
    """The items in a random order, which is always the same: training streams permute neighbouring rows only."""
    return [items[index] for index in np.random.default_rng(ORDER_SEED).permutation(len(items))]


def add_noise(items: list[Item], noise: TrainingNoise) -> list[Item]:
    """The items of the training split as slide shows and with swapped captions, where the options ask for it."""
    generator = np.random.default_rng(noise.seed)
    if noise.slides:
        items = make_slide_shows(items, noise.slides, noise.chatter, generator)
    if noise.joined:
        items = join_neighbours(items, noise.joined, noise.chatter, generator)
    return swap_captions(items, noise.swapped, generator)


def write_corpus(
    output: Path,
    benchmark: Benchmark,
    reading: Reading,
    groups: dict[str, list[Item]],
    selection: RowSelection,
    noise: TrainingNoise,
    num_proc: int,
) -> None:
    """Writes the shards that do not exist yet, and the card.

    Args:
        groups: the items that become rows, by group.
    """
    options = {**selection.options(), **noise.options()}
    sizes = {group: len(items) for group, items in groups.items()}
    claim_folder(output, {"name": benchmark.name, **options, **sizes, "items": fingerprint(groups)})
    columns = (benchmark.medium,)
    if noise.slides:
        columns = ("video", "image")
    if noise.joined:
        columns = ("video", "audio")
    extra = {"caption_slides": List(Value("int32"))} if noise.slides else {}
    extra |= {"label": reading.label} if reading.label else {}
    features = corpus_features(*columns, **extra)
    make_rows = RowMaker(columns, benchmark.medium, noise.slide_size or SLIDE_SIZE, joins=bool(noise.joined))
    for group, items in groups.items():
        make_shards(output, group, items, make_rows, features, num_proc, [item.num_bytes() for item in items])
    command = " ".join(
        ["python scripts/prepare_dataset.py", benchmark.name, *(f"--{key} {value}" for key, value in options.items())]
    )
    text = f"{benchmark.text}{noise.describe()} Made by `{command}`."
    configs = used_configs(reading.configs, groups)
    write_card(output, benchmark.title, text, configs, benchmark.license_id, ["fgmm"])


@dataclass(frozen=True)
class RowMaker:
    """Items to rows with the bytes of their media; picklable, for worker processes.

    Args:
        columns: media columns of the corpus.
        medium: that of an item with one file.
        slide_size: height and width of a slide, pixels.
        joins: an item of several files is their sound end to end, else a slide show, which becomes a video.
    """

    columns: tuple[str, ...]
    medium: str
    slide_size: int
    joins: bool = False

    def __call__(self, items: list[Item]) -> list[dict]:
        return [self.make_row(item) for item in items]

    def make_row(self, item: Item) -> dict:
        if isinstance(item.path, tuple) and self.joins:
            medium, name, content = "audio", f"{item.video_id}.flac", encode_joined(item.path)
        elif isinstance(item.path, tuple):
            medium, name, content = "video", f"{item.video_id}.mp4", encode_slide_show(item.path, self.slide_size)
        else:
            medium, name, content = self.medium, item.path.name, item.path.read_bytes()
        return {
            "video_id": item.video_id,
            **dict.fromkeys(self.columns),
            medium: {"bytes": content, "path": name},
            "captions": [{"text": text, "start": start, "end": end} for text, start, end in item.captions],
            "caption_slides": item.caption_slides,
            "label": list(item.label) if isinstance(item.label, tuple) else item.label,
        }


def fingerprint(groups: dict[str, list[Item]]) -> str:
    """A short hash of what rows are made from, by which another source or another version of its lists is noticed."""
    digest = hashlib.sha256()
    for group, items in groups.items():
        for item in items:
            names = [path.name for path in item.paths()]
            digest.update(repr((group, item.video_id, names, item.captions, item.label)).encode())
    return digest.hexdigest()[:16]


def used_configs(
    configs: dict[str, dict[str, list[str]]], groups: dict[str, list[Item]]
) -> dict[str, dict[str, list[str]]]:
    """The configurations without groups, splits and configurations that have no row."""
    used = {}
    for config, splits in configs.items():
        filled = {split: [group for group in splits.get(split, ()) if groups[group]] for split in SPLITS}
        filled = {split: names for split, names in filled.items() if names}
        if filled:
            used[config] = filled
    return used


def describe_sizes(output: Path, configs: dict[str, dict[str, list[str]]]) -> str:
    """The number of rows of each split, and of each configuration where there are several."""
    parts = []
    for config, splits in configs.items():
        counts = {split: sum(count_rows(output, group) for group in groups) for split, groups in splits.items()}
        text = ", ".join(f"{count} {split}" for split, count in counts.items())
        parts.append(f"{config}: {text}" if len(configs) > 1 else text)
    return "; ".join(parts)
