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
    from fgmm_tools.training.termination import Termination

    check_config(config)
    if config.num_threads:
        torch.set_num_threads(config.num_threads)
    accelerator = Accelerator(
        mixed_precision=config.mixed_precision, log_with=config.trackers or None, project_dir=config.output_dir
    )
    corpora = open_corpora(config, accelerator)
    config = settle_config(config, accelerator)
    with Termination() as termination, open_run(config, corpora, accelerator) as run:
        train(config, corpora, accelerator, run, termination)


def train(config: PretrainConfig, corpora, accelerator, run, termination) -> None:
    """Trains from the run's checkpoint or from the start, and saves the model."""
    from fgmm_tools.training.checkpoints import save_checkpoint
    from fgmm_tools.training.monitoring import evaluate
    from fgmm_tools.training.steps import prepare_training, take_step
    from fgmm_tools.training.training_log import TrainingLog

    training = prepare_training(config, corpora, accelerator, run)
    progress, log = training.progress, TrainingLog(training, run)
    termination.defer()  # from here on SIGTERM lets a step end
    while progress.step < config.max_steps:
        with log.waiting():
            batches = [next(training.batches) for _ in range(config.gradient_accumulation_steps)]
        log.add_batches(batches)
        loss, outputs = take_step(training, batches, log.skipped)
        log.add_step(loss)
        is_last = progress.step == config.max_steps
        is_saved = is_last or is_due(progress.step, config.save_steps)
        if is_last or is_due(progress.step, config.log_steps):
            log.write_entry(batches, outputs)
        training.tracking.draw(accelerator, training.model, progress.step)
        if is_saved:
            save_checkpoint(accelerator, config, run, progress)
        if is_due(progress.step, config.eval_steps) and not is_last:
            with log.pausing():
                evaluate(accelerator, training.model, training.processor, config, run, progress, termination)
        if termination.requested(accelerator):
            if not is_saved:
                save_checkpoint(accelerator, config, run, progress)
            log.failures.report(accelerator)
            break
    log.close()
    if progress.step == config.max_steps:
        finish(training, run, log, termination)
    stopped = termination.requested(accelerator)
    training.release()
    accelerator.end_training()
    if stopped:
        raise Terminated(
            f"Stopped by SIGTERM at step {progress.step}, which is saved; continue by --resume_from latest."
        )


def is_due(step: int, interval: int) -> bool:
    """Whether something is done after a step that is done every `interval` steps; 0: never."""
    return interval > 0 and step % interval == 0


def finish(training, run, log, termination) -> None:
    """Saves the model of a run that has taken all its steps, and evaluates it if the run does so."""
    from fgmm_tools.training.checkpoints import save_model
    from fgmm_tools.training.monitoring import evaluate
    from fgmm_tools.training.parameter_groups import merge_adapters

    config, accelerator = training.config, training.accelerator
    if config.lora_rank:
        merge_adapters(training.module)
    save_model(accelerator, training.model, training.processor, config, run, training.progress)
    accelerator.print(f"Saved the model in {run.folder}. {log.failures.summarize()}")
    if config.eval_steps:
        evaluate(accelerator, training.model, training.processor, config, run, training.progress, termination)


if __name__ == "__main__":
    run_command(parse_arguments, main)
