"""Slide shows of captioned photographs: a model of uncurated narration whose noise is known.

An item shows several photographs; its captions describe one or two of them, and other captions ("chatter") photographs
that are not shown. The column `caption_slides` says which caption belongs to which slide; training does not read it.
"""

import io
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image

from ..cli import UserError
from .benchmarks.layout import Item


def make_slide_shows(items: list[Item], slides: int, chatter: int, generator: np.random.Generator) -> list[Item]:
    """One slide show for each caption of each photograph.

    Args:
        items: photographs with captions of the whole item.
        slides: photographs in a show.
        chatter: captions of photographs that are not shown.
        generator: draws the other slides and all captions; in half of the shows of two or more slides a second slide
            has its caption, too.

    Returns:
        Items whose path is a tuple of photographs in the order in which they are shown; `caption_slides` says which
        of them each caption describes.

    Raises:
        UserError: when there are too few photographs for one show.
    """
    if slides + chatter > len(items):
        raise UserError(
            f"{len(items)} photographs are too few for {slides} slides and {chatter} other captions; "
            "lower --slides or --chatter."
        )
    shows = []
    for index, item in enumerate(items):
        for number, caption in enumerate(item.captions):
            others = generator.choice(len(items) - 1, slides - 1 + chatter, replace=False)
            others = [items[other + (other >= index)] for other in others]
            shown, silent = others[: slides - 1], others[slides - 1 :]
            captions, described = [caption], [0]
            if shown and generator.random() < 0.5:
                captions.append(draw_caption(shown[0], generator))
                described.append(1)
            captions += [draw_caption(other, generator) for other in silent]
            described += [-1] * chatter
            paths = [item.path, *(other.path for other in shown)]
            order, caption_order = generator.permutation(slides), generator.permutation(len(captions))
            position = {-1: -1, **{int(slide): place for place, slide in enumerate(order)}}
            shows.append(
                Item(
                    f"{item.video_id}_{number}",
                    tuple(paths[slide] for slide in order),
                    tuple(captions[place] for place in caption_order),
                    tuple(position[described[place]] for place in caption_order),
                )
            )
    return [shows[place] for place in generator.permutation(len(shows))]


def draw_caption(item: Item, generator: np.random.Generator) -> tuple[str, float | None, float | None]:
    """A random caption of an item."""
    return item.captions[generator.integers(len(item.captions))]


def swap_captions(items: list[Item], share: float, generator: np.random.Generator) -> list[Item]:
    """The items, a share of which get each other's captions; none of those keeps its own.

    Args:
        items: any items.
        share: from 0 to 1; with fewer than two items to swap all stay as they are. No caption of a swapped slide show
            describes a slide.
        generator: chooses the items.
    """
    chosen = generator.permutation(len(items))[: round(share * len(items))]
    swapped = list(items)
    if len(chosen) > 1:
        for place, donor in zip(chosen, np.roll(chosen, 1), strict=True):
            captions = items[donor].captions
            slides = items[place].caption_slides and (-1,) * len(captions)
            swapped[place] = replace(items[place], captions=captions, caption_slides=slides)
    return swapped


def encode_slide_show(paths: tuple[Path, ...], size: int) -> bytes:
    """An MP4 file (H.264) of one frame a second, each the central square of a photograph scaled to `size` pixels."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        # One thread, so that the same photographs give the same bytes; every slide is a keyframe.
        options = {"crf": "18", "preset": "ultrafast", "threads": "1"}
        stream = container.add_stream("libx264", rate=1, options=options)
        stream.width = stream.height = size
        stream.pix_fmt, stream.gop_size = "yuv420p", 1
        for index, path in enumerate(paths):
            frame = av.VideoFrame.from_ndarray(read_slide(path, size), format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return file.getvalue()


def read_slide(path: Path, size: int) -> np.ndarray:
    """The central square of a photograph: (size, size, 3), uint8."""
    with Image.open(path) as image:
        image.draft("RGB", (2 * size, 2 * size))
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        square = image.convert("RGB").resize(
            (size, size), Image.Resampling.BICUBIC, (left, top, left + side, top + side)
        )
    return np.asarray(square)
