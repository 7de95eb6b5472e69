"""A benchmark in its publishers' layout, or one's own files, to a corpus: Parquet shards with a dataset card."""

import hashlib
import os
import shlex
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from datasets import List, Value

from ..cli import UserError
from ..paths import check_exists
from .benchmarks import load_benchmark
from .benchmarks.layout import SPLITS, Benchmark, Item, Reading
from .joined_clips import encode_joined, join_neighbours
from .mentions import MENTIONS
from .options import SLIDE_SIZE, OwnFiles, RowSelection, TrainingNoise, is_table
from .parquet_shards import MEDIA, claim_folder, corpus_features, count_rows, make_shards, write_card
from .problems import Problems
from .slide_shows import encode_slide_show, make_slide_shows, swap_captions

# Publishers list labelled rows class by class; this seed orders them.
ORDER_SEED = 0
# A cell of an Arrow table holds no more.
MAX_FILE_BYTES = 2**31 - 1

Groups = dict[str, list[Item]]


def prepare(
    name: str,
    source: Path,
    output: Path,
    selection: RowSelection,
    noise: TrainingNoise,
    num_proc: int,
    own_files: OwnFiles | None = None,
    engine: str = "processes",
) -> None:
    """Reads a benchmark, or one's own files, and writes its corpus; continues where an earlier run was stopped.

    Args:
        name: of the benchmark, or `folder` or `classes`, see `benchmarks.MODULES`.
        source: folder in the publishers' layout; of one's own files a folder or a table.
        output: folder for the corpus.
        selection: which rows are taken.
        noise: what is done to the training split.
        num_proc: shards written, or files decoded, at a time.
        own_files: how one's own files are read; None: the defaults.
        engine: that schedules the shards and files, see [`run_jobs`]; the corpus is the same.

    Raises:
        UserError: when the source has another layout, nothing in it can be used, or it cannot be made into what the
            options ask for.
    """
    benchmark, problems, own_files = load_benchmark(name), Problems(), own_files or OwnFiles()
    check_source(benchmark, source, own_files)
    if output.resolve() == source.resolve():
        raise UserError(f"--output {output} is the folder that is read; give another one for the corpus.")
    if benchmark.is_own and own_files.captions is None:
        own_files = replace(own_files, captions="required" if name == "folder" else "optional")
    reading = benchmark.read(source, problems, own_files) if benchmark.is_own else benchmark.read(source, problems)
    check_options(benchmark, reading, selection, noise)
    groups = {group: remove_unusable(items, problems) for group, items in reading.groups.items()}
    if reading.label:
        groups = {group: shuffle(items) for group, items in groups.items()}
    groups = {group: items[selection.skip if group == "train" else 0 :] for group, items in groups.items()}
    groups = {group: items[: selection.limit] for group, items in groups.items()}
    if "train" in groups:
        groups["train"] = add_noise(groups["train"], noise)
    options = {**selection.options(), **noise.options(), **own_files.options()}
    sizes = {group: len(items) for group, items in groups.items()}
    claim_folder(output, {"name": benchmark.name, **options, **sizes, "items": fingerprint(groups)})
    if benchmark.is_own:
        if (output / "README.md").exists():  # else all files would be decoded again
            print(f"{output} is complete: {describe_sizes(output, used_configs(reading.configs, groups))}.")
            return
        groups = check_own_files(groups, source, own_files, num_proc, problems, engine)
    problems.write(output)
    if not any(groups.values()):
        raise UserError(f"Nothing in {source} can be used.\n{problems.summarize(output)}")
    write_corpus(output, benchmark, reading, groups, options, noise, num_proc, engine)
    print(problems.summarize(output))
    print(f"Wrote {output}: {describe_sizes(output, used_configs(reading.configs, groups))}.")


def check_source(benchmark: Benchmark, source: Path, own_files: OwnFiles) -> None:
    """Checks that the source can be read in the way that the options ask for.

    Raises:
        UserError: when it does not exist, is of another kind, or an option of one's own files does not apply to it.
    """
    layout = f"--source is the folder of {benchmark.title}"
    given = [f"--{name}" for name in replace(own_files, seed=0).options()]
    check_exists(source, layout)
    if not source.is_dir() and not (benchmark.is_own and is_table(source)):
        raise UserError(f"{source} is not a folder{' or a table (.csv, .tsv)' if benchmark.is_own else ''}; {layout}.")
    if given and not benchmark.is_own:
        raise UserError(f"{benchmark.title} is a benchmark and has its own splits and captions; leave out {given[0]}.")
    of_folders, of_tables = {"--language"}, {"--columns", "--label_separator"}
    for option in given:
        if option in (of_tables if source.is_dir() else of_folders):
            kind = "a folder" if source.is_dir() else "a table"
            raise UserError(f"{option} does not apply to {source}, which is {kind}; leave it out.")
    if own_files.label_separator and benchmark.name == "folder":
        raise UserError("--label_separator is for labels, which classes has and folder has not; leave it out.")


def check_options(benchmark: Benchmark, reading: Reading, selection: RowSelection, noise: TrainingNoise) -> None:
    """Raises a UserError for an option that does not apply to this benchmark."""
    if noise.slides and benchmark.medium != "image":
        raise UserError(f"{benchmark.title} has no photographs to make slide shows of; leave out --slides.")
    if noise.joined and benchmark.medium in ("image", None):
        raise UserError(f"{benchmark.title} has no sound to join; leave out --joined.")
    if "train" not in reading.groups and (selection.skip or noise.swapped):
        raise UserError(f"{benchmark.title} has no training split of its own; leave out --skip and --swapped.")


