"""What is told about a run while it trains: its beginning, clips that fail, retrieval scores."""

import dataclasses
import json
import os
import time
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from tqdm import tqdm

from modeling_fgmm import FgmmModel
from processing_fgmm import FgmmProcessor
from processing_fgmm.corpora_fgmm import CorpusError, load_corpus
from processing_fgmm.processing_fgmm import name_words
from processing_fgmm.streams_fgmm import Batch, FailedClip

from ..caption_problems import CaptionProblems
from ..cli import UserError
from ..records import describe_run, write_record
from .checkpoints import Progress, describe_training
from .configuration import PretrainConfig
from .run_folder import Run
from .sharding import gather_model
from .termination import Termination

# Share of its time that training may wait for clips before a hint is given.
MAX_WAITING = 0.2
# Where Linux says how much of the cores' time a container may use: microseconds in each period, in microseconds.
CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def describe_sizes(config: PretrainConfig, model: FgmmModel) -> str:
    """Sizes of model, run and batch, as a sentence."""
    sizes = {name: sum(p.numel() for p in encoder.parameters()) for name, encoder in model.encoders.items()}
    parameters = " + ".join(f"{name} {size / 1e6:.2f} M" for name, size in sizes.items())
    return (
        f"Pretraining {parameters} parameters on {' and '.join(config.corpus_names)}: {config.max_steps} "
        f"steps of {config.batch_size * config.gradient_accumulation_steps} clips."
    )


def describe_resumption(run: Run, progress: Progress) -> str:
    """Where a run resumes, and which of its settings are others from there on, as sentences."""
    changes = [change for change in run.identity["changes"] if change["step"] == progress.step]
    text = f"Resumed from {run.checkpoint} at step {progress.step}."
    for change in changes:
        text += f" {change['field']} was {change['old']} and is {change['new']}: the learning rate is that of a run of"
        text += f" {change['new']} steps from here on."
    return text


