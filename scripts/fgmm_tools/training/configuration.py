"""What a pretraining run is made of: the fields, and how they are read from a YAML file and the command line.

Nothing heavy is imported here, so that `--help` answers at once.
"""

import difflib
import json
import math
import re
from argparse import ArgumentError, RawDescriptionHelpFormatter
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from typing import Any, Literal

import yaml
from jsonargparse import (
    ActionConfigFile,
    ArgumentParser,
    DefaultHelpFormatter,
    get_loader,
    set_loader,
    set_parsing_settings,
)
from jsonargparse.typing import (
    ClosedUnitInterval,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    restricted_number_type,
)

from ..cli import UserError

load_plain_yaml = get_loader("yaml")  # it reads 1e-3 as a number, as PyYAML does not
BatchSize = restricted_number_type("IntFrom2", int, (">=", 2))  # a contrast needs two clips
VocabularySize = restricted_number_type("IntFrom3", int, (">=", 3))  # padding, the unknown word, and one more
AtMost1024 = restricted_number_type("IntFrom0To1024", int, [(">=", 0), ("<=", 1024)])  # processes or threads
ClipSeconds = restricted_number_type("FloatAbove0To3600", float, [(">", 0), ("<=", 3600)])
Fraction = restricted_number_type("FloatAbove0To1", float, [(">", 0), ("<=", 1)])
# The largest whole number in any field; NumPy takes no larger seed.
MAX_INTEGER = 2**32 - 1


@dataclass(kw_only=True)
class WeightedCorpus:
    """One of several corpora that a run mixes."""

    dataset: str
    """folder of Parquet shards or media files, or a dataset on the Hub"""
    dataset_config: str | None = None
    """which of its official splits or folds, where it has several"""
    train_split: str = "train"
    """split that is trained on"""
    weight: PositiveFloat = 1.0
    """its share of the clips, in any unit"""


@dataclass(kw_only=True)
class Data:
    """Data"""

    dataset: str = ""
    """folder of Parquet shards or media files, or a dataset on the Hub"""
    datasets: list[WeightedCorpus] = field(default_factory=list)
    """several corpora in place of dataset, each with dataset and optionally weight (its share of the clips),
    dataset_config and train_split; the first is evaluated on"""
    dataset_config: str | None = None
    """which of its official splits or folds, where it has several"""
    output_dir: str
    """model folder; checkpoints go below it"""
    train_split: str = "train"
    """split that is trained on"""
    eval_split: str = "test"
    """split that retrieval is evaluated on; a corpus without the split test trains without evaluation"""
    clip_seconds: ClipSeconds | None = None
    """window shown of each item, s; null: that of init_from, or else 10"""
    num_captions: PositiveInt = 4
    """candidate captions nearest to the window (K)"""
    min_crop_area: Fraction = 1.0
    """smallest random crop, share of the frame; 1: no crops"""
    flip: bool = False
    """mirror every second clip; not where captions say left and right"""
    block_size: PositiveInt = 1024
    """rows of a corpus shuffled together, of row groups from all over it"""
    num_workers: AtMost1024 = 2
    """processes that read and decode, for each training process; 0: that process does"""
    max_failed_share: ClosedUnitInterval = 0.1
    """share of clips that cannot be decoded above which training stops, counted over processes at each log line"""


@dataclass(kw_only=True)
class Text:
    """Text"""

    tokenizer: str = ""
    """folder or Hub name of a fast tokenizer; empty: that of init_from, or else the words of the corpus"""
    add_words: bool = True
    """add the corpus' words to the vocabulary of tokenizer or init_from, if that has whole words; its own are kept"""
    vocab_size: VocabularySize = 20000
    """most words of a tokenizer that is made from the corpus, or that words of the corpus are added to"""
    min_frequency: PositiveInt = 1
    """occurrences in the corpus that a word needs to be known, or to be added"""
    max_phrase_words: PositiveInt | None = None
    """most words of a phrase (W); null: that of init_from, or else 4"""


