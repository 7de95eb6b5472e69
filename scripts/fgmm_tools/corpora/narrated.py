"""The narrated corpus: short rendered clips in which several things are visible, move, sound and are described."""

from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow.parquet as parquet
from datasets import List, Value
from PIL import Image, ImageDraw, ImageFont

from .mentions import MENTIONS, Box, Mention
from .narrated_media import FRAME_RATE, SIDE, draw_frames, encode, list_boxes, make_sound
from .narrated_scenes import (
    LAG,
    MEDIA,
    NUM_CAPTIONS,
    PITCHES,
    SCENE,
    SECONDS,
    TIMBRES,
    Scene,
    clip_random,
    make_captions,
    make_scene,
)
from .parquet_shards import claim_folder, corpus_features, make_shards, write_card

# The group of the first training clips with mentions, and how many these are at most.
LOCATED, NUM_LOCATED = "located", 200


@dataclass(frozen=True)
class RowMaker:
    """Indices of clips to rows of one split; picklable, for worker processes.

    Args:
        seed: of the corpus.
        split: `"train"`, `"validation"` or `"test"`.
        noise: share of captions that do not describe their clip.
        with_mentions: whether the rows say where and when the things are that their captions name.
    """

    seed: int
    split: str
    noise: float
    with_mentions: bool = False

    def __call__(self, indices: list[int]) -> list[dict]:
        return [self.make_row(index) for index in indices]

    def make_row(self, index: int) -> dict:
        scene = make_scene(clip_random(self.seed, self.split, index, SCENE))
        random = clip_random(self.seed, self.split, index, MEDIA)
        media = encode(draw_frames(scene, random), make_sound(scene, random))
        name = f"{self.split}-{index:06d}"
        captions = make_captions(self.seed, self.split, index, self.noise)
        row = {
            "video_id": name,
            "video": {"bytes": media, "path": f"{name}.mp4"},
            "captions": [{key: caption[key] for key in ("text", "start", "end")} for caption in captions],
            "caption_is_true": [caption["is_true"] for caption in captions],
        }
        return {**row, "mentions": list_mentions(scene, captions)} if self.with_mentions else row


@dataclass(frozen=True)
class LocatedRows:
    """Indices of training clips to their rows with the column `mentions`, for what is chosen on training clips: files
    that are trained on stay as they are.

    Args:
        seed, noise: see [`RowMaker`].
        shard: the first of the training split.
    """

    seed: int
    noise: float
    shard: Path

    def __call__(self, indices: list[int]) -> list[dict]:
        rows = parquet.read_table(self.shard).take(indices).to_pylist()
        for index, row in zip(indices, rows, strict=True):
            scene = make_scene(clip_random(self.seed, "train", index, SCENE))
            row["mentions"] = list_mentions(scene, make_captions(self.seed, "train", index, self.noise))
        return rows


def list_mentions(scene: Scene, captions: list[dict]) -> list[dict]:
    """What the captions of a clip name, see `mentions`: things that are seen with their boxes in each frame, and things
    that are heard.

    Args:
        scene: of the clip.
        captions: from [`make_captions`].
    """
    boxes = [tuple(Box(time, *corners) for time, corners in list_boxes(thing)) for thing in scene.things]
    found = []
    for index, caption in enumerate(captions):
        for named in caption["mentions"]:
            thing, is_seen = scene.things[named.thing], named.modality == "video"
            name = f"{thing.color} {thing.shape}" if is_seen else f"{PITCHES[thing.size][0]} {TIMBRES[thing.shape][0]}"
            place = (thing.start, thing.end, boxes[named.thing] if is_seen else ())
            found.append(Mention(index, name, named.first, named.last, named.modality, *place))
    return [asdict(entry) for entry in found]


# Layout of the preview, pixels: frames are enlarged by SCALE.
SCALE, GAP, LINE_HEIGHT, FONT_SIZE = 2, 4, 26, 15


