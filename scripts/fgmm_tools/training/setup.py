"""What a run trains with: processor, model, optimiser, batches."""

import inspect
from collections.abc import Collection

import torch
from accelerate import Accelerator, PartialState
from datasets import IterableDataset
from huggingface_hub.errors import StrictDataclassError
from tqdm import tqdm
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from modeling_fgmm import FgmmConfig, FgmmModel
from modeling_fgmm.dual_encoders_fgmm import set_pooled_scale
from modeling_fgmm.encoders_fgmm import make_dual_config
from processing_fgmm import FgmmFeatureExtractor, FgmmProcessor, FgmmVideoProcessor
from processing_fgmm.loaders_fgmm import ClipLoader
from processing_fgmm.names_fgmm import explain_absence
from processing_fgmm.processing_fgmm import name_words
from processing_fgmm.rowgroups_fgmm import RowGroups
from processing_fgmm.streams_fgmm import NarratedClips

from ..cli import UserError, ignore_termination
from ..models import check_exists, is_dual_encoder, load_model, load_processor
from .checkpoints import Progress
from .configuration import PretrainConfig
from .parameter_groups import add_adapters
from .tokenizer import (
    add_words,
    find_unknown,
    fit_word_embedding,
    has_whole_words,
    iterate_captions,
    train_word_tokenizer,
    vocabulary_size,
)

# Rows that are read, without their media, to check a corpus and to train a tokenizer.
MAX_ROWS_CHECKED = 100_000
MODALITIES = ("video", "audio", "text")
# What the configuration of a model that is initialised from another takes over from it.
INIT_FIELDS = (
    *("modalities", "frozen", "projection_dim", "audio_padding_value"),
    *("video_config", "audio_config", "text_config", "dual_encoder", "text_padding_side"),
)


def make_processor(config: PretrainConfig, corpora: list[IterableDataset]) -> FgmmProcessor:
    """The processor, initialised from that of `init_from` where it is named, with a tokenizer that knows the corpora.

    Raises:
        UserError: when the corpus has too little to train on, or something named cannot be loaded.
    """
    start = load_init_processor(config.init_from) if config.init_from else None
    tokenizer = load_tokenizer(config.tokenizer) if config.tokenizer else start and start.tokenizer
    texts = read_captions(config, corpora)
    if tokenizer:
        PartialState().print(complete_tokenizer(config, tokenizer, texts))
    else:
        tokenizer = train_word_tokenizer(texts, config.vocab_size, config.min_frequency)
        PartialState().print(describe_unknown(tokenizer, texts))
    processor = FgmmProcessor(
        make_part(FgmmVideoProcessor, config.video_processor, start and start.video_processor),
        make_part(FgmmFeatureExtractor, config.feature_extractor, start and start.feature_extractor),
        tokenizer,
        max_phrase_words=config.max_phrase_words,
        clip_seconds=config.clip_seconds,
        caption_length=start.caption_length if start else None,
    )
    check_processor(processor)
    return processor


def make_part(kind: type, values: dict, start):
    """A video processor or feature extractor.

    Args:
        kind: its class.
        values: of its arguments; others are those of `start`, or else its defaults.
        start: that of a model to initialise from, or None; kept as it is, of whatever class, where no values are given.

    Raises:
        UserError: for values that it does not take.
    """
    if start and not values:
        return start
    names = inspect.signature(kind.__init__).parameters
    taken_over = {name: value for name, value in vars(start).items() if name in names} if type(start) is kind else {}
    try:
        return kind(**{**taken_over, **values})
    except Exception as error:  # whatever transformers meets in values of another type
        raise UserError(f"{kind.__name__} does not take {values}: {describe_cause(error)}.") from error


def check_processor(processor: FgmmProcessor) -> None:
    """Lets the processor make inputs of one black clip, silent and with a caption.

    Raises:
        UserError: when it cannot.
    """
    try:
        make_blank_inputs(processor)
    except Exception as error:  # whatever is met with sizes and rates out of range
        raise UserError(
            f"The processor cannot make inputs with these settings ({describe_cause(error)}); change video_processor "
            "or feature_extractor."
        ) from error


