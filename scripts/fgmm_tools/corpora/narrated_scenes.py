"""The narrated corpus' scenes and captions: three things of known properties, and sentences about some of them."""

from dataclasses import dataclass, replace

import numpy as np

SECONDS = 5.0
LAG = 1.5  # seconds by which a caption is early or late at most
NUM_CAPTIONS = 6
# What the random numbers of a clip are for: each has its own stream.
SCENE, CAPTIONS, MEDIA = 0, 1, 2
# The number of a split in the seeds of its clips: no two splits share a clip.
SPLITS = {"train": 0, "test": 1, "validation": 2}
# Each property that a caption can name, with the words for it; colours as RGB, sizes as a radius in pixels.
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
    """One thing in a clip.

    Args:
        shape, color, texture, size, motion: keys of the tables above; shape, size and motion also give its sound.
        x, y: centre, as a share of the frame's side.
        start, end: when it is visible, seconds.
        phase: of its motion, 0 to 1.
        audible: whether it makes its sound.
    """

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
    """What a clip shows: things before a background; its colour and pattern are keys of the tables above."""

    things: tuple[Thing, ...]
    ground: str
    pattern: str


@dataclass(frozen=True)
class Mention:
    """Words of a text that name a thing of a scene.

    Args:
        thing: index of the thing in its scene.
        modality: `"video"` where the words name what is seen, `"audio"` where they name what is heard.
        first, last: characters of the text, the last exclusive.
    """

    thing: int
    modality: str
    first: int
    last: int

    def shift(self, offset: int) -> "Mention":
        """The same words behind `offset` more characters."""
        return replace(self, first=self.first + offset, last=self.last + offset)


@dataclass(frozen=True)
class Words:
    """A piece of a caption, and the mentions in it."""

    text: str
    mentions: tuple[Mention, ...] = ()

    def __add__(self, other: "Words") -> "Words":
        """Both pieces with a space between them; without one where the first is empty."""
        text = f"{self.text} {other.text}".strip()
        offset = len(text) - len(other.text)
        return Words(text, (*self.mentions, *(mention.shift(offset) for mention in other.mentions)))


def pick(random: np.random.Generator, options):
    """A random element of a sequence, or key of a mapping."""
    options = tuple(options)
    return options[int(random.integers(len(options)))]


def clip_random(seed: int, split: str, index: int, purpose: int) -> np.random.Generator:
    """The random numbers of one clip, independent of which other clips are rendered.

    Args:
        seed: of the corpus.
        split: a key of SPLITS.
        index: of the clip.
        purpose: SCENE, CAPTIONS or MEDIA.
    """
    return np.random.default_rng([seed, SPLITS[split], index, purpose])


def make_scene(random: np.random.Generator) -> Scene:
    """Three things of different shapes and colours, in different corners."""
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
    """For example "the small red striped star"; size and texture are sometimes left out."""
    words = [pick(random, ("the", "a", "this", "that"))]
    if random.random() < 0.7:
        words.append(pick(random, SIZES[thing.size][1]))
    words.append(pick(random, COLORS[thing.color][1]))
    if random.random() < 0.7:
        words.append(pick(random, TEXTURES[thing.texture]))
    words.append(pick(random, SHAPES[thing.shape]))
    return " ".join(words)


def mention(text: str, scene: Scene, thing: Thing, modality: str) -> Words:
    """A text all of whose words name a thing."""
    return Words(text, (Mention(scene.things.index(thing), modality, 0, len(text)),))


def say_motion(scene: Scene, thing: Thing, random: np.random.Generator) -> Words:
    name = mention(name_thing(thing, random), scene, thing, "video")
    return name + Words(pick(random, MOTIONS[thing.motion]))


def say_sound(scene: Scene, thing: Thing, random: np.random.Generator) -> Words:
    pitch, timbre = pick(random, PITCHES[thing.size]), pick(random, TIMBRES[thing.shape])
    return mention(f"the {pitch} {timbre}", scene, thing, "audio") + Words(pick(random, RHYTHMS[thing.motion]))


def say_ground(scene: Scene, random: np.random.Generator) -> Words:
    return Words(f"on a {scene.pattern} {scene.ground} {pick(random, ('background', 'ground', 'wall'))}")


def make_caption(scene: Scene, random: np.random.Generator) -> tuple[Words, float]:
    """A true caption of a part of a scene, and the middle (s) of the time in which that part is visible."""
    first, second = (scene.things[int(index)] for index in random.permutation(3)[:2])
    heard = pick(random, [thing for thing in scene.things if thing.audible])
    middle = (first.start + first.end) / 2
    form = int(random.integers(4))
    if form == 0:
        said = say_motion(scene, first, random) + Words(pick(random, ("and", "while", "next to")))
        said += mention(name_thing(second, random), scene, second, "video")
    elif form == 1:
        said = say_motion(scene, first, random) + say_ground(scene, random)
    elif form == 2:
        said = say_motion(scene, first, random) + Words("and") + say_sound(scene, heard, random)
    else:
        link = Words(pick(random, ("while we hear that", "as", "and")))
        said = say_sound(scene, heard, random) + link + say_motion(scene, second, random)
        middle = (second.start + second.end) / 2
    return Words(pick(random, OPENINGS)) + said, middle


def make_chatter(random: np.random.Generator) -> str:
    """A sentence that describes no clip."""
    words = {name: pick(random, options) for name, options in CHATTER_WORDS.items()}
    return f"{pick(random, OPENINGS)} {pick(random, CHATTER).format(**words)}".strip()


def make_captions(seed: int, split: str, index: int, noise: float) -> list[dict]:
    """The captions of a clip, sorted by their start.

    Args:
        seed, split, index: of the clip, see [`clip_random`].
        noise: share of captions that do not describe the clip: half of them are chatter, half describe another clip.

    Returns:
        a list of {"text", "start", "end", "is_true", "mentions"}, times in seconds; mentions of the clip's own things.
    """
    scene = make_scene(clip_random(seed, split, index, SCENE))
    random = clip_random(seed, split, index, CAPTIONS)
    captions = []
    for _ in range(NUM_CAPTIONS):
        said, middle = make_caption(scene, random)
        kind = random.random() / noise if noise > 0 else np.inf
        if kind < 0.5:
            said = Words(make_chatter(random))
        elif kind < 1.0:
            other = clip_random(seed, split, index + 1 + int(random.integers(10**6)), SCENE)
            said = Words(make_caption(make_scene(other), random)[0].text)
        start = float(np.clip(middle - 1.0 + random.uniform(-LAG, LAG), 0.0, SECONDS - 2.0))
        times = {"start": round(start, 2), "end": round(start + 2.0, 2)}
        captions.append({"text": said.text, **times, "is_true": bool(kind >= 1), "mentions": said.mentions})
    return sorted(captions, key=lambda caption: caption["start"])
