"""The narrated corpus' media: scenes drawn as frames, played as sound, and encoded as MP4."""

import io
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

import av
import numpy as np

from .narrated_scenes import COLORS, GROUNDS, SECONDS, SIZES, Scene, Thing

FRAME_RATE = 8  # frames/s
SIDE = 80  # pixels
SAMPLING_RATE = 16000  # Hz
# x and y of each pixel's centre, pixels: (2, SIDE, SIDE).
GRID = np.stack(np.meshgrid(np.arange(SIDE) + 0.5, np.arange(SIDE) + 0.5)).astype(np.float32)


def polygon(x: np.ndarray, y: np.ndarray, sides: int, radius: float) -> np.ndarray:
    """Signed distance (pixels, negative inside) to a regular polygon with a corner upwards."""
    sector = 2 * np.pi / sides
    angle = np.mod(np.arctan2(x, -y) + sector / 2, sector) - sector / 2
    distance = np.hypot(x, y)
    return distance * np.cos(np.abs(angle) - sector / 2) - radius * np.cos(sector / 2)


def five_star(x: np.ndarray, y: np.ndarray, radius: float) -> np.ndarray:
    """Approximate signed distance (pixels) to a five-pointed star whose inner corners are at 0.45 of its radius."""
    sector = 2 * np.pi / 5
    angle = np.abs(np.mod(np.arctan2(x, -y) + sector / 2, sector) - sector / 2)
    # The outline runs straight from a tip (radius, 0) to an inner corner; its normal points outwards.
    inner_x, inner_y = 0.45 * radius * np.cos(sector / 2), 0.45 * radius * np.sin(sector / 2)
    normal_x, normal_y = inner_y, radius - inner_x
    distance = np.hypot(x, y)
    along = normal_x * (distance * np.cos(angle) - radius) + normal_y * distance * np.sin(angle)
    return along / np.hypot(normal_x, normal_y)


SHAPE_DISTANCES: dict[str, Callable] = {
    "circle": lambda x, y, r: np.hypot(x, y) - r,
    "square": lambda x, y, r: np.maximum(np.abs(x), np.abs(y)) - 0.85 * r,
    "triangle": lambda x, y, r: polygon(x, y, 3, 1.2 * r),
    "star": lambda x, y, r: five_star(x, y, 1.2 * r),
    "ring": lambda x, y, r: np.abs(np.hypot(x, y) - 0.75 * r) - 0.27 * r,
    "cross": lambda x, y, r: np.minimum(
        np.maximum(np.abs(x) - r, np.abs(y) - 0.32 * r), np.maximum(np.abs(y) - r, np.abs(x) - 0.32 * r)
    ),
    "diamond": lambda x, y, r: (np.abs(x) * 1.5 + np.abs(y) - 1.15 * r) / 1.8,
    "crescent": lambda x, y, r: np.maximum(np.hypot(x, y) - r, 0.85 * r - np.hypot(x - 0.55 * r, y)),
}


def pose(thing: Thing, time: float) -> tuple[float, float, float, float]:
    """Centre (pixels), radius (pixels) and angle (radians) of a thing at a time (s)."""
    x, y, radius, angle = thing.x * SIDE, thing.y * SIDE, SIZES[thing.size][0], 0.0
    turn = 2 * np.pi * (time / 2.0 + thing.phase)
    if thing.motion == "sideways":
        x += 9 * np.sin(turn)
    elif thing.motion == "upright":
        y += 9 * np.sin(turn)
    elif thing.motion == "circling":
        x, y = x + 8 * np.cos(turn), y + 8 * np.sin(turn)
    elif thing.motion == "pulsing":
        radius *= 1 + 0.35 * np.sin(turn)
    elif thing.motion == "spinning":
        angle = turn
    return x, y, radius, angle


@dataclass(frozen=True)
class Outline:
    """A thing's pixels at some time: the part of the frame around it, and there the coordinates x and y of each pixel
    in the thing's own axes and its signed distance to the thing, all in pixels, (rows, columns)."""

    rows: slice
    columns: slice
    x: np.ndarray
    y: np.ndarray
    distance: np.ndarray


