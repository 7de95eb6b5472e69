"""A corpus as files that can be indexed, played and cut: its media, and the captions with times as subtitles."""

import re
from pathlib import Path, PurePosixPath

from datasets import IterableDataset
from tqdm import tqdm

from processing_fgmm.clips_fgmm import fetch_media
from processing_fgmm.corpora_fgmm import MEDIA_COLUMNS, usable_captions
from processing_fgmm.media_fgmm import MediaError
from processing_fgmm.streams_fgmm import iterate_rows

from ..records import write_whole

# Endings of files whose rows do not name any.
ENDINGS = {"video": ".mp4", "image": ".jpg", "audio": ".wav"}


def unpack_corpus(corpus: IterableDataset, folder: Path) -> list[str]:
    """Writes the media of a corpus into a folder, each with the id of its row as its name.

    Files that are there with the same length are left as they are, and what is not of the corpus is removed.

    Args:
        corpus: of [`load_corpus`].

    Returns:
        a sentence for each row without media.
    """
    written, problems = set(), []
    for row in tqdm(iterate_rows(corpus), desc="Unpacking", unit="row", leave=False):
        try:
            row = fetch_media(row)
        except MediaError as error:
            problems.append(str(error))
            continue
        column = next((name for name in MEDIA_COLUMNS if row.get(name)), None)
        content = None if column is None else read_content(row[column])
        if content is None:
            problems.append(f"{row['video_id']} has no media.")
            continue
        named = Path(row[column]["path"] or "").suffix
        path = folder / safe_path(row["video_id"] + (named or ENDINGS[column]))
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.stat().st_size != len(content):
            partial = path.with_name(f"{path.name}.partial")
            partial.write_bytes(content)
            partial.replace(path)
        written.add(path)
        cues = [caption for caption in usable_captions(row) if caption["start"] is not None]
        subtitles = path.with_name(f"{path.name}.vtt")
        if cues:
            text = format_webvtt(cues)
            if not subtitles.exists() or subtitles.read_text() != text:
                write_whole(subtitles, text)
            written.add(subtitles)
    for path in folder.rglob("*"):
        if path.is_file() and path not in written:
            path.unlink()
    return problems


def read_content(file: dict) -> bytes | None:
    """The content of a file of a row; None where it is not there."""
    if file["bytes"] is not None:
        return file["bytes"]
    path = Path(file["path"] or "")
    return path.read_bytes() if path.is_file() else None


def safe_path(name: str) -> PurePosixPath:
    """A path below any folder, of an id of a row, whatever it holds."""
    parts = [re.sub(r"[\x00-\x1f\\:]+", "_", part) for part in name.split("/") if part not in ("", ".", "..")]
    return PurePosixPath(*(part.lstrip(".") or "_" for part in parts))


def format_webvtt(cues: list[dict]) -> str:
    """Captions with times as WebVTT."""
    blocks = ["WEBVTT"]
    for cue in sorted(cues, key=lambda cue: cue["start"]):
        text = " ".join(cue["text"].replace("&", "&amp;").replace("<", "&lt;").replace("-->", "--&gt;").split())
        blocks.append(f"{format_time(cue['start'])} --> {format_time(cue['end'])}\n{text}")
    return "\n\n".join(blocks) + "\n"


def format_time(seconds: float) -> str:
    """Seconds as WebVTT has them, 01:02:03.456."""
    milliseconds = min(round(seconds * 1000), 360_000_000)  # captions may last to the end, however long that is
    whole, rest = divmod(milliseconds, 1000)
    return f"{whole // 3600:02d}:{whole // 60 % 60:02d}:{whole % 60:02d}.{rest:03d}"
