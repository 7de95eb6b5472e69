"""The published MIL-NCE weights (S3D on HowTo100M, Miech et al., CVPR 2020) as an fgmm model and processor."""

import pickle
import tempfile
from pathlib import Path

import numpy as np
import torch
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from modeling_fgmm import FgmmConfig, FgmmModel
from processing_fgmm import FgmmFeatureExtractor, FgmmProcessor, FgmmVideoProcessor

from .cli import UserError

NUM_FRAMES = 32
FRAME_RATE = 10  # frames a second
SIDE = 224  # pixels
CAPTION_LENGTH = 16  # words
PROJECTION_DIM = 512
WORD_VECTORS = "text_module.word_embd.weight"
# Modules here and what the published checkpoint calls them.
STEM = {
    "conv": "conv1.conv1",
    "norm": "conv1.bn1",
    "point_conv": "conv_2b",
    "conv_block": "conv_2c",
    "gate.linear": "gating.fc",
}
STAGES = (("mixed_3b", "mixed_3c"), tuple(f"mixed_4{letter}" for letter in "bcdef"), ("mixed_5b", "mixed_5c"))
BRANCHES = {
    "branches.0": "conv_b0",
    "branches.1.0": "conv_b1_a",
    "branches.1.1": "conv_b1_b",
    "branches.2.0": "conv_b2_a",
    "branches.2.1": "conv_b2_b",
    "branches.3.1": "conv_b3_b",
    **{f"gates.{branch}.linear": f"gating_b{branch}.fc" for branch in range(4)},
}
CONV_BLOCK = {"spatial_conv": "conv1", "spatial_norm": "bn1", "temporal_conv": "conv2", "temporal_norm": "bn2"}
HEADS = {
    "projections.video": "fc",
    "encoders.text.word_embedding": "text_module.word_embd",
    "encoders.text.linear": "text_module.fc1",
    "projections.text": "text_module.fc2",
}


def published_modules() -> dict[str, str]:
    """Our name of each module or block of the encoders and projections, and its published name."""
    modules = {f"encoders.video.stem.{ours}": theirs for ours, theirs in STEM.items()}
    for stage, blocks in enumerate(STAGES):
        for place, block in enumerate(blocks):
            prefix = f"encoders.video.stages.{stage}.{place}"
            modules.update({f"{prefix}.{ours}": f"{block}.{theirs}" for ours, theirs in BRANCHES.items()})
    return modules | HEADS


def published_names(model: FgmmModel) -> dict[str, str]:
    """Our name of each published tensor, and its published name."""
    modules, names = published_modules(), {}
    for name in model.state_dict():
        module, _, tensor = name.rpartition(".")
        block, _, layer = module.rpartition(".")
        if tensor == "num_batches_tracked" or name.startswith("objectives."):
            continue  # of training alone
        if layer in CONV_BLOCK:
            names[name] = f"{modules[block]}.{CONV_BLOCK[layer]}.{tensor}"
        else:
            names[name] = f"{modules[module]}.{tensor}"
    return names


def make_config(vocab_size: int) -> FgmmConfig:
    """The published network.

    Word 0 fills the text up and takes part in the maximum, therefore no id is padding.
    """
    return FgmmConfig(
        modalities=["video", "text"],
        projection_dim=PROJECTION_DIM,
        objective="mil_nce",
        video_config={"space_to_depth": True, "temporal_padding": "zeros"},
        text_config={"vocab_size": vocab_size, "pad_token_id": None},
    )


def load_weights(path: Path) -> dict[str, torch.Tensor]:
    """
    Args:
        path: the published checkpoint, or one of its layout.

    Raises:
        UserError: when the file is absent, damaged, or holds anything but tensors.
    """
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise UserError(f"The checkpoint {path} cannot be read: {error.strerror}.") from error
    except (RuntimeError, EOFError, KeyError, ValueError, pickle.UnpicklingError) as error:
        raise UserError(f"{path} is damaged or no PyTorch checkpoint; download it again.") from error
    if not isinstance(weights, dict) or not all(isinstance(value, torch.Tensor) for value in weights.values()):
        raise UserError(f"{path} holds something else than named tensors; give the published s3d_howto100m.pth.")
    return weights


