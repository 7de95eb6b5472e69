"""The published network is written here anew, from its layout, with torch functions alone."""

import re

import convert_milnce_checkpoint
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers import run_main
from transformers import AutoModel, AutoProcessor

from fgmm_tools.cli import UserError

WORDS = ["open", "the", "door", "cut", "tomato", "a", "i", "it's", "dog", "barks", "loud", "salt", "add", "in", "ça"]
TEXTS = [
    "Open the door, cut a tomato!",
    "dog",
    "it's 'quoted' xylophone-door a_b i",  # words that are not in the list, one of them with a known letter in front
    "xylophone",
    "",
    "Ça: add [PAD] salt.",
    " zzz ".join(["salt dog"] * 12),  # more than 16 words
    "zzz " * 10 + "cut the tomato in",  # 16 words within reach only after unknown ones are dropped
    " ".join(WORDS) + " salt",  # exactly 16
]
# Input channels of each block, then the outputs of its six convolutions.
BLOCKS = {
    "mixed_3b": (192, 64, 96, 128, 16, 32, 32),
    "mixed_3c": (256, 128, 128, 192, 32, 96, 64),
    "mixed_4b": (480, 192, 96, 208, 16, 48, 64),
    "mixed_4c": (512, 160, 112, 224, 24, 64, 64),
    "mixed_4d": (512, 128, 128, 256, 24, 64, 64),
    "mixed_4e": (512, 112, 144, 288, 32, 64, 64),
    "mixed_4f": (528, 256, 160, 320, 32, 128, 128),
    "mixed_5b": (832, 256, 160, 320, 32, 128, 128),
    "mixed_5c": (832, 384, 192, 384, 48, 128, 128),
}


def published_layout(num_rows: int) -> dict[str, torch.Tensor]:
    """Random weights under the published names; their gain makes up for the gates, so that every layer matters."""
    generator = torch.Generator().manual_seed(0)
    weights = {}

    def linear(name, inputs, outputs):
        weights[f"{name}.weight"] = torch.randn(outputs, inputs, generator=generator) / inputs**0.5
        weights[f"{name}.bias"] = 0.1 * torch.randn(outputs, generator=generator)

    def conv(name, place, inputs, outputs, *kernel):
        fan_in = inputs * kernel[0] * kernel[1] * kernel[2]
        weight = torch.randn(outputs, inputs, *kernel, generator=generator) * (3.2 / fan_in) ** 0.5
        weights[f"{name}.conv{place}.weight"] = weight
        for tensor, low, high in (
            ("weight", 0.5, 1.5),
            ("bias", -0.1, 0.1),
            ("running_mean", -0.1, 0.1),
            ("running_var", 0.5, 1.5),
        ):
            value = torch.rand(outputs, generator=generator) * (high - low) + low
            weights[f"{name}.bn{place}.{tensor}"] = value
        weights[f"{name}.bn{place}.num_batches_tracked"] = torch.tensor(7)

    def separable(name, inputs, outputs):
        conv(name, 1, inputs, outputs, 1, 3, 3)
        conv(name, 2, outputs, outputs, 3, 1, 1)

    conv("conv1", 1, 24, 64, 2, 4, 4)
    conv("conv_2b", 1, 64, 64, 1, 1, 1)
    separable("conv_2c", 64, 192)
    linear("gating.fc", 192, 192)
    for name, (inputs, b0, b1_a, b1_b, b2_a, b2_b, b3_b) in BLOCKS.items():
        for branch, outputs in (("b0", b0), ("b1_a", b1_a), ("b2_a", b2_a), ("b3_b", b3_b)):
            conv(f"{name}.conv_{branch}", 1, inputs, outputs, 1, 1, 1)
        separable(f"{name}.conv_b1_b", b1_a, b1_b)
        separable(f"{name}.conv_b2_b", b2_a, b2_b)
        for branch, outputs in enumerate((b0, b1_b, b2_b, b3_b)):
            linear(f"{name}.gating_b{branch}.fc", outputs, outputs)
    linear("fc", 1024, 512)
    weights["text_module.word_embd.weight"] = torch.randn(num_rows, 300, generator=generator)
    linear("text_module.fc1", 300, 2048)
    linear("text_module.fc2", 2048, 512)
    return weights


