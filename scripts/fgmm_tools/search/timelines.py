"""Moments as edit lists for editing programs: EDL (CMX 3600) and OpenTimelineIO."""

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from ..cli import UserError
from ..records import write_whole
from .moments import Moment
from .times import to_timecode

# Frames a second of an edit list of files that say none, such as sounds; and seconds that an image is shown.
DEFAULT_RATE = 25
IMAGE_SECONDS = 5.0
# CMX 3600 counts to 999 events.
MAX_EVENTS = 999


def choose_rate(moments: Sequence[Moment]) -> int:
    """The whole number of frames a second that most files have, as nearly as a whole number can; 23.976 is 24."""
    rates = Counter(round(moment.file.frame_rate) for moment in moments if moment.file.frame_rate)
    return max(1, rates.most_common(1)[0][0]) if rates else DEFAULT_RATE


def to_frames(moment: Moment, rate: int) -> tuple[int, int]:
    """The first frame of a moment in its file and one past its last, at a rate (Hz); at least one frame."""
    start, end = (moment.start, moment.end) if moment.end else (0.0, IMAGE_SECONDS)
    first = round(start * rate)
    return first, max(first + 1, round(end * rate))


def write_edl(path: Path, title: str, moments: Sequence[Moment]) -> list[str]:
    """Writes moments one after the other as an EDL (CMX 3600).

    Its times are counted at one rate, so that those of files of other rates are rounded to its frames.

    Returns:
        a sentence for each thing that is not in it.
    """
    rate, record, problems = choose_rate(moments), 0, []
    if len(moments) > MAX_EVENTS:
        problems.append(f"An EDL holds {MAX_EVENTS} events; {len(moments) - MAX_EVENTS} moments were left out.")
    lines = [f"TITLE: {one_line(title)}", "FCM: NON-DROP FRAME", ""]
    for number, moment in enumerate(moments[:MAX_EVENTS], 1):
        first, last = to_frames(moment, rate)
        channel = "A" if moment.file.kind == "audio" else "V"
        times = (first, last, record, record + last - first)
        timecodes = " ".join(to_timecode(time / rate, rate) for time in times)
        lines.append(f"{number:03d}  AX       {channel:<5} C        {timecodes}")
        lines.append(f"* FROM CLIP NAME: {one_line(moment.file.path.name)}")
        lines.append(f"* SOURCE FILE: {one_line(moment.path)}")
        record = times[-1]
    write_whole(path, "\n".join([*lines, ""]))
    return problems


def one_line(text: str) -> str:
    """A text without line breaks and other control characters, which an EDL cannot hold."""
    return re.sub(r"[\x00-\x1f\x7f\u2028\u2029]+", " ", text).strip()


def write_otio(path: Path, title: str, moments: Sequence[Moment]) -> list[str]:
    """Writes moments one after the other as a timeline of OpenTimelineIO, each with its file and score.

    Returns:
        a sentence for each thing that is not in it: none.

    Raises:
        UserError: when opentimelineio is not installed, or the file's ending is another.
    """
    try:
        import opentimelineio as otio
    except ImportError as error:
        raise UserError("--otio needs opentimelineio; install fgmm[search].") from error
    if path.suffix != ".otio":
        raise UserError(f"--otio {path} must end in .otio.")
    timeline = otio.schema.Timeline(name=title)
    track = otio.schema.Track(name="moments", kind=otio.schema.TrackKind.Video)
    timeline.tracks.append(track)
    for moment in moments:
        rate = moment.file.frame_rate or DEFAULT_RATE
        start, end = (moment.start, moment.end) if moment.end else (0.0, IMAGE_SECONDS)
        available = moment.file.duration or IMAGE_SECONDS
        uri = moment.file.path.as_uri()
        reference = otio.schema.ExternalReference(target_url=uri, available_range=span(0, available, rate))
        clip = otio.schema.Clip(
            name=moment.file.path.name,
            media_reference=reference,
            source_range=span(start, end, rate),
            metadata={"fgmm": {"score": moment.score, "spoken": moment.spoken}},
        )
        track.append(clip)
    partial = path.with_name(f"{path.stem}.partial.otio")
    try:
        otio.adapters.write_to_file(timeline, str(partial))
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return []


def span(start: float, end: float, rate: float):
    """A range of time of OpenTimelineIO in whole frames, from seconds."""
    from opentimelineio.opentime import RationalTime, TimeRange

    first = round(start * rate)
    return TimeRange(RationalTime(first, rate), RationalTime(max(1, round(end * rate) - first), rate))
