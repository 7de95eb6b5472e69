"""What is spoken in a media file: captions in a file beside it, else in a subtitle stream inside it."""

import contextlib
import json
import math
import re
from pathlib import Path

import av

from processing_fgmm.media_fgmm import MediaError
from processing_fgmm.phrases_fgmm import find_content_words

from ..corpora.captions import CaptionFileError, read_captions
from .catalog import quote

# Of files beside a media file the first of these kinds is read.
SUFFIXES = (".srt", ".vtt", ".json")
# Letters and digits of a language between the names, as in clip.en.srt and clip.pt-BR.vtt.
LANGUAGE = r"(\.[A-Za-z]{2,12}([-_][A-Za-z0-9]+)*)?"
# What ASS writes before a line's text: eight fields with commas in the packets of a container.
ASS_FIELDS = 8
# Overrides such as {\an8} and {\i1}, and the marks of SubRip such as <i>.
MARKUP = re.compile(r"\{[^{}]*\}|</?[A-Za-z][^<>]*>")

# (start, end, text) of each caption, s.
Cues = list[tuple[float, float, str]]


def find_beside(path: Path, names: list[str]) -> Path | None:
    """The caption file of a media file: clip.srt, clip.mp4.srt or clip.en.srt beside clip.mp4; None without.

    A .json must have the name of the media file, for others are anything.

    Args:
        names: of the files in its folder.
    """
    own = f"({re.escape(path.name)}|{re.escape(path.stem)})"
    for suffix in SUFFIXES:
        language = "" if suffix == ".json" else LANGUAGE
        fitting = [name for name in names if re.fullmatch(own + language + re.escape(suffix), name, re.IGNORECASE)]
        if fitting:
            return path.with_name(min(fitting, key=lambda name: (len(name), name)))
    return None


def describe(path: Path | None) -> str:
    """A caption file by name, size and time, to tell whether it has changed; "" for none."""
    if path is None:
        return ""
    status = path.stat()
    return json.dumps([path.name, status.st_size, status.st_mtime_ns])


def read_cues(media: Path, beside: Path | None, duration: float | None) -> Cues:
    """The captions of a media file, in the order of their times; those that have none are left out.

    Args:
        media: the file.
        beside: its caption file; None: a subtitle stream inside it is read, if it has one of text.
        duration: of the media file, s; captions end there at the latest. None for an image, which has no captions.

    Raises:
        CaptionFileError: when the caption file cannot be read.
    """
    if duration is None:
        return []
    captions = read_stream(media) if beside is None else read_captions(beside)
    cues = []
    for caption in captions:
        text = " ".join(str(caption["text"]).split())
        with contextlib.suppress(TypeError, ValueError):  # of a recogniser that gave no time
            start, end = max(0.0, float(caption["start"])), min(float(caption["end"]), duration or math.inf)
            if text and math.isfinite(start) and start < end:
                cues.append((start, end, text))
    return sorted(cues)


def read_stream(path: Path) -> list[dict]:
    """The captions of the first subtitle stream of text in a container: `{"text", "start", "end"}`, s.

    A stream that is damaged gives what comes before the damage.
    """
    captions = []
    with contextlib.suppress(av.FFmpegError, MediaError, OSError, ValueError), open(path, "rb") as file:
        with av.open(file, metadata_errors="ignore", options={"protocol_whitelist": "none"}) as container:
            streams = [stream for stream in container.streams.subtitles if stream.codec_context is not None]
            streams = [stream for stream in streams if stream.codec_context.name in TEXT_CODECS]
            if not streams:
                return []
            origin = (container.start_time or 0) / av.time_base
            for packet in container.demux(streams[0]):
                if packet.pts is None or not packet.duration:
                    continue
                text = decode_packet(bytes(packet), streams[0].codec_context.name)
                start = float(packet.pts * packet.time_base) - origin
                captions.append(
                    {"text": text, "start": start, "end": start + float(packet.duration * packet.time_base)}
                )
    return captions


TEXT_CODECS = {"ass", "ssa", "subrip", "srt", "mov_text", "webvtt", "text"}


def decode_packet(data: bytes, codec: str) -> str:
    """The text of a packet of a subtitle stream."""
    if codec == "mov_text":  # two bytes of its length come first, styles may follow
        data = data[2 : 2 + int.from_bytes(data[:2], "big")]
    text = data.decode("utf-8", "replace")
    if codec in ("ass", "ssa"):
        text = text.split(",", ASS_FIELDS)[-1].replace("\\N", " ").replace("\\n", " ")
    return MARKUP.sub("", text)


def make_expression(text: str) -> tuple[str, list[str]]:
    """A text as an expression of FTS5 that any of its content words fits, and these words; "" without any.

    Words are quoted, so that none of them is an operator.
    """
    words = list(dict.fromkeys(word.lower() for word in find_content_words(text)))
    return " OR ".join(map(quote, words)), words


__all__ = ["CaptionFileError", "Cues", "describe", "find_beside", "make_expression", "read_cues"]
