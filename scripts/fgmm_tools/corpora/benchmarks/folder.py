"""Any folder of videos with captions beside them."""

import html
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pysubs2

from .layout import VIDEO, Benchmark, Item, Reading, find_files, one_config, timed_captions

# Where a video has several caption files, the first kind of these is read: Whisper writes all of them.
CAPTIONS = (".srt", ".vtt", ".json")
LANGUAGE = re.compile(r"\.[a-z]{2,3}(-\w+)*$")


def read(source: Path, problems: list[str]) -> Reading:
    """NAME.mp4, or another video, with NAME.srt, NAME.vtt, NAME.json or, in one language, NAME.en.vtt beside it.

    A JSON file is what Whisper writes, or a list of {text, start, end} in seconds. All videos are for training.
    """
    captions_of, translations_of = find_captions(source)
    items = []
    for path in find_files(source, VIDEO):
        place = str(path.with_suffix(""))
        name = Path(place).relative_to(source).as_posix()
        files = [captions_of[place]] if place in captions_of else translations_of.get(place, [])
        if not files:
            problems.append(f"{path.name} has no captions beside it ({', '.join(CAPTIONS)})")
        elif len(files) > 1:
            problems.append(f"{path.name} has captions in several languages, of which one is to be kept")
        else:
            captions = timed_captions(name, read_captions(files[0], problems), problems)
            if captions:
                items.append(Item(name, path, captions))
            else:
                problems.append(f"{path.name} has no caption that can be used")
    return one_config({"train": items})


def find_captions(source: Path) -> tuple[dict[str, Path], dict[str, list[Path]]]:
    """Caption files by their paths without extension, and those with a language code by the path without the code."""
    captions_of: dict[str, Path] = {}
    translations_of: dict[str, list[Path]] = {}
    for path in sorted(find_files(source, CAPTIONS), key=lambda path: CAPTIONS.index(path.suffix.lower())):
        captions_of.setdefault(str(path.with_suffix("")), path)
    for place, path in captions_of.items():
        if LANGUAGE.search(place):
            translations_of.setdefault(LANGUAGE.sub("", place), []).append(path)
    return captions_of, translations_of


def read_captions(path: Path, problems: list[str]) -> list[tuple]:
    """(text, start, end) of each caption, seconds; none, and a problem noted, where the file cannot be read."""
    try:
        if path.suffix.lower() == ".json":
            data = json.loads(path.read_text(encoding="utf-8-sig"))
            segments = data["segments"] if isinstance(data, dict) else data
            return [(segment.get("text"), segment.get("start"), segment.get("end")) for segment in segments]
        return list(read_cues(pysubs2.load(str(path), encoding="utf-8-sig")))
    except (pysubs2.Pysubs2Error, LookupError, TypeError, ValueError, AttributeError) as error:
        problems.append(f"{path.name} cannot be read ({type(error).__name__}: {error})")
        return []


def read_cues(cues: pysubs2.SSAFile) -> Iterator[tuple[str, float, float]]:
    """(text, start, end) of each cue, seconds.

    YouTube's captions roll: a cue repeats the lines of the one that ends as it starts. Only new lines are given.
    """
    shown: list[str] = []
    until = None
    for cue in cues:
        # The parser keeps times of single words (<00:00:01.500>) and HTML entities.
        text = html.unescape(re.sub(r"<[^>]*>", "", cue.plaintext))
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        new = [line for line in lines if line not in shown] if cue.start == until else lines
        if new:
            yield " ".join(new), cue.start / 1000, cue.end / 1000
        shown, until = lines, cue.end


FOLDER = Benchmark(
    "folder",
    "Videos with captions",
    "video",
    read,
    "Videos with timed captions, for pretraining. Whether they may be passed on is for their owner to say.",
)
