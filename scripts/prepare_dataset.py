"""Turns a benchmark in its publishers' layout into a corpus: Parquet shards with a dataset card.

python scripts/prepare_dataset.py flickr8k --source Flickr8k --output data/flickr8k
python scripts/prepare_dataset.py grid --source grid --output data/grid
python scripts/prepare_dataset.py flickr8k --source Flickr8k --output data/slides --slides 4 --chatter 2

With --slides the training split of a corpus of photographs becomes slide shows whose captions tell of one or two of
the photographs shown, and --chatter captions of others. With --swapped a share of the training items have each other's
captions. The other splits stay as they are.
"""

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from datasets import List, Value
from parquet_shards import Item, claim_folder, corpus_features, count_rows, make_shards, write_card
from slide_shows import encode_slide_show, make_slide_shows, swap_captions


class LayoutError(Exception):
    """A source that is not in the published layout: one sentence that names what is missing."""


@dataclass(frozen=True)
class Benchmark:
    """How a benchmark is read, and what its card says."""

    title: str
    medium: str
    read: Callable[[Path, list[str]], dict[str, list[Item]]]  # (source, problems) -> items of each split
    text: str
    license_id: str = "other"


def require(path: Path, layout: str) -> Path:
    """The path, if it is there.

    Raises:
        LayoutError: naming it and the layout.
    """
    if not path.exists():
        raise LayoutError(f"{path} is not there; {layout}.")
    return path


def read_flickr8k(source: Path, problems: list[str]) -> dict[str, list[Item]]:
    """Flicker8k_Dataset/*.jpg, Flickr8k_text/Flickr8k.token.txt and the official lists of images."""
    layout = "Flickr8k is published as the folders Flicker8k_Dataset and Flickr8k_text"
    images = require(source / "Flicker8k_Dataset", layout)
    captions: dict[str, list[str]] = {}
    for line in require(source / "Flickr8k_text/Flickr8k.token.txt", layout).read_text(encoding="utf-8").splitlines():
        name, tab, text = line.partition("\t")
        if tab and text.strip():
            captions.setdefault(name.partition("#")[0], []).append(text.strip())
        elif line.strip():
            problems.append(f"a caption line without text: {line[:60]!r}")
    splits = {}
    for split, part in (("train", "train"), ("validation", "dev"), ("test", "test")):
        names = require(source / f"Flickr8k_text/Flickr_8k.{part}Images.txt", layout).read_text().split()
        splits[split] = []
        for name in names:
            if name not in captions:
                problems.append(f"{name} has no caption")
            elif not (images / name).exists():
                problems.append(f"{name} is not in {images.name}")
            else:
                whole = tuple((text, None, None) for text in captions[name])
                splits[split].append(Item(Path(name).stem, images / name, whole))
    return splits


# Times in GRID's transcripts are thousandths of a frame, at 25 frames a second.
GRID_TICKS_PER_SECOND = 25_000


def read_grid(source: Path, problems: list[str]) -> dict[str, list[Item]]:
    """s*/NAME.mp4 (or .mpg) and align/s*/NAME.align; every fifth clip of a speaker, in sorted order, is for testing."""
    layout = "GRID is published as folders s1, s2, ... of clips and a folder align with their transcripts"
    align = require(source / "align", layout)
    splits: dict[str, list[Item]] = {"train": [], "test": []}
    speakers = sorted(folder for folder in source.glob("s[0-9]*") if folder.is_dir())
    if not speakers:
        raise LayoutError(f"{source} has no folder of a speaker; {layout}.")
    for speaker in speakers:
        clips = sorted(path for path in speaker.iterdir() if path.suffix in (".mp4", ".mpg"))
        for index, path in enumerate(clips):
            transcript = align / speaker.name / f"{path.stem}.align"
            if not transcript.exists():
                problems.append(f"{path.name} has no transcript")
                continue
            caption = read_grid_transcript(transcript, problems)
            if caption:
                name = f"{speaker.name}_{path.stem}"
                splits["test" if index % 5 == 4 else "train"].append(Item(name, path, (caption,)))
    return splits


def read_grid_transcript(path: Path, problems: list[str]) -> tuple[str, float, float] | None:
    """The sentence with its start and end in seconds; None, and a problem noted, where it cannot be read."""
    words = []
    for line in path.read_text().splitlines():
        fields = line.split()
        if len(fields) != 3 or not (fields[0].isdigit() and fields[1].isdigit() and int(fields[0]) <= int(fields[1])):
            problems.append(f"{path.name} has a line that is not 'start end word': {line!r}")
            return None
        if fields[2] not in ("sil", "sp"):
            words.append((int(fields[0]), int(fields[1]), fields[2]))
    if not words:
        problems.append(f"{path.name} has no word")
        return None
    text = " ".join(word for _, _, word in words)
    return text, words[0][0] / GRID_TICKS_PER_SECOND, words[-1][1] / GRID_TICKS_PER_SECOND