def count_cores() -> int:
    """Processor cores that this process may use, by its affinity and its container's quota."""
    cores = len(os.sched_getaffinity(0))
    try:
        quota, period = CPU_QUOTA.read_text().split()
    except OSError:
        return cores
    return cores if quota == "max" else max(1, min(cores, int(quota) // int(period)))


def suggest_threads(accelerator: Accelerator) -> str | None:
    """A hint where the processes of this machine compute with more threads than there are cores; else None."""
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    threads, cores = torch.get_num_threads(), count_cores()
    if accelerator.device.type != "cpu" or threads * processes <= cores:
        return None
    return (
        f"{processes} x {threads} threads share {cores} cores and wait for each other; --num_threads "
        f"{max(1, cores // processes)} fits."
    )


def suggest_workers(config: PretrainConfig, share: float) -> str | None:
    """A hint where training waits for clips.

    Args:
        config: of the run.
        share: of its time that it waited.
    """
    if share <= MAX_WAITING:
        return None
    return (
        f"Training waits for clips {share:.0%} of the time: raise num_workers, which is {config.num_workers}, up to "
        "the number of cores for each process, or lower the size that videos are decoded at."
    )


class FailedClips:
    """The clips that cannot be decoded: each is named once in a run, and listed in its failed_clips.jsonl.

    Those that are damaged in part, and used without that, are named once by each process.

    Args:
        path: of the list, which a resumed run continues.
        max_share: of all clips seen; more of them stop the run.

    Attributes:
        captions: those of the other clips that were left out or repaired.
    """

    def __init__(self, path: Path, max_share: float):
        self.path = path
        self.max_share = max_share
        lines = path.read_text().splitlines() if path.exists() else []
        self.known = {(entry["video_id"], entry["file"]) for entry in map(json.loads, lines)}
        self.new: list[FailedClip] = []
        self.failed = 0
        self.seen = 0
        self.damaged: set[str] = set()
        self.captions = CaptionProblems()

    def add(self, batch: Batch) -> None:
        """Adds a batch of this process.

        Raises:
            UserError: when not one clip of the run could be decoded so far; they are listed before.
        """
        self.seen += batch.num_clips + len(batch.failures)
        self.failed += len(batch.failures)
        self.new += batch.failures
        for video_id, message in batch.damaged.items():
            if video_id not in self.damaged:
                self.damaged.add(video_id)
                tqdm.write(f"Used without its damaged part: {message}")
        self.captions.add(batch.caption_problems)
        if self.seen and self.failed == self.seen:
            self.write(self.new)
            raise UserError(
                f"None of the {len(batch.failures)} clips of a batch could be decoded; the first: "
                f"{batch.failures[0].reason}"
            )

    def report(self, accelerator: Accelerator) -> int:
        """Names and lists the clips that failed since the last report in any process; all call it together.

        Returns:
            how many different clips have failed in the run.

        Raises:
            UserError: when after 100 clips too large a share has failed.
        """
        failures, counts = gather_object(self.new), gather_object([(self.failed, self.seen)])
        self.new = []
        if accelerator.is_main_process:
            self.write(failures)
        self.known |= {(failure.video_id, failure.file) for failure in failures}
        failed, seen = (sum(values) for values in zip(*counts, strict=True))
        if seen >= 100 and failed > self.max_share * seen:
            raise UserError(
                f"{failed} of {seen} clips could not be decoded, more than max_failed_share {self.max_share} allows; "
                f"{self.path} names them."
            )
        return len(self.known)

    def write(self, failures: list[FailedClip]) -> None:
        """Names and lists the clips that are not known yet."""
        for failure in failures:
            if (failure.video_id, failure.file) not in self.known:
                self.known.add((failure.video_id, failure.file))
                tqdm.write(f"Skipped a clip: {failure.reason}")
                with self.path.open("a") as file:
                    file.write(json.dumps(dataclasses.asdict(failure)) + "\n")

    def summarize(self) -> str:
        """How many clips failed, were damaged in part, or had captions that were left out or repaired, as sentences."""
        counts = f"{len(self.known)} could not be decoded, {len(self.damaged)} were damaged in part"
        return f"Of the clips {counts}. {self.captions.summarize()}".rstrip()


class SkippedSteps:
    """The steps whose loss is not a number; each is listed, with the clips of its batch, in skipped_steps.jsonl.

    Args:
        path: of the list, which a resumed run continues.
        limit: how many leave the weights as they are, before the run stops.
        step: at which the run begins; what the list says of later steps is forgotten.
    """

    def __init__(self, path: Path, limit: int, step: int):
        self.path = path
        self.limit = limit
        lines = path.read_text().splitlines() if path.exists() else []
        self.known = [entry for entry in map(json.loads, lines) if entry["step"] <= step]

    def is_finite(self, accelerator: Accelerator, step: int, loss: torch.Tensor, batches: list[Batch]) -> bool:
        """Whether the loss, a number, is one in all processes, which call it together.

        Args:
            step: that is taken.
            batches: of this process in this step.

        Raises:
            UserError: with the clips, when it is none and too many were none before.
        """
        if torch.isfinite(accelerator.reduce(loss.detach(), "sum")):
            return True
        video_ids = gather_object([video_id for batch in batches for video_id in batch.video_ids])
        self.known.append({"step": step, "video_ids": video_ids})
        if accelerator.is_main_process:
            self.path.write_text("".join(json.dumps(entry) + "\n" for entry in self.known))
        text = f"The loss is not a number at step {step}, of the clips {name_words(video_ids)}"
        if len(self.known) > self.limit:
            raise UserError(
                f"{text}; {self.path} names all. Remove them if they are wrong, or lower learning_rate or use bf16."
            )
        accelerator.print(f"{text}; the step is left out.")
        return False


def evaluate(
    accelerator: Accelerator,
    model: torch.nn.Module,
    processor: FgmmProcessor,
    config: PretrainConfig,
    run: Run,
    progress: Progress,
    termination: Termination,
) -> None:
    """Measures retrieval among the first clips of the evaluation split, on the main process.

    Prints and logs it, and writes evaluations/step-STEP.json, a results file as of scripts/evaluate_retrieval.py. The
    random state stays as it is, so that a run that is resumed from before the evaluation goes the same way. A split
    that cannot be measured is said, and does not end the run; SIGTERM ends the evaluation.
    """
    whole = gather_model(accelerator, model)
    if accelerator.is_main_process and not termination.received:
        with termination.interrupting():
            try:
                results = measure(whole, processor, config, run, progress)
            except (UserError, CorpusError) as error:
                tqdm.write(f"Step {progress.step} is not evaluated: {error}")
            else:
                scores = {f"{name}/{metric}": value for name, r in results.items() for metric, value in r.items()}
                accelerator.log(scores, step=progress.step)
    accelerator.wait_for_everyone()


def measure(
    model: FgmmModel,
    processor: FgmmProcessor,
    config: PretrainConfig,
    run: Run,
    progress: Progress,
) -> dict[str, dict[str, float]]:
    """Measures, prints and records the metrics of [`evaluate`] and gives them back, by direction.

    Raises:
        UserError, CorpusError: when the split cannot be measured.
    """
    from ..retrieval.evaluation import describe_protocol, evaluate_retrieval, format_table  # wants the extra `eval`
    from ..retrieval.settings import RetrievalSettings

    started, settings, is_training = time.monotonic(), RetrievalSettings(), model.training
    dataset, dataset_config = config.corpora[0].dataset, config.corpora[0].dataset_config
    corpus = load_corpus(dataset, config.eval_split, dataset_config).take(config.eval_clips)
    model.eval()
    try:
        with torch.random.fork_rng():
            results = evaluate_retrieval(model, processor, corpus, settings)
    finally:
        model.train(is_training)
    tqdm.write(f"Step {progress.step}\n{format_table(results)}")
    protocol = describe_protocol(settings, config.clip_seconds, any("audio" in direction for direction in results))
    record = {
        "model": config.output_dir,
        "dataset": dataset,
        "dataset_config": dataset_config,
        "split": config.eval_split,
        "protocol": f"{protocol}, at most {config.eval_clips} items",
        "step": progress.step,
        "metrics": results,
        "seed": config.seed,
        **describe_run(time.monotonic() - started),
        "training": describe_training(config, run, progress),
    }
    path = run.folder / "evaluations" / f"step-{progress.step:07d}.json"
    path.parent.mkdir(exist_ok=True)
    write_record(path, record)
    return results