def make_blank_inputs(processor: FgmmProcessor, modalities: Collection[str] = MODALITIES) -> dict[str, torch.Tensor]:
    """Model inputs of one black and silent clip of a second, with a caption."""
    media = {
        "videos": [torch.zeros(1, 3, 64, 64, dtype=torch.uint8)] if "video" in modalities else None,
        "audio": [torch.zeros(processor.feature_extractor.sampling_rate)] if "audio" in modalities else None,
        "text": ["a caption"] if "text" in modalities else None,
    }
    return processor(**media, num_frames=processor.video_processor.num_frames, verbose=False)


def read_captions(config: PretrainConfig, corpora: list[IterableDataset]) -> list[str]:
    """The captions of the training splits.

    Raises:
        UserError: when there is none, there are fewer clips than a batch, or fewer clips of a batch than processes.
    """
    named = ", ".join(repr(entry.dataset) for entry in config.corpora)
    captioned = [corpus for corpus in corpora if "captions" in (corpus.column_names or [])]
    if not captioned:
        raise UserError(f"The corpus {named} has no column 'captions' to learn from.")
    rows = [
        row
        for corpus in captioned
        for row in tqdm(iterate_captions(corpus, MAX_ROWS_CHECKED), desc="Reading captions", unit="row", leave=False)
    ]
    texts = [text for row in rows for text in row]
    if not any(text.strip() for text in texts):
        raise UserError(f"The corpus {named} has no caption anywhere in its split {config.corpora[0].train_split!r}.")
    if len(corpora) == 1 and len(rows) < config.batch_size:
        raise UserError(
            f"The corpus {named} has {len(rows)} clips in its split {config.corpora[0].train_split!r}, fewer than "
            f"batch_size {config.batch_size}; lower batch_size or add clips."
        )
    if config.batch_size < PartialState().num_processes:
        raise UserError(
            f"batch_size {config.batch_size} has no clip for each of {PartialState().num_processes} processes; raise "
            "it."
        )
    return texts


