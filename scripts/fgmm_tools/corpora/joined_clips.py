"""Clips joined end to end, with the caption of one of them and captions of others: known noise for spoken clips."""

import io
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from ..cli import UserError
from .benchmarks.layout import Item
from .slide_shows import draw_caption


def join_neighbours(items: list[Item], joined: int, chatter: int, generator: np.random.Generator) -> list[Item]:
    """Each clip followed by its next neighbours, as many items as before.

    Args:
        items: clips in the order in which they are neighbours; the last one's neighbour is the first.
        joined: clips in an item.
        chatter: captions of clips that are not in the item.
        generator: draws whose caption the item has, and the others.

    Returns:
        Items whose path is a tuple of clips; their captions are of the whole item.

    Raises:
        ValueError: when there are too few clips for one item.
    """
    if joined + chatter > len(items):
        raise ValueError(f"{len(items)} clips are too few to join {joined} and have {chatter} other captions.")
    results = []
    for index, item in enumerate(items):
        own = [items[(index + place) % len(items)] for place in range(joined)]
        others = generator.choice(len(items) - joined, chatter, replace=False)
        others = [items[(index + joined + int(place)) % len(items)] for place in others]
        told = [own[int(generator.integers(joined))], *others]
        captions = [(draw_caption(teller, generator)[0], None, None) for teller in told]
        order = generator.permutation(len(captions))
        paths = tuple(clip.path for clip in own)
        results.append(Item(item.video_id, paths, tuple(captions[place] for place in order)))
    return results


def encode_joined(paths: tuple[Path, ...], rate: int = 16000) -> bytes:
    """The sound of clips end to end, as FLAC, mono, at `rate` Hz.

    Raises:
        UserError: for a clip without sound.
    """
    file = io.BytesIO()
    with av.open(file, "w", format="flac") as output:
        stream = output.add_stream("flac", rate=rate, layout="mono")
        place = 0
        for path in paths:
            resampler = av.AudioResampler(format="s16", layout="mono", rate=rate)
            with av.open(str(path)) as clip:
                if not clip.streams.audio:
                    raise UserError(f"{path} has no sound to join; leave out --joined, or the clip.")
                for frame in (*clip.decode(audio=0), None):
                    for part in resampler.resample(frame):
                        part.pts, part.time_base = place, Fraction(1, rate)
                        place += part.samples
                        output.mux(stream.encode(part))
        output.mux(stream.encode(None))
    return file.getvalue()
