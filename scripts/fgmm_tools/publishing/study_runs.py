"""Runs of studies: makes their corpora and what they are initialised from, then trains and measures them."""

import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import chain
from multiprocessing import get_context
from pathlib import Path

import torch
from tqdm import tqdm

from processing_fgmm.corpora_fgmm import CorpusError, load_corpus

from ..cli import UserError, end_with_parent, stop_in_silence
from ..corpora.narrated import render_corpus
from ..corpora.options import RowSelection
from ..corpora.preparation import prepare
from ..models import load_model
from ..paths import ROOT
from ..records import describe_run, read_training_record, write_record
from ..retrieval.evaluation import encode_items, measure_retrieval
from ..retrieval.settings import RetrievalSettings
from ..training.tokenizer import iterate_captions, train_word_tokenizer
from .studies import CORPORA, Run

NUM_PROC = 2  # shards written at a time
# Clips of the narrated corpus; all noises share validation and test clips.
NARRATED = {"num_train": 3000, "num_validation": 500, "num_test": 500, "seed": 0}
# Corpora whose words the models know that other runs are initialised from.
START_WORDS = ("photographs", "exercises")
MIN_FREQUENCY = 3


@dataclass(frozen=True)
class Folders:
    """Where runs read and write.

    Args:
        sources: the benchmarks in their publishers' layouts, in folders of their names.
        corpora: the corpora that are made.
        models: the models that are trained.
        results: the results files.
    """

    sources: Path
    corpora: Path
    models: Path
    results: Path

    def start(self, corpus: str) -> Path:
        """The coarse model of a corpus from which other runs are initialised."""
        return self.models / f"start_{corpus}"


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
    starts = list(dict.fromkeys(run.trained_on.start for run in runs if run.trained_on.start))
    corpora = dict.fromkeys([*(run.corpus for run in runs), *starts, *(START_WORDS if starts else ())])
    for corpus in tqdm(corpora, desc="Making corpora", unit="corpus"):
        make_corpus(corpus, folders)
    for corpus in starts:
        make_start(corpus, folders)
    threads = max(1, len(os.sched_getaffinity(0)) // jobs)
    failures = []
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), initializer=prepare_worker) as pool:
        futures = {pool.submit(train_and_measure, run, folders, threads): run for run in runs}
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


def prepare_worker() -> None:
    """Lets a process that runs one run after the other end in silence by Ctrl-C, and with its parent."""
    stop_in_silence()
    end_with_parent()


def make_corpus(name: str, folders: Folders) -> None:
    """Makes a corpus, unless it exists.

    Args:
        name: a key of CORPORA.
        folders: where it is.
    """
    corpus, output = CORPORA[name], folders.corpora / name
    if (output / "README.md").exists():
        return
    if corpus.source == "narrated":
        render_corpus(output, noise=corpus.caption_noise, num_proc=NUM_PROC, **NARRATED)
        return
    selection = RowSelection(limit=corpus.limit, skip=corpus.skip)
    prepare(corpus.source, folders.sources / corpus.source, output, selection, corpus.noise, NUM_PROC)


def make_start(corpus: str, folders: Folders) -> None:
    """Trains and measures the coarse model of a corpus from which other runs are initialised, unless it exists.

    Its tokenizer is trained on all training captions of the corpora that it is used for, so that no run meets unknown
    words.
    """
    output, results = folders.start(corpus), folders.results / f"start_{corpus}.json"
    if results.exists() and (output / "model.safetensors").exists():
        return
    rows = chain.from_iterable(
        iterate_captions(load_corpus(str(folders.corpora / name), "train")) for name in START_WORDS
    )
    words = train_word_tokenizer((text for row in rows for text in row), 20_000, MIN_FREQUENCY)
    words.save_pretrained(folders.models / "start_words")
    run = Run(corpus, "coarse")
    fields = {**run.training_fields(), "tokenizer": folders.models / "start_words"}
    train(run, folders.corpora / corpus, output, fields, len(os.sched_getaffinity(0)))
    write_record(results, measure(run, folders.corpora / corpus, output))


def train(run: Run, corpus: Path, output: Path, fields: dict[str, object], threads: int) -> None:
    """Pretrains by scripts/pretrain.py; continues from the last checkpoint where training was interrupted.

    Args:
        run: what is trained.
        corpus, output: folders of the corpus and of the model.
        fields: of the training configuration.
        threads: of the processor.

    Raises:
        UserError: with the last lines of its output, when it fails.
    """
    config = ROOT / "scripts" / "configs" / f"{run.trained_on.config}.yaml"
    script, config = (os.path.relpath(path) for path in (ROOT / "scripts" / "pretrain.py", config))
    fields = {"dataset": corpus, "output_dir": output, **fields}
    command = [sys.executable, script, "--config", config, "--resume_from", "latest"]
    command += [str(word) for name, value in fields.items() for word in (f"--{name}", value)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    end = partial(end_with_parent, signal.SIGTERM)  # by which it saves what it has
    answer = subprocess.run(command, env=environment, capture_output=True, text=True, preexec_fn=end)
    if answer.returncode:
        tail = "\n".join((answer.stdout + answer.stderr).strip().splitlines()[-5:])
        raise UserError(f"{shlex.join(command[1:])} failed:\n{tail}")


def train_and_measure(run: Run, folders: Folders, threads: int) -> dict:
    """Pretrains one run and measures its retrieval, in a process of its own.

    Args:
        run: what is trained.
        folders: where it reads and writes.
        threads: of the processor.

    Returns:
        its record.
    """
    corpus, output = folders.corpora / run.corpus, folders.models / run.name
    fields = run.training_fields()
    if run.trained_on.start:
        fields["init_from"] = folders.start(run.trained_on.start)
    train(run, corpus, output, fields, threads)
    torch.set_num_threads(threads)
    return measure(run, corpus, output)


def measure(run: Run, corpus: Path, output: Path) -> dict:
    """The retrieval of a trained model on the validation and the test split, and its pooled vectors' on the latter.

    Args:
        run: how it was trained.
        corpus, output: folders of the corpus and of the model.

    Returns:
        its record.
    """
    started = time.monotonic()
    model, processor = load_model(str(output))

    def evaluate(split: str, *scores: str, join_captions: bool = False) -> list[dict[str, dict[str, float]]]:
        """The metrics by each score; the split is encoded once."""
        settings = RetrievalSettings(join_captions=join_captions, num_workers=0)
        items = encode_items(model, processor, load_corpus(str(corpus), split), settings)
        return [measure_retrieval(model, items, replace(settings, score=score), Counter()) for score in scores]

    metrics, metrics_of_pooled_vectors = evaluate("test", "trained", "coarse")
    [metrics_on_validation] = evaluate("validation", "trained")
    joined = {}
    if run.trained_on.join_captions:
        [joined["metrics_of_joined_captions"]] = evaluate("test", "trained", join_captions=True)
    return {
        "model": run.name,
        "dataset": run.trained_on.source,
        "split": "test",
        "protocol": f"retrieval, trained score, the middle {processor.clip_seconds:g} s of each item",
        "metrics": metrics,
        "metrics_of_pooled_vectors": metrics_of_pooled_vectors,
        "metrics_on_validation": metrics_on_validation,
        **joined,
        "seed": run.seed,
        **describe_run(time.monotonic() - started),
        "settings": run.settings(),
        "run": asdict(run),
        "parameters": model.num_parameters(),
        "training": read_training_record(str(output)),
    }
