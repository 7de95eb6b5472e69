import errno
from dataclasses import replace
from types import SimpleNamespace

import draw_grounding
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from helpers import run_main, write_video
from PIL import Image

from fgmm_tools import milnce
from fgmm_tools.cli import UserError
from fgmm_tools.publishing import grounding_picture
from fgmm_tools.training.tokenizer import iterate_captions, train_word_tokenizer
from modeling_fgmm import FgmmConfig, FgmmModel
from processing_fgmm.corpora_fgmm import load_corpus
from processing_fgmm.media_fgmm import read_frames


@pytest.fixture(scope="module")
def tokenizer(narrated):
    """One that knows the corpus' words."""
    corpus = load_corpus(str(narrated), "train")
    return train_word_tokenizer((text for row in iterate_captions(corpus) for text in row), 500)


@pytest.fixture
def folder(config, processor, narrated, tmp_path):
    """A model with random weights."""
    torch.manual_seed(0)
    FgmmModel(config).save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def rows(narrated) -> list[dict]:
    return list(load_corpus(str(narrated), "test").take(2))


def draw_into(tmp_path, monkeypatch, *arguments) -> np.ndarray:
    """The picture's pixels."""
    path = tmp_path / "deep" / "picture.png"
    run_main(monkeypatch, draw_grounding, "--output", path, *arguments)
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


def test_a_row_of_the_picture_for_each_clip(folder, narrated, tmp_path, monkeypatch, capsys):
    options = ["--model", folder, "--dataset", narrated]
    heights = [draw_into(tmp_path, monkeypatch, *options, "--num_clips", number).shape[0] for number in (1, 2)]
    assert heights[1] == 2 * heights[0] and "Drew 2 clips into" in capsys.readouterr().out


def test_the_best_caption_is_drawn(model, processor, rows):
    clip = grounding_picture.ground_clip(model, processor, rows[0])
    scores = {}
    for caption in (caption["text"] for caption in rows[0]["captions"]):
        options = {"processor": processor, "start": clip.start, "end": clip.end}
        source = rows[0]["video"]["bytes"]
        scores[caption] = sum(model.ground(caption, **{name: source}, **options).score for name in ("video", "audio"))
    assert clip.caption == max(scores, key=scores.get) and clip.score == pytest.approx(max(scores.values()))
    assert clip.end - clip.start == pytest.approx(processor.clip_seconds) and len(set(scores.values())) == 6


def make_clip(clip, *values: tuple[float, float]):
    """A clip whose phrases have given products of weight and similarity in video and in audio."""
    phrases = [SimpleNamespace(weight=1.0, similarity=value) for value in np.ravel(values)]
    found = [replace(grounding, phrases=phrases[place::2]) for place, grounding in enumerate(clip.groundings.values())]
    return replace(clip, groundings=dict(zip(("video", "audio"), found, strict=True)))


def test_a_phrase_is_drawn_where_it_contributes_most(model, processor, rows):
    clip = grounding_picture.ground_clip(model, processor, rows[0])
    made = make_clip(clip, (0.3, 0.1), (0.1, 0.5), (0.0, -0.1), (0.2, 0.1), (0.3, 0.4))
    chosen = made.choose_phrases()
    assert [(modality, phrase.similarity) for modality, phrase in chosen] == [
        ("video", 0.3), ("audio", 0.5), ("video", 0.2), ("audio", 0.4),
    ]  # fmt: skip
    made.groundings["audio"].phrases[1].weight = made.groundings["video"].phrases[0].weight = 0.05
    assert [phrase.similarity for _, phrase in made.choose_phrases()] == [0.1, 0.1, 0.2, 0.4]


def test_frame_and_map_are_of_one_moment_in_the_clips_own_size(model, processor, tmp_path):
    """A clip wider than high, whose brightness tells the time; the model is shown its middle in 32 x 32 pixels."""
    path = write_video(tmp_path / "clip.mp4", seconds=2.0, size=(160, 80))
    row = {"video_id": "a", "video": {"bytes": path.read_bytes(), "path": None}, "captions": [{"text": "small dog"}]}
    clip = grounding_picture.ground_clip(model, processor, row)
    assert clip.groundings.keys() == {"video"}
    [(modality, phrase)] = clip.choose_phrases()
    assert modality == "video"
    phrase.attention = torch.tensor([[[0.1, 0.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 0.9]]])  # at the end, below, right
    axis = plt.figure().add_subplot()
    grounding_picture.draw_frame(axis, clip, phrase, 4)
    frame, fading = axis.images
    assert frame.get_array().shape == (80, 160, 3) and frame.get_extent() == [0, 160, 80, 0]
    shown = read_frames(str(path), 4, 0.0, clip.end)[3].permute(1, 2, 0).numpy()
    assert (frame.get_array() == shown).all() and axis.get_xlabel() == "1.8 seconds"
    faded = fading.get_alpha()
    assert faded.min() == 0 and np.unravel_index(faded.argmin(), faded.shape)[0] >= 40
    assert 80 <= np.unravel_index(faded.argmin(), faded.shape)[1] < 120
    assert (faded[:, :40] == grounding_picture.FADING).all() and (faded[:, 120:] == grounding_picture.FADING).all()
    [box] = axis.patches
    x_min, y_min, x_max, y_max = phrase.box
    assert (box.get_x(), box.get_y()) == (160 * x_min, 80 * y_min)
    assert (box.get_width(), box.get_height()) == (160 * (x_max - x_min), 80 * (y_max - y_min))
    plt.close("all")