def outline(thing: Thing, time: float) -> Outline:
    """Where a thing is at a time (s)."""
    centre_x, centre_y, radius, angle = pose(thing, time)
    reach = 1.5 * radius + 2
    rows = slice(max(0, int(centre_y - reach)), int(centre_y + reach) + 1)
    columns = slice(max(0, int(centre_x - reach)), int(centre_x + reach) + 1)
    x, y = GRID[0, rows, columns] - centre_x, GRID[1, rows, columns] - centre_y
    x, y = np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x
    return Outline(rows, columns, x, y, SHAPE_DISTANCES[thing.shape](x, y, radius))


def find_box(thing: Thing, time: float) -> tuple[float, float, float, float]:
    """The smallest box around a thing, with its dark outline, at a time (s): (x_min, y_min, x_max, y_max) in shares of
    the frame's side."""
    place = outline(thing, time)
    drawn = place.distance < 1.5
    rows = np.flatnonzero(drawn.any(1)) + place.rows.start
    columns = np.flatnonzero(drawn.any(0)) + place.columns.start
    return tuple(float(edge / SIDE) for edge in (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1))


def list_boxes(thing: Thing) -> list[tuple[float, tuple[float, float, float, float]]]:
    """The time (s) and the box of a thing in each frame that shows it."""
    times = [index / FRAME_RATE for index in range(int(SECONDS * FRAME_RATE))]
    return [(time, find_box(thing, time)) for time in times if thing.start <= time < thing.end]


def draw_thing(frame: np.ndarray, thing: Thing, time: float) -> None:
    """Paints a thing onto a frame (SIDE, SIDE, 3) in place, antialiased and with a dark outline."""
    place = outline(thing, time)
    part, x, y, distance = frame[place.rows, place.columns], place.x, place.y, place.distance  # the part is a view
    paint = np.array(COLORS[thing.color][0], dtype=np.float32)
    if thing.texture != "plain":
        if thing.texture == "striped":
            dark = np.mod(x + y, 7) < 3
        else:
            dark = np.hypot(np.mod(x, 6) - 3, np.mod(y, 6) - 3) < 1.7
        paint = np.where(dark[..., None], paint * 0.3, paint)
    part += (paint - part) * np.clip(0.5 - distance, 0, 1)[..., None]
    part += (15.0 - part) * np.clip(1.5 - np.abs(distance), 0, 1)[..., None] * 0.8


