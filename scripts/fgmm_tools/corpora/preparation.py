"""A benchmark in its publishers' layout to a corpus: Parquet shards with a dataset card."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from datasets import List, Value

from .benchmarks import BENCHMARKS
from .benchmarks.layout import SPLITS, Item, LayoutError, Reading, require
from .parquet_shards import claim_folder, corpus_features, count_rows, make_shards, write_card
from .slide_shows import encode_slide_show, make_slide_shows, swap_captions


@dataclass(frozen=True)
class Noise:
    """What is done to a training split: see the top of this file."""

    slides: int | None
    slide_size: int | None
    chatter: int
    swapped: float
    seed: int

    def given(self) -> dict:
        """The options that were given."""
        return {name: value for name, value in vars(self).items() if value}

    def apply(self, items: list[Item]) -> list[Item]:
        """The noisy items."""
        generator = np.random.default_rng(self.seed)
        if self.slides:
            items = make_slide_shows(items, self.slides, self.chatter, generator)
        return swap_captions(items, self.swapped, generator)

    def describe(self) -> str:
        """A sentence for the card, empty where nothing is done."""
        parts = []
        if self.slides:
            parts.append(f"shows {self.slides} photographs, with {self.chatter} captions of others")
        if self.swapped:
            parts.append(f"has another item's captions in {self.swapped:.0%} of the cases")
        return f" Each training item {' and '.join(parts)}." if parts else ""


@dataclass(frozen=True)
class Rows:
    """Which rows are taken: `limit` of each group at most; the first `skip` of the training split are left out."""

    limit: int | None
    skip: int

    def given(self) -> dict:
        """The options that were given."""
        return {name: value for name, value in vars(self).items() if value}

    def choose(self, group: str, items: list[Item]) -> list[Item]:
        """The rows of a group that are taken."""
        return items[self.skip if group == "train" else 0 :][: self.limit]


@dataclass(frozen=True)
class RowMaker:
    """Items to rows, media as bytes; in a form that worker processes can be sent.

    columns: the media columns of the corpus; medium: that of a plain item. A slide show goes into the column video,
    with slides of slide_size pixels.
    """

    columns: tuple[str, ...]
    medium: str
    slide_size: int

    def __call__(self, items: list[Item]) -> list[dict]:
        return [self.make_row(item) for item in items]

    def make_row(self, item: Item) -> dict:
        if isinstance(item.path, tuple):
            medium, value = (
                "video",
                {"bytes": encode_slide_show(item.path, self.slide_size), "path": f"{item.video_id}.mp4"},
            )
        else:
            medium, value = self.medium, {"bytes": item.path.read_bytes(), "path": item.path.name}
        captions = [{"text": text, "start": start, "end": end} for text, start, end in item.captions]
        media = dict.fromkeys(self.columns) | {medium: value}
        label = list(item.label) if isinstance(item.label, tuple) else item.label
        extra = {"caption_slides": item.caption_slides, "label": label}
        return {"video_id": item.video_id, **media, "captions": captions, **extra}


# Height and width of a slide where --slide_size is not given, pixels.
SLIDE_SIZE = 112
# A cell of an Arrow table holds no more.
LARGEST_FILE = 2**31 - 1


def leave_out_unusable(items: list[Item], problems: list[str]) -> list[Item]:
    """The items without those that stand there twice, cannot be read, or are too large for a cell; a problem is noted
    for each."""
    kept: dict[str, Item] = {}
    for item in items:
        if item.video_id in kept:
            problems.append(f"{item.video_id} stands there twice")
        elif not all(os.access(path, os.R_OK) for path in item.paths()):
            problems.append(f"{item.video_id} has a file that cannot be read, or a link to nothing")
        elif item.num_bytes() > LARGEST_FILE:
            problems.append(f"{item.video_id} has more than 2 GB; cut it into pieces")
        else:
            kept[item.video_id] = item
    return list(kept.values())


# Of the order of labelled rows.
ORDER_SEED = 0


def choose_rows(reading: Reading, rows: Rows, noise: Noise, problems: list[str]) -> dict[str, list[Item]]:
    """The rows of each group that are written.

    Publishers list labelled rows class by class. They are put in a random order, as training streams permute
    neighbouring rows only.
    """
    groups = {}
    for group, items in reading.groups.items():
        items = leave_out_unusable(items, problems)
        if reading.label:
            items = [items[place] for place in np.random.default_rng(ORDER_SEED).permutation(len(items))]
        groups[group] = rows.choose(group, items)
    try:
        return {group: noise.apply(items) if group == "train" else items for group, items in groups.items()}
    except ValueError as error:
        raise LayoutError(f"{error} Lower --slides or --chatter.") from error


def fingerprint(groups: dict[str, list[Item]]) -> str:
    """What rows are made of as a short text: another source, or another version of its lists, gives another one."""
    digest = hashlib.sha256()
    for group, items in groups.items():
        for item in items:
            names = [path.name for path in item.paths()]
            digest.update(repr((group, item.video_id, names, item.captions, item.label)).encode())
    return digest.hexdigest()[:16]


def prepare(name: str, source: Path, output: Path, rows: Rows, num_proc: int, noise: Noise) -> None:
    """Reads a benchmark and writes its corpus.

    Raises:
        LayoutError: when the source is not in the published layout, or nothing in it can be used, or it cannot be
            made into what the options ask for.
    """
    benchmark = BENCHMARKS[name]
    if noise.slides and benchmark.medium != "image":
        raise LayoutError(f"{benchmark.title} has no photographs to make slide shows of; leave out --slides.")
    problems: list[str] = []
    layout = f"--source is the folder of {benchmark.title}"
    if not require(source, layout).is_dir():
        raise LayoutError(f"{source} is not a folder; {layout}.")
    reading = benchmark.read(source, problems)
    if "train" not in reading.groups and (rows.skip or noise.swapped):
        raise LayoutError(f"{benchmark.title} has no training split of its own; leave out --skip and --swapped.")
    groups = choose_rows(reading, rows, noise, problems)
    if not any(groups.values()):
        raise LayoutError(f"Nothing in {source} can be used; the first of {len(problems)} problems: {problems[:1]}.")
    sizes = {group: len(items) for group, items in groups.items()}
    claim_folder(output, {"name": name, **rows.given(), **noise.given(), **sizes, "items": fingerprint(groups)})
    columns = ("video", "image") if noise.slides else (benchmark.medium,)
    extra = {"caption_slides": List(Value("int32"))} if noise.slides else {}
    extra |= {"label": reading.label} if reading.label else {}
    features = corpus_features(*columns, **extra)
    make_rows = RowMaker(columns, benchmark.medium, noise.slide_size or SLIDE_SIZE)
    for group, items in groups.items():
        sizes = [item.num_bytes() for item in items]
        make_shards(output, group, items, make_rows, features, num_proc, sizes)
    configs = used_configs(reading.configs, groups)
    text = f"{benchmark.text}{noise.describe()} Made by `{make_command(name, rows, noise)}`."
    write_card(output, benchmark.title, text, configs, benchmark.license_id, ["fgmm"])
    for problem in problems[:5]:
        print(f"Skipped: {problem}.")
    print(f"Wrote {output}: {describe_sizes(output, configs)}; {len(problems)} entries were skipped.")


def used_configs(configs: dict, groups: dict[str, list[Item]]) -> dict[str, dict[str, list[str]]]:
    """The configurations without groups, splits and configurations that have no row."""
    used = {}
    for config, splits in configs.items():
        filled = {split: [group for group in splits.get(split, ()) if groups[group]] for split in SPLITS}
        filled = {split: names for split, names in filled.items() if names}
        if filled:
            used[config] = filled
    return used


def describe_sizes(output: Path, configs: dict[str, dict[str, list[str]]]) -> str:
    """The rows of each split, and of each configuration where there are several."""
    parts = []
    for config, splits in configs.items():
        counts = {split: sum(count_rows(output, group) for group in groups) for split, groups in splits.items()}
        text = ", ".join(f"{count} {split}" for split, count in counts.items())
        parts.append(f"{config}: {text}" if len(configs) > 1 else text)
    return "; ".join(parts)


def make_command(name: str, rows: Rows, noise: Noise) -> str:
    """The command that makes the corpus, without its folders."""
    options = {**rows.given(), **noise.given()}
    words = [f"--{option} {value}" for option, value in options.items()]
    return " ".join(["python scripts/prepare_dataset.py", name, *words])
