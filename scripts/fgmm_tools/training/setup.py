"""Processor, model and optimizer of a run."""

import torch
from huggingface_hub.errors import StrictDataclassError
from tqdm import tqdm
from transformers import AutoTokenizer

from modeling_fgmm import FgmmConfig, FgmmModel
from processing_fgmm import FgmmFeatureExtractor, FgmmProcessor, FgmmVideoProcessor

from ..cli import UserError
from .configuration import PretrainConfig
from .tokenizer import iterate_captions, train_word_tokenizer

# Rows that are read, without their media, to check a corpus and to train a tokenizer.
MAX_ROWS_CHECKED = 100_000


def make_processor(config: PretrainConfig, corpus) -> FgmmProcessor:
    """The processor, with a tokenizer of the corpus' own words where none is named.

    Raises:
        UserError: when the corpus has no caption anywhere, or fewer clips than a batch, or there is no such tokenizer.
    """
    if "captions" not in (corpus.column_names or []):
        raise UserError(f"The corpus {config.dataset!r} has no column 'captions' to learn from.")
    rows = list(tqdm(iterate_captions(corpus, MAX_ROWS_CHECKED), desc="Reading captions", unit="row", leave=False))
    texts = [text for row in rows for text in row]
    if not any(text.strip() for text in texts):
        raise UserError(f"The corpus {config.dataset!r} has no caption anywhere in its split {config.train_split!r}.")
    if len(rows) < config.batch_size:
        raise UserError(
            f"The corpus {config.dataset!r} has {len(rows)} clips, fewer than batch_size {config.batch_size}."
        )
    start = load_init_processor(config.init_from) if config.init_from else None
    if config.tokenizer:
        try:
            tokenizer = AutoTokenizer.from_pretrained(config.tokenizer)
        except (OSError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise UserError(f"The tokenizer {config.tokenizer!r} could not be loaded: {reason}") from error
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
        UserError: for values that FgmmConfig does not take, or a model that cannot be gone on from.
    """
    start = load_init_model(config.init_from) if config.init_from else None
    given = {name: start.config.to_dict()[name] for name in INIT_FIELDS} if start else {}
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
        raise UserError(f"The model's configuration is wrong: {' '.join(str(error).split())}.") from error
    if start:
        copy_encoders(start, model, config.init_from)
    if "video" in model.encoders and model.config.video_config.model_type == "fgmm_video":
        # A third faster convolutions, on CPU and GPU.
        model.encoders["video"].to(memory_format=torch.channels_last_3d)
    if config.gradient_checkpointing:
        model.gradient_checkpointing_enable()
    return model


# What a model that is gone on from says of the new one's configuration.
INIT_FIELDS = (
    *("modalities", "frozen", "projection_dim", "audio_padding_value"),
    *("video_config", "audio_config", "text_config"),
)


def load_init_model(name: str) -> FgmmModel:
    """The model to go on from.

    Raises:
        UserError: when there is none of that name, or it is none of ours.
    """
    check_init_model(name)
    try:
        return FgmmModel.from_pretrained(name)
    except OSError as error:
        raise UserError(f"The model {name!r} could not be loaded: {str(error).splitlines()[0]}") from error


def load_init_processor(name: str) -> FgmmProcessor:
    """The processor of the model to go on from.

    Raises:
        UserError: when there is none.
    """
    check_init_model(name)
    try:
        return FgmmProcessor.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise UserError(f"The processor of {name!r} could not be loaded: {str(error).splitlines()[0]}") from error


def check_init_model(name: str) -> None:
    """Checks what a model to go on from is.

    Raises:
        UserError: when there is none of that name, or it is none of ours.
    """
    try:
        values, _ = FgmmConfig.get_config_dict(name)
    except OSError as error:
        raise UserError(f"The model {name!r} could not be loaded: {str(error).splitlines()[0]}") from error
    if values.get("model_type") != FgmmConfig.model_type:
        raise UserError(f"The model {name!r} is of type {values.get('model_type')!r}, not fgmm; give one of ours.")


def copy_encoders(start: FgmmModel, model: FgmmModel, name: str) -> None:
    """Copies the encoders and projections that both have.

    Raises:
        UserError: naming the first weight that does not fit.
    """
    state = {key: value for key, value in start.state_dict().items() if not key.startswith("objectives.")}
    for key, value in model.state_dict().items():
        if key in state and state[key].shape != value.shape:
            raise UserError(
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
