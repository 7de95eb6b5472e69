"""The narrated corpus: short rendered clips in which several things are visible, move, sound and are described."""

from dataclasses import dataclass
from pathlib import Path

from datasets import List, Value
from PIL import Image, ImageDraw, ImageFont

from .narrated_media import FRAME_RATE, SIDE, draw_frames, encode, make_sound
from .narrated_scenes import LAG, MEDIA, NUM_CAPTIONS, SCENE, SECONDS, clip_random, make_captions, make_scene
from .parquet_shards import claim_folder, corpus_features, make_shards, write_card


@dataclass(frozen=True)
class RowMaker:
    """Indices of clips to rows of one split; picklable, for worker processes.

    Args:
        seed: of the corpus.
        split: `"train"`, `"validation"` or `"test"`.
        noise: share of captions that do not describe their clip.
    """

    seed: int
    split: str
    noise: float

    def __call__(self, indices: list[int]) -> list[dict]:
        return [self.make_row(index) for index in indices]

    def make_row(self, index: int) -> dict:
        scene = make_scene(clip_random(self.seed, self.split, index, SCENE))
        random = clip_random(self.seed, self.split, index, MEDIA)
        media = encode(draw_frames(scene, random), make_sound(scene, random))
        name = f"{self.split}-{index:06d}"
        captions = make_captions(self.seed, self.split, index, self.noise)
        return {
            "video_id": name,
            "video": {"bytes": media, "path": f"{name}.mp4"},
            "captions": [{key: caption[key] for key in ("text", "start", "end")} for caption in captions],
            "caption_is_true": [caption["is_true"] for caption in captions],
        }


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
    features = corpus_features("video", caption_is_true=List(Value("bool")))
    for split, number in sizes.items():
        rows = RowMaker(seed, split, noise if split == "train" else 0.0)
        make_shards(output, split, list(range(number)), rows, features, num_proc)
    flags = " ".join(f"--{key} {value}" for key, value in wanted.items())
    text = (
        f"Clips of {SECONDS:g} s, {SIDE}x{SIDE} pixels at {FRAME_RATE} frames/s (H.264) with sound (AAC, 16 kHz): "
        "three things of different shape, colour, texture, size and motion on a patterned background, two of them "
        f"heard. Each has {NUM_CAPTIONS} timed captions that describe a part of it, up to {LAG:g} s early or late; "
        f"{100 * noise:g} % of the training captions do not describe their clip (`caption_is_true` says which), all "
        f"others are true. Rendered by `python scripts/make_narrated_corpus.py {flags}`."
    )
    configs = {"default": {split: [split] for split in sizes}}
    write_card(output, "Narrated shapes", text, configs, "apache-2.0", ["fgmm", "synthetic"])
