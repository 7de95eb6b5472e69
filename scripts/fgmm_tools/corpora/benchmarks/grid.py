"""GRID: spoken sentences, filmed, with word-timed transcripts."""

from pathlib import Path

from ...cli import UserError
from ..problems import Problems
from .layout import VIDEO, Benchmark, Item, Reading, one_config, read_lines, require

LAYOUT = "GRID is published as folders s1, s2, ... of clips and a folder align with their transcripts"
# Times in the transcripts are thousandths of a frame, at 25 frames a second.
TICKS_PER_SECOND = 25_000


def read(source: Path, problems: Problems) -> Reading:
    """s*/NAME.mpg and align/s*/NAME.align; see [`split_of`]."""
    align = require(source / "align", LAYOUT)
    splits: dict[str, list[Item]] = {"train": [], "validation": [], "test": []}
    speakers = sorted(folder for folder in source.glob("s[0-9]*") if folder.is_dir())
    if not speakers:
        raise UserError(f"{source} has no folder of a speaker; {LAYOUT}.")
    for speaker in speakers:
        clips = sorted(path for path in speaker.iterdir() if path.suffix.lower() in VIDEO)
        for index, path in enumerate(clips):
            transcript = align / speaker.name / f"{path.stem}.align"
            if not transcript.exists():
                problems.add(path.name, "has no transcript")
                continue
            caption = read_transcript(transcript, problems)
            if caption:
                name = f"{speaker.name}_{path.stem}"
                splits[split_of(index)].append(Item(name, path, (caption,)))
    return one_config(splits)


def split_of(index: int) -> str:
    """The split of a speaker's clip by its index in sorted order; none is official."""
    if index % 5 == 4:
        return "test"
    return "validation" if index % 10 == 0 else "train"


def read_transcript(path: Path, problems: Problems) -> tuple[str, float, float] | None:
    """The sentence with its start and end in seconds; None, and a problem noted, where it cannot be read."""
    words = []
    try:
        lines = read_lines(path)
    except UserError as error:
        problems.add(path.name, str(error).removeprefix(f"{path} ").rstrip("."))
        return None
    for line in lines:
        fields = line.split()
        if len(fields) != 3 or not (fields[0].isdigit() and fields[1].isdigit() and int(fields[0]) <= int(fields[1])):
            problems.add(path.name, f"has a line that is not 'start end word': {line!r}")
            return None
        if fields[2] not in ("sil", "sp"):
            words.append((int(fields[0]), int(fields[1]), fields[2]))
    if not words:
        problems.add(path.name, "has no word")
        return None
    text = " ".join(word for _, _, word in words)
    return text, words[0][0] / TICKS_PER_SECOND, words[-1][1] / TICKS_PER_SECOND


GRID = Benchmark(
    "grid",
    "GRID",
    "video",
    read,
    "Spoken sentences of a fixed grammar, filmed, with word-timed transcripts (Cooke et al., 2006). Every fifth "
    "clip of a speaker, in sorted order, is for testing, every tenth for validation. For research use.",
)
