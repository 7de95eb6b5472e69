import errno
import json
import re
from dataclasses import replace

import av
import draw_grounding
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from helpers import run_main, write_sound, write_video
from PIL import Image

from fgmm_tools.cli import UserError
from fgmm_tools.grounding import colours, corpus, film, page, picture, spectrogram
from fgmm_tools.grounding.files import ground_file
from modeling_fgmm import FgmmConfig, FgmmModel
from processing_fgmm.corpora_fgmm import load_corpus
from processing_fgmm.media_fgmm import read_frames

CAPTION = "A small dog barks, and two eggs"


@pytest.fixture
def clip(tmp_path):
    """A video wider than high, with sound, whose brightness tells the time."""
    return str(write_video(tmp_path / "clip.mp4", seconds=2.0, size=(160, 80), sound=2.0))


@pytest.fixture
def grounded(model, processor, clip):
    """The caption in the clip, with maps and weights that are known."""
    file = ground_file(model, processor, CAPTION, video=clip)
    attention = torch.tensor([[[0.1, 0.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 0.9]]])  # at the end, below, right
    steps = [(0.0, 1.0), (1.0, file.window[1])]
    parts = [
        replace(phrase, attention=attention, weight=weight, confidence=1.0, box=(0.5, 0.5, 0.75, 1.0), seconds=steps[1])
        for phrase, weight in zip(file.groundings["video"].phrases, (0.7, 0.02), strict=True)
    ]
    sounds = [replace(phrase, weight=0.05) for phrase in file.groundings["audio"].phrases]
    file.groundings["video"] = replace(file.groundings["video"], phrases=parts, steps=steps, attention=attention)
    file.groundings["audio"] = replace(file.groundings["audio"], phrases=sounds)
    return file


def test_a_file_is_grounded_in_what_it_has(model, processor, clip, tmp_path):
    assert ground_file(model, processor, CAPTION, video=clip).groundings.keys() == {"video", "audio"}
    assert ground_file(model, processor, CAPTION, audio=clip).groundings.keys() == {"audio"}
    sound = str(write_sound(tmp_path / "sound.wav", 1.0))
    assert ground_file(model, processor, CAPTION, video=sound).groundings.keys() == {"audio"}
    Image.new("RGB", (40, 30), "red").save(tmp_path / "photo.png")
    image = ground_file(model, processor, CAPTION, image=str(tmp_path / "photo.png"))
    assert image.is_image and image.window is None and image.name == "photo.png"


def test_phrases_without_weight_are_chatter(grounded):
    assert [(phrase.phrase, phrase.is_chatter) for phrase in grounded.phrases()] == [
        ("small dog barks", False),
        ("two eggs", True),
    ]
    grounded.groundings["audio"].phrases[1].weight = 0.5  # it counts in the sound
    assert not grounded.phrases()[1].is_chatter


def test_a_frame_keeps_its_colours_where_there_is_attention():
    frame = np.full((8, 12, 3), (200, 100, 40), np.uint8)
    heat = colours.map_over_frame(torch.tensor([[0.0, 1.0]]), (0.0, 0.0, 0.5, 1.0), 8, 12)
    assert heat.shape == (8, 12) and (heat[:, 6:] == 0).all() and (heat[:, 5] == 1).all()
    faded = colours.fade(frame, heat)
    assert (faded[:, 5] == frame[:, 5]).all() and (faded[:, 0] > frame[:, 0]).all()
    assert np.ptp(faded[0, 0]) < 0.4 * np.ptp(frame[0, 0])
    lightness = colours.colour_levels(np.linspace(0, 1, 20)[None])[0] @ (0.3, 0.6, 0.1)
    assert (np.diff(lightness) > 0).all()  # what is told by colour is told by lightness


def test_frames_are_drawn_in_their_own_size_at_their_moments(grounded, monkeypatch):
    drawn = picture.FilePicture(grounded)
    assert [phrase.phrase for phrase in drawn.shown] == ["small dog barks"] and len(drawn.rest) == 1
    [phrase] = drawn.shown
    assert drawn.choose_moments(phrase.found["video"]) == [0, 1]
    axis = plt.figure().add_subplot()
    drawn.draw_frame(axis, phrase, 1)
    shown = axis.images[0].get_array()
    assert shown.shape == (80, 160, 3) and axis.get_xlabel() == "1.5 s"
    frame = (
        read_frames(grounded.sources["video"], 1, *grounded.groundings["video"].steps[1])[0].permute(1, 2, 0).numpy()
    )
    kept = (shown == frame).all(-1)
    assert kept.any() and not kept[:40].any() and not kept[:, :80].any() and not kept[:, 120:].any()  # below, right
    assert (shown[:, :40] > frame[:, :40]).all() and (shown[:, 120:] > frame[:, 120:]).all()  # not in the model's crop
    box = axis.patches[0]
    assert (box.get_x(), box.get_y(), box.get_width(), box.get_height()) == (80, 40, 40, 40)
    axis = plt.figure().add_subplot()
    drawn.draw_frame(axis, phrase, 0)  # before the phrase's seconds
    assert not axis.patches
    phrase.found["video"].confidence = 0.5
    drawn.draw_frame(axis, phrase, 1)
    assert not axis.patches
    plt.close("all")


