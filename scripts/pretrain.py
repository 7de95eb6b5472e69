"""Pretrains a model on a corpus of narrated clips.

    python scripts/pretrain.py --config scripts/configs/fgmm-tiny.yaml
    python scripts/pretrain.py --config scripts/configs/fgmm-tiny.yaml --learning_rate 5e-4 --model.projection_dim 64
    python scripts/pretrain.py --config scripts/configs/fgmm-tiny.yaml --resume_from latest
    accelerate launch --multi_gpu scripts/pretrain.py --config scripts/configs/fgmm-small.yaml

Fields are set in the YAML file or on the command line, which wins; entries of mappings are reached with dots.
"""

import sys

from fgmm_tools.cli import Terminated, UserError, run_command
from fgmm_tools.training.configuration import PretrainConfig, parse_config


def parse_arguments() -> PretrainConfig:
    return parse_config(sys.argv[1:], __doc__)


def main(config: PretrainConfig) -> None:
    """Checks the run, then holds its folder while it trains."""
    import torch
    from accelerate import Accelerator

    from fgmm_tools.training.checks import check_config, settle_config
    from fgmm_tools.training.run_folder import open_run
    from fgmm_tools.training.termination import Termination
    from processing_fgmm.corpora_fgmm import load_corpus

    check_config(config)
    corpus = load_corpus(config.dataset, config.train_split, config.dataset_config)
    if config.num_threads:
        torch.set_num_threads(config.num_threads)
    accelerator = Accelerator(
        mixed_precision=config.mixed_precision, log_with=config.trackers or None, project_dir=config.output_dir
    )
    config = settle_config(config, accelerator)
    with Termination() as termination, open_run(config, accelerator) as run:
        train(config, corpus, accelerator, run, termination)


def train(config: PretrainConfig, corpus, accelerator, run, termination) -> None:
    """Trains from the run's checkpoint or from the start, and saves the model."""
    import time

    import torch
    from accelerate.utils import set_seed
    from tqdm import tqdm
    from transformers import get_cosine_schedule_with_warmup

    from fgmm_tools.training.checkpoints import Progress, load_checkpoint, read_progress, save_checkpoint, save_model
    from fgmm_tools.training.cost import core_seconds, counting_operations
    from fgmm_tools.training.gradient_cache import cached_backward, split_batch
    from fgmm_tools.training.monitoring import (
        FailedClips,
        describe_resumption,
        describe_sizes,
        evaluate,
        start_trackers,
        suggest_threads,
    )
    from fgmm_tools.training.parameter_groups import make_parameter_groups, merge_adapters
    from fgmm_tools.training.setup import (
        check_model,
        make_batches,
        make_model,
        make_optimizer,
        make_processor,
        synchronise_batch_norm,
    )

    set_seed(config.seed)  # the same initial weights in every process
    processor = make_processor(config, corpus)
    model = make_model(config, processor)
    check_model(model, processor)
    if config.sync_batch_norm:
        model = synchronise_batch_norm(model, accelerator)
    accelerator.print(describe_sizes(config, model, accelerator))
    if hint := suggest_threads(accelerator):
        accelerator.print(hint)
    rates = (config.learning_rate, config.weight_decay, config.encoder_learning_rate, config.layer_decay)
    optimizer = make_optimizer(make_parameter_groups(model, *rates))
    scheduler = get_cosine_schedule_with_warmup(optimizer, config.warmup_steps, config.max_steps)
    modalities = model.config.modalities
    model, optimizer = accelerator.prepare(model, optimizer)
    accelerator.register_for_checkpointing(scheduler)
    start_trackers(accelerator, config)

    progress = read_progress(run.checkpoint, accelerator) if run.checkpoint else Progress()
    batches = iter(make_batches(config, corpus, processor, modalities, accelerator, progress))
    if run.checkpoint:  # last of all, as what is above draws random numbers
        load_checkpoint(run.checkpoint, accelerator, optimizer, scheduler)
        accelerator.print(describe_resumption(run, progress))
    failures = FailedClips(run.folder / "failed_clips.jsonl", config.max_failed_share)
    bar = tqdm(total=config.max_steps, initial=progress.step, unit="step", disable=not accelerator.is_main_process)
    losses, clips_seen, started = [], 0, time.monotonic()
    begun, begun_on_cores = started - progress.seconds, core_seconds() - progress.core_seconds
    model.train()
    termination.defer()  # from here on SIGTERM lets a step end
    while progress.step < config.max_steps:
        chunks = []
        for _ in range(config.gradient_accumulation_steps):
            batch = next(batches)
            failures.add(batch)
            inputs = {name: value.to(accelerator.device, non_blocking=True) for name, value in batch.inputs.items()}
            chunks += split_batch(inputs, config.encoder_chunk_size)
            clips_seen += batch.num_clips * accelerator.num_processes
        with counting_operations(progress):
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
        losses.append(loss.detach())
        progress.step += 1
        progress.epoch, progress.position = batch.epoch, batch.position
        progress.seconds, progress.core_seconds = time.monotonic() - begun, core_seconds() - begun_on_cores
        bar.update()
        is_last = progress.step == config.max_steps
        is_saved = is_last or (config.save_steps and progress.step % config.save_steps == 0)

        if progress.step % config.log_steps == 0 or is_last:
            failed = failures.report(accelerator)
            mean_loss = accelerator.reduce(torch.stack(losses).mean(), "mean").item()
            if mean_loss != mean_loss:
                raise UserError(f"The loss is not a number at step {progress.step}; lower learning_rate or use bf16.")
            rate = clips_seen / (time.monotonic() - started)
            bar.set_postfix(loss=f"{mean_loss:.3f}", clips_per_s=f"{rate:.0f}", failed=failed)
            values = {"loss": mean_loss, "clips_per_s": rate, "learning_rate": scheduler.get_last_lr()[0]}
            counts = {"failed_clips": failed, "damaged_clips": len(failures.damaged)}
            accelerator.log({**values, **counts}, step=progress.step)
            losses, clips_seen, started = [], 0, time.monotonic()
        if is_saved:
            save_checkpoint(accelerator, config, run, progress)
        if config.eval_steps and progress.step % config.eval_steps == 0 and not is_last:
            evaluate(accelerator, model, processor, config, run, progress, termination)
            started = time.monotonic()
        if termination.requested(accelerator):
            if not is_saved:
                save_checkpoint(accelerator, config, run, progress)
            failures.report(accelerator)
            break
    bar.close()
    if progress.step == config.max_steps:
        if config.lora_rank:
            merge_adapters(accelerator.unwrap_model(model))
        save_model(accelerator, model, processor, config, run, progress)
        accelerator.print(f"Saved the model in {run.folder}. {failures.summarize()}")
        if config.eval_steps:
            evaluate(accelerator, model, processor, config, run, progress, termination)
    stopped = termination.requested(accelerator)
    accelerator.end_training()
    if stopped:
        raise Terminated(
            f"Stopped by SIGTERM at step {progress.step}, which is saved; continue by --resume_from latest."
        )


if __name__ == "__main__":
    run_command(parse_arguments, main)
