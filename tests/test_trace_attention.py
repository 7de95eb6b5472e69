import json
import math
import shutil
import subprocess
import sys
from dataclasses import dataclass

import numpy as np
import pytest
import torch
import trace_attention
from helpers import ROOT, run_main
from PIL import Image
from safetensors.torch import load_file, save_file

from fgmm_tools.cli import UserError
from fgmm_tools.models import load_model
from fgmm_tools.publishing import attention_trace
from fgmm_tools.training.tokenizer import train_word_tokenizer
from modeling_fgmm import FgmmConfig, FgmmModel
from processing_fgmm import FgmmFeatureExtractor, FgmmProcessor, FgmmVideoProcessor
from processing_fgmm.corpora_fgmm import load_corpus

SLIDES, CHATTER, NUM_CLIPS = 3, 2, 37  # more clips than a batch of the script holds
WORDS = ("red", "old", "tall")
PAIRS = ("right_pairs", "wrong_place_pairs", "chatter_pairs")
# Attention over phrases and a sharp one over regions, so that nothing is uniform.
FINE = {"phrase_sharpness_init_value": 3.0, "sharpness_init_value": 8.0}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Twelve noisy photographs in Flickr8k's layout, each of a brightness of its own."""
    folder = tmp_path_factory.mktemp("source") / "Flickr8k"
    (folder / "Flicker8k_Dataset").mkdir(parents=True)
    (folder / "Flickr8k_text").mkdir()
    generator = np.random.default_rng(0)
    names = [f"{index}.jpg" for index in range(12)]
    for index, name in enumerate(names):
        noise = generator.uniform(-15, 15, (6, 6, 3)).repeat(8, 0).repeat(8, 1)
        picture = (brightness(index) + noise - noise.mean()).round().astype(np.uint8)
        Image.fromarray(picture).save(folder / "Flicker8k_Dataset" / name, quality=95)
    lines = [
        f"{name}#{number}\tPhoto {name[:-4]} of a {WORDS[number % 3]} house by a {WORDS[number % 2]} big tree ."
        for name in names
        for number in range(5)
    ]
    (folder / "Flickr8k_text/Flickr8k.token.txt").write_text("\n".join(lines) + "\n")
    for part, chosen in (("train", names[:8]), ("dev", names[8:10]), ("test", names[10:])):
        (folder / f"Flickr8k_text/Flickr_8k.{part}Images.txt").write_text("\n".join(chosen) + "\n")
    return folder


def brightness(photo: int) -> float:
    """The mean of a photograph's pixels."""
    return 30 + 17 * photo


@pytest.fixture(scope="module")
def corpus(source, tmp_path_factory):
    """Slide shows of three photographs with two captions of others."""
    return prepare(source, tmp_path_factory.mktemp("shows"), "--slides", SLIDES, "--chatter", CHATTER)


def prepare(source, folder, *options):
    command = [sys.executable, "scripts/prepare_dataset.py", "flickr8k", "--source", source, "--output", folder]
    subprocess.run([*map(str, command), *map(str, options)], cwd=ROOT, check=True, capture_output=True)
    return folder


def make_run(corpus, folder, num_frames=SLIDES, clip_seconds=10.0, **options):
    """A tiny random model with two checkpoints, in the layout of a training run."""
    texts = [caption["text"] for row in load_corpus(str(corpus), "train") for caption in row["captions"]]
    tokenizer = train_word_tokenizer(texts, 200)
    size = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}, "num_frames": num_frames}
    processor = FgmmProcessor(
        FgmmVideoProcessor(**size), FgmmFeatureExtractor(), tokenizer, clip_seconds=float(clip_seconds)
    )
    config = FgmmConfig(
        modalities=["video", "text"],
        projection_dim=16,
        video_config={"width_multiplier": 0.125, "depths": [1], "frame_by_frame": True},
        text_config={"vocab_size": len(tokenizer), "hidden_size": 16, "intermediate_size": 32},
        **options,
    )
    torch.manual_seed(0)
    model = FgmmModel(config)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    for step in (2, 4):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += 0.05 * torch.randn_like(parameter)
        checkpoint = folder / f"checkpoints/step-{step:07d}"
        checkpoint.mkdir(parents=True)
        save_file(model.state_dict(), checkpoint / "model.safetensors")
    return folder