def test_sounds_are_drawn_over_the_spectrogram(model, processor, rows):
    clip = grounding_picture.ground_clip(model, processor, rows[0])
    phrase = clip.groundings["audio"].phrases[0]
    phrase.attention = torch.zeros_like(phrase.attention)
    phrase.attention[0, -1] = 1.0  # the lowest band, at the end
    axis = plt.figure().add_subplot()
    grounding_picture.draw_spectrogram(axis, clip, phrase)
    spectrogram, fading = axis.images
    height, width = fading.get_alpha().shape
    assert spectrogram.get_extent()[:2] == [clip.start, clip.end] and spectrogram.get_array().shape[:2] == (64, width)
    row, column = np.unravel_index(fading.get_alpha().argmin(), (height, width))
    assert row > 0.7 * height and column > 0.7 * width  # images begin above
    assert [line.get_xdata()[0] for line in axis.lines] == list(phrase.seconds)
    plt.close("all")


@pytest.mark.parametrize("objective", ["filip", "coarse"])
def test_objectives_without_soft_attention_are_drawn(config, processor, narrated, tmp_path, monkeypatch, objective):
    config = FgmmConfig(**{**config.to_dict(), "objective": objective})
    FgmmModel(config).save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    faded = []
    draw_attended = grounding_picture.draw_attended

    def spy(axis, picture, attention, extent):
        faded.append(attention)
        draw_attended(axis, picture, attention, extent)

    monkeypatch.setattr(grounding_picture, "draw_attended", spy)
    draw_into(tmp_path, monkeypatch, "--model", tmp_path / "model", "--dataset", narrated, "--num_clips", 2)
    assert len(faded) >= 2 and all(np.isfinite(attention).all() and attention.max() > 0 for attention in faded)


def test_a_caption_of_fixed_length_is_one_panel(rows):
    """As of converted MIL-NCE weights, whose captions are one phrase each, however many phrases their words make."""
    words = sorted({word for caption in rows[0]["captions"] for word in caption["text"].split()})
    processor = milnce.make_processor(words)
    processor.video_processor.num_frames = 4
    text = {"vocab_size": len(words) + 1, "hidden_size": 8, "intermediate_size": 8, "pad_token_id": None}
    config = FgmmConfig(
        objective="mil_nce",
        modalities=["video", "text"],
        video_config={"width_multiplier": 0.01, "depths": [1]},
        text_config=text,
    )
    clip = grounding_picture.ground_clip(FgmmModel(config).eval(), processor, rows[0])
    [(modality, phrase)] = clip.choose_phrases()
    assert (modality, phrase.phrase) == ("video", clip.caption) and len(clip.caption.split()) > 5


def test_a_full_disk_leaves_the_picture_that_was_there(folder, narrated, tmp_path, monkeypatch):
    def save_half(figure, path, **options):
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    path = tmp_path / "deep" / "picture.png"
    path.parent.mkdir()
    path.write_bytes(b"old")
    monkeypatch.setattr(plt.Figure, "savefig", save_half)
    with pytest.raises(OSError, match="No space left"):
        draw_into(tmp_path, monkeypatch, "--model", folder, "--dataset", narrated, "--num_clips", 1)
    assert path.read_bytes() == b"old" and list(path.parent.iterdir()) == [path]


def test_what_cannot_be_drawn_is_explained(folder, narrated, tmp_path, monkeypatch, capsys):
    options = ["--model", folder, "--dataset", narrated]
    monkeypatch.setattr(grounding_picture, "ground_clip", lambda *_: None)
    with pytest.raises(UserError, match=r"None of the first 4 clips of .* has a caption"):
        draw_into(tmp_path, monkeypatch, *options)
    with pytest.raises(UserError, match="is a folder"):
        run_main(monkeypatch, draw_grounding, *options, "--output", make_folder(tmp_path / "folder.png"))
    with pytest.raises(SystemExit):
        run_main(monkeypatch, draw_grounding, *options, "--output", "picture.jpg")
    assert "--output is a PNG file" in capsys.readouterr().err


def make_folder(path):
    path.mkdir()
    return path