@dataclass(kw_only=True)
class Model:
    """Model"""

    init_from: str = ""
    """fgmm model, or dual encoder as openai/clip-vit-base-patch32, that processor, encoders and projections are
    initialised from; the objective starts anew, but for a dual encoder's logit scale of pooled embeddings"""
    model: dict[str, Any] = field(default_factory=dict)
    """fields of modeling_fgmm's FgmmConfig"""
    video_processor: dict[str, Any] = field(default_factory=dict)
    """arguments of processing_fgmm's FgmmVideoProcessor; others are those of init_from, or else its defaults"""
    feature_extractor: dict[str, Any] = field(default_factory=dict)
    """arguments of processing_fgmm's FgmmFeatureExtractor; others are those of init_from, or else its defaults"""


@dataclass(kw_only=True)
class Optimisation:
    """Optimisation"""

    batch_size: BatchSize = 64
    """clips of a batch, which all processes share out"""
    gradient_accumulation_steps: PositiveInt = 1
    """batches of a step; all their clips stand in one contrast"""
    encoder_chunk_size: NonNegativeInt = 0
    """clips encoded at once, to save memory, see gradient_cache.py; 0: a whole batch"""
    max_steps: PositiveInt = 1000
    """optimiser steps; may be changed when a run is resumed, whose learning rate then follows the new schedule"""
    learning_rate: PositiveFloat = 1e-3
    """of AdamW, after warm-up"""
    encoder_learning_rate: PositiveFloat | None = None
    """that of encoders, and of the projections of a dual encoder, where it is not learning_rate"""
    layer_decay: Fraction = 1.0
    """factor on the rate of each layer of transformers' encoders, from the last one down to the embeddings"""
    lora_rank: NonNegativeInt = 0
    """rank of adapters (LoRA) that are trained in place of the weights of transformers' encoders, to which they are
    added at the end; 0: none"""
    warmup_steps: NonNegativeInt = 100
    """steps of linear warm-up from 0; then a cosine down to 0"""
    weight_decay: NonNegativeFloat = 0.05
    """of matrices and kernels"""
    max_grad_norm: PositiveFloat = 1.0
    """norm that gradients are clipped to"""
    max_skipped_steps: NonNegativeInt = 3
    """steps whose loss is not a number that leave the weights as they are, above which training stops"""
    mixed_precision: Literal["no", "bf16", "fp16"] = "no"
    """data type of the encoders' arithmetic; no: float32"""
    gradient_checkpointing: bool = False
    """recompute activations in the backward pass, for less memory"""
    sync_batch_norm: bool = False
    """batch normalisation over the clips of all processes, on GPUs; else each process has its own statistics"""
    num_threads: AtMost1024 = 0
    """threads of a process's arithmetic on the CPU; 0: what OMP_NUM_THREADS says, or else all cores"""
    seed: NonNegativeInt = 0
    """of weights, order, crops and dropout"""


@dataclass(kw_only=True)
class Logging:
    """Logging"""

    log_steps: PositiveInt = 20
    """steps between two log lines"""
    eval_steps: NonNegativeInt = 500
    """steps between two evaluations, with one at the end, each with a results file in output_dir; 0: none"""
    eval_clips: PositiveInt = 500
    """clips of an evaluation, the first of eval_split"""
    save_steps: NonNegativeInt = 500
    """steps between two checkpoints, with one at the end; 0: only at the end"""
    save_total_limit: PositiveInt = 2
    """checkpoints kept"""
    trackers: list[str] = field(default_factory=list)
    """accelerate's trackers, as [tensorboard, trackio]"""
    picture_steps: NonNegativeInt = 1000
    """steps between two pictures of a few clips with captions and attention, for trackers and in output_dir; 0: none"""
    resume_from: str = ""
    """checkpoint folder to resume from, or latest: the last one in output_dir, or a new run where there is none"""


SECTIONS = (Data, Text, Model, Optimisation, Logging)


