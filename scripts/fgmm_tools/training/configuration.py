"""What a pretraining run is made of, from a YAML file and the command line."""

import dataclasses
import difflib
import inspect
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from accelerate.tracking import get_available_trackers
from huggingface_hub.dataclasses import strict
from huggingface_hub.errors import StrictDataclassError

from modeling_fgmm import FgmmConfig
from processing_fgmm import FgmmFeatureExtractor, FgmmVideoProcessor

from ..cli import UserError


@strict
@dataclass
class PretrainConfig:
    """What a run is made of; the units stand behind the fields."""

    # Data
    dataset: str = ""  # folder of Parquet shards, or a dataset on the Hub
    dataset_config: str | None = None  # which of its official splits or folds, where it has several
    output_dir: str = ""  # model folder; checkpoints go below it
    train_split: str = "train"
    eval_split: str = "test"  # retrieval is evaluated on it
    clip_seconds: float | int = 10.0  # window shown of each item, s
    num_captions: int = 4  # candidate captions nearest to the window (K)
    min_crop_area: float | int = 1.0  # smallest random crop, share of the picture
    flip: bool = False  # mirror every second clip; not where captions say left and right
    block_size: int = 1024  # rows shuffled together
    num_workers: int = 2  # decoding processes
    max_failed_share: float | int = 0.1  # of clips that cannot be decoded, before training stops

    # Text
    tokenizer: str = ""  # folder or Hub name of a fast tokenizer; empty: words of the corpus
    vocab_size: int = 20000  # words, when the tokenizer is made from the corpus
    min_frequency: int = 1  # occurrences that a word needs to be known
    max_phrase_words: int = 4  # words in a phrase at most

    # Model, see FgmmConfig, FgmmVideoProcessor, FgmmFeatureExtractor
    init_from: str = ""  # model whose processor, encoders and projections are gone on from; the objective begins anew
    model: dict = field(default_factory=dict)
    video_processor: dict = field(default_factory=dict)  # empty: that of init_from
    feature_extractor: dict = field(default_factory=dict)  # empty: that of init_from

    # Optimisation
    batch_size: int = 64  # clips a process and batch
    gradient_accumulation_steps: int = 1  # batches of a step; all their clips stand in one contrast
    encoder_chunk_size: int = 0  # clips encoded at once, see gradient_cache.py; 0: a batch
    max_steps: int = 1000  # optimiser steps
    learning_rate: float | int = 1e-3  # of AdamW, after warm-up
    warmup_steps: int = 100  # linear from 0; then a cosine down to 0
    weight_decay: float | int = 0.05  # of matrices and kernels
    max_grad_norm: float | int = 1.0  # gradients are clipped to it
    mixed_precision: str = "no"  # no, bf16 or fp16
    gradient_checkpointing: bool = False  # recompute activations, for less memory
    seed: int = 0

    # Logging
    log_steps: int = 20  # steps between two log lines
    eval_steps: int = 500  # steps between two evaluations; 0: only after the last
    eval_clips: int = 500  # clips of each evaluation
    save_steps: int = 500  # steps between two checkpoints; 0: only after the last
    save_total_limit: int = 2  # checkpoints kept
    trackers: list[str] = field(default_factory=list)  # tensorboard, trackio
    resume_from: str = ""  # a checkpoint's folder, or latest


def parse_config(arguments: list[str]) -> PretrainConfig:
    """Reads `--config FILE` and `--field value` pairs.

    Raises:
        UserError: for an unknown field, a value of the wrong type, or a file that is not there.
    """
    if not arguments or arguments[0] in ("-h", "--help"):
        fields = "\n".join(f"  --{entry.name}" for entry in dataclasses.fields(PretrainConfig))
        raise UserError(f"{__doc__}\nFields:\n  --config\n{fields}")
    pairs, rest = [], list(arguments)
    while rest:
        name = rest.pop(0)
        if not name.startswith("--"):
            raise UserError(f"{name!r} is not an option; write --field value.")
        name, equals, value = name[2:].partition("=")
        if not equals:
            if not rest:
                raise UserError(f"--{name} has no value.")
            value = rest.pop(0)
        pairs.append((name, value))
    values = {}
    for name, value in pairs:
        if name == "config":
            values.update(read_yaml(value))
    for name, value in pairs:
        if name != "config":
            set_value(values, name, number_or_text(yaml.safe_load(value)))
    return make_config(values)