def test_sounds_are_drawn_with_seconds_and_hertz(grounded):
    part = grounded.groundings["audio"].phrases[0]
    part.attention = torch.zeros_like(part.attention)
    part.attention[0, -1] = 1.0  # the lowest band, at the end
    drawn = spectrogram.read_spectrogram(grounded.sources["audio"], *grounded.window, "clip")
    axis = plt.figure().add_subplot()
    picture.draw_sound(axis, drawn, part, is_sure=True)
    [lit] = axis.images
    assert lit.get_extent() == [*grounded.window, 0, 1] and lit.origin == "lower"
    yellow = np.ptp(lit.get_array().astype(int), axis=-1)  # all else is grey
    row, column = np.unravel_index(yellow.argmax(), yellow.shape)
    assert (
        row < 0.3 * yellow.shape[0]
        and column > 0.7 * yellow.shape[1]
        and (yellow[:, : yellow.shape[1] // 2] == 0).all()
    )
    assert {line.get_xdata()[0] for line in axis.lines} == set(part.seconds)
    labels = {label.get_text(): place for label, place in zip(axis.get_yticklabels(), axis.get_yticks(), strict=True)}
    assert labels["8,000"] == 1.0 and 0.3 < labels["1,000"] < 0.4 and axis.get_xlabel() == "seconds"
    # The sine of the clip is where its frequency is marked.
    loudest = drawn.levels.mean(1).argmax() / len(drawn.levels)
    assert loudest == pytest.approx(spectrogram.hertz_to_share(440, drawn.highest), abs=0.04)
    plt.close("all")


def test_a_film_has_the_sound_and_a_panel_for_each_phrase(grounded, tmp_path):
    output = tmp_path / "film.mp4"
    film.draw_film(grounded, output)
    with av.open(str(output)) as container:
        kinds = {stream.type for stream in container.streams}
        assert kinds == {"video", "audio"} and container.duration / 1e6 == pytest.approx(grounded.window[1], abs=0.3)
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    early, late = frames[2], frames[-2]
    top = film.HEAD
    left = film.GAP
    # Panels of a clip of 80 pixels are three times as high; this is where the phrase attends to at the end.
    early, late = (frame[top + 180 : top + 234, left + 250 : left + 350].mean() for frame in (early, late))
    assert late < early - 20


def test_maps_of_a_film_move_between_their_steps():
    values = torch.stack([torch.zeros(2, 2), torch.ones(2, 2)])
    steps = [(0.0, 2.0), (2.0, 4.0)]
    for time, value in ((0.0, 0.0), (1.0, 0.0), (2.0, 0.5), (3.0, 1.0), (9.0, 1.0)):
        assert torch.allclose(film.value_at(values, steps, time), torch.full((2, 2), value))


def read_page(text: str) -> dict:
    """What the script of a page reads."""
    return json.loads(re.search(r"^const data = (.*);$", text, re.MULTILINE)[1])


def test_a_page_holds_all_that_it_shows(grounded):
    text = page.make_page(grounded)
    data = read_page(text)
    assert not re.search(r"(?:src|href)=.?https?:", text) and "{{" not in text
    assert [phrase["phrase"] for phrase in data["phrases"]] == ["small dog barks", "two eggs"]
    assert [phrase["chatter"] for phrase in data["phrases"]] == [False, True]
    found = data["phrases"][0]["found"]["video"]
    assert found["map"][1][1][1] == 1.0 and found["weight"] == 0.7 and found["box"] == [0.5, 0.5, 0.75, 1.0]
    assert data["film"]["src"].startswith("data:video/mp4;base64,") and data["spectrogram"]["marks"][-1][1] == "8,000"


def test_a_text_cannot_end_the_script_of_a_page(grounded):
    grounded.text = grounded.name = "</script><script>alert(1)</script>"
    text = page.make_page(grounded)
    assert text.count("</script>") == 1 and read_page(text)["text"] == grounded.text


def test_an_image_is_a_page_and_a_picture_but_no_film(model, processor, tmp_path):
    Image.new("RGB", (1000, 30), "red").save(tmp_path / "photo.png")
    file = ground_file(model, processor, CAPTION, image=str(tmp_path / "photo.png"))
    data = read_page(page.make_page(file))
    assert data["film"] is None and data["picture"].startswith("data:image/jpeg") and data["window"] is None
    picture.draw_files([file], tmp_path / "a.png")
    with pytest.raises(UserError, match="no times"):
        film.draw_film(file, tmp_path / "a.mp4")


def test_the_caption_that_fits_best_is_drawn(narrated_model, narrated):
    _, model, processor = narrated_model
    row = next(iter(load_corpus(str(narrated), "test")))
    file = corpus.ground_row(model, processor, row)
    scores = {
        caption["text"]: ground_file(model, processor, caption["text"], video=row["video"]["bytes"]).score
        for caption in row["captions"]
    }
    assert file.text == max(scores, key=scores.get) and file.score == pytest.approx(max(scores.values()), abs=1e-5)
    assert corpus.ground_row(model, processor, {**row, "captions": []}) is None


@pytest.mark.parametrize("objective", ["filip", "coarse"])
def test_objectives_without_soft_attention_are_drawn(config, processor, clip, tmp_path, objective):
    model = FgmmModel(FgmmConfig(**{**config.to_dict(), "objective": objective})).eval()
    picture.draw_files([ground_file(model, processor, CAPTION, video=clip)], tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as drawn:
        assert min(drawn.size) > 200


@pytest.fixture
def folder(narrated_model):
    return narrated_model[0]


def draw(monkeypatch, *arguments):
    run_main(monkeypatch, draw_grounding, *arguments)


def test_the_command_draws_each_kind(folder, narrated, tmp_path, monkeypatch, capsys):
    row = next(iter(load_corpus(str(narrated), "test")))
    (tmp_path / "clip.mp4").write_bytes(row["video"]["bytes"])
    text = row["captions"][0]["text"]
    for ending in (".png", ".mp4", ".html"):
        output = tmp_path / "deep" / f"result{ending}"
        draw(monkeypatch, "--model", folder, "--video", tmp_path / "clip.mp4", "--text", text, "--output", output)
        assert output.stat().st_size > 5000 and f"Drew clip.mp4 into {output}" in capsys.readouterr().out
    draw(monkeypatch, "--model", folder, "--dataset", narrated, "--num_clips", 2, "--output", tmp_path / "two.png")
    assert "Drew 2 clips" in capsys.readouterr().out


def test_a_full_disk_leaves_the_picture_that_was_there(folder, narrated, tmp_path, monkeypatch):
    def save_half(figure, path, **options):
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    path = tmp_path / "deep" / "picture.png"
    path.parent.mkdir()
    path.write_bytes(b"old")
    monkeypatch.setattr(plt.Figure, "savefig", save_half)
    with pytest.raises(OSError, match="No space left"):
        draw(monkeypatch, "--model", folder, "--dataset", narrated, "--num_clips", 1, "--output", path)
    assert path.read_bytes() == b"old" and list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
    "arguments,message",
    [
        (["--video", "a.mp4", "--text", "dog", "--output", "a.gif"], "none of the endings"),
        (["--video", "a.mp4", "--output", "a.png"], "give the --text"),
        (["--image", "a.png", "--text", "dog", "--output", "a.mp4"], "no times"),
        (["--dataset", "corpus", "--output", "a.html"], "a PNG file"),
        (["--dataset", "corpus", "--text", "dog", "--output", "a.png"], "of a file"),
        (["--video", "a.mp4", "--text", "dog", "--output", "a.png", "--start", "3", "--end", "2"], "--end larger"),
        (["--text", "dog", "--output", "a.png"], "required"),
    ],
)
def test_wrong_options_are_one_sentence(monkeypatch, capsys, arguments, message):
    with pytest.raises(SystemExit) as answer:
        draw(monkeypatch, "--model", "m", *arguments)
    assert answer.value.code == 2 and message in capsys.readouterr().err


def test_what_cannot_be_drawn_is_explained(folder, narrated, tmp_path, monkeypatch):
    options = ["--model", folder, "--output", tmp_path / "a.png", "--text"]
    with pytest.raises(UserError, match=r"nothing\.mp4 does not exist"):
        draw(monkeypatch, *options, "star", "--video", tmp_path / "nothing.mp4")
    with pytest.raises(UserError, match="knows no word"):
        draw(monkeypatch, *options, "qwertz", "--video", write_video(tmp_path / "clip.mp4", seconds=1.0))
    monkeypatch.setattr(corpus, "ground_row", lambda *_: None)
    with pytest.raises(UserError, match=r"None of the first 4 clips of .* has a caption"):
        draw(monkeypatch, "--model", folder, "--dataset", narrated, "--output", tmp_path / "a.png")
    assert not (tmp_path / "a.png").exists()
