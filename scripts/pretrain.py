"""Pretrains a model on a corpus of narrated clips.

    accelerate launch scripts/pretrain.py --config scripts/configs/fgmm-tiny.yaml
    accelerate launch scripts/pretrain.py --config scripts/configs/fgmm-tiny.yaml --learning_rate 5e-4 --seed 1
    accelerate launch scripts/pretrain.py --config scripts/configs/fgmm-tiny.yaml --resume_from latest

Any field of `PretrainConfig` is set in the file or, as `--field value`, on the command line, which wins; entries of
its mappings are reached with a dot (`--model.projection_dim 64`).
"""

import dataclasses
import difflib
import inspect
import json
import shutil
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch
import yaml
from accelerate import Accelerator
from accelerate.tracking import get_available_trackers
from accelerate.utils import gather_object, set_seed
from evaluate_retrieval import evaluate_retrieval, format_table
from gradient_cache import cached_backward, split_batch
from huggingface_hub.dataclasses import strict
from huggingface_hub.errors import StrictDataclassError
from records import describe_run
from torch.utils.data import DataLoader
from tqdm import tqdm
from train_tokenizer import iterate_captions, train_word_tokenizer
from transformers import AutoTokenizer, get_cosine_schedule_with_warmup

from modeling_fgmm import FgmmConfig, FgmmModel
from processing_fgmm import FgmmFeatureExtractor, FgmmProcessor, FgmmVideoProcessor
from processing_fgmm.corpora_fgmm import CorpusError, NarratedClips, load_corpus

# Rows that are read, without their media, to check a corpus and to train a tokenizer.
MAX_ROWS_CHECKED = 100_000


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


class UsageError(Exception):
    """A mistake in the configuration: one sentence for the user."""


def parse_config(arguments: list[str]) -> PretrainConfig:
    """Reads `--config FILE` and `--field value` pairs.

    Raises:
        UsageError: for an unknown field, a value of the wrong type, or a file that is not there.
    """
    if not arguments or arguments[0] in ("-h", "--help"):
        fields = "\n".join(f"  --{entry.name}" for entry in dataclasses.fields(PretrainConfig))
        raise UsageError(f"{__doc__}\nFields:\n  --config\n{fields}")
    pairs, rest = [], list(arguments)
    while rest:
        name = rest.pop(0)
        if not name.startswith("--"):
            raise UsageError(f"{name!r} is not an option; write --field value.")
        name, equals, value = name[2:].partition("=")
        if not equals:
            if not rest:
                raise UsageError(f"--{name} has no value.")
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
        raise UsageError(f"The configuration {path!r} cannot be read: {error.strerror}.") from error
    except yaml.YAMLError as error:
        raise UsageError(f"The configuration {path!r} is not valid YAML: {' '.join(str(error).split())}.") from error
    if not isinstance(content, dict):
        raise UsageError(f"The configuration {path!r} does not hold `field: value` lines.")
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
        UsageError: naming the first unknown one, and what was meant.
    """
    if not isinstance(values, dict):
        raise UsageError(f"The field {where.rstrip('.')!r} must hold `field: value` pairs, not {values!r}.")
    for name in values:
        if name not in known:
            close = difflib.get_close_matches(name, known, 1)
            hint = f"; did you mean {close[0]!r}" if close else ""
            raise UsageError(f"There is no field {where + name!r}{hint}.")


def make_config(values: dict) -> PretrainConfig:
    """The typed configuration.

    Raises:
        UsageError: naming the field.
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
        raise UsageError(f"The configuration is wrong: {' '.join(str(error).split())}.") from error
    for name in ("dataset", "output_dir"):
        if not getattr(config, name):
            raise UsageError(f"The field {name!r} is not set; give --{name} or put it into the configuration file.")
    if config.encoder_chunk_size < 0:
        raise UsageError(f"encoder_chunk_size is {config.encoder_chunk_size}, but must be 0 or positive.")
    positive = ("batch_size", "gradient_accumulation_steps", "max_steps", "clip_seconds", "num_captions", "block_size")
    for name in (*positive, "log_steps", "learning_rate"):
        if getattr(config, name) <= 0:
            raise UsageError(f"{name} is {getattr(config, name)}, but must be positive.")
    if config.batch_size < 2:
        raise UsageError("batch_size is 1, but a contrast needs at least 2 clips.")
    if config.mixed_precision not in ("no", "bf16", "fp16"):
        raise UsageError(f"mixed_precision is {config.mixed_precision!r}, but must be no, bf16 or fp16.")
    for name in config.trackers:
        if name not in (available := [str(tracker) for tracker in get_available_trackers()]):
            raise UsageError(f"The tracker {name!r} is not installed or unknown; there are {', '.join(available)}.")
    if not 0 < config.min_crop_area <= 1:
        raise UsageError(f"min_crop_area is {config.min_crop_area}, but must be above 0 and at most 1.")
    return config