@dataclass(kw_only=True)
class PretrainConfig(Logging, Optimisation, Model, Text, Data):  # the fields of a dataclass's last base come first
    """All fields of a run."""

    def __post_init__(self):
        self.datasets = [WeightedCorpus(**entry) if isinstance(entry, dict) else entry for entry in self.datasets]

    @property
    def corpora(self) -> list[WeightedCorpus]:
        """The corpora that are trained on."""
        return self.datasets or [
            WeightedCorpus(dataset=self.dataset, dataset_config=self.dataset_config, train_split=self.train_split)
        ]

    @property
    def corpus_names(self) -> list[str]:
        """What the corpora are called in logs: the last part of their paths where these differ."""
        paths = [entry.dataset for entry in self.corpora]
        names = [path.rstrip("/").rpartition("/")[2] for path in paths]
        return names if len(set(names)) == len(names) else paths

    @property
    def corpus_weights(self) -> list[float]:
        """The share of clips of each corpus, in any unit."""
        return [entry.weight for entry in self.corpora]


def parse_config(arguments: list[str], documentation: str = "") -> PretrainConfig:
    """Reads `--config FILE` and `--field value` pairs; the command line wins over the file.

    Args:
        arguments: command line without the program.
        documentation: what `--help` begins with.

    Raises:
        UserError: for an unknown field, a value of the wrong type or out of range, a number that is not finite, or a
            file that cannot be read.
        SystemExit: after `--help`.
    """
    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    set_loader("yaml", load_yaml, (yaml.YAMLError,))
    parser = ArgumentParser(
        description=documentation,
        formatter_class=HelpFormatter,
        exit_on_error=False,
        allow_abbrev=False,
        print_config=None,
    )
    parser.add_argument("--config", action=ConfigFile, help="YAML file of fields (type: path, default: none)")
    for section in SECTIONS:
        parser.add_class_arguments(section)
    files, options, entries = sort_arguments(arguments)
    try:
        namespace = parser.parse_args([*files, *options])
    except ArgumentError as error:
        raise UserError(describe_error(error)) from error
    values = json.loads(parser.dump(namespace, format="json"))  # plain numbers, which checkpoints may hold
    for name, text in entries:
        set_entry(values, name, text)
    for name, value in flatten(values).items():
        check_number(name, value)
    if bool(values["dataset"]) == bool(values["datasets"]):
        raise UserError("Give either dataset or datasets: the corpus, or the corpora, to train on.")
    return PretrainConfig(**values)


class HelpFormatter(DefaultHelpFormatter, RawDescriptionHelpFormatter):
    """Keeps the documentation's lines, and leaves out the option --datasets.help that jsonargparse adds."""

    def add_argument(self, action):
        if not action.dest.endswith(".help"):
            super().add_argument(action)


class ConfigFile(ActionConfigFile):
    """The option of the YAML file, whose errors name the file."""

    def __call__(self, parser, namespace, path, option=None):
        try:
            super().__call__(parser, namespace, path, option)
            parser.validate(namespace, skip_required=True)
        except UnicodeDecodeError as error:
            raise UserError(f"The configuration {path!r} is not UTF-8 text; save it as UTF-8.") from error
        except RecursionError as error:
            raise UserError(f"The configuration {path!r} contains itself by an alias; write its values out.") from error
        except (ArgumentError, KeyError, TypeError) as error:
            raise UserError(f"The configuration {path!r} cannot be used: {describe_error(error)}") from error


def load_yaml(text: str):
    """What jsonargparse's own loader gives, but for the word no, which YAML reads as false."""
    values = load_plain_yaml(text)
    if isinstance(values, dict) and values.get("mixed_precision") is False:
        values["mixed_precision"] = "no"
    return values