def load_words(path: Path) -> list[str]:
    """
    Args:
        path: the published list of words, a NumPy array; the word at place i has id i + 1.

    Raises:
        UserError: when the file is absent, damaged, or no list of words.
    """
    try:
        words = np.load(path, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise UserError(f"{path} is damaged or no NumPy array of words; download it again.") from error
    except OSError as error:
        raise UserError(f"The vocabulary {path} cannot be read: {error.strerror or error}.") from error
    if not isinstance(words, np.ndarray) or words.ndim != 1 or words.dtype.kind != "U":
        raise UserError(f"{path} is no NumPy array of words; give the published s3d_dict.npy.")
    return words.tolist()


def check_weights(weights: dict[str, torch.Tensor], num_words: int) -> None:
    """Compares names, shapes and the number of words with the published layout, before anything is built.

    Raises:
        UserError: for the first thing that differs, or a weight that is not finite.
    """
    vocab_size = len(weights[WORD_VECTORS]) if WORD_VECTORS in weights else num_words + 1
    with torch.device("meta"):
        model = FgmmModel(make_config(vocab_size))
    shapes = {theirs: model.state_dict()[ours].shape for ours, theirs in published_names(model).items()}
    given = [name for name in weights if not name.endswith(".num_batches_tracked")]
    for problem, names in (
        ("lacks", [name for name in shapes if name not in weights]),
        ("holds beside the published layout", [name for name in given if name not in shapes]),
    ):
        if names:
            raise UserError(
                f"The checkpoint {problem} {names[0]} and {len(names) - 1} more; give the published s3d_howto100m.pth."
            )
    for name, shape in shapes.items():
        if weights[name].shape != shape:
            raise UserError(
                f"{name} of the checkpoint has shape {tuple(weights[name].shape)}, but {tuple(shape)} is the published "
                "one; give the published s3d_howto100m.pth."
            )
        if not weights[name].isfinite().all():
            raise UserError(f"{name} of the checkpoint has values that are not finite; download it again.")
    # Ids begin at 1. If there were as many words as vectors, the last would have none in the original either.
    if num_words not in (vocab_size - 1, vocab_size):
        raise UserError(
            f"The vocabulary has {num_words} words, but the checkpoint has vectors for {vocab_size - 1}; give the "
            "s3d_dict.npy that belongs to it."
        )


def make_tokenizer(words: list[str]) -> PreTrainedTokenizerFast:
    """Lower-cased runs of letters, digits, _ and ' that are in the list of words; others are dropped.

    Each word bears a mark at its front. Thus no single character is in the vocabulary, and byte pair encoding without
    merges and without an unknown token, which takes whole words first and then characters, drops unknown words.
    """
    mark = "▁"
    # As in the original, the last of equal words counts.
    vocabulary = {"[PAD]": 0} | {mark + word: place + 1 for place, word in enumerate(words) if word}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], ignore_merges=True))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"[\p{L}\p{N}_']+"), "removed", invert=True),
            pre_tokenizers.Metaspace(mark, prepend_scheme="always", split=False),
        ]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", model_max_length=CAPTION_LENGTH)


def make_processor(words: list[str]) -> FgmmProcessor:
    """Inputs as the published model was trained on; sounds are prepared as anywhere, though no encoder takes them."""
    return FgmmProcessor(
        FgmmVideoProcessor(
            num_frames=NUM_FRAMES,
            size={"shortest_edge": SIDE},
            crop_size={"height": SIDE, "width": SIDE},
            image_mean=[0.0, 0.0, 0.0],
            image_std=[1.0, 1.0, 1.0],
        ),
        FgmmFeatureExtractor(),
        make_tokenizer(words),
        clip_seconds=NUM_FRAMES / FRAME_RATE,
        caption_length=CAPTION_LENGTH,
    )


def make_model(weights: dict[str, torch.Tensor]) -> FgmmModel:
    """The model with the published weights, which `check_weights` has found right."""
    model = FgmmModel(make_config(len(weights[WORD_VECTORS])))
    # What is not loaded is of training alone: the scale of the contrast, the counters of batch normalisation.
    model.load_state_dict({ours: weights[theirs] for ours, theirs in published_names(model).items()}, strict=False)
    return model.eval()


def save(model: FgmmModel, processor: FgmmProcessor, output: Path) -> None:
    """Writes the folder, whole or not at all.

    Raises:
        UserError: when it cannot be written.
    """
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{output.name}.", dir=output.parent) as temporary:
            partial = Path(temporary) / output.name
            model.save_pretrained(partial)
            processor.save_pretrained(partial)
            partial.replace(output)
    except OSError as error:
        raise UserError(f"--output {output} cannot be written: {error.strerror}; give another.") from error
