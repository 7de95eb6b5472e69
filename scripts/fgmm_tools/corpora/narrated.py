"""The narrated corpus: short rendered clips in which several things show, move and sound, and are spoken of."""

import io
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from datasets import List, Value
from PIL import Image, ImageDraw

from .parquet_shards import claim_folder, corpus_features, make_shards, write_card

SECONDS = 5.0
FRAME_RATE = 8
SIDE = 80  # pixels
SAMPLING_RATE = 16000
LAG = 1.5  # seconds
NUM_CAPTIONS = 6
# Each fact and the words for it.
COLORS = {
    "red": ((225, 40, 40), ("red", "crimson")),
    "green": ((40, 175, 60), ("green",)),
    "blue": ((45, 80, 230), ("blue",)),
    "yellow": ((245, 220, 40), ("yellow",)),
    "purple": ((150, 50, 190), ("purple", "violet")),
    "orange": ((250, 140, 20), ("orange",)),
    "white": ((245, 245, 245), ("white",)),
    "cyan": ((50, 215, 225), ("cyan", "turquoise")),
}
SHAPES = {
    "circle": ("circle", "disc", "ball"),
    "square": ("square", "box"),
    "triangle": ("triangle",),
    "star": ("star",),
    "ring": ("ring", "hoop"),
    "cross": ("cross", "plus"),
    "diamond": ("diamond",),
    "crescent": ("crescent", "moon"),
}
TEXTURES = {"plain": ("plain", "solid"), "striped": ("striped",), "dotted": ("dotted", "spotted")}
SIZES = {"small": (10.0, ("small", "little", "tiny")), "large": (16.0, ("large", "big", "huge"))}
MOTIONS = {
    "still": ("stands still", "does not move", "rests"),
    "sideways": ("slides from side to side", "moves sideways"),
    "upright": ("goes up and down", "bobs up and down"),
    "circling": ("runs in circles", "circles round"),
    "pulsing": ("grows and shrinks", "pulses"),
    "spinning": ("spins", "rotates"),
}
TIMBRES = {
    "circle": ("bell",),
    "square": ("buzzer",),
    "triangle": ("flute",),
    "star": ("chime",),
    "ring": ("organ",),
    "cross": ("drum",),
    "diamond": ("whistle",),
    "crescent": ("string",),
}
PITCHES = {"small": ("high",), "large": ("low", "deep")}
RHYTHMS = {
    "still": ("holds a steady note", "plays one long note"),
    "sideways": ("beats slowly", "plays slow beats"),
    "upright": ("beats quickly", "plays quick beats"),
    "circling": ("wavers", "trembles"),
    "pulsing": ("swells", "gets louder and louder"),
    "spinning": ("rises", "climbs up"),
}
GROUNDS = {
    "black": (18, 18, 22),
    "grey": (110, 110, 110),
    "brown": (95, 60, 35),
    "navy": (20, 30, 80),
    "olive": (80, 85, 30),
    "pink": (235, 160, 180),
}
PATTERNS = ("plain", "striped", "checked", "speckled")
OPENINGS = ("", "", "", "okay so", "now", "you see", "look here", "and then", "um", "right here", "so", "well")
SUBJECTS = ("people", "we", "you", "they", "folks", "my friends", "the kids")
CHATTER = (
    "thanks for watching do not forget to subscribe",
    "this is the part that {subject} like best",
    "before we start a word from our sponsor",
    "{subject} asked me about that in the comments last {day}",
    "it took {number} {times} to get this right",
    "leave a comment and tell me what {subject} think",
    "i was a bit late on {day} because of the traffic",
    "if {subject} enjoy this share it with a friend",
    "let me get my notes from {day}",
    "next week on {day} there will be another one",
)
CHATTER_WORDS = {
    "subject": SUBJECTS,
    "day": ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"),
    "number": ("two", "three", "five", "ten", "twenty"),
    "times": ("hours", "days", "weeks", "attempts", "minutes"),
}