def draw_ground(scene: Scene, random: np.random.Generator) -> np.ndarray:
    """The background, float32 (SIDE, SIDE, 3) from 0 to 255; its pattern is darker and lighter than its colour."""
    shift = random.uniform(0, 16)
    if scene.pattern == "striped":
        level = np.where(np.mod(GRID[1] + shift, 16) < 8, 0.75, 1.2)
    elif scene.pattern == "checked":
        level = np.where((np.mod(GRID[0] + shift, 20) < 10) ^ (np.mod(GRID[1] + shift, 20) < 10), 0.75, 1.2)
    elif scene.pattern == "speckled":
        level = np.repeat(np.repeat(random.uniform(0.6, 1.4, (SIDE // 2, SIDE // 2)), 2, 0), 2, 1)
    else:
        level = np.ones((SIDE, SIDE))
    return (np.array(GROUNDS[scene.ground], dtype=np.float32) * level[..., None] + 8).astype(np.float32)


def draw_frames(scene: Scene, random: np.random.Generator) -> list[np.ndarray]:
    """All frames of a clip, each uint8 (SIDE, SIDE, 3)."""
    ground = draw_ground(scene, random)
    frames = []
    for index in range(int(SECONDS * FRAME_RATE)):
        time = index / FRAME_RATE
        frame = ground.copy()
        for thing in scene.things:
            if thing.start <= time < thing.end:
                draw_thing(frame, thing, time)
        frames.append(np.clip(frame, 0, 255).astype(np.uint8))
    return frames


# Timbres: amplitudes of the partials, their frequencies relative to the pitch, and the decay of a note (1/s; 0: none).
PARTIALS = {
    "circle": ((1.0, 0.6, 0.4), (1.0, 2.76, 5.4), 4.0),
    "square": (tuple(1 / k for k in range(1, 16, 2)), tuple(range(1, 16, 2)), 0.0),
    "triangle": ((1.0, 0.1), (1.0, 2.0), 0.0),
    "star": ((0.6, 1.0, 0.7), (3.0, 6.7, 9.2), 7.0),
    "ring": ((1.0, 0.8, 0.6, 0.5), (0.5, 1.0, 2.0, 4.0), 0.0),
    "cross": ((1.0,), (0.4,), 14.0),
    "diamond": ((1.0,), (4.0,), 0.0),
    "crescent": (tuple(1 / k for k in range(1, 9)), tuple(range(1, 9)), 2.5),
}


def make_sound(scene: Scene, random: np.random.Generator) -> np.ndarray:
    """The sounds of all audible things, mixed: float32 (SECONDS * SAMPLING_RATE,) from -1 to 1."""
    time = np.arange(int(SECONDS * SAMPLING_RATE)) / SAMPLING_RATE
    mixture = random.normal(0, 0.002, len(time))
    for thing in scene.things:
        if thing.audible:
            mixture += 0.25 * play(thing, time, random) * ((time >= thing.start) & (time < thing.end))
    return np.clip(mixture, -1, 1).astype(np.float32)


def play(thing: Thing, time: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """One thing's sound at these times (s), of the same shape."""
    pitch = (520.0 if thing.size == "small" else 210.0) * 2 ** random.uniform(-0.08, 0.08)
    since = time - thing.start
    period = {"sideways": 0.8, "upright": 0.3}.get(thing.motion, 1.5)
    frequency = np.full_like(time, pitch)
    if thing.motion == "circling":
        frequency *= 1 + 0.06 * np.sin(2 * np.pi * 5 * time)
    elif thing.motion == "spinning":
        frequency *= 2 ** (np.mod(since, 1.5) / 1.5)
    phase = 2 * np.pi * np.cumsum(frequency) / SAMPLING_RATE
    strengths, ratios, decay = PARTIALS[thing.shape]
    tone = sum(s * np.sin(r * phase) for s, r in zip(strengths, ratios, strict=True)) / sum(strengths)
    if thing.shape == "cross":
        tone = 0.4 * tone + 0.6 * random.normal(0, 0.5, len(time))
    within = np.mod(since, period)
    tone = tone * np.exp(-decay * within)
    if thing.motion in ("sideways", "upright"):
        tone = tone * (within < period / 2)
    elif thing.motion == "pulsing":
        tone = tone * (0.1 + 0.9 * within / period)
    return tone


def encode(frames: list[np.ndarray], sound: np.ndarray) -> bytes:
    """An MP4 file with H.264 video and AAC audio.

    Args:
        frames: uint8 (SIDE, SIDE, 3) each, at FRAME_RATE.
        sound: float32 (samples,) at SAMPLING_RATE.
    """
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        # One thread: the same frames then give the same bytes.
        options = {"crf": "20", "preset": "ultrafast", "threads": "1"}
        video = container.add_stream("libx264", rate=FRAME_RATE, options=options)
        video.width = video.height = SIDE
        video.pix_fmt = "yuv420p"
        video.gop_size = 20
        audio = container.add_stream("aac", rate=SAMPLING_RATE, layout="mono", bit_rate=32000)
        for index, picture in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, FRAME_RATE)
            container.mux(video.encode(frame))
        container.mux(video.encode())
        samples = av.AudioFrame.from_ndarray(sound[None], format="fltp", layout="mono")
        samples.sample_rate, samples.pts, samples.time_base = SAMPLING_RATE, 0, Fraction(1, SAMPLING_RATE)
        container.mux(audio.encode(samples))
        container.mux(audio.encode())
    return file.getvalue()
