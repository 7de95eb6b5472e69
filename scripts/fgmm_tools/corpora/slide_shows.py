"""Slide shows of captioned photographs: what uncurated narration is like, with known noise.

An item shows several photographs; its captions tell of one or two of them, and other captions ("chatter") of
photographs that are not shown. Which caption belongs where is known, but not told.
"""

import io
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image

from .benchmarks.layout import Item


def make_slide_shows(items: list[Item], slides: int, chatter: int, generator: np.random.Generator) -> list[Item]:
    """One slide show for each caption of each photograph.

    Args:
        items: photographs with captions of the whole item.
        slides: photographs in a show.
        chatter: captions of photographs that are not shown.
        generator: draws the rest of each show; in half of the shows of two or more slides a second one has a caption.

    Returns:
        items whose path is a tuple of photographs, in the order in which they are shown, and whose caption_slides
        say which of them each caption tells of.

    Raises:
        ValueError: when there are too few photographs for one show.
    """
    if slides + chatter > len(items):
        raise ValueError(f"{len(items)} photographs are too few for {slides} slides and {chatter} other captions.")
    shows = []
    for index, item in enumerate(items):
        for number, caption in enumerate(item.captions):
            others = generator.choice(len(items) - 1, slides - 1 + chatter, replace=False)
            others = [items[other + (other >= index)] for other in others]
            shown, silent = others[: slides - 1], others[slides - 1 :]
            captions, told = [caption], [0]
            if shown and generator.random() < 0.5:
                captions.append(draw_caption(shown[0], generator))
                told.append(1)
            captions += [draw_caption(other, generator) for other in silent]
            told += [-1] * chatter
            paths = [item.path, *(other.path for other in shown)]
            order, caption_order = generator.permutation(slides), generator.permutation(len(captions))
            place_of = {-1: -1, **{int(slide): place for place, slide in enumerate(order)}}
            shows.append(
                Item(
                    f"{item.video_id}_{number}",
                    tuple(paths[slide] for slide in order),
                    tuple(captions[place] for place in caption_order),
                    tuple(place_of[told[place]] for place in caption_order),
                )
            )
    return [shows[place] for place in generator.permutation(len(shows))]


def draw_caption(item: Item, generator: np.random.Generator) -> tuple[str, float | None, float | None]:
    """One caption of an item."""
    return item.captions[generator.integers(len(item.captions))]


def swap_captions(items: list[Item], share: float, generator: np.random.Generator) -> list[Item]:
    """The items, a share of which have each other's captions: none of those keeps its own.

    Args:
        items: any items.
        share: between 0 and 1; fewer than two items to swap leave all as they are. Of a swapped slide show no
            caption tells of a slide.
        generator: chooses the items.
    """
    chosen = generator.permutation(len(items))[: round(share * len(items))]
    swapped = list(items)
    if len(chosen) > 1:
        for place, donor in zip(chosen, np.roll(chosen, 1), strict=True):
            captions = items[donor].captions
            told = items[place].caption_slides and (-1,) * len(captions)
            swapped[place] = replace(items[place], captions=captions, caption_slides=told)
    return swapped


def encode_slide_show(paths: tuple[Path, ...], size: int) -> bytes:
    """An MP4 file (H.264) of one frame a second, each the middle square of a photograph, `size` pixels wide."""
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
    """(size, size, 3) uint8, the middle square of a photograph."""
    with Image.open(path) as image:
        image.draft("RGB", (2 * size, 2 * size))
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        square = image.convert("RGB").resize(
            (size, size), Image.Resampling.BICUBIC, (left, top, left + side, top + side)
        )
    return np.asarray(square)