def complete_tokenizer(config: PretrainConfig, tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> str:
    """Adds words of the captions that a tokenizer does not know, if it can be, and says what it knew and knows.

    Args:
        config: of the run, whose `add_words`, `vocab_size` and `min_frequency` hold.
        tokenizer: changed.
        texts: the captions.
    """
    told = describe_unknown(tokenizer, texts)
    if not has_whole_words(tokenizer):
        return f"{told} Its tokens are parts of words, so that no words are added."
    if not config.add_words:
        return f"{told} No words are added, as add_words is false."
    if "text" in frozen_encoders(config):
        return f"{told} No words are added, as the text encoder is frozen."
    number = len(tokenizer)
    added = add_words(tokenizer, texts, config.vocab_size, config.min_frequency)
    if not added:
        return f"{told} No word is added (vocab_size {config.vocab_size}, min_frequency {config.min_frequency})."
    return f"{told} Added {added} words and marks to its {number}. {describe_unknown(tokenizer, texts)}"


def describe_unknown(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> str:
    """Which share of the words of the captions a tokenizer does not know, as a sentence."""
    share, words = find_unknown(tokenizer, texts)
    if not words:
        return "The tokenizer knows all words of the captions."
    return f"The tokenizer does not know {100 * share:.2g}% of the words of the captions: {name_words(words)}."


def frozen_encoders(config: PretrainConfig) -> list[str]:
    """The encoders that the run does not train."""
    start = load_init_config(config.init_from).frozen if config.init_from else []
    return config.model.get("frozen", start)


def load_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """A tokenizer by folder or name on the Hub.

    Raises:
        UserError: when it cannot be loaded.
    """
    if absence := explain_absence(name, "model", "give a folder with a tokenizer, or a model's name on the Hub"):
        raise UserError(f"The tokenizer {absence}")
    try:
        return AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise UserError(f"The tokenizer {name!r} could not be loaded: {first_line(error)}") from error


def make_model(config: PretrainConfig, processor: FgmmProcessor) -> FgmmModel:
    """A model that fits the processor, with random weights, or encoders and projections of `init_from`.

    Raises:
        UserError: for values that a model cannot have, or a model that it cannot be initialised from.
    """
    start = load_init_model(config.init_from) if config.init_from else None
    if start and "text" in start.encoders:
        fit_word_embedding(start, load_init_processor(config.init_from).tokenizer.get_vocab(), processor.tokenizer)
    try:
        model = FgmmModel(make_model_config(config, start and start.config, processor))
    except (ValueError, TypeError, RuntimeError, ArithmeticError) as error:  # of layers of impossible sizes
        raise UserError(f"A model of this configuration cannot be made: {describe_cause(error)}.") from error
    if start:
        copy_encoders(start, model, config.init_from)
    if "video" in model.encoders and model.config.video_config.model_type == "fgmm_video":
        # A third faster convolutions, on CPU and GPU.
        model.encoders["video"].to(memory_format=torch.channels_last_3d)
    if config.lora_rank:
        add_adapters(model, config.lora_rank)
    if config.gradient_checkpointing:
        model.activation_checkpointing_enable()
    return model


def check_model(model: FgmmModel, processor: FgmmProcessor) -> None:
    """Lets the model encode one black clip, silent and with a caption; it stays as it is.

    Raises:
        UserError: when it cannot.
    """
    inputs, is_training = make_blank_inputs(processor, model.config.modalities), model.training
    try:
        with torch.no_grad():
            model.eval()(**inputs)
    except Exception as error:  # whatever is met in layers that do not fit each other or the inputs
        raise UserError(
            f"The model cannot encode a clip with these settings ({describe_cause(error)}); change model, "
            "video_processor or feature_extractor."
        ) from error
    finally:
        model.train(is_training)


def make_model_config(
    config: PretrainConfig, start: FgmmConfig | None, processor: FgmmProcessor | None = None
) -> FgmmConfig:
    """The model's configuration: the fields of `start`, sizes that the processor sets, then the run's own fields.

    Args:
        config: of the run.
        start: of the model to initialise from.
        processor: sets vocabulary, padding token and mel bands of our encoders.

    Raises:
        UserError: for options that FgmmConfig does not have, or values that it does not take.
    """
    taken_over = {name: start.to_dict()[name] for name in INIT_FIELDS} if start else {}
    sizes = {part: {} for part in FgmmConfig.sub_configs}
    if processor:
        tokenizer = processor.tokenizer
        sizes["text_config"] = {"vocab_size": vocabulary_size(tokenizer), "pad_token_id": tokenizer.pad_token_id}
        sizes["audio_config"] = {"num_mel_bins": processor.feature_extractor.feature_size}
    values = {**taken_over, **config.model}
    for part, fitting in sizes.items():
        own = config.model.get(part, {})
        if not isinstance(own, dict):
            raise UserError(f"The field 'model.{part}' must hold `field: value` pairs, not {own!r}.")
        of_start = taken_over.get(part, {})
        own_type = FgmmConfig.sub_configs[part].model_type
        if of_start.get("model_type", own_type) != own_type:  # one of transformers' encoders, with its own processor
            fitting = {}
        values[part] = {**of_start, **fitting, **own}
    try:
        return FgmmConfig(**values)
    except (StrictDataclassError, ValueError, TypeError) as error:
        raise UserError(f"The field 'model' is wrong: {describe_cause(error)}.") from error


def describe_cause(error: Exception) -> str:
    """What was wrong, without the lines around it of huggingface_hub's checks; no full stop at its end."""
    cause = error.__cause__ if isinstance(error, StrictDataclassError) and error.__cause__ else error
    return (" ".join(str(cause).split()) or type(cause).__name__).rstrip(".")


def load_init_model(name: str) -> FgmmModel:
    """The model to initialise from.

    Raises:
        UserError: when it cannot be loaded, or is no fgmm model.
    """
    load_init_config(name)
    return load_model(name)[0]


def load_init_processor(name: str) -> FgmmProcessor:
    """The processor of the model to initialise from.

    Raises:
        UserError: when it cannot be loaded.
    """
    load_init_config(name)
    try:
        return load_processor(name)
    except (OSError, ValueError) as error:
        raise UserError(f"The processor of {name!r} could not be loaded: {first_line(error)}") from error


def load_init_config(name: str) -> FgmmConfig:
    """The configuration of the model to initialise from.

    Raises:
        UserError: when it cannot be loaded, or is that of another kind of model.
    """
    check_exists(name)
    try:
        values, _ = FgmmConfig.get_config_dict(name)
        if values.get("model_type") == FgmmConfig.model_type:
            return FgmmConfig.from_dict(values)
        if is_dual_encoder(values.get("model_type")):
            return make_dual_config(name, encoders={}, frozen=[], options={})
    except (OSError, StrictDataclassError, ValueError, TypeError) as error:
        raise UserError(f"The model {name!r} could not be loaded: {first_line(error)}") from error
    raise UserError(
        f"The model {name!r} is of type {values.get('model_type')!r}, not fgmm; give one of ours, or a dual encoder."
    )


def first_line(error: Exception) -> str:
    """Of a message of many lines, as transformers' are."""
    return str(error).splitlines()[0]


def copy_encoders(start: FgmmModel, model: FgmmModel, name: str) -> None:
    """Copies the encoders and projections that both models have, and a dual encoder's logit scale and bias.

    Args:
        start: model to copy from.
        model: model to copy into.
        name: of `start`.

    Raises:
        UserError: naming the first weight whose shapes differ.
    """
    state = {key: value for key, value in start.state_dict().items() if not key.startswith("objectives.")}
    for key, value in model.state_dict().items():
        if key in state and state[key].shape != value.shape:
            raise UserError(
                f"{key} of the model {name!r} has shape {tuple(state[key].shape)}, but the configuration asks for "
                f"{tuple(value.shape)}; leave out the fields of `model` in which they differ."
            )
    model.load_state_dict({key: value for key, value in state.items() if key in model.state_dict()}, strict=False)
    if start.config.dual_encoder:
        for pair in start.objectives.keys() & model.objectives.keys():
            set_pooled_scale(model.objectives[pair], *start.objectives[pair].pooled_scale_and_bias())


def synchronise_batch_norm(model: FgmmModel, accelerator: Accelerator) -> FgmmModel:
    """The model with statistics of the clips of all processes in its batch normalisation; the weights are the same.

    Raises:
        UserError: for several processes without GPUs, for which PyTorch has no such layers.
    """
    if accelerator.num_processes > 1 and accelerator.device.type == "cpu":
        raise UserError("sync_batch_norm works on GPUs only; leave it out, or train with one process.")
    return torch.nn.SyncBatchNorm.convert_sync_batchnorm(model)


def make_optimizer(groups: list[dict]) -> torch.optim.Optimizer:
    """AdamW over groups of parameters, see [`make_parameter_groups`]."""
    return torch.optim.AdamW(groups, betas=(0.9, 0.98), fused=True)


def make_batches(
    config: PretrainConfig,
    corpora: list[RowGroups],
    processor: FgmmProcessor,
    modalities: list[str],
    accelerator: Accelerator,
    progress: Progress,
) -> ClipLoader:
    """This process's share of the endless batches of training clips, from where the run's progress is."""
    clips = NarratedClips(
        corpora,
        processor,
        batch_size=config.batch_size,
        weights=config.corpus_weights,
        num_captions=config.num_captions,
        with_video="video" in modalities,
        with_audio="audio" in modalities,
        seed=config.seed,
        block_size=config.block_size,
        min_crop_area=config.min_crop_area,
        flip=config.flip,
        rank=accelerator.process_index,
        world_size=accelerator.num_processes,
        state=progress.stream,
    )
    return ClipLoader(clips, config.num_workers, accelerator.device, ignore_termination)