def read_yaml(path: str) -> dict:
    """The mapping in a YAML file."""
    try:
        content = yaml.safe_load(Path(path).read_text())
    except OSError as error:
        raise UserError(f"The configuration {path!r} cannot be read: {error.strerror}.") from error
    except yaml.YAMLError as error:
        raise UserError(f"The configuration {path!r} is not valid YAML: {' '.join(str(error).split())}.") from error
    if not isinstance(content, dict):
        raise UserError(f"The configuration {path!r} does not hold `field: value` lines.")
    return {name: number_or_text(value) for name, value in content.items()}


def number_or_text(value):
    """YAML takes 1e-3 for text; people do not."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def set_value(values: dict, name: str, value) -> None:
    """Sets a field, or with dots an entry of its mapping."""
    *parents, last = name.split(".")
    for parent in parents:
        values = values.setdefault(parent, {})
    values[last] = value


def field_names(kind: type) -> list[str]:
    """The fields of a dataclass."""
    return [entry.name for entry in dataclasses.fields(kind)]


def check_names(values, known: list[str], where: str) -> None:
    """Checks the keys of a mapping: transformers' classes would take a misspelt one without a word.

    Raises:
        UserError: naming the first unknown one, and what was meant.
    """
    if not isinstance(values, dict):
        raise UserError(f"The field {where.rstrip('.')!r} must hold `field: value` pairs, not {values!r}.")
    for name in values:
        if name not in known:
            close = difflib.get_close_matches(name, known, 1)
            hint = f"; did you mean {close[0]!r}" if close else ""
            raise UserError(f"There is no field {where + name!r}{hint}.")


def make_config(values: dict) -> PretrainConfig:
    """The typed configuration.

    Raises:
        UserError: naming the field.
    """
    check_names(values, field_names(PretrainConfig), "")
    model = values.get("model") or {}
    check_names(model, field_names(FgmmConfig), "model.")
    for part, kind in FgmmConfig.sub_configs.items():
        if "model_type" not in (model.get(part) or {}):  # else it is one of transformers' encoders
            check_names(model.get(part) or {}, field_names(kind), f"model.{part}.")
    for part, kind in (("video_processor", FgmmVideoProcessor), ("feature_extractor", FgmmFeatureExtractor)):
        check_names(values.get(part) or {}, list(inspect.signature(kind.__init__).parameters), f"{part}.")
    if values.get("mixed_precision") is False:  # YAML reads the word no as false
        values["mixed_precision"] = "no"
    try:
        config = PretrainConfig(**values)
    except StrictDataclassError as error:
        raise UserError(f"The configuration is wrong: {' '.join(str(error).split())}.") from error
    for name in ("dataset", "output_dir"):
        if not getattr(config, name):
            raise UserError(f"The field {name!r} is not set; give --{name} or put it into the configuration file.")
    if config.encoder_chunk_size < 0:
        raise UserError(f"encoder_chunk_size is {config.encoder_chunk_size}, but must be 0 or positive.")
    positive = ("batch_size", "gradient_accumulation_steps", "max_steps", "clip_seconds", "num_captions", "block_size")
    for name in (*positive, "log_steps", "learning_rate"):
        if getattr(config, name) <= 0:
            raise UserError(f"{name} is {getattr(config, name)}, but must be positive.")
    if config.batch_size < 2:
        raise UserError("batch_size is 1, but a contrast needs at least 2 clips.")
    if config.mixed_precision not in ("no", "bf16", "fp16"):
        raise UserError(f"mixed_precision is {config.mixed_precision!r}, but must be no, bf16 or fp16.")
    for name in config.trackers:
        if name not in (available := [str(tracker) for tracker in get_available_trackers()]):
            raise UserError(f"The tracker {name!r} is not installed or unknown; there are {', '.join(available)}.")
    if not 0 < config.min_crop_area <= 1:
        raise UserError(f"min_crop_area is {config.min_crop_area}, but must be above 0 and at most 1.")
    return config
