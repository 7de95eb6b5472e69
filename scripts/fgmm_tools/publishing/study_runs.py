"""Makes what the runs of studies need, then trains and measures them, some at a time."""

import argparse
import os
import shlex
import shutil
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

import torch
from tqdm import tqdm

from processing_fgmm.corpora_fgmm import CorpusError, load_corpus

from ..cli import UserError
from ..models import load_model
from ..paths import ROOT
from ..records import describe_run, read_training_record, write_record
from ..retrieval.evaluation import evaluate_retrieval
from ..retrieval.settings import RetrievalSettings
from .studies import START, START_PHOTOS, Run, results_folder


def make_corpus(run: Run, args: argparse.Namespace) -> None:
    """Makes the run's corpus where it is not there, whole or not at all."""
    output = args.data / run.corpus
    if (output / "README.md").exists():
        return
    if run.noise is not None:
        sizes = ["--num_train", "3000", "--num_test", "500"]
        execute(["scripts/make_narrated_corpus.py", "--output", str(output), *sizes, "--noise", str(run.noise)])
        return
    options = ["--swapped", str(run.swapped)]
    if run.slides:
        # Slides of 64 pixels: more than the models see, and half of the time that 112 pixels take to decode.
        slides = ["--slides", str(run.slides), "--slide_size", "64", "--chatter", str(run.chatter)]
        options += [*slides, "--skip", str(START_PHOTOS)]
    execute(["scripts/prepare_dataset.py", "flickr8k", "--source", args.flickr8k, "--output", str(output), *options])


def make_start(model: Path, args: argparse.Namespace) -> None:
    """Trains the model that all runs on slide shows go on from.

    Its tokenizer knows the words of all training captions, so that no later run meets new ones.
    """
    make_corpus(START, args)
    tokenizer, corpus = args.output_dir / "start_tokenizer", args.data / "start"
    words = ["--dataset", str(args.data / START.corpus), "--output", str(tokenizer), "--min_frequency", "3"]
    execute(["scripts/train_tokenizer.py", *words])
    options = ["--source", args.flickr8k, "--output", str(corpus), "--limit", str(START_PHOTOS)]
    execute(["scripts/prepare_dataset.py", "flickr8k", *options])
    fields = {**START.fields(corpus, model, model), "tokenizer": tokenizer}
    train(START.config, fields, len(os.sched_getaffinity(0)))


def train(config: str, fields: dict[str, object], threads: int) -> None:
    """Pretrains; goes on from the last checkpoint where it was interrupted."""
    command = ["scripts/pretrain.py", "--config", config, "--resume_from", "latest"]
    execute([*command, *(word for name, value in fields.items() for word in (f"--{name}", str(value)))], threads)


def train_and_measure(run: Run, config: str, fields: dict[str, object], threads: int) -> dict:
    """Pretrains one run and measures it, in a process of its own; gives its record."""
    train(config, fields, threads)
    started = time.monotonic()
    torch.set_num_threads(threads)
    model, processor = load_model(str(fields["output_dir"]))
    splits = ("test",) if run.noise is not None else ("validation", "test")  # the narrated corpus has no validation
    corpora = {split: load_corpus(str(fields["dataset"]), split) for split in splits}
    metrics = {
        (split, score): evaluate_retrieval(model, processor, corpus, RetrievalSettings(score, num_workers=0))
        for split, corpus in corpora.items()
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
        "training": read_training_record(str(fields["output_dir"])),
    }


def run_all(runs: list[Run], args: argparse.Namespace) -> None:
    """Makes what the runs need, then trains and measures them, some at a time; models are deleted unless kept."""
    results_folder().mkdir(parents=True, exist_ok=True)
    threads = max(1, len(os.sched_getaffinity(0)) // args.jobs)
    for run in tqdm({run.corpus: run for run in runs}.values(), desc="Making corpora", unit="corpus"):
        make_corpus(run, args)
    start = args.output_dir / "start"
    if any(run.slides for run in runs) and not (start / "model.safetensors").exists():
        make_start(start, args)
    futures = {}
    with ProcessPoolExecutor(args.jobs, mp_context=get_context("spawn")) as pool:
        for run in runs:
            fields = run.fields(args.data / run.corpus, args.output_dir / run.name, start)
            futures[pool.submit(train_and_measure, run, run.config, fields, threads)] = run
        failures = []
        for future in tqdm(as_completed(futures), total=len(futures), desc="Training", unit="run"):
            run = futures[future]
            try:
                write_record(results_folder() / f"{run.name}.json", future.result())
            except (UserError, CorpusError) as error:
                failures.append(f"{run.name}: {error}")
                tqdm.write(failures[-1])
                continue
            if not args.keep_models:
                shutil.rmtree(args.output_dir / run.name)
    if failures:
        raise UserError(f"{len(failures)} of {len(runs)} runs failed; the first: {failures[0]}")


def execute(words: list[str], threads: int | None = None) -> None:
    """Runs one of our scripts from the project's root.

    Raises:
        UserError: with the last lines that it wrote, when it fails.
    """
    environment = {**os.environ, **({"OMP_NUM_THREADS": str(threads)} if threads else {})}
    answer = subprocess.run([sys.executable, *words], cwd=ROOT, env=environment, capture_output=True, text=True)
    if answer.returncode:
        tail = "\n".join((answer.stdout + answer.stderr).strip().splitlines()[-5:])
        raise UserError(f"{shlex.join(words)} failed:\n{tail}")