def make_processor(config: PretrainConfig, corpus) -> FgmmProcessor:
    """The processor, with a tokenizer of the corpus' own words where none is named.

    Raises:
        UsageError: when the corpus has no caption anywhere, or fewer clips than a batch, or there is no such tokenizer.
    """
    if "captions" not in (corpus.column_names or []):
        raise UsageError(f"The corpus {config.dataset!r} has no column 'captions' to learn from.")
    rows = list(tqdm(iterate_captions(corpus, MAX_ROWS_CHECKED), desc="Reading captions", unit="row", leave=False))
    texts = [text for row in rows for text in row]
    if not any(text.strip() for text in texts):
        raise UsageError(f"The corpus {config.dataset!r} has no caption anywhere in its split {config.train_split!r}.")
    if len(rows) < config.batch_size:
        raise UsageError(
            f"The corpus {config.dataset!r} has {len(rows)} clips, fewer than batch_size {config.batch_size}."
        )
    start = load_start_processor(config.init_from) if config.init_from else None
    if config.tokenizer:
        try:
            tokenizer = AutoTokenizer.from_pretrained(config.tokenizer)
        except (OSError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise UsageError(f"The tokenizer {config.tokenizer!r} could not be loaded: {reason}") from error
    elif start:
        tokenizer = start.tokenizer
    else:
        tokenizer = train_word_tokenizer(texts, config.vocab_size, config.min_frequency)
    video_processor, feature_extractor = config.video_processor, config.feature_extractor
    return FgmmProcessor(
        start.video_processor if start and not video_processor else FgmmVideoProcessor(**video_processor),
        start.feature_extractor if start and not feature_extractor else FgmmFeatureExtractor(**feature_extractor),
        tokenizer,
        max_phrase_words=config.max_phrase_words,
        clip_seconds=config.clip_seconds,
    )


def make_model(config: PretrainConfig, processor: FgmmProcessor) -> FgmmModel:
    """A model that fits the processor, with random weights but for what it goes on from.

    Raises:
        UsageError: for values that FgmmConfig does not take, or a model that cannot be gone on from.
    """
    start = load_start(config.init_from) if config.init_from else None
    given = {name: start.config.to_dict()[name] for name in START_FIELDS} if start else {}
    parts = {
        "video_config": {},
        "text_config": {"vocab_size": len(processor.tokenizer), "pad_token_id": processor.tokenizer.pad_token_id},
        "audio_config": {"num_mel_bins": processor.feature_extractor.feature_size},
    }
    values = {**given, **config.model}
    for part, fitting in parts.items():
        own_type = FgmmConfig.sub_configs[part].model_type
        known = given.get(part, {})
        if known.get("model_type", own_type) != own_type:  # one of transformers' encoders, with a processor of its own
            fitting = {}
        values[part] = {**known, **fitting, **config.model.get(part, {})}
    try:
        model = FgmmModel(FgmmConfig(**values))
    except (StrictDataclassError, ValueError, TypeError) as error:
        raise UsageError(f"The model's configuration is wrong: {' '.join(str(error).split())}.") from error
    if start:
        copy_encoders(start, model, config.init_from)
    if "video" in model.encoders and model.config.video_config.model_type == "fgmm_video":
        # A third faster convolutions, on CPU and GPU.
        model.encoders["video"].to(memory_format=torch.channels_last_3d)
    if config.gradient_checkpointing:
        model.gradient_checkpointing_enable()
    return model


# What a model that is gone on from says of the new one's configuration.
START_FIELDS = (
    *("modalities", "frozen", "projection_dim", "audio_padding_value"),
    *("video_config", "audio_config", "text_config"),
)


def load_start(name: str) -> FgmmModel:
    """The model to go on from.

    Raises:
        UsageError: when there is none of that name, or it is none of ours.
    """
    check_start(name)
    try:
        return FgmmModel.from_pretrained(name)
    except OSError as error:
        raise UsageError(f"The model {name!r} could not be loaded: {str(error).splitlines()[0]}") from error


def load_start_processor(name: str) -> FgmmProcessor:
    """The processor of the model to go on from.

    Raises:
        UsageError: when there is none.
    """
    check_start(name)
    try:
        return FgmmProcessor.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise UsageError(f"The processor of {name!r} could not be loaded: {str(error).splitlines()[0]}") from error


def check_start(name: str) -> None:
    """Checks what a model to go on from is.

    Raises:
        UsageError: when there is none of that name, or it is none of ours.
    """
    try:
        values, _ = FgmmConfig.get_config_dict(name)
    except OSError as error:
        raise UsageError(f"The model {name!r} could not be loaded: {str(error).splitlines()[0]}") from error
    if values.get("model_type") != FgmmConfig.model_type:
        raise UsageError(f"The model {name!r} is of type {values.get('model_type')!r}, not fgmm; give one of ours.")


def copy_encoders(start: FgmmModel, model: FgmmModel, name: str) -> None:
    """Copies the encoders and projections that both have.

    Raises:
        UsageError: naming the first weight that does not fit.
    """
    state = {key: value for key, value in start.state_dict().items() if not key.startswith("objectives.")}
    for key, value in model.state_dict().items():
        if key in state and state[key].shape != value.shape:
            raise UsageError(
                f"{key} of the model {name!r} has shape {tuple(state[key].shape)}, but the configuration asks for "
                f"{tuple(value.shape)}; leave out the fields of `model` in which they differ."
            )
    model.load_state_dict({key: value for key, value in state.items() if key in model.state_dict()}, strict=False)


def make_optimizer(model: FgmmModel, config: PretrainConfig) -> torch.optim.Optimizer:
    """AdamW; biases, norms, scales and sharpness do not decay."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=(0.9, 0.98), fused=True)


def find_checkpoint(config: PretrainConfig) -> Path | None:
    """The checkpoint to go on from, or None to begin anew.

    Raises:
        UsageError: when it is not a whole checkpoint.
    """
    if not config.resume_from:
        return None
    if config.resume_from == "latest":
        checkpoints = list_checkpoints(config)
        return checkpoints[-1] if checkpoints else None
    if not (Path(config.resume_from) / "progress.json").exists():
        raise UsageError(f"{config.resume_from!r} is not a checkpoint: it has no progress.json.")
    return Path(config.resume_from)


def list_checkpoints(config: PretrainConfig) -> list[Path]:
    """Whole checkpoints, oldest first."""
    folders = (Path(config.output_dir) / "checkpoints").glob("step-*")
    return sorted(folder for folder in folders if not folder.name.endswith(".partial"))


def save_checkpoint(
    accelerator: Accelerator, config: PretrainConfig, step: int, epoch: int, position: int, seconds: float
) -> None:
    """Weights, optimiser, schedule, random states and each process's place in the data; whole or not at all."""
    streams = gather_object([[epoch, position]])
    folder = Path(config.output_dir) / "checkpoints" / f"step-{step:07d}"
    partial = folder.with_name(folder.name + ".partial")
    accelerator.save_state(str(partial))
    if accelerator.is_main_process:
        (partial / "progress.json").write_text(json.dumps({"step": step, "streams": streams, "seconds": seconds}))
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
        for old in list_checkpoints(config)[: -config.save_total_limit]:
            shutil.rmtree(old)
    accelerator.wait_for_everyone()


def clips_of_step(config: PretrainConfig, accelerator: Accelerator) -> int:
    """Clips that stand in one contrast."""
    return config.batch_size * config.gradient_accumulation_steps * accelerator.num_processes


def save_model(
    accelerator: Accelerator, model, processor: FgmmProcessor, config: PretrainConfig, seconds: float
) -> None:
    """The folder that AutoModel and AutoProcessor load, the configuration of the run, and what it took."""
    if accelerator.is_main_process:
        accelerator.unwrap_model(model).save_pretrained(config.output_dir)
        processor.save_pretrained(config.output_dir)
        text = yaml.safe_dump(dataclasses.asdict(config), sort_keys=False)
        (Path(config.output_dir) / "pretrain.yaml").write_text(text)
        clips_seen = config.max_steps * clips_of_step(config, accelerator)
        record = {"seed": config.seed, "clips_seen": clips_seen, **describe_run(seconds)}
        (Path(config.output_dir) / "training.json").write_text(json.dumps(record, indent=2) + "\n")
    accelerator.wait_for_everyone()


class FailureCount:
    """Counts the clips that could not be decoded, names them, and stops when they are too many."""

    def __init__(self, max_share: float):
        self.max_share = max_share
        self.failed = 0
        self.seen = 0

    def add(self, batch) -> None:
        self.seen += batch.num_clips + len(batch.failures)
        self.failed += len(batch.failures)
        for message in batch.failures:
            tqdm.write(f"Skipped a clip: {message}")
        if (self.seen >= 100 and self.failed > self.max_share * self.seen) or not batch.num_clips:
            raise UsageError(
                f"{self.failed} of {self.seen} clips could not be decoded, more than max_failed_share "
                f"{self.max_share} allows; the messages above name them."
            )


def train(config: PretrainConfig) -> None:
    """One run, from the corpus to the model folder."""
    try:
        Path(config.output_dir).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"The output_dir {config.output_dir!r} cannot be made: {error.strerror}.") from error
    checkpoint = find_checkpoint(config)
    corpus = load_corpus(config.dataset, config.train_split, config.dataset_config)
    accelerator = Accelerator(
        mixed_precision=config.mixed_precision, log_with=config.trackers or None, project_dir=config.output_dir
    )
    set_seed(config.seed)  # the same initial weights in every process
    processor = make_processor(config, corpus)
    model = make_model(config, processor)
    modalities = model.config.modalities
    sizes = {name: sum(p.numel() for p in encoder.parameters()) for name, encoder in model.encoders.items()}
    optimizer = make_optimizer(model, config)
    scheduler = get_cosine_schedule_with_warmup(optimizer, config.warmup_steps, config.max_steps)
    model, optimizer = accelerator.prepare(model, optimizer)
    accelerator.register_for_checkpointing(scheduler)
    if config.trackers:
        plain = {k: v for k, v in dataclasses.asdict(config).items() if isinstance(v, (int, float, str))}
        accelerator.init_trackers("fgmm", config=plain)
    accelerator.print(
        f"Pretraining {' + '.join(f'{name} {size / 1e6:.2f} M' for name, size in sizes.items())} parameters on "
        f"{config.dataset}: {config.max_steps} steps of {clips_of_step(config, accelerator)} clips."
    )

    step, epoch, position, begun = 0, 0, 0, time.monotonic()
    if checkpoint:
        accelerator.load_state(str(checkpoint))
        progress = json.loads((checkpoint / "progress.json").read_text())
        if len(progress["streams"]) != accelerator.num_processes:
            raise UsageError(f"{checkpoint} was written by {len(progress['streams'])} processes; start as many.")
        step, (epoch, position) = progress["step"], progress["streams"][accelerator.process_index]
        begun -= progress["seconds"]
        accelerator.print(f"Going on from {checkpoint}, step {step}.")

    clips = NarratedClips(
        corpus,
        processor,
        batch_size=config.batch_size,
        num_captions=config.num_captions,
        with_video="video" in modalities,
        with_audio="audio" in modalities,
        seed=config.seed,
        block_size=config.block_size,
        min_crop_area=config.min_crop_area,
        flip=config.flip,
        rank=accelerator.process_index,
        world_size=accelerator.num_processes,
        epoch=epoch,
        position=position,
    )
    # Workers that are forked would inherit this process's thread pools; two threads each are enough to decode.
    batches = iter(
        DataLoader(clips, batch_size=None, num_workers=config.num_workers, pin_memory=torch.cuda.is_available())
    )
    failures = FailureCount(config.max_failed_share)
    bar = tqdm(total=config.max_steps, initial=step, unit="step", disable=not accelerator.is_main_process)
    losses, clips_seen, started = [], 0, time.monotonic()
    model.train()
    while step < config.max_steps:
        chunks = []
        for _ in range(config.gradient_accumulation_steps):
            batch = next(batches)
            failures.add(batch)
            inputs = {name: value.to(accelerator.device, non_blocking=True) for name, value in batch.inputs.items()}
            chunks += split_batch(inputs, config.encoder_chunk_size)
            clips_seen += batch.num_clips * accelerator.num_processes
        if config.encoder_chunk_size or config.gradient_accumulation_steps > 1:
            loss = cached_backward(accelerator, model, chunks)
        else:
            with accelerator.autocast():
                loss = model(**chunks[0], return_loss=True).loss
            accelerator.backward(loss)
        accelerator.clip_grad_norm_(model.parameters(), config.max_grad_norm)
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
        step += 1
        bar.update()
        losses.append(loss.detach())

        if step % config.log_steps == 0 or step == config.max_steps:
            mean_loss = accelerator.reduce(torch.stack(losses).mean(), "mean").item()
            if mean_loss != mean_loss:
                raise UsageError(f"The loss is not a number at step {step}; lower learning_rate or use bf16.")
            rate = clips_seen / (time.monotonic() - started)
            bar.set_postfix(loss=f"{mean_loss:.3f}", clips_per_s=f"{rate:.0f}", failed=failures.failed)
            values = {"loss": mean_loss, "clips_per_s": rate, "learning_rate": scheduler.get_last_lr()[0]}
            accelerator.log({**values, "failed_clips": failures.failed}, step=step)
            losses, clips_seen, started = [], 0, time.monotonic()
        if (config.save_steps and step % config.save_steps == 0) or step == config.max_steps:
            save_checkpoint(accelerator, config, step, batch.epoch, batch.position, time.monotonic() - begun)
        if config.eval_steps and step % config.eval_steps == 0 and step < config.max_steps:
            evaluate(accelerator, model, processor, config, step)
            started = time.monotonic()
    bar.close()
    save_model(accelerator, model, processor, config, time.monotonic() - begun)
    if config.eval_steps:
        evaluate(accelerator, model, processor, config, step)
    accelerator.print(f"Saved the model in {config.output_dir}; {failures.failed} clips could not be decoded.")
    accelerator.end_training()


def evaluate(accelerator: Accelerator, model, processor: FgmmProcessor, config: PretrainConfig, step: int) -> None:
    """Retrieval among the first clips of the evaluation split, on the main process."""
    if accelerator.is_main_process:
        model.eval()
        corpus = load_corpus(config.dataset, config.eval_split, config.dataset_config).take(config.eval_clips)
        results = evaluate_retrieval(accelerator.unwrap_model(model), processor, corpus)
        tqdm.write(f"Step {step}\n{format_table(results)}")
        scores = {f"{direction}/{name}": value for direction, r in results.items() for name, value in r.items()}
        accelerator.log(scores, step=step)
        model.train()
    accelerator.wait_for_everyone()


if __name__ == "__main__":
    try:
        train(parse_config(sys.argv[1:]))
    except (UsageError, CorpusError) as error:
        sys.exit(str(error))
