"""Caption files to captions: WebVTT, SRT, the JSON of speech recognisers, plain text.

Captions come as a corpus has them, `{"text", "start", "end"}` in seconds, None where the file gives none, and as they
stand in the file; [`check_captions`](processing_fgmm.corpora_fgmm.check_captions) says which of them can be used.
"""

import codecs
import html
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

# Of several caption files of one name the first kind is read: Whisper writes all of them.
CAPTION_SUFFIXES = (".srt", ".vtt", ".json", ".txt")

# Hours and fractions may be absent, as in SRT without milliseconds and in WebVTT's short times.
TIME = r"(-?)(?:(\d+):)?(\d{1,2}):(\d{1,2}(?:[.,]\d+)?)"
# What follows the times is where and how a cue is shown.
TIMING_LINE = re.compile(rf"\s*{TIME}\s*-->\s*{TIME}(?:\s.*)?")
# Blocks of WebVTT that are no cues.
OTHER_BLOCKS = re.compile(r"(NOTE|STYLE|REGION)(\s|$)")
# `<c.yellow>`, `</i>`, `<v Ann>`, `<font color="red">`, YouTube's times of words, Aegisub's `{\an8}`. Any other `<` is
# text, such as that of `x < 3 and y > 5`.
TAG = re.compile(r"</?[A-Za-z][\w.-]*/?>|<(?:v|lang|font|span|c)[.\w]*\s[^<>]*>|<(?:\d+:)?\d+:\d+[.,]\d+>|\{\\[^{}]*\}")
LINE_BREAK = re.compile(r"<br\s*/?>", re.IGNORECASE)
# A cue that is shown for less, in seconds, is a step in which captions roll up by a line.
SHORTEST_CUE = 0.05


class CaptionFileError(ValueError):
    """A caption file cannot be read; the message says why, and the caller which."""


def read_captions(path: Path) -> list[dict]:
    """The captions of a file, in its order; what kind of file it is is told by its ending.

    - `.srt`, `.vtt`: a caption for each cue. Where captions roll up, as YouTube's do, each line is a caption once.
    - `.json`: what Whisper writes (`segments`), what transformers' speech recognition gives (`chunks`), or a list; the
      entries have `text` and `start` and `end` or a pair `timestamp`, or are texts.
    - `.txt`: each line is a caption of the whole item.

    Raises:
        CaptionFileError: when it cannot be read.
    """
    try:
        text = decode_text(path.read_bytes())
    except OSError as error:
        raise CaptionFileError(f"cannot be read: {error.strerror}") from error
    suffix = path.suffix.lower()
    if suffix == ".json":
        return parse_json(text)
    if suffix == ".txt":
        return [{"text": line, "start": None, "end": None} for line in text.split("\n") if line.strip()]
    captions = list(parse_cues(text))
    if not captions and text.strip():
        raise CaptionFileError("has no cue with a time line such as 00:00:01,500 --> 00:00:03,000")
    return captions


def decode_text(data: bytes) -> str:
    r"""Text in UTF-8, UTF-16 or Windows-1252, with line ends `\n`.

    Raises:
        CaptionFileError: when it is in none of them.
    """
    encodings = ["utf-8", "cp1252"]
    if data.startswith(codecs.BOM_UTF8):
        encodings = ["utf-8-sig"]
    elif data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        encodings = ["utf-16"]
    elif b"\0" in data[:2]:  # UTF-16 without the mark: the first character is an ASCII one
        encodings = ["utf-16-be" if data[0] == 0 else "utf-16-le"]
    for encoding in encodings:
        try:
            return re.sub(r"\r+\n|\r", "\n", data.decode(encoding))
        except UnicodeDecodeError:
            continue
    raise CaptionFileError("is not text in UTF-8, UTF-16 or Windows-1252; save it as UTF-8")


