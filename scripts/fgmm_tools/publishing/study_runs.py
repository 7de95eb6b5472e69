"""Runs of studies: makes their corpora and their common start, then trains and measures them, some at a time."""

import os
import shlex
import shutil
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path

import torch
from tqdm import tqdm

from processing_fgmm.corpora_fgmm import CorpusError, load_corpus

from ..cli import UserError, stop_in_silence
from ..corpora.narrated import render_corpus
from ..corpora.options import RowSelection, TrainingNoise
from ..corpora.preparation import prepare
from ..models import load_model
from ..paths import ROOT
from ..records import describe_run, read_training_record, write_record
from ..retrieval.evaluation import evaluate_retrieval
from ..retrieval.settings import RetrievalSettings
from ..training.tokenizer import iterate_captions, train_word_tokenizer
from .studies import START, START_PHOTOS, Run

# Height and width of a slide, pixels: more than the models see, and half of the time that the default takes to decode.
SLIDE_SIZE = 64
NUM_PROC = 2  # shards written at a time


@dataclass(frozen=True)
class Folders:
    """Where runs read and write.

    Args:
        flickr8k: Flickr8k in its publishers' layout; None: no run needs it.
        corpora: the corpora that are made.
        models: the models that are trained.
        results: the results files.
    """

    flickr8k: Path | None
    corpora: Path
    models: Path
    results: Path

    @property
    def start(self) -> Path:
        """The model from which the runs on slide shows are initialised."""
        return self.models / "start"


def run_studies(runs: list[Run], folders: Folders, jobs: int, keep_models: bool) -> None:
    """Makes what the runs need, then trains and measures them.

    Args:
        runs: without those that have their results.
        folders: where they read and write.
        jobs: runs at a time; they share the processor's threads.
        keep_models: do not delete a model after it is measured.

    Raises:
        UserError: when a corpus cannot be made, or, after all runs, when some have failed.
    """
    folders.results.mkdir(parents=True, exist_ok=True)
    for run in tqdm({run.corpus: run for run in runs}.values(), desc="Making corpora", unit="corpus"):
        make_corpus(run, folders)
    if any(run.slides for run in runs) and not (folders.start / "model.safetensors").exists():
        make_start(folders)
    threads = max(1, len(os.sched_getaffinity(0)) // jobs)
    failures = []
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), initializer=stop_in_silence) as pool:
        futures = {pool.submit(train_and_measure, run, run.config, folders, threads): run for run in runs}
        for future in tqdm(as_completed(futures), total=len(futures), desc="Training", unit="run"):
            run = futures[future]
            try:
                write_record(folders.results / f"{run.name}.json", future.result())
            except (UserError, CorpusError) as error:
                failures.append(f"{run.name}: {error}")
                tqdm.write(failures[-1])
                continue
            if not keep_models:
                shutil.rmtree(folders.models / run.name)
    if failures:
        raise UserError(f"{len(failures)} of {len(runs)} runs failed; the first: {failures[0]}")


def make_corpus(run: Run, folders: Folders) -> None:
    """Makes the run's corpus, unless it exists."""
    output = folders.corpora / run.corpus
    if (output / "README.md").exists():
        return
    if run.noise is not None:
        render_corpus(output, num_train=3000, num_test=500, noise=run.noise, seed=0, num_proc=NUM_PROC)
        return
    noise, selection = TrainingNoise(swapped=run.swapped), RowSelection()
    if run.slides:
        noise = replace(noise, slides=run.slides, slide_size=SLIDE_SIZE, chatter=run.chatter)
        selection = RowSelection(skip=START_PHOTOS)
    prepare("flickr8k", folders.flickr8k, output, selection, noise, NUM_PROC)


def make_start(folders: Folders) -> None:
    """Trains the model from which the runs on slide shows are initialised.

    Its tokenizer is trained on all training captions, so that no run meets unknown words.
    """
    make_corpus(START, folders)
    rows = iterate_captions(load_corpus(str(folders.corpora / START.corpus), "train"))
    tokenizer = train_word_tokenizer((text for row in rows for text in row), vocab_size=20_000, min_frequency=3)
    tokenizer.save_pretrained(folders.models / "start_tokenizer")
    corpus = folders.corpora / "start"
    prepare("flickr8k", folders.flickr8k, corpus, RowSelection(limit=START_PHOTOS), TrainingNoise(), NUM_PROC)
    fields = START.training_fields(corpus, folders.start, folders.start)
    fields["tokenizer"] = folders.models / "start_tokenizer"
    train(START.config, fields, len(os.sched_getaffinity(0)))


def train(config: str, fields: dict[str, object], threads: int) -> None:
    """Pretrains by scripts/pretrain.py; continues from the last checkpoint where training was interrupted.

    Args:
        config: training configuration, a path within the project.
        fields: values that are set in it.
        threads: of the processor.

    Raises:
        UserError: with the last lines of its output, when it fails.
    """
    script, config = (os.path.relpath(ROOT / path) for path in ("scripts/pretrain.py", config))
    command = [sys.executable, script, "--config", config, "--resume_from", "latest"]
    command += [str(word) for name, value in fields.items() for word in (f"--{name}", value)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    answer = subprocess.run(command, env=environment, capture_output=True, text=True)
    if answer.returncode:
        tail = "\n".join((answer.stdout + answer.stderr).strip().splitlines()[-5:])
        raise UserError(f"{shlex.join(command[1:])} failed:\n{tail}")


def train_and_measure(run: Run, config: str, folders: Folders, threads: int) -> dict:
    """Pretrains one run and measures its retrieval, in a process of its own.

    Args:
        run: what is trained.
        config: its training configuration.
        folders: where it reads and writes.
        threads: of the processor.

    Returns:
        its record.
    """
    corpus, output = folders.corpora / run.corpus, folders.models / run.name
    train(config, run.training_fields(corpus, output, folders.start), threads)
    started = time.monotonic()
    torch.set_num_threads(threads)
    model, processor = load_model(str(output))
    splits = ("test",) if run.noise is not None else ("validation", "test")  # the narrated corpus has no validation
    metrics = {
        (split, score): evaluate_retrieval(
            model, processor, load_corpus(str(corpus), split), RetrievalSettings(score, num_workers=0)
        )
        for split in splits
        for score in ("trained", "coarse")
    }
    return {
        "model": run.name,
        "dataset": run.corpus if run.noise is not None else "flickr8k",
        "split": "test",
        "protocol": f"retrieval, trained score, the middle {processor.clip_seconds:g} s of each item",
        "metrics": metrics["test", "trained"],
        "metrics_of_pooled_vectors": metrics["test", "coarse"],
        "metrics_on_validation": metrics.get(("validation", "trained")),
        "seed": run.seed,
        **describe_run(time.monotonic() - started, launcher="python"),
        "settings": run.settings(),
        "training": read_training_record(str(output)),
    }
