"""Pretrains a model on a corpus of narrated clips.

    accelerate launch scripts/pretrain.py --config scripts/configs/fgmm-tiny.yaml
    accelerate launch scripts/pretrain.py --config scripts/configs/fgmm-tiny.yaml --learning_rate 5e-4 --seed 1
    accelerate launch scripts/pretrain.py --config scripts/configs/fgmm-tiny.yaml --resume_from latest

Any field of `PretrainConfig` is set in the file or, as `--field value`, on the command line, which wins; entries of
its mappings are reached with a dot (`--model.projection_dim 64`).
"""

import dataclasses
import json
import sys
import time
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch.utils.data import DataLoader
from tqdm import tqdm
from transformers import get_cosine_schedule_with_warmup

from fgmm_tools.cli import UserError, run_command
from fgmm_tools.retrieval.evaluation import evaluate_retrieval, format_table
from fgmm_tools.training.checkpoints import find_checkpoint, global_batch_size, save_checkpoint, save_model
from fgmm_tools.training.configuration import PretrainConfig, parse_config
from fgmm_tools.training.gradient_cache import cached_backward, split_batch
from fgmm_tools.training.setup import make_model, make_optimizer, make_processor
from processing_fgmm import FgmmProcessor
from processing_fgmm.corpora_fgmm import load_corpus
from processing_fgmm.streams_fgmm import NarratedClips


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
            raise UserError(
                f"{self.failed} of {self.seen} clips could not be decoded, more than max_failed_share "
                f"{self.max_share} allows; the messages above name them."
            )


def train(config: PretrainConfig) -> None:
    """One run, from the corpus to the model folder."""
    try:
        Path(config.output_dir).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"The output_dir {config.output_dir!r} cannot be made: {error.strerror}.") from error
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
        f"{config.dataset}: {config.max_steps} steps of {global_batch_size(config, accelerator)} clips."
    )

    step, epoch, position, begun = 0, 0, 0, time.monotonic()
    if checkpoint:
        accelerator.load_state(str(checkpoint))
        progress = json.loads((checkpoint / "progress.json").read_text())
        if len(progress["streams"]) != accelerator.num_processes:
            raise UserError(f"{checkpoint} was written by {len(progress['streams'])} processes; start as many.")
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
                raise UserError(f"The loss is not a number at step {step}; lower learning_rate or use bf16.")
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


def parse_arguments() -> PretrainConfig:
    return parse_config(sys.argv[1:])


if __name__ == "__main__":
    run_command(parse_arguments, train)