@dataclass
class Cue:
    """A cue of a subtitle file.

    start, end: seconds.
    lines: of its text, as they stand in the file.
    """

    start: float
    end: float
    lines: list[str] = field(default_factory=list)

    def texts(self) -> list[str]:
        """Its lines as they are spoken: without tags and empty lines."""
        texts = (html.unescape(TAG.sub("", LINE_BREAK.sub(" ", line))).strip() for line in self.lines)
        return [text for text in texts if text]


def parse_cues(text: str) -> Iterator[dict]:
    """The captions of SRT or WebVTT, which its first line tells apart: files of either kind have the other's ending.

    Captions that roll up show a line in several cues; each line then is a caption once, from when it first appears.
    """
    is_webvtt = text.lstrip("\ufeff \n").startswith("WEBVTT")
    cues = [cue for block in (webvtt_blocks(text) if is_webvtt else [text.split("\n")]) for cue in split_cues(block)]
    rolls = any(0 < cue.end - cue.start < SHORTEST_CUE for cue in cues)
    shown: list[str] = []
    until = None
    for cue in cues:
        lines = cue.texts()
        new = [line for line in lines if line not in shown] if rolls and cue.start == until else lines
        if new:
            yield {"text": " ".join(new), "start": cue.start, "end": cue.end}
        shown, until = lines, cue.end


def webvtt_blocks(text: str) -> Iterator[list[str]]:
    """The lines of each block of WebVTT that may hold a cue: blocks stand between empty lines.

    A line of a blank is not empty; YouTube writes such lines.
    """
    for block in re.split(r"\n{2,}", text):
        lines = block.strip("\n").split("\n")
        if not OTHER_BLOCKS.match(lines[0]):
            yield lines


def split_cues(lines: list[str]) -> list[Cue]:
    """The cues that begin at time lines; what stands before the first of them is an identifier or a header."""
    cues: list[Cue] = []
    for line in lines:
        if timing := TIMING_LINE.fullmatch(line):
            if cues:
                drop_number(cues[-1].lines, len(cues) + 1)
            times = timing.groups()
            cues.append(Cue(to_seconds(*times[:4]), to_seconds(*times[4:])))
        elif cues:
            cues[-1].lines.append(line)
    return cues


def drop_number(lines: list[str], number: int) -> None:
    """Removes the number of the next cue from the end of a cue's lines, in place.

    Args:
        lines: of the cue, up to the next time line.
        number: of the next cue, if cues are counted from 1.
    """
    place = max((place for place, line in enumerate(lines) if line.strip()), default=0)
    last = lines[place].strip() if lines else ""
    if last.isdecimal() and (place == len(lines) - 1 or int(last) == number):
        del lines[place:]


def to_seconds(sign: str, hours: str | None, minutes: str, seconds: str) -> float:
    """The parts of a time to seconds."""
    total = 3600 * int(hours or 0) + 60 * int(minutes) + float(seconds.replace(",", "."))
    return -total if sign else total


def parse_json(text: str) -> list[dict]:
    """The captions of a JSON file, see [`read_captions`].

    Raises:
        CaptionFileError: when it holds something else.
    """
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CaptionFileError(f"is not JSON ({error})") from error
    if isinstance(data, dict):
        lists = [data[name] for name in ("segments", "chunks", "captions") if isinstance(data.get(name), list)]
        entries = lists[0] if lists else [data]
    else:
        entries = data if isinstance(data, list) else [data]
    return [parse_entry(entry) for entry in entries]


def parse_entry(entry: object) -> dict:
    """One entry of a JSON file to a caption.

    Raises:
        CaptionFileError: when it is neither a text nor has one.
    """
    if isinstance(entry, str):
        return {"text": entry, "start": None, "end": None}
    if not isinstance(entry, dict) or "text" not in entry:
        raise CaptionFileError("holds no captions: neither segments nor chunks nor a list of entries with a text")
    start, end = entry.get("start"), entry.get("end")
    if isinstance(entry.get("timestamp"), list):
        start, end = (*entry["timestamp"], None, None)[:2]
    return {"text": entry["text"], "start": start, "end": end}