@dataclass(frozen=True)
class Thing:
    """A thing of a clip: what it is, where (share of the side) and when (seconds) it shows, its phase (0 to 1)."""

    shape: str
    color: str
    texture: str
    size: str
    motion: str
    x: float
    y: float
    start: float
    end: float
    phase: float
    audible: bool


@dataclass(frozen=True)
class Scene:
    """What a clip shows."""

    things: tuple[Thing, ...]
    ground: str
    pattern: str


def pick(random: np.random.Generator, options):
    """One of a sequence or of a mapping's keys."""
    options = tuple(options)
    return options[int(random.integers(len(options)))]


def clip_random(seed: int, split: str, index: int, purpose: int) -> np.random.Generator:
    """A clip's own random stream, whatever else is made beside it."""
    return np.random.default_rng([seed, 0 if split == "train" else 1, index, purpose])


def make_scene(random: np.random.Generator) -> Scene:
    """Three things of different shapes and colours, apart from each other."""
    shapes = random.permutation(list(SHAPES))[:3]
    colors = random.permutation(list(COLORS))[:3]
    corners = random.permutation([(0.27, 0.27), (0.73, 0.27), (0.27, 0.73), (0.73, 0.73)])[:3]
    audible = set(random.permutation(3)[:2].tolist())
    things = []
    for index in range(3):
        start = float(random.uniform(0.0, 1.5)) if index else 0.0
        end = SECONDS if index < 2 else float(random.uniform(start + 3.0, SECONDS + 1.0))
        x, y = corners[index] + random.uniform(-0.05, 0.05, 2)
        things.append(
            Thing(
                str(shapes[index]),
                str(colors[index]),
                pick(random, TEXTURES),
                pick(random, SIZES),
                pick(random, MOTIONS),
                float(x),
                float(y),
                start,
                min(end, SECONDS),
                float(random.random()),
                index in audible,
            )
        )
    return Scene(tuple(things), pick(random, GROUNDS), pick(random, PATTERNS))


def name_thing(thing: Thing, random: np.random.Generator) -> str:
    """ "the small red striped star", its texture and size sometimes left unsaid."""
    words = [pick(random, ("the", "a", "this", "that"))]
    if random.random() < 0.7:
        words.append(pick(random, SIZES[thing.size][1]))
    words.append(pick(random, COLORS[thing.color][1]))
    if random.random() < 0.7:
        words.append(pick(random, TEXTURES[thing.texture]))
    words.append(pick(random, SHAPES[thing.shape]))
    return " ".join(words)


def say_motion(thing: Thing, random: np.random.Generator) -> str:
    return f"{name_thing(thing, random)} {pick(random, MOTIONS[thing.motion])}"


def say_sound(thing: Thing, random: np.random.Generator) -> str:
    pitch, timbre = pick(random, PITCHES[thing.size]), pick(random, TIMBRES[thing.shape])
    return f"the {pitch} {timbre} {pick(random, RHYTHMS[thing.motion])}"


def say_ground(scene: Scene, random: np.random.Generator) -> str:
    return f"on a {scene.pattern} {scene.ground} {pick(random, ('background', 'ground', 'wall'))}"


def make_caption(scene: Scene, random: np.random.Generator) -> tuple[str, float]:
    """A true caption of part of a scene, without punctuation, and the second in which what it says is to be seen."""
    first, second = (scene.things[int(index)] for index in random.permutation(3)[:2])
    heard = pick(random, [thing for thing in scene.things if thing.audible])
    middle = (first.start + first.end) / 2
    form = int(random.integers(4))
    if form == 0:
        text = f"{say_motion(first, random)} {pick(random, ('and', 'while', 'next to'))} {name_thing(second, random)}"
    elif form == 1:
        text = f"{say_motion(first, random)} {say_ground(scene, random)}"
    elif form == 2:
        text = f"{say_motion(first, random)} and {say_sound(heard, random)}"
    else:
        link = pick(random, ("while we hear that", "as", "and"))
        text = f"{say_sound(heard, random)} {link} {say_motion(second, random)}"
        middle = (second.start + second.end) / 2
    opening = pick(random, OPENINGS)
    return f"{opening} {text}".strip(), middle


