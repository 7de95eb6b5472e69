"""A run as it trains: its parts, made ready, and one optimiser step."""

import gc
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer
from accelerate.utils import set_seed
from torch.optim.lr_scheduler import LambdaLR
from transformers import get_cosine_schedule_with_warmup
from transformers.utils import ModelOutput

from modeling_fgmm import FgmmModel
from processing_fgmm import FgmmProcessor
from processing_fgmm.streams_fgmm import Batch

from .checkpoints import Progress, load_checkpoint, read_progress
from .configuration import PretrainConfig
from .corpora import TrainingCorpus
from .cost import counting_operations
from .gradient_cache import cached_backward, split_batch
from .monitoring import SkippedSteps, describe_resumption, describe_sizes, suggest_threads
from .parameter_groups import make_parameter_groups
from .run_folder import Run
from .setup import check_model, make_batches, make_model, make_optimizer, make_processor, synchronise_batch_norm
from .sharding import average_whole_gradients, prepare_sharding
from .trackers import Tracking


@dataclass
class Training:
    """What a run trains with.

    config: of the run.
    accelerator: that has prepared model and optimiser.
    processor: makes the model inputs.
    model, optimizer: as prepared; None after [`release`].
    scheduler: of the learning rate.
    batches: this process's share of the batches, without end.
    progress: of the run.
    tracking: what its trackers are told.
    """

    config: PretrainConfig
    accelerator: Accelerator
    processor: FgmmProcessor
    model: torch.nn.Module | None
    optimizer: AcceleratedOptimizer | None
    scheduler: LambdaLR
    batches: Iterator[Batch]
    progress: Progress
    tracking: Tracking

    @property
    def module(self) -> FgmmModel:
        """The model without wrappers."""
        return self.accelerator.unwrap_model(self.model)

    def release(self) -> None:
        """Frees the wrapped model and the optimiser, which must be done before the process group ends.

        A wrapped model that is the group's last owner waits in its destructor for gloo's threads while it holds the
        interpreter's lock, which one of them may need to end: now and then a process would hang for ever.
        """
        self.model = self.optimizer = None
        self.accelerator.free_memory()
        gc.collect()


def prepare_training(
    config: PretrainConfig, corpora: list[TrainingCorpus], accelerator: Accelerator, run: Run
) -> Training:
    """Makes what a run trains with, as at its start or as in its checkpoint, and prints its sizes.

    Raises:
        UserError: when something named cannot be loaded, or does not fit.
    """
    set_seed(config.seed)  # the same initial weights in every process
    processor = make_processor(config, [corpus.stream for corpus in corpora])
    model = make_model(config, processor)
    check_model(model, processor)
    if config.sync_batch_norm:
        model = synchronise_batch_norm(model, accelerator)
    accelerator.print(describe_sizes(config, model))
    if hint := suggest_threads(accelerator):
        accelerator.print(hint)
    rates = (config.learning_rate, config.weight_decay, config.encoder_learning_rate, config.layer_decay)
    optimizer = make_optimizer(make_parameter_groups(model, *rates))
    prepare_sharding(accelerator, model, optimizer)
    scheduler = get_cosine_schedule_with_warmup(optimizer, config.warmup_steps, config.max_steps)
    modalities = model.config.modalities
    model, optimizer = accelerator.prepare(model, optimizer)
    tracking = Tracking(accelerator, model, config, processor, run)

    progress = read_progress(run.checkpoint) if run.checkpoint else Progress()
    rows = [corpus.rows for corpus in corpora]
    batches = iter(make_batches(config, rows, processor, modalities, accelerator, progress))
    if run.checkpoint:  # last of all, as what is above draws random numbers
        load_checkpoint(run.checkpoint, accelerator, optimizer, scheduler, config.seed)
        accelerator.print(describe_resumption(run, progress))
    model.train()
    return Training(config, accelerator, processor, model, optimizer, scheduler, batches, progress, tracking)


def take_step(
    training: Training, batches: list[Batch], skipped: SkippedSteps
) -> tuple[torch.Tensor | None, dict[str, ModelOutput]]:
    """Takes one optimiser step on batches of clips, which are contrasted together.

    Args:
        training: whose weights and progress change.
        batches: of this process; B clips in all.
        skipped: to which the step is added if its loss is not a number; the weights then stay as they are.

    Returns:
        this process's loss, a scalar without graph, None for a step that is left out; and the encoders' outputs by
        modality, of B items.

    Raises:
        UserError: when too many steps are left out.
    """
    accelerator, model, progress = training.accelerator, training.model, training.progress
    buffers = [buffer.clone() for buffer in model.buffers()]
    with counting_operations(progress):
        loss, outputs = compute_gradients(training, batches)
    progress.step += 1
    is_finite = skipped.is_finite(accelerator, progress.step, loss, batches)
    if is_finite:
        training.tracking.add_gradient_norm(
            accelerator.clip_grad_norm_(model.parameters(), training.config.max_grad_norm)
        )
        training.optimizer.step()
    else:  # batch normalisation's statistics may be no numbers either
        for buffer, before in zip(model.buffers(), buffers, strict=True):
            buffer.copy_(before)
    training.scheduler.step()
    training.optimizer.zero_grad()
    progress.stream = batches[-1].state
    return loss.detach() if is_finite else None, outputs


def compute_gradients(training: Training, batches: list[Batch]) -> tuple[torch.Tensor, dict[str, ModelOutput]]:
    """Adds the gradients of one contrast over the B clips of all batches; returns loss and outputs of the encoders."""
    config, accelerator = training.config, training.accelerator
    chunks = [chunk for batch in batches for chunk in split_batch(batch.inputs, config.encoder_chunk_size)]
    if config.encoder_chunk_size or config.gradient_accumulation_steps > 1:
        return cached_backward(accelerator, training.model, chunks)
    with accelerator.autocast():
        outputs = training.model(**chunks[0], return_loss=True)
    accelerator.backward(outputs.loss)
    average_whole_gradients(accelerator, training.model)
    return outputs.loss, {name: outputs[f"{name}_output"] for name in training.module.config.modalities}