def draw_preview(path: Path, seed: int, noise: float, number: int = 6) -> None:
    """Draws the first training clips, five frames each, beside their captions; a star marks the true ones.

    Args:
        path: PNG file.
        seed: of the corpus.
        noise: share of captions that do not describe their clip.
        number: of clips.
    """
    font = ImageFont.load_default(FONT_SIZE)
    captions = [make_captions(seed, "train", index, noise) for index in range(number)]
    text_width = max(font.getlength(caption["text"]) for row in captions for caption in row)
    step = SCALE * SIDE + GAP
    # A row: five frames, then the columns star, time and text.
    columns = [5 * step + offset for offset in (8, 22, 70)]
    sheet = Image.new("RGB", (round(columns[-1] + text_width + 8), number * step - GAP), "white")
    draw = ImageDraw.Draw(sheet)
    for index in range(number):
        scene = make_scene(clip_random(seed, "train", index, SCENE))
        frames = draw_frames(scene, clip_random(seed, "train", index, MEDIA))
        for column, frame in enumerate(frames[4::8]):
            picture = Image.fromarray(frame).resize((SCALE * SIDE, SCALE * SIDE), Image.Resampling.NEAREST)
            sheet.paste(picture, (column * step, index * step))
        for line, caption in enumerate(captions[index]):
            cells = ("*" if caption["is_true"] else "", f"{caption['start']:.1f} s", caption["text"])
            for x, text in zip(columns, cells, strict=True):
                draw.text((x, index * step + LINE_HEIGHT * line + 4), text, fill="black", font=font)
    sheet.save(path)


def render_corpus(
    output: Path,
    num_train: int,
    num_test: int,
    noise: float,
    seed: int,
    num_proc: int,
    num_validation: int = 0,
) -> None:
    """Renders the corpus as Parquet shards with a dataset card; continues where an earlier run was stopped.

    Args:
        output: folder of the corpus.
        num_train, num_test, num_validation: clips of each split; 0: no such split.
        noise: share of training captions that do not describe their clip.
        seed: of all clips.
        num_proc: shards rendered at a time.

    Raises:
        UserError: when the folder holds something else.
    """
    sizes = {"train": num_train, "validation": num_validation, "test": num_test}
    sizes = {split: number for split, number in sizes.items() if number}
    wanted = {**{f"num_{split}": number for split, number in sizes.items()}, "noise": noise, "seed": seed}
    claim_folder(output, wanted)
    extra = {"caption_is_true": List(Value("bool"))}
    located = corpus_features("video", **extra, mentions=MENTIONS)
    for split, number in sizes.items():
        rows = RowMaker(seed, split, noise if split == "train" else 0.0, with_mentions=split == "test")
        features = located if rows.with_mentions else corpus_features("video", **extra)
        make_shards(output, split, list(range(number)), rows, features, num_proc)
    shard = min((output / "data").glob("train-*.parquet"))
    first = list(range(min(parquet.read_metadata(shard).num_rows, NUM_LOCATED)))
    make_shards(output, LOCATED, first, LocatedRows(seed, noise, shard), located, num_proc)
    flags = " ".join(f"--{key} {value}" for key, value in wanted.items())
    text = (
        f"Clips of {SECONDS:g} s, {SIDE}x{SIDE} pixels at {FRAME_RATE} frames/s (H.264) with sound (AAC, 16 kHz): "
        "three things of different shape, colour, texture, size and motion on a patterned background, two of them "
        f"heard. Each has {NUM_CAPTIONS} timed captions that describe a part of it, up to {LAG:g} s early or late; "
        f"{100 * noise:g} % of the training captions do not describe their clip (`caption_is_true` says which), all "
        f"others are true. The column `mentions` says where and when each thing that a caption names is seen or heard: "
        "of the test clips, and of the first training clips in the configuration `grounding`. Rendered by "
        f"`python scripts/make_narrated_corpus.py {flags}`."
    )
    configs = {"default": {split: [split] for split in sizes}, "grounding": {"train": [LOCATED], "test": ["test"]}}
    write_card(output, "Narrated shapes", text, configs, "apache-2.0", ["fgmm", "synthetic"], located)
