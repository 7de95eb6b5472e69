"""What a run logs every few steps: loss, speed, the time that it waited for clips, and clips that failed."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from tqdm import tqdm
from transformers.utils import ModelOutput

from processing_fgmm.streams_fgmm import Batch

from .corpora import CorpusLog
from .cost import core_seconds
from .monitoring import FailedClips, SkippedSteps, suggest_workers
from .run_folder import Run
from .steps import Training


class TrainingLog:
    """Counts steps, clips and seconds since the last entry of a run's log, and writes the next one.

    Args:
        training: as it is before its first step in this process; its progress gets the run's seconds.
        run: in whose folder clips and steps that failed are listed.

    Attributes:
        failures, skipped, corpora: what has failed, and clips and losses of each corpus.
    """

    def __init__(self, training: Training, run: Run):
        config, progress = training.config, training.progress
        self.training = training
        self.failures = FailedClips(run.folder / "failed_clips.jsonl", config.max_failed_share)
        self.skipped = SkippedSteps(run.folder / "skipped_steps.jsonl", config.max_skipped_steps, progress.step)
        self.corpora = CorpusLog(config.corpus_names)
        self.bar = tqdm(
            total=config.max_steps,
            initial=progress.step,
            unit="step",
            disable=not training.accelerator.is_main_process,
        )
        self.num_entries, self.is_hinted = 0, False
        self.begin_entry()
        self.begun, self.begun_on_cores = self.started - progress.seconds, core_seconds() - progress.core_seconds

    def begin_entry(self) -> None:
        """Sets what is counted for the next entry to zero."""
        self.losses: list[torch.Tensor] = []
        self.first_clip = self.num_clips
        self.waited, self.started = 0.0, time.monotonic()

    @property
    def num_clips(self) -> int:
        """Clips that the run has seen, in all processes."""
        stream = self.training.progress.stream
        return stream.number if stream else 0

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """A block that waits for clips."""
        started = time.monotonic()
        yield
        self.waited += time.monotonic() - started

    @contextmanager
    def pausing(self) -> Iterator[None]:
        """A block that is no training, whose seconds do not count."""
        started = time.monotonic()
        yield
        self.started += time.monotonic() - started

    def add_batches(self, batches: list[Batch]) -> None:
        """Counts the clips of a step of this process.

        Raises:
            UserError: when not one clip of the run could be decoded so far.
        """
        for batch in batches:
            self.failures.add(batch)
            self.corpora.add(batch)

    def add_step(self, loss: torch.Tensor | None) -> None:
        """Counts a step with the loss of this process, a scalar; None where it was left out."""
        if loss is not None:
            self.losses.append(loss)
        progress = self.training.progress
        progress.seconds, progress.core_seconds = time.monotonic() - self.begun, core_seconds() - self.begun_on_cores
        self.bar.update()

    def write_entry(self, batches: list[Batch], outputs: dict[str, ModelOutput]) -> None:
        """Logs what was counted since the last entry; all processes call it together.

        Args:
            batches, outputs: of the last step, see [`take_step`].

        Raises:
            UserError: when too large a share of the clips has failed.
        """
        training, seconds = self.training, time.monotonic() - self.started
        accelerator = training.accelerator
        failed = self.failures.report(accelerator)
        loss = float("nan")
        if self.losses:
            loss = accelerator.reduce(torch.stack(self.losses).mean(), "mean").item()
        rate, share_waited = (self.num_clips - self.first_clip) / seconds, self.waited / seconds
        self.bar.set_postfix(loss=f"{loss:.3f}", clips_per_s=f"{rate:.0f}", failed=failed)
        self.suggest(share_waited)
        corpora = [corpus for batch in batches for corpus in batch.corpora or [-1]]
        values = {
            "loss": loss,
            "clips_per_s": rate,
            "learning_rate": training.scheduler.get_last_lr()[0],
            "data_wait": share_waited,
            "failed_clips": failed,
            "damaged_clips": len(self.failures.damaged),
            "skipped_steps": len(self.skipped.known),
            **self.corpora.report(accelerator, training.module, outputs, corpora),
            **training.tracking.report(accelerator, training.module, outputs),
        }
        accelerator.log(values, step=training.progress.step)
        self.begin_entry()

    def suggest(self, share_waited: float) -> None:
        """Prints once how training would wait less, if it waits much; its first entry has the start of the workers."""
        hint = suggest_workers(self.training.config, share_waited)
        if hint and self.num_entries and not self.is_hinted:
            self.training.accelerator.print(hint)
            self.is_hinted = True
        self.num_entries += 1

    def close(self) -> None:
        self.bar.close()