@pytest.fixture(scope="module")
def models(corpus, tmp_path_factory):
    """A run of each kind of objective: attention, maximum, pooled embeddings."""
    folder = tmp_path_factory.mktemp("models")
    options = {"fine": FINE, "filip": {"objective": "filip"}, "mil_nce": {"objective": "mil_nce"}}
    return {name: make_run(corpus, folder / f"of_{name}", **values) for name, values in options.items()}


@pytest.fixture(scope="module")
def traced(models, corpus, tmp_path_factory):
    """The folder of a results file and a figure of all three models."""
    folder = tmp_path_factory.mktemp("traced") / "deep"
    options = ["--dataset", corpus, "--num_clips", NUM_CLIPS]
    folders = [word for model in models.values() for word in ("--model", model)]
    files = ["--output", folder / "figure.png", "--results", folder / "results.json"]
    with pytest.MonkeyPatch.context() as patch:
        run_main(patch, trace_attention, *folders, *options, *files)
    return folder


@dataclass
class Totals:
    """A sum and the number of its terms."""

    total: float = 0.0
    number: int = 0

    def add(self, value: float) -> None:
        self.total += value
        self.number += 1


def softmax(values: list[float]) -> list[float]:
    """In float64, one after the other."""
    powers = [math.exp(value - max(values)) for value in values]
    return [power / sum(powers) for power in powers]


def weigh_in_loops(folder, step: int, rows: list[dict], objective: str) -> dict[str, Totals]:
    """What the command measures, by loops over shows, captions, phrases and regions.

    The slide that a caption describes is found by the photograph's number in the caption and its brightness.
    """
    model, processor = load_model(str(folder))
    model.load_state_dict(load_file(folder / f"checkpoints/step-{step:07d}/model.safetensors"))
    parameters = dict(model.objectives["text_video"].named_parameters())
    gate, whole_gate = (
        [10.0 * float(value) for value in parameters.pop(name, [])] for name in ("phrase_gate", "whole_gate")
    )
    parameters = {name: value.item() for name, value in parameters.items()}
    gamma = math.exp(parameters["log_sharpness"]) if objective == "fine" else 0.0
    delta = parameters.get("phrase_sharpness", 0.0)
    logit_scale = min(100.0, math.exp(parameters["logit_scale"]))
    names = ("attention_on_right_slide", "weight_of_right_captions", "right_captions", *PAIRS)
    totals = {name: Totals() for name in names}
    for row in rows:
        frames = processor.video_processor.load_frames(row["video"]["bytes"], SLIDES)
        levels = [frame.float().mean().item() for frame in frames]
        texts = [caption["text"] for caption in row["captions"]]
        right_slides = []
        for text in texts:
            near = [abs(level - brightness(int(text.split()[1]))) < 6 for level in levels]
            right_slides.append(near.index(True) if any(near) else None)
        with torch.no_grad():
            video = model.get_video_features(processor(videos=[frames])["pixel_values_videos"])
            captions = [model.get_text_features(**processor(text=[text])) for text in texts]
        regions = video.regions[0].double().tolist()
        per_slide = video.grid[1] * video.grid[2]

        caption_logits, attentions, phrase_shares = [], [], []
        for caption in captions:
            found, similarities, gates = [], [], []
            for phrase in caption.phrases[0].double().tolist():
                cosines = [sum(a * b for a, b in zip(phrase, region, strict=True)) for region in regions]
                attention = softmax([gamma * cosine for cosine in cosines])
                if objective == "filip":
                    attention = [float(place == cosines.index(max(cosines))) for place in range(len(cosines))]
                found.append(attention)
                similarities.append(sum(a * s for a, s in zip(attention, cosines, strict=True)))
                gates.append(sum(a * g for a, g in zip(phrase, gate, strict=False)))
            if objective == "fine":  # the caption as a whole is one more phrase
                whole = caption.caption_embeds[0, 0].double().tolist()
                cosines = [sum(a * b for a, b in zip(whole, region, strict=True)) for region in regions]
                found.append(softmax([gamma * cosine for cosine in cosines]))
                similarities.append(sum(a * s for a, s in zip(found[-1], cosines, strict=True)))
                gates.append(sum(a * g for a, g in zip(whole, whole_gate, strict=True)) - 1.5)
            shares = softmax([delta * s + g for s, g in zip(similarities, gates, strict=True)])
            score = sum(w * s for w, s in zip(shares, similarities, strict=True))
            if objective == "mil_nce":
                score = (caption.caption_embeds[0, 0].double() @ video.pooler_output[0].double()).item()
            caption_logits.append(logit_scale * score)
            attentions.append(found)
            phrase_shares.append(shares)

        caption_shares = softmax(caption_logits)
        if objective == "filip":  # all captions are one text
            counts = [len(shares) for shares in phrase_shares]
            caption_shares = [count / sum(counts) for count in counts]
        kept = [share for share, slide in zip(caption_shares, right_slides, strict=True) if slide is not None]
        totals["weight_of_right_captions"].add(sum(kept))
        totals["right_captions"].add(len(kept) / len(texts))
        number = sum(len(shares) for shares in phrase_shares) * len(regions)
        parts = zip(right_slides, caption_shares, phrase_shares, attentions, strict=True)
        for slide, caption_share, shares, found in parts:
            for share, attention in zip(shares, found, strict=True):
                if slide is not None:
                    first = slide * per_slide
                    totals["attention_on_right_slide"].add(sum(attention[first : first + per_slide]))
                for place, weight in enumerate(attention):
                    kind = "right_pairs" if slide == place // per_slide else "wrong_place_pairs"
                    relative = caption_share * share * weight * number
                    totals["chatter_pairs" if slide is None else kind].add(relative)
    return totals


