"""Pretrains a model on a corpus of narrated clips.

    python scripts/pretrain.py --config scripts/configs/fgmm-tiny.yaml
    python scripts/pretrain.py --config scripts/configs/fgmm-tiny.yaml --learning_rate 5e-4 --model.projection_dim 64
    python scripts/pretrain.py --config scripts/configs/fgmm-tiny.yaml --resume_from latest
    accelerate launch --multi_gpu scripts/pretrain.py --config scripts/configs/fgmm-small.yaml
    python scripts/pretrain.py --config scripts/configs/fgmm-tiny.yaml --dataset "" \\
        --datasets "[{dataset: data/narrated, weight: 2}, {dataset: data/flickr8k}]"

Fields are set in the YAML file or on the command line, which wins; entries of mappings are reached with dots.
"""

import sys

from fgmm_tools.cli import Terminated, run_command
from fgmm_tools.training.configuration import PretrainConfig, parse_config


def parse_arguments() -> PretrainConfig:
    return parse_config(sys.argv[1:], __doc__)


def main(config: PretrainConfig) -> None:
    """Checks the run, then holds its folder while it trains."""
    import torch
    from accelerate import Accelerator

    from fgmm_tools.training.checks import check_config, settle_config
    from fgmm_tools.training.corpora import open_corpora
    from fgmm_tools.training.run_folder import open_run
    from fgmm_tools.training.sharding import check_sharding
    from fgmm_tools.training.termination import Termination

    check_config(config)
    if config.num_threads:
        torch.set_num_threads(config.num_threads)
    accelerator = Accelerator(
        mixed_precision=config.mixed_precision, log_with=config.trackers or None, project_dir=config.output_dir
    )
    check_sharding(config, accelerator)
    corpora = open_corpora(config, accelerator)
    config = settle_config(config, accelerator)
    with Termination() as termination, open_run(config, corpora, accelerator) as run:
        train(config, corpora, accelerator, run, termination)


def train(config: PretrainConfig, corpora, accelerator, run, termination) -> None:
    """Trains from the run's checkpoint or from the start, and saves the model."""
    import time

    import torch
    from accelerate.utils import set_seed
    from tqdm import tqdm
    from transformers import get_cosine_schedule_with_warmup

    from fgmm_tools.training.checkpoints import Progress, load_checkpoint, read_progress, save_checkpoint, save_model
    from fgmm_tools.training.corpora import CorpusLog
    from fgmm_tools.training.cost import core_seconds, counting_operations
    from fgmm_tools.training.gradient_cache import cached_backward, split_batch
    from fgmm_tools.training.monitoring import (
        FailedClips,
        SkippedSteps,
        describe_resumption,
        describe_sizes,
        evaluate,
        suggest_threads,
        suggest_workers,
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
    from fgmm_tools.training.sharding import average_whole_gradients, prepare_sharding
    from fgmm_tools.training.trackers import Tracking

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
    loader = iter(make_batches(config, rows, processor, modalities, accelerator, progress))
    if run.checkpoint:  # last of all, as what is above draws random numbers
        load_checkpoint(run.checkpoint, accelerator, optimizer, scheduler, config.seed)
        accelerator.print(describe_resumption(run, progress))
    failures = FailedClips(run.folder / "failed_clips.jsonl", config.max_failed_share)
    skipped = SkippedSteps(run.folder / "skipped_steps.jsonl", config.max_skipped_steps, progress.step)
    corpus_log = CorpusLog(config.corpus_names)
    bar = tqdm(total=config.max_steps, initial=progress.step, unit="step", disable=not accelerator.is_main_process)
    losses, clips_seen, waited, started, is_hinted = [], 0, 0.0, time.monotonic(), False
    begun, begun_on_cores = started - progress.seconds, core_seconds() - progress.core_seconds
    model.train()
    termination.defer()  # from here on SIGTERM lets a step end
    while progress.step < config.max_steps:
        asked = time.monotonic()
        batches = [next(loader) for _ in range(config.gradient_accumulation_steps)]
        waited += time.monotonic() - asked
        for batch in batches:
            failures.add(batch)
            corpus_log.add(batch)
        chunks = [chunk for batch in batches for chunk in split_batch(batch.inputs, config.encoder_chunk_size)]
        buffers = [buffer.clone() for buffer in model.buffers()]
        with counting_operations(progress):
            if config.encoder_chunk_size or config.gradient_accumulation_steps > 1:
                loss, encoded = cached_backward(accelerator, model, chunks)
            else:
                with accelerator.autocast():
                    outputs = model(**chunks[0], return_loss=True)
                loss, encoded = outputs.loss, {name: outputs[f"{name}_output"] for name in modalities}
                accelerator.backward(loss)
                average_whole_gradients(accelerator, model)
        progress.step += 1
        if skipped.is_finite(accelerator, progress.step, loss, batches):
            tracking.add_gradient_norm(accelerator.clip_grad_norm_(model.parameters(), config.max_grad_norm))
            optimizer.step()
            losses.append(loss.detach())
        else:  # batch normalisation's statistics may be no numbers either
            for buffer, before in zip(model.buffers(), buffers, strict=True):
                buffer.copy_(before)
        scheduler.step()
        optimizer.zero_grad()
        clips_seen += batch.state.number - (progress.stream.number if progress.stream else 0)
        progress.stream = batch.state
        progress.seconds, progress.core_seconds = time.monotonic() - begun, core_seconds() - begun_on_cores
        bar.update()
        is_last = progress.step == config.max_steps
        is_saved = is_last or (config.save_steps and progress.step % config.save_steps == 0)

        if progress.step % config.log_steps == 0 or is_last:
            failed = failures.report(accelerator)
            mean_loss = accelerator.reduce(torch.stack(losses).mean(), "mean").item() if losses else float("nan")
            seconds = time.monotonic() - started
            rate = clips_seen / seconds
            bar.set_postfix(loss=f"{mean_loss:.3f}", clips_per_s=f"{rate:.0f}", failed=failed)
            values = {"loss": mean_loss, "clips_per_s": rate, "learning_rate": scheduler.get_last_lr()[0]}
            counts = {
                "failed_clips": failed,
                "damaged_clips": len(failures.damaged),
                "skipped_steps": len(skipped.known),
            }
            owners = [corpus for batch in batches for corpus in batch.corpora or [-1]]
            if not is_hinted and (hint := suggest_workers(config, waited / seconds)):
                accelerator.print(hint)
                is_hinted = True
            of_corpora = corpus_log.report(accelerator, accelerator.unwrap_model(model), encoded, owners)
            of_objectives = tracking.report(accelerator, accelerator.unwrap_model(model), encoded)
            values |= {"data_wait": waited / seconds, **counts, **of_corpora, **of_objectives}
            accelerator.log(values, step=progress.step)
            losses, clips_seen, waited, started = [], 0, 0.0, time.monotonic()
        tracking.draw(accelerator, model, progress.step)
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