def make_chatter(random: np.random.Generator) -> str:
    """A sentence about nothing in any clip."""
    words = {name: pick(random, options) for name, options in CHATTER_WORDS.items()}
    return f"{pick(random, OPENINGS)} {pick(random, CHATTER).format(**words)}".strip()


def make_captions(seed: int, split: str, index: int, noise: float) -> list[dict]:
    """The timed captions of a clip: {text, start, end, is_true}, by start, in seconds."""
    scene = make_scene(clip_random(seed, split, index, 0))
    random = clip_random(seed, split, index, 1)
    captions = []
    for _ in range(NUM_CAPTIONS):
        text, middle = make_caption(scene, random)
        kind = random.random() / noise if noise > 0 else np.inf
        if kind < 0.5:
            text = make_chatter(random)
        elif kind < 1.0:
            # Far from this clip, so that the other one is never itself.
            other = clip_random(seed, split, index + 1 + int(random.integers(10**6)), 0)
            text, _ = make_caption(make_scene(other), random)
        start = float(np.clip(middle - 1.0 + random.uniform(-LAG, LAG), 0.0, SECONDS - 2.0))
        captions.append(
            {"text": text, "start": round(start, 2), "end": round(start + 2.0, 2), "is_true": bool(kind >= 1)}
        )
    return sorted(captions, key=lambda caption: caption["start"])


GRID = np.stack(np.meshgrid(np.arange(SIDE) + 0.5, np.arange(SIDE) + 0.5)).astype(
    np.float32
)  # (2, SIDE, SIDE): x and y in pixels


def polygon(x: np.ndarray, y: np.ndarray, sides: int, radius: float) -> np.ndarray:
    """Signed distance (pixels, negative inside) to a regular polygon with a corner upwards."""
    sector = 2 * np.pi / sides
    angle = np.mod(np.arctan2(x, -y) + sector / 2, sector) - sector / 2
    distance = np.hypot(x, y)
    return distance * np.cos(np.abs(angle) - sector / 2) - radius * np.cos(sector / 2)


def five_star(x: np.ndarray, y: np.ndarray, radius: float) -> np.ndarray:
    """Distance-like measure of a five-pointed star: its outline runs from the tips to 0.45 of their radius."""
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


def draw_thing(frame: np.ndarray, thing: Thing, time: float) -> None:
    """Paints a thing onto a frame (SIDE, SIDE, 3), with soft edges and a dark outline."""
    centre_x, centre_y, radius, angle = pose(thing, time)
    reach = 1.5 * radius + 2
    rows = slice(max(0, int(centre_y - reach)), int(centre_y + reach) + 1)
    columns = slice(max(0, int(centre_x - reach)), int(centre_x + reach) + 1)
    part = frame[rows, columns]  # a view: what is painted on it is painted on the frame
    x, y = GRID[0, rows, columns] - centre_x, GRID[1, rows, columns] - centre_y
    x, y = np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x
    distance = SHAPE_DISTANCES[thing.shape](x, y, radius)
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
    """The background (SIDE, SIDE, 3), its pattern somewhat darker and lighter than its colour."""
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
    """All frames of a clip, each (SIDE, SIDE, 3) uint8."""
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


# Each timbre: strengths of the partials, their ratios to the pitch, and the decay of a struck note (1/s, 0 for none).
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
    """The mixture of the audible things' sounds: float32 samples at SAMPLING_RATE."""
    time = np.arange(int(SECONDS * SAMPLING_RATE)) / SAMPLING_RATE
    mixture = random.normal(0, 0.002, len(time))
    for thing in scene.things:
        if thing.audible:
            mixture += 0.25 * play(thing, time, random) * ((time >= thing.start) & (time < thing.end))
    return np.clip(mixture, -1, 1).astype(np.float32)