@pytest.mark.parametrize("objective", ["fine", "filip", "mil_nce"])
def test_numbers_are_those_of_plain_loops(traced, models, corpus, objective):
    record = json.loads((traced / "results.json").read_text())
    numbers = record["models"][f"of_{objective}"]
    rows = list(load_corpus(str(corpus), "train").take(NUM_CLIPS))
    expected = weigh_in_loops(models[objective], 2, rows, objective)
    for name in ("attention_on_right_slide", "weight_of_right_captions", *PAIRS):
        mean = expected[name].total / expected[name].number
        assert numbers[name][0] == pytest.approx(mean, rel=1e-4), name
    assert numbers["pairs"] == {name: expected[name].number for name in PAIRS}
    right = expected["right_captions"].total / NUM_CLIPS
    assert record["chance"]["weight_of_right_captions"] == pytest.approx(right, rel=1e-9)
    # Weights that are all equal would prove nothing; filip takes all phrases alike.
    assert (abs(numbers["chatter_pairs"][0] - 1) > 3e-4) == (objective != "filip")
    if objective != "mil_nce":
        assert abs(numbers["right_pairs"][0] / numbers["wrong_place_pairs"][0] - 1) > 1e-3


def test_results_file(traced):
    record = json.loads((traced / "results.json").read_text())
    assert set(record) >= {"dataset", "split", "command", "commit", "device", "seconds", "date"}
    assert (record["num_clips"], record["slides"], record["split"]) == (NUM_CLIPS, SLIDES, "train")
    assert record["chance"]["attention_on_right_slide"] == pytest.approx(1 / SLIDES)
    assert list(record["models"]) == ["of_fine", "of_filip", "of_mil_nce"]
    for name, numbers in record["models"].items():
        assert numbers["objective"] == name.removeprefix("of_") and numbers["steps"] == [2, 4]
        pairs = numbers["pairs"]
        for step in range(2):  # the pairs of a show weigh 1 in the mean, and so do all pairs
            total = sum(pairs[kind] * numbers[kind][step] for kind in PAIRS)
            assert total / sum(pairs.values()) == pytest.approx(1, rel=1e-5)
    fine, filip, mil_nce = record["models"].values()
    assert fine["sharpness"][0] != fine["sharpness"][1] and 7 < fine["sharpness"][1] < 9
    assert fine["right_pairs"][0] != fine["right_pairs"][1]
    assert filip["sharpness"] == [None, None] and mil_nce["sharpness"] == [0.0, 0.0]
    assert mil_nce["attention_on_right_slide"] == pytest.approx([1 / SLIDES] * 2)