def check_own_files(
    groups: Groups, source: Path, own_files: OwnFiles, num_proc: int, problems: Problems, engine: str
) -> Groups:
    """The items of each group with files that can be decoded, and captions that can be used."""
    from .own_files.checking import check_items  # imports torch, which benchmarks need not wait for

    required = own_files.captions == "required"
    return check_items(groups, source if source.is_dir() else source.parent, required, num_proc, problems, engine)


def remove_unusable(items: list[Item], problems: Problems) -> list[Item]:
    """The items without duplicates and without files that cannot be read or are too large; each is noted."""
    kept: dict[str, Item] = {}
    for item in items:
        if item.video_id in kept:
            problems.add(item.video_id, "is listed twice")
        elif not all(is_utf8(str(path)) for path in (item.video_id, *item.paths())):
            problems.add(item.video_id, "has a name that is not UTF-8; rename it")
        elif not all(os.access(path, os.R_OK) for path in item.paths()):
            problems.add(item.video_id, "has a file that cannot be read, or a broken link")
        elif item.num_bytes() > MAX_FILE_BYTES:
            problems.add(item.video_id, "has more than 2 GB; cut it into pieces")
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
    groups: Groups,
    options: dict[str, object],
    noise: TrainingNoise,
    num_proc: int,
    engine: str,
) -> None:
    """Writes the shards that do not exist yet, and the card.

    Args:
        groups: the items that become rows, by group.
        options: of the command line, for the card.
    """
    columns = media_columns(benchmark, groups, noise)
    extra = {"caption_slides": List(Value("int32"))} if noise.slides else {}
    extra |= {"label": reading.label} if reading.label else {}
    if any(item.group is not None for items in groups.values() for item in items):
        extra["group"] = Value("string")
    if any(item.mentions for items in groups.values() for item in items):
        extra["mentions"] = MENTIONS
    features = corpus_features(*columns, **extra)
    make_rows = RowMaker(columns, benchmark.medium, noise.slide_size or SLIDE_SIZE, joins=bool(noise.joined))
    for group, items in groups.items():
        sizes = [item.num_bytes() for item in items]
        make_shards(output, group, items, make_rows, features, num_proc, sizes, engine)
    words = [
        word
        for name, value in options.items()
        for word in (f"--{name}", *map(str, value if isinstance(value, list) else [value]))
    ]
    command = shlex.join(["python", "scripts/prepare_dataset.py", benchmark.name, *words])
    text = f"{benchmark.text}{noise.describe()} Made by `{command}`."
    title = output.resolve().name if benchmark.is_own else benchmark.title
    write_card(output, title, text, used_configs(reading.configs, groups), benchmark.license_id, ["fgmm"])


def media_columns(benchmark: Benchmark, groups: Groups, noise: TrainingNoise) -> tuple[str, ...]:
    """The media columns of a corpus, those that any of its rows fills."""
    if noise.slides:
        return ("video", "image")
    if noise.joined:
        return ("video", "audio")
    if not benchmark.is_own:
        return (benchmark.medium,)
    filled = {column for items in groups.values() for item in items for column in item.columns}
    return tuple(column for column in MEDIA if column in filled)


@dataclass(frozen=True)
class RowMaker:
    """Items to rows with the bytes of their media; picklable, for worker processes.

    Args:
        columns: media columns of the corpus.
        medium: that of an item of a benchmark with one file.
        slide_size: height and width of a slide, pixels.
        joins: an item of several files is their sound end to end, else a slide show, which becomes a video.
    """

    columns: tuple[str, ...]
    medium: str | None
    slide_size: int
    joins: bool = False

    def __call__(self, items: list[Item]) -> list[dict]:
        return [self.make_row(item) for item in items]

    def make_row(self, item: Item) -> dict:
        return {
            "video_id": item.video_id,
            **dict.fromkeys(self.columns),
            **self.read_media(item),
            "captions": [{"text": text, "start": start, "end": end} for text, start, end in item.captions],
            "caption_slides": item.caption_slides,
            "label": list(item.label) if isinstance(item.label, tuple) else item.label,
            "group": item.group,
            "mentions": [asdict(mention) for mention in item.mentions],
        }

    def read_media(self, item: Item) -> dict[str, dict]:
        """The undecoded files of an item by their column."""
        if item.columns:
            files = {
                column: (path.name, path.read_bytes()) for column, path in zip(item.columns, item.path, strict=True)
            }
        elif isinstance(item.path, tuple) and self.joins:
            files = {"audio": (f"{item.video_id}.flac", encode_joined(item.path))}
        elif isinstance(item.path, tuple):
            files = {"video": (f"{item.video_id}.mp4", encode_slide_show(item.path, self.slide_size))}
        else:
            files = {self.medium: (item.path.name, item.path.read_bytes())}
        return {column: {"bytes": content, "path": name} for column, (name, content) in files.items()}


def fingerprint(groups: dict[str, list[Item]]) -> str:
    """A short hash of what rows are made from, by which another source or another version of its lists is noticed."""
    digest = hashlib.sha256()
    for group, items in groups.items():
        for item in items:
            names = [path.name for path in item.paths()]
            made_from = (group, item.video_id, names, item.captions, item.label)
            if item.columns:  # one's own files, of which damaged ones may have been replaced
                made_from += (item.num_bytes(), item.group)
            if item.mentions:
                made_from += (item.mentions,)
            digest.update(repr(made_from).encode())
    return digest.hexdigest()[:16]


def is_utf8(text: str) -> bool:
    """Whether UTF-8 can hold a text: it cannot hold half surrogate pairs, as which Python reads other file names."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def used_configs(configs: dict[str, dict[str, list[str]]], groups: Groups) -> dict[str, dict[str, list[str]]]:
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
