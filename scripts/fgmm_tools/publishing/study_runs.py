"""Runs of studies: makes their corpora and what they are initialised from, then trains and measures them."""

import json
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

from ..cli import UserError, begin_worker, end_with_parent
from ..corpora.narrated import render_corpus
from ..corpora.options import RowSelection
from ..corpora.preparation import prepare
from ..models import load_model
from ..paths import ROOT
from ..records import describe_run, read_training_record, write_record
from ..retrieval.evaluation import encode_items, measure_retrieval
from ..retrieval.settings import RetrievalSettings
from ..training.tokenizer import iterate_captions, train_word_tokenizer
from .studies import Run
from .study_corpora import CLEAN, CORPORA, Part
from .study_probes import make_probed_corpora, measure_probes

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
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), initializer=begin_worker) as pool:
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


def make_corpus(name: str, folders: Folders) -> None:
    """Makes a corpus, unless it exists.

    Args:
        name: a key of CORPORA.
        folders: where it is.
    """
    corpus, output = CORPORA[name], folders.corpora / name
    if (output / "README.md").exists():
        return
    if corpus.source == "mixed":
        for part in corpus.parts:
            make_part(part, folders)
        make_probed_corpora(folders.sources, folders.corpora, NUM_PROC)
        return
    if corpus.source == "narrated":
        render_corpus(output, noise=corpus.caption_noise, num_proc=NUM_PROC, **NARRATED)
        return
    selection = RowSelection(limit=corpus.limit, skip=corpus.skip)
    prepare(corpus.source, folders.sources / corpus.source, output, selection, corpus.noise, NUM_PROC)


def make_part(part: Part, folders: Folders) -> None:
    """Makes one of the corpora that a corpus mixes, unless it exists."""
    if part.source is None:
        make_corpus(part.name, folders)
    else:
        source = folders.sources / part.name / ("annotations.csv" if part.table else "")
        prepare(part.source, source, folders.corpora / part.name, RowSelection(), CLEAN, NUM_PROC, part.table)


def data_fields(run: Run, folders: Folders) -> dict[str, object]:
    """The fields of the training configuration that name a run's corpus, or the corpora that it mixes."""
    if not run.trained_on.parts:
        return {"dataset": folders.corpora / run.corpus}
    entries = [
        {"dataset": str(folders.corpora / part.name), "dataset_config": part.config, "weight": part.weight}
        for part in run.trained_on.parts
    ]
    return {"datasets": json.dumps(entries)}


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
    train(run, output, {**data_fields(run, folders), **fields}, len(os.sched_getaffinity(0)))
    write_record(results, measure(run, folders, output))


def train(run: Run, output: Path, fields: dict[str, object], threads: int) -> None:
    """Pretrains by scripts/pretrain.py; continues from the last checkpoint where training was interrupted.

    Args:
        run: what is trained.
        output: folder of the model.
        fields: of the training configuration.
        threads: of the processor.

    Raises:
        UserError: with the last lines of its output, when it fails.
    """
    config = ROOT / "scripts" / "configs" / f"{run.trained_on.config}.yaml"
    script, config = (os.path.relpath(path) for path in (ROOT / "scripts" / "pretrain.py", config))
    fields = {"output_dir": output, **fields}
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
    output = folders.models / run.name
    fields = {**data_fields(run, folders), **run.training_fields()}
    if run.trained_on.start:
        fields["init_from"] = folders.start(run.trained_on.start)
    train(run, output, fields, threads)
    torch.set_num_threads(threads)
    return measure(run, folders, output)


def measure(run: Run, folders: Folders, output: Path) -> dict:
    """The retrieval of a trained model on the validation and the test split, and its pooled vectors' on the latter; of
    one that was trained on several corpora also what its frozen features are worth downstream.

    Args:
        run: how it was trained.
        folders: where its corpus is.
        output: folder of the model.

    Returns:
        its record.
    """
    started = time.monotonic()
    model, processor = load_model(str(output))
    parts = run.trained_on.parts
    corpus = folders.corpora / (parts[0].name if parts else run.corpus)

    def evaluate(split: str, *scores: str, join_captions: bool = False) -> list[dict[str, dict[str, float]]]:
        """The metrics by each score; the split is encoded once."""
        settings = RetrievalSettings(join_captions=join_captions, num_workers=0)
        items = encode_items(model, processor, load_corpus(str(corpus), split), settings)
        return [measure_retrieval(model, items, replace(settings, score=score), Counter()) for score in scores]

    metrics, metrics_of_pooled_vectors = evaluate("test", "trained", "coarse")
    [metrics_on_validation] = evaluate("validation", "trained")
    more = {}
    if run.trained_on.join_captions:
        [more["metrics_of_joined_captions"]] = evaluate("test", "trained", join_captions=True)
    if parts:
        more["probes"] = measure_probes(output, folders.corpora, run.seed, random_init=False)
        if run.loss == "fine":  # all losses train the same encoders
            more["probes_of_random_weights"] = measure_probes(output, folders.corpora, run.seed, random_init=True)
    return {
        "model": run.name,
        "dataset": run.trained_on.source,
        "split": "test",
        "protocol": f"retrieval, trained score, the middle {processor.clip_seconds:g} s of each item",
        "metrics": metrics,
        "metrics_of_pooled_vectors": metrics_of_pooled_vectors,
        "metrics_on_validation": metrics_on_validation,
        **more,
        "seed": run.seed,
        **describe_run(time.monotonic() - started),
        "settings": run.settings(),
        "run": asdict(run),
        "parameters": model.num_parameters(),
        "training": read_training_record(str(output)),
    }