def play(thing: Thing, time: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """One thing's sound at each time (s)."""
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
    """MP4 with H.264 video and AAC sound."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        # One thread, so that the same frames give the same bytes.
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


@dataclass(frozen=True)
class RowMaker:
    """Renders the rows of one split, in a form that worker processes can be sent."""

    seed: int
    split: str
    noise: float

    def __call__(self, indices: list[int]) -> list[dict]:
        return [self.make_row(index) for index in indices]

    def make_row(self, index: int) -> dict:
        scene = make_scene(clip_random(self.seed, self.split, index, 0))
        random = clip_random(self.seed, self.split, index, 2)
        media = encode(draw_frames(scene, random), make_sound(scene, random))
        name = f"{self.split}-{index:06d}"
        captions = make_captions(self.seed, self.split, index, self.noise)
        return {
            "video_id": name,
            "video": {"bytes": media, "path": f"{name}.mp4"},
            "captions": [{key: caption[key] for key in ("text", "start", "end")} for caption in captions],
            "caption_is_true": [caption["is_true"] for caption in captions],
        }


def draw_preview(path: Path, seed: int, number: int = 6) -> None:
    """A picture of some training clips, five frames each, with their captions (a star marks true ones)."""
    scale, row_height = 2, 2 * SIDE + 8
    sheet = Image.new("RGB", (5 * scale * SIDE + 560, number * row_height), "white")
    draw = ImageDraw.Draw(sheet)
    for index in range(number):
        scene = make_scene(clip_random(seed, "train", index, 0))
        frames = draw_frames(scene, clip_random(seed, "train", index, 2))
        for column, frame in enumerate(frames[4::8]):
            picture = Image.fromarray(frame).resize((scale * SIDE, scale * SIDE), Image.Resampling.NEAREST)
            sheet.paste(picture, (column * scale * SIDE, index * row_height))
        for line, caption in enumerate(make_captions(seed, "train", index, 0.5)):
            mark = "*" if caption["is_true"] else " "
            place = (5 * scale * SIDE + 8, index * row_height + 26 * line + 8)
            draw.text(place, f"{mark} {caption['start']:.1f} s  {caption['text']}", fill="black")
    sheet.save(path)


def render_corpus(output: Path, num_train: int, num_test: int, noise: float, seed: int, num_proc: int) -> None:
    """Renders the corpus as Parquet shards with a card; goes on where an earlier run was stopped.

    Args:
        output: its folder.
        num_train, num_test: clips of each split.
        noise: share of training captions that say nothing about their clip.
        seed: of all clips.
        num_proc: shards rendered at a time.

    Raises:
        UserError: when the folder holds something else.
    """
    wanted = {"num_train": num_train, "num_test": num_test, "noise": noise, "seed": seed}
    claim_folder(output, wanted)
    features = corpus_features("video", caption_is_true=List(Value("bool")))
    for split, number, share in (("train", num_train, noise), ("test", num_test, 0.0)):
        make_shards(output, split, list(range(number)), RowMaker(seed, split, share), features, num_proc)
    flags = " ".join(f"--{key} {value}" for key, value in wanted.items())
    text = (
        f"Clips of {SECONDS:g} s, {SIDE}x{SIDE} pixels at {FRAME_RATE} frames/s (H.264) with sound (AAC, 16 kHz): "
        "three things of different shape, colour, texture, size and motion on a patterned background, two of them "
        f"heard. Each has {NUM_CAPTIONS} timed captions that speak of a part of it, up to {LAG:g} s early or late; "
        f"{100 * noise:g} % of the training captions say nothing about their clip (`caption_is_true` tells), all "
        f"test captions are true. Rendered by `python scripts/make_narrated_corpus.py {flags}`."
    )
    configs = {"default": {"train": ["train"], "test": ["test"]}}
    write_card(output, "Narrated shapes", text, configs, "apache-2.0", ["fgmm", "synthetic"])
