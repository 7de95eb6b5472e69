"""Clips of a corpus grounded: the captions that fit them best."""

import math

from tqdm import tqdm

from modeling_fgmm import FgmmModel
from processing_fgmm import FgmmProcessor
from processing_fgmm.clips_fgmm import evenly_spaced_windows, fetch_media, row_duration
from processing_fgmm.corpora_fgmm import load_corpus, usable_captions
from processing_fgmm.media_fgmm import MediaError, unwrap_file

from ..cli import UserError
from .files import GroundedFile, ground_file


def ground_clips(
    model: FgmmModel, processor: FgmmProcessor, dataset: str, split: str, config: str | None, number: int
) -> list[GroundedFile]:
    """The first clips of a corpus that can be decoded and have a caption, each with the caption that fits it best.

    Raises:
        UserError: when there is none.
    """
    corpus, files = load_corpus(dataset, split, config), []
    for row in tqdm(corpus.take(number), desc="Grounding", unit="clip", total=number, leave=False):
        try:
            files.append(ground_row(model, processor, row))
        except MediaError as error:
            tqdm.write(f"Skipped a clip: {error}")
    files = [file for file in files if file is not None]
    if not files:
        raise UserError(
            f"None of the first {number} clips of {dataset} can be decoded, has a caption and has what the model "
            "compares with text."
        )
    return files


def ground_row(model: FgmmModel, processor: FgmmProcessor, row: dict) -> GroundedFile | None:
    """The middle of a row with its caption of the highest scores; None for a row without captions, or without anything
    that the model compares with text.

    Raises:
        MediaError: when the row cannot be decoded.
    """
    row = fetch_media(row)
    video, image, audio = (unwrap_file(row.get(column)) for column in ("video", "image", "audio"))
    given = {"video": video, "image": image, "audio": audio}
    name, item = next(((name, item) for name, item in given.items() if item is not None), (None, None))
    if item is None:
        return None
    start, end = 0.0, None
    if duration := row_duration(row):
        [(start, end)] = evenly_spaced_windows(0.0, duration, processor.clip_seconds, 1)
    options = {"start": start, "end": end, "name": row["video_id"]}
    files = []
    for caption in usable_captions(row, duration or math.inf):
        try:
            files.append(ground_file(model, processor, caption["text"], **{name: item}, **options))
        except UserError:
            return None
    return max(files, key=lambda file: file.score, default=None)