def test_figure_shows_every_model_and_is_redrawn_from_the_results(traced, tmp_path, monkeypatch):
    with Image.open(traced / "figure.png") as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    assert pixels.shape[1] > 2 * pixels.shape[0]
    for color in ((31, 119, 180), (255, 127, 14), (44, 160, 44)):  # matplotlib's first three
        assert (np.abs(pixels - color).sum(-1) < 12).sum() > 50
    monkeypatch.setattr(attention_trace, "load_model", None)  # nothing is measured
    run_main(
        monkeypatch,
        trace_attention,
        "--redraw",
        "--output",
        tmp_path / "again.png",
        "--results",
        traced / "results.json",
    )
    with Image.open(tmp_path / "again.png") as picture:
        assert (np.asarray(picture.convert("RGB")) == pixels).all()


def test_checkpoints_of_several_processes_are_read(models, tmp_path):
    state = load_file(models["fine"] / "checkpoints/step-0000002/model.safetensors")
    model, _ = load_model(str(models["fine"]))
    save_file({f"module.{name}": value for name, value in state.items()}, tmp_path / "model.safetensors")
    attention_trace.load_weights(model, tmp_path / "model.safetensors")
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_shows_without_chatter_leave_a_gap(models, source, tmp_path, monkeypatch):
    corpus = prepare(source, tmp_path / "quiet", "--slides", SLIDES)
    files = ["--output", tmp_path / "figure.png", "--results", tmp_path / "results.json"]
    run_main(monkeypatch, trace_attention, "--model", models["fine"], "--dataset", corpus, "--num_clips", 4, *files)
    numbers = json.loads((tmp_path / "results.json").read_text())["models"]["of_fine"]
    assert numbers["chatter_pairs"] == [None, None]
    assert numbers["weight_of_right_captions"] == pytest.approx([1.0, 1.0])
    assert numbers["right_pairs"][0] != pytest.approx(1.0)


def test_what_cannot_be_measured_is_explained(models, corpus, source, tmp_path, monkeypatch):
    plain = prepare(source, tmp_path / "plain")
    shutil.copytree(models["fine"], tmp_path / "bare", ignore=shutil.ignore_patterns("checkpoints"))
    few = make_run(corpus, tmp_path / "few", num_frames=2)
    short = make_run(corpus, tmp_path / "short", clip_seconds=2.0)
    for model, dataset, split, message in (
        (tmp_path / "bare", corpus, "train", "has no checkpoints; train with save_steps set and save_total_limit"),
        (models["fine"], plain, "train", "no column 'caption_slides'"),
        (models["fine"], corpus, "test", "'test' of .* has no slide shows"),
        (few, corpus, "train", "few sees 2 times of 10 s at most, but a show has 3 slides"),
        (short, corpus, "train", "short sees 3 times of 2 s at most, but a show has 3 slides"),
    ):
        options = ["--model", model, "--dataset", dataset, "--split", split, "--num_clips", 2]
        with pytest.raises(UserError, match=message) as error:
            run_main(
                monkeypatch, trace_attention, *options, "--output", tmp_path / "a.png", "--results", tmp_path / "a.json"
            )
        assert "\n" not in str(error.value)
    assert not (tmp_path / "a.json").exists()


def test_a_model_without_text_or_video_is_refused(models, processor, config, tmp_path):
    config.modalities = ["audio", "video"]
    with pytest.raises(UserError, match="deaf does not compare text with video; it has audio, video"):
        attention_trace.check_model("deaf", FgmmModel(config), processor, None)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--model", "a"],
        ["--dataset", "b"],
        ["--model", "a/x", "--model", "b/x", "--dataset", "c"],
        ["--redraw", "--results", "/nowhere.json"],
    ],
)
def test_wrong_arguments_are_refused(arguments, monkeypatch, capsys):
    with pytest.raises(SystemExit) as error:
        run_main(monkeypatch, trace_attention, "--output", "a.png", "--results", "a.json", *arguments)
    assert error.value.code == 2 and "error:" in capsys.readouterr().err