def published_video(weights: dict, pixels: torch.Tensor) -> torch.Tensor:
    """(B, 3, T, H, W) in [0, 1] -> (B, 512), not normalised."""

    def conv(name, place, maps, padding):
        maps = F.conv3d(maps, weights[f"{name}.conv{place}.weight"], padding=padding)
        scale, shift, mean, variance = (
            weights[f"{name}.bn{place}.{tensor}"].view(-1, 1, 1, 1)
            for tensor in ("weight", "bias", "running_mean", "running_var")
        )
        return ((maps - mean) / (variance + 1e-5).sqrt() * scale + shift).clamp(min=0)

    def separable(name, maps):
        return conv(name, 2, conv(name, 1, maps, (0, 1, 1)), (1, 0, 0))

    def gate(name, maps):
        logits = maps.mean((2, 3, 4)) @ weights[f"{name}.fc.weight"].T + weights[f"{name}.fc.bias"]
        return maps / (1 + (-logits).exp())[..., None, None, None]

    def pool(maps, kernel, pads):
        """The stride is 2 where sizes are halved; zeros on the far sides only."""
        stride = (2 if kernel[0] == 2 or pads[0] else 1, 2, 2)
        return F.max_pool3d(F.pad(maps, (0, pads[2], 0, pads[1], 0, pads[0])), kernel, stride, ceil_mode=True)

    def block(name, maps):
        branches = (
            conv(f"{name}.conv_b0", 1, maps, 0),
            separable(f"{name}.conv_b1_b", conv(f"{name}.conv_b1_a", 1, maps, 0)),
            separable(f"{name}.conv_b2_b", conv(f"{name}.conv_b2_a", 1, maps, 0)),
            conv(f"{name}.conv_b3_b", 1, F.max_pool3d(maps, 3, 1, 1), 0),
        )
        return torch.cat([gate(f"{name}.gating_b{place}", branch) for place, branch in enumerate(branches)], 1)

    # Channels of a folded position: time first, then row, then column, then colour.
    folded = torch.cat([pixels[:, :, t::2, y::2, x::2] for t in (0, 1) for y in (0, 1) for x in (0, 1)], 1)
    maps = conv("conv1", 1, folded, (1, 2, 2))[:, :, 1:, 1:, 1:]
    maps = conv("conv_2b", 1, pool(maps, (1, 3, 3), (0, 1, 1)), 0)
    maps = gate("gating", separable("conv_2c", maps))
    maps = pool(maps, (1, 3, 3), (0, 1, 1))
    for name in BLOCKS:
        if name == "mixed_4b":
            maps = pool(maps, (3, 3, 3), (1, 1, 1))
        if name == "mixed_5b":
            maps = pool(maps, (2, 2, 2), (0, 0, 0))
        maps = block(name, maps)
    return maps.mean((2, 3, 4)) @ weights["fc.weight"].T + weights["fc.bias"]


def published_ids(text: str) -> list[int]:
    known = [WORDS.index(word) + 1 for word in re.findall(r"[\w']+", text.lower()) if word in WORDS]
    return (known + [0] * 16)[:16]


def published_text(weights: dict, texts: list[str]) -> torch.Tensor:
    """-> (B, 512), not normalised; word 0 fills up and takes part in the maximum."""
    weights = {name.removeprefix("text_module."): value for name, value in weights.items()}
    vectors = weights["word_embd.weight"][torch.tensor([published_ids(text) for text in texts])]
    hidden = (vectors @ weights["fc1.weight"].T + weights["fc1.bias"]).clamp(min=0).amax(1)
    return hidden @ weights["fc2.weight"].T + weights["fc2.bias"]


def convert(monkeypatch, checkpoint, vocabulary, output) -> None:
    run_main(monkeypatch, convert_milnce_checkpoint, checkpoint, vocabulary, "--output", output)


@pytest.fixture(scope="module")
def weights():
    return published_layout(len(WORDS) + 1)


@pytest.fixture(scope="module")
def files(weights, tmp_path_factory):
    folder = tmp_path_factory.mktemp("milnce")
    torch.save(weights, folder / "s3d.pth")
    np.save(folder / "dict.npy", np.array(WORDS))
    return folder


@pytest.fixture(scope="module")
def converted(files):
    with pytest.MonkeyPatch.context() as monkeypatch:
        convert(monkeypatch, files / "s3d.pth", files / "dict.npy", files / "new" / "model")
    folder = files / "new" / "model"
    assert [path.name for path in folder.parent.iterdir()] == ["model"]  # and nothing half-written beside it
    return AutoModel.from_pretrained(folder).eval(), AutoProcessor.from_pretrained(folder)


def unit(vectors: torch.Tensor) -> torch.Tensor:
    return vectors / vectors.norm(dim=-1, keepdim=True)


