"""Converts the published MIL-NCE weights (S3D on HowTo100M, Miech et al., CVPR 2020) to an fgmm model and processor."""

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
# Our names of modules, and those in the published checkpoint.
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


def convert(checkpoint: Path, vocabulary: Path, output: Path) -> int:
    """Converts the published files to a folder that AutoModel and AutoProcessor load.

    Args:
        checkpoint: the weights, s3d_howto100m.pth.
        vocabulary: the list of words, s3d_dict.npy.
        output: folder for the model, new or empty.

    Returns:
        the number of words of its tokenizer.

    Raises:
        UserError: when a file is not as published, or the folder is not empty or cannot be written.
    """
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise UserError(f"--output {output} exists already; give another or delete it.")
    weights, words = load_weights(checkpoint), load_words(vocabulary)
    check_weights(weights, len(words))
    words = words[: len(weights[WORD_VECTORS]) - 1]
    save(make_model(weights), make_processor(words), output)
    return len(words)


def published_modules() -> dict[str, str]:
    """{our name of each module or block of encoders and projections: its published name}."""
    modules = {f"encoders.video.stem.{ours}": theirs for ours, theirs in STEM.items()}
    for stage, blocks in enumerate(STAGES):
        for place, block in enumerate(blocks):
            prefix = f"encoders.video.stages.{stage}.{place}"
            modules.update({f"{prefix}.{ours}": f"{block}.{theirs}" for ours, theirs in BRANCHES.items()})
    return modules | HEADS


def published_names(model: FgmmModel) -> dict[str, str]:
    """{our name of each published tensor: its published name}."""
    modules, names = published_modules(), {}
    for name in model.state_dict():
        module, _, tensor = name.rpartition(".")
        block, _, layer = module.rpartition(".")
        if tensor == "num_batches_tracked" or name.startswith("objectives."):
            continue  # only training has it
        if layer in CONV_BLOCK:
            names[name] = f"{modules[block]}.{CONV_BLOCK[layer]}.{tensor}"
        else:
            names[name] = f"{modules[module]}.{tensor}"
    return names


def make_config(vocab_size: int) -> FgmmConfig:
    """The configuration of the published network.

    Texts are filled up with word 0, which takes part in the maximum over words; therefore no id is padding.
    """
    return FgmmConfig(
        modalities=["video", "text"],
        projection_dim=PROJECTION_DIM,
        objective="mil_nce",
        video_config={"space_to_depth": True, "temporal_padding": "zeros"},
        text_config={"vocab_size": vocab_size, "pad_token_id": None},
    )


def load_weights(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a checkpoint by their names.

    Args:
        path: the published checkpoint, or one of its layout.

    Raises:
        UserError: when the file is missing, damaged, or holds anything but tensors.
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
    """The words of a vocabulary; the word at index i has id i + 1.

    Args:
        path: the published list of words, a NumPy array.

    Raises:
        UserError: when the file is missing, damaged, or no list of words.
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
    """Checks names, shapes and the number of words against the published layout, before a model is built.

    Args:
        weights: see [`load_weights`].
        num_words: of the vocabulary.

    Raises:
        UserError: naming the first difference, or the first tensor that is not finite.
    """
    vocab_size = len(weights[WORD_VECTORS]) if WORD_VECTORS in weights else num_words + 1
    with torch.device("meta"):
        model = FgmmModel(make_config(vocab_size))
    shapes = {theirs: model.state_dict()[ours].shape for ours, theirs in published_names(model).items()}
    given = [name for name in weights if not name.endswith(".num_batches_tracked")]
    for problem, names in (
        ("lacks", [name for name in shapes if name not in weights]),
        ("has beyond the published layout", [name for name in given if name not in shapes]),
    ):
        if names:
            raise UserError(
                f"The checkpoint {problem} {len(names)} tensors, the first {names[0]}; give the published "
                "s3d_howto100m.pth."
            )
    for name, shape in shapes.items():
        if weights[name].shape != shape:
            raise UserError(
                f"{name} of the checkpoint has shape {tuple(weights[name].shape)}, but {tuple(shape)} is the published "
                "one; give the published s3d_howto100m.pth."
            )
        if not weights[name].isfinite().all():
            raise UserError(f"{name} of the checkpoint has values that are not finite; download it again.")
    # Ids begin at 1. If there are as many words as vectors, the last word has none in the original either.
    if num_words not in (vocab_size - 1, vocab_size):
        raise UserError(
            f"The vocabulary has {num_words} words, but the checkpoint has vectors for {vocab_size - 1}; give the "
            "s3d_dict.npy that belongs to it."
        )


def make_tokenizer(words: list[str]) -> PreTrainedTokenizerFast:
    """A tokenizer of lower-cased runs of letters, digits, _ and '; words that are not in the list are dropped.

    Each word is marked at its front, so that no single character is in the vocabulary. Byte pair encoding without
    merges and without an unknown token tries whole words and then characters, and thus drops unknown words.
    """
    mark = "▁"
    # As in the original, the last of equal words counts.
    vocabulary = {"[PAD]": 0} | {mark + word: index + 1 for index, word in enumerate(words) if word}
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
    """A processor whose videos and texts are the inputs of the published model; there is no encoder for its audio."""
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
    """The model with the published weights, after [`check_weights`]."""
    model = FgmmModel(make_config(len(weights[WORD_VECTORS])))
    # Not loaded is what only training has: the logit scale, and the counters of batch normalisation.
    model.load_state_dict({ours: weights[theirs] for ours, theirs in published_names(model).items()}, strict=False)
    return model.eval()


def save(model: FgmmModel, processor: FgmmProcessor, output: Path) -> None:
    """Writes the folder, completely or not at all.

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
