"""What is checked before a run starts, and how its configuration is filled in: as it runs, and as it is recorded."""

import inspect
from dataclasses import replace
from importlib.util import find_spec

from accelerate import Accelerator
from accelerate.tracking import get_available_trackers

from processing_fgmm import FgmmFeatureExtractor, FgmmProcessor, FgmmVideoProcessor
from processing_fgmm.corpora_fgmm import list_splits, load_corpus

from ..cli import UserError
from .configuration import PretrainConfig, check_names
from .setup import load_init_config, load_init_processor, load_tokenizer, make_model_config


def check_config(config: PretrainConfig) -> None:
    """Checks what the command line could not without the libraries that train.

    Raises:
        UserError: naming the first field that does not exist or has no effect, what is not installed, a tokenizer that
            cannot be loaded, or a model to initialise from that is none of ours.
    """
    make_model_config(config, load_init_config(config.init_from) if config.init_from else None)
    if config.tokenizer:
        load_tokenizer(config.tokenizer)
    for part, kind in (("video_processor", FgmmVideoProcessor), ("feature_extractor", FgmmFeatureExtractor)):
        names = inspect.signature(kind.__init__).parameters  # transformers' classes take misspelt ones in silence
        check_names(getattr(config, part), list(names), f"{part}.")
    available = [str(tracker) for tracker in get_available_trackers()]
    for name in config.trackers:
        if name not in available:
            raise UserError(
                f"The tracker {name!r} is not installed or unknown; there are {', '.join(available) or 'none'} "
                "(pip install 'fgmm[trackers]')."
            )
    if config.trackers and config.picture_steps and not find_spec("matplotlib"):
        raise UserError("Pictures need the extra eval (pip install 'fgmm[eval]'); or give --picture_steps 0.")
    if config.eval_steps and not find_spec("evaluate"):
        raise UserError("Evaluation needs the extra eval (pip install 'fgmm[eval]'); or give --eval_steps 0.")
    if config.lora_rank and not find_spec("peft"):
        raise UserError("lora_rank needs the extra lora (pip install 'fgmm[lora]').")
    if config.sync_batch_norm and config.encoder_chunk_size:  # processes may encode different numbers of chunks
        raise UserError("sync_batch_norm has no chunks to work on together; leave out it or encoder_chunk_size.")


def settle_config(config: PretrainConfig, accelerator: Accelerator) -> PretrainConfig:
    """The configuration with all that it leaves open: as it runs, and as it is recorded.

    What the processor of `init_from` sets is taken over; a corpus without the split `test` is not evaluated on.

    Args:
        config: as given.
        accelerator: says that there will be no evaluation.

    Raises:
        UserError: when another evaluation split does not exist.
        CorpusError: when the evaluation split cannot be used.
    """
    start = load_init_processor(config.init_from) if config.init_from else None
    defaults = inspect.signature(FgmmProcessor.__init__).parameters
    settled = {
        name: getattr(start, name) if start else defaults[name].default
        for name in ("clip_seconds", "max_phrase_words")
        if getattr(config, name) is None
    }
    if config.eval_steps:
        dataset, config_name = config.corpora[0].dataset, config.corpora[0].dataset_config
        splits = list_splits(dataset, config_name)
        if config.eval_split in splits:
            load_corpus(dataset, config.eval_split, config_name)
        elif config.eval_split == PretrainConfig.eval_split:
            settled["eval_steps"] = 0
            accelerator.print(f"{dataset} has no split {config.eval_split!r}: training without evaluation.")
        else:
            raise UserError(
                f"{dataset} has no split {config.eval_split!r}, only {', '.join(splits)}; give one of them as "
                "eval_split, or --eval_steps 0."
            )
    return replace(config, **settled)