@pytest.mark.parametrize("frames,side", [(8, 32), (6, 50)])
def test_video_embeddings_are_the_published_ones(weights, converted, frames, side):
    pixels = torch.rand(2, frames, 3, side, side, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        ours = converted[0].get_video_features(pixels).pooler_output
        theirs = published_video(weights, pixels.transpose(1, 2))
    assert torch.allclose(ours, unit(theirs), rtol=0, atol=1e-5)
    assert (ours[0] - ours[1]).abs().max() > 1e-3  # else the comparison says little


def test_text_embeddings_are_the_published_ones(weights, converted):
    model, processor = converted
    theirs = unit(published_text(weights, TEXTS))
    with torch.no_grad():
        ours = model.get_text_features(**processor(text=TEXTS)).pooler_output
        # The habits of other tokenizers change nothing.
        padded = model.get_text_features(**processor(text=TEXTS, padding=True, max_length=4)).pooler_output
        of_ids = model.get_text_features(torch.tensor([published_ids(text) for text in TEXTS])).pooler_output
        candidates = model.get_text_features(**processor(text=[TEXTS[:2], TEXTS[2]])).caption_embeds
    for embeds in (ours, padded, of_ids):
        assert torch.allclose(embeds, theirs, rtol=0, atol=1e-5)
    assert torch.allclose(candidates[0], theirs[:2], rtol=0, atol=1e-5)
    assert torch.allclose(candidates[1, 0], theirs[2], rtol=0, atol=1e-5)


def test_tokens_are_the_published_ones(converted):
    texts = [text for text in TEXTS if "[PAD]" not in text]
    assert converted[1](text=texts)["input_ids"].tolist() == [published_ids(text) for text in texts]


def test_pixels_are_those_of_training(converted):
    processor = converted[1]
    clip = np.random.default_rng(0).integers(0, 256, (32, 224, 224, 3), dtype=np.uint8)
    pixels = processor(videos=[clip])["pixel_values_videos"]
    assert torch.allclose(pixels[0], torch.from_numpy(clip).permute(0, 3, 1, 2) / 255)
    assert (processor.video_processor.num_frames, processor.clip_seconds) == (32, 3.2)


def test_scores_are_cosines_of_the_embeddings(converted):
    model, processor = converted
    with torch.no_grad():
        outputs = model(torch.rand(2, 4, 3, 32, 32), **processor(text=TEXTS[:3]))
    expected = outputs.video_embeds @ outputs.text_embeds.T * model.objectives["text_video"].logit_scale.exp()
    assert torch.allclose(outputs.logits_per_video, expected, atol=1e-4)


def changed(weights, **entries) -> dict:
    """The weights with entries (dots written as __) replaced, or left out where None."""
    entries = {name.replace("__", "."): value for name, value in entries.items()}
    return {name: value for name, value in (weights | entries).items() if value is not None}


@pytest.mark.parametrize(
    "entries,message",
    [
        ({"fc__weight": None}, r"lacks 1 tensors, the first fc\.weight"),
        ({"text_module__word_embd__weight": None}, r"lacks 1 tensors, the first text_module\.word_embd\.weight"),
        (
            {"module__fc__weight": torch.zeros(1)},
            r"beyond the published layout 1 .*, the first module\.fc\.weight",
        ),
        ({"fc__weight": torch.zeros(256, 1024)}, r"fc\.weight .*\(256, 1024\).*\(512, 1024\)"),
        ({"fc__bias": torch.full((512,), float("nan"))}, r"fc\.bias .*not finite"),
        ({"epoch": 3}, "something else than named tensors"),
    ],
)
def test_other_weights_are_refused(weights, files, tmp_path, monkeypatch, entries, message):
    torch.save(changed(weights, **entries), tmp_path / "s3d.pth")
    with pytest.raises(UserError, match=message):
        convert(monkeypatch, tmp_path / "s3d.pth", files / "dict.npy", tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_torn_and_absent_files_are_refused(files, tmp_path, monkeypatch):
    whole = (files / "s3d.pth").read_bytes()
    for content in (whole[: len(whole) // 2], b"<html>404</html>", b""):
        (tmp_path / "torn").write_bytes(content)
        with pytest.raises(UserError, match="torn is damaged or no PyTorch checkpoint"):
            convert(monkeypatch, tmp_path / "torn", files / "dict.npy", tmp_path / "model")
    for content in ((files / "dict.npy").read_bytes()[:-20], b"<html>404</html>", b""):
        (tmp_path / "torn").write_bytes(content)
        with pytest.raises(UserError, match="torn is damaged or no NumPy array"):
            convert(monkeypatch, files / "s3d.pth", tmp_path / "torn", tmp_path / "model")
    with pytest.raises(UserError, match="nothing cannot be read: No such file"):
        convert(monkeypatch, tmp_path / "nothing", files / "dict.npy", tmp_path / "model")
    with pytest.raises(UserError, match="nothing cannot be read: No such file"):
        convert(monkeypatch, files / "s3d.pth", tmp_path / "nothing", tmp_path / "model")


@pytest.mark.parametrize(
    "words,message",
    [
        (WORDS[:-1], "14 words, but the checkpoint has vectors for 15"),
        ([*WORDS, "one", "two"], "17 words, but the checkpoint has vectors for 15"),
        (list(range(15)), "no NumPy array of words"),
    ],
)
def test_another_vocabulary_is_refused(files, tmp_path, monkeypatch, words, message):
    np.save(tmp_path / "dict.npy", np.array(words))
    with pytest.raises(UserError, match=message):
        convert(monkeypatch, files / "s3d.pth", tmp_path / "dict.npy", tmp_path / "model")


def test_output_in_the_way_is_kept(files, tmp_path, monkeypatch):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine").write_text("mine")
    for output in (tmp_path / "model", tmp_path / "model" / "mine"):
        with pytest.raises(UserError, match="exists already"):
            convert(monkeypatch, files / "s3d.pth", files / "dict.npy", output)
    with pytest.raises(UserError, match="cannot be written"):
        convert(monkeypatch, files / "s3d.pth", files / "dict.npy", tmp_path / "model" / "mine" / "model")
    assert (tmp_path / "model" / "mine").read_text() == "mine"