BENCHMARKS = {
    "flickr8k": Benchmark(
        "Flickr8k",
        "image",
        read_flickr8k,
        "8,000 photographs with five captions each (Hodosh, Young and Hockenmaier, 2013), in the official split. For "
        "research use; not to be redistributed.",
    ),
    "grid": Benchmark(
        "GRID",
        "video",
        read_grid,
        "Spoken sentences of a fixed grammar, filmed, with word-timed transcripts (Cooke et al., 2006). Every fifth "
        "clip of a speaker, in sorted order, is for testing.",
    ),
}


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
    """Which rows are taken: `limit` of each split at most; the first `skip` of the training split are left out."""

    limit: int | None
    skip: int

    def given(self) -> dict:
        """The options that were given."""
        return {name: value for name, value in vars(self).items() if value}

    def choose(self, splits: dict[str, list[Item]]) -> dict[str, list[Item]]:
        """The rows of each split that are taken."""
        kept = {**splits, "train": splits["train"][self.skip :]}
        return {split: items[: self.limit] for split, items in kept.items()}


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
        return {"video_id": item.video_id, **media, "captions": captions, "caption_slides": item.caption_slides}


# Height and width of a slide where --slide_size is not given, pixels.
SLIDE_SIZE = 112


def prepare(name: str, source: Path, output: Path, rows: Rows, num_proc: int, noise: Noise) -> None:
    """Reads a benchmark and writes its corpus.

    Raises:
        LayoutError: when the source is not in the published layout, or nothing in it can be used, or it cannot be
            made into slide shows.
    """
    benchmark = BENCHMARKS[name]
    if noise.slides and benchmark.medium != "image":
        raise LayoutError(f"{benchmark.title} has no photographs to make slide shows of; leave out --slides.")
    problems: list[str] = []
    splits = benchmark.read(require(source, f"--source is the folder of {benchmark.title}"), problems)
    splits = rows.choose(splits)
    if not any(splits.values()):
        raise LayoutError(f"Nothing in {source} can be used; the first of {len(problems)} problems: {problems[:1]}.")
    try:
        splits["train"] = noise.apply(splits["train"])
    except ValueError as error:
        raise LayoutError(f"{error} Lower --slides or --chatter.") from error
    sizes = {split: len(items) for split, items in splits.items()}
    claim_folder(output, {"name": name, **rows.given(), **noise.given(), **sizes})
    columns = ("video", "image") if noise.slides else (benchmark.medium,)
    features = corpus_features(*columns, **({"caption_slides": List(Value("int32"))} if noise.slides else {}))
    make_rows = RowMaker(columns, benchmark.medium, noise.slide_size or SLIDE_SIZE)
    for split, items in splits.items():
        make_shards(output, split, items, make_rows, features, num_proc)
    used = [split for split, items in splits.items() if items]
    text = f"{benchmark.text}{noise.describe()} Made by `{make_command(name, rows, noise)}`."
    write_card(output, benchmark.title, text, used, benchmark.license_id, ["fgmm"])
    for problem in problems[:5]:
        print(f"Skipped: {problem}.")
    counts = ", ".join(f"{count_rows(output, split)} {split}" for split in used)
    print(f"Wrote {output}: {counts}; {len(problems)} entries were skipped.")


def make_command(name: str, rows: Rows, noise: Noise) -> str:
    """The command that makes the corpus, without its folders."""
    options = {**rows.given(), **noise.given()}
    words = [f"--{option} {value}" for option, value in options.items()]
    return " ".join(["python scripts/prepare_dataset.py", name, *words])


def share(text: str) -> float:
    """A number from 0 to 1."""
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return value


def even_number(text: str) -> int:
    """A positive even number: H.264 halves the resolution of colours."""
    value = int(text)
    if value <= 0 or value % 2:
        raise argparse.ArgumentTypeError(f"{text} is not positive and even")
    return value


def at_least(least: int) -> Callable[[str], int]:
    """A whole number that is not smaller."""

    def whole_number(text: str) -> int:
        if int(text) < least:
            raise argparse.ArgumentTypeError(f"{text} is less than {least}")
        return int(text)

    return whole_number


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=sorted(BENCHMARKS))
    parser.add_argument("--source", type=Path, required=True, help="folder in the publishers' layout")
    parser.add_argument("--output", type=Path, required=True, help="folder for the corpus")
    parser.add_argument("--limit", type=int, help="rows of each split at most")
    parser.add_argument(
        "--skip", type=at_least(0), default=0, help="rows of the training split to leave out, the first"
    )
    parser.add_argument("--num_proc", type=int, default=2, help="shards written at a time")
    parser.add_argument("--slides", type=at_least(1), help="make slide shows of this many photographs")
    parser.add_argument("--slide_size", type=even_number, help=f"height and width of a slide, pixels ({SLIDE_SIZE})")
    parser.add_argument("--chatter", type=at_least(0), default=0, help="captions of others in each slide show")
    parser.add_argument("--swapped", type=share, default=0.0, help="share of training items with others' captions")
    parser.add_argument("--seed", type=int, default=0, help="of slide shows and swaps")
    args = parser.parse_args()
    if (args.chatter or args.slide_size) and not args.slides:
        parser.error("--chatter and --slide_size need --slides")
    noise = Noise(args.slides, args.slide_size, args.chatter, args.swapped, args.seed)
    try:
        prepare(args.name, args.source, args.output, Rows(args.limit, args.skip), args.num_proc, noise)
    except LayoutError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