def sort_arguments(arguments: list[str]) -> tuple[list[str], list[str], list[tuple[str, str]]]:
    """The arguments that name files, those that set fields, and (dotted name, value) of those that set entries.

    jsonargparse lets a later file win over an option, and forgets the other entries of a mapping inside a mapping when
    one of them is set (`--model.video_config.width_multiplier 0.5`).

    Raises:
        UserError: when a value is missing.
    """
    files, options, entries = [], [], []
    words = iter(arguments)
    for word in words:
        name, equals, value = word.partition("=")
        is_file, is_entry = name == "--config", name.startswith("--") and "." in name
        if (is_file or is_entry) and not equals:
            value = next(words, None)
            if value is None:
                raise UserError(f"{name} has no value.")
        if is_file:
            files += [name, value]
        elif is_entry:
            entries.append((name[2:], value))
        else:
            options.append(word)
    return files, options, entries


def set_entry(values: dict, name: str, text: str) -> None:
    """Sets an entry of a field from its value in YAML.

    Args:
        values: of the fields; changed.
        name: as `model.video_config.width_multiplier`.
        text: the value.

    Raises:
        UserError: when there is no such field, or it has no entries.
    """
    *parents, last = name.split(".")
    check_names(parents[:1], field_names(PretrainConfig))
    for parent in parents:
        values = values.setdefault(parent, {})
        if not isinstance(values, dict):
            raise UserError(f"--{name} cannot be set, as {parent} is {values!r} and has no entries.")
    try:
        values[last] = load_plain_yaml(text)
    except yaml.YAMLError as error:
        raise UserError(f"--{name} {text!r} is not YAML: {' '.join(str(error).split())}.") from error


def flatten(values: dict, prefix: str = "") -> dict[str, Any]:
    """The values of all entries by their dotted names, such as `model.projection_dim`; empty mappings are values."""
    flat = {}
    for name, value in values.items():
        nested = flatten(value, f"{prefix}{name}.") if isinstance(value, dict) and value else {prefix + name: value}
        flat.update(nested)
    return flat


def check_number(name: str, value: Any) -> None:
    """Checks the numbers of an entry, also within lists.

    Raises:
        UserError: for NaN, infinity, or a whole number beyond `MAX_INTEGER`.
    """
    for number in value if isinstance(value, list) else [value]:
        if isinstance(number, dict):
            for key, of_entry in number.items():
                check_number(f"{name}.{key}", of_entry)
        if isinstance(number, float) and not math.isfinite(number):
            raise UserError(f"{name} must be a finite number, not {number}.")
        if isinstance(number, int) and abs(number) > MAX_INTEGER:
            raise UserError(f"{name} must not be larger than {MAX_INTEGER}.")


def describe_error(error: Exception) -> str:
    """A parser's error as one sentence, with the field that was meant where one is misspelt."""
    text = " ".join(str(error).split())
    if unknown := re.search(r"(?:Option '|unrecognized arguments: --)(\w+)", text):
        return describe_unknown(unknown[1], field_names(PretrainConfig))
    text = re.sub(r"<class '(\w+)'>", r"\1", text.removesuffix("."))
    # Of the types of a union the other one is None.
    text = re.sub(r"Does not validate against any of the Union.*? Errors: - (.*?) - Expected a NoneType.*", r"\1", text)
    return re.sub(r'Parser key "(.*?)":', r"\1:", text) + "."


def describe_unknown(name: str, known: list[str], where: str = "") -> str:
    """Says that there is no such field, and which may have been meant."""
    close = difflib.get_close_matches(name, known, 1)
    return f"There is no field {where + name!r}{f'; did you mean {where + close[0]!r}' if close else ''}."


def check_names(names: Iterable[str], known: list[str], where: str = "") -> None:
    """Checks names of fields.

    Args:
        names: as given.
        known: all that there are.
        where: what the names stand in, with a dot at its end.

    Raises:
        UserError: naming the first unknown one, and which may have been meant.
    """
    for name in names:
        if name not in known:
            raise UserError(describe_unknown(name, known, where))


def field_names(kind: type) -> list[str]:
    """The fields of a dataclass."""
    return [entry.name for entry in fields(kind)]
