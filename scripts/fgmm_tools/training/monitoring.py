"""What is told about a run while it trains: its beginning, clips that fail, retrieval scores."""

import dataclasses

import torch
from accelerate import Accelerator
from tqdm import tqdm

from modeling_fgmm import FgmmModel
from processing_fgmm import FgmmProcessor
from processing_fgmm.corpora_fgmm import load_corpus
from processing_fgmm.streams_fgmm import Batch

from ..caption_problems import CaptionProblems
from ..cli import UserError
from .checkpoints import global_batch_size
from .configuration import PretrainConfig


def describe_sizes(config: PretrainConfig, model: FgmmModel, accelerator: Accelerator) -> str:
    """Sizes of model, run and batch, as a sentence."""
    sizes = {name: sum(p.numel() for p in encoder.parameters()) for name, encoder in model.encoders.items()}
    parameters = " + ".join(f"{name} {size / 1e6:.2f} M" for name, size in sizes.items())
    return (
        f"Pretraining {parameters} parameters on {config.dataset}: {config.max_steps} steps of "
        f"{global_batch_size(config, accelerator)} clips."
    )


def start_trackers(accelerator: Accelerator, config: PretrainConfig) -> None:
    """Starts the trackers of the run, if any, with its numbers and names as hyperparameters."""
    if config.trackers:
        plain = {k: v for k, v in dataclasses.asdict(config).items() if isinstance(v, (int, float, str))}
        accelerator.init_trackers("fgmm", config=plain)


class FailureCount:
    """Counts the clips that could not be decoded, and names them.

    Args:
        max_share: of all clips seen; more of them stop the run.

    Attributes:
        captions: those of the other clips that were left out or repaired.
    """

    def __init__(self, max_share: float):
        self.max_share = max_share
        self.failed = 0
        self.seen = 0
        self.captions = CaptionProblems()

    def add(self, batch: Batch) -> None:
        """Adds a batch.

        Raises:
            UserError: when a batch is empty, or after 100 clips too large a share has failed.
        """
        self.seen += batch.num_clips + len(batch.failures)
        self.failed += len(batch.failures)
        for message in batch.failures:
            tqdm.write(f"Skipped a clip: {message}")
        self.captions.add(batch.problems)
        if (self.seen >= 100 and self.failed > self.max_share * self.seen) or not batch.num_clips:
            raise UserError(
                f"{self.failed} of {self.seen} clips could not be decoded, more than max_failed_share "
                f"{self.max_share} allows; the messages above name them."
            )


def evaluate(
    accelerator: Accelerator, model: torch.nn.Module, processor: FgmmProcessor, config: PretrainConfig, step: int
) -> None:
    """Prints and logs retrieval among the first clips of the evaluation split, on the main process.

    The random state stays as it is, so that a run that is resumed from before the evaluation goes the same way.
    """
    if accelerator.is_main_process:
        from ..retrieval.evaluation import evaluate_retrieval, format_table  # wants the extra `eval`

        model.eval()
        corpus = load_corpus(config.dataset, config.eval_split, config.dataset_config).take(config.eval_clips)
        with torch.random.fork_rng():
            results = evaluate_retrieval(accelerator.unwrap_model(model), processor, corpus)
        tqdm.write(f"Step {step}\n{format_table(results)}")
        scores = {f"{direction}/{name}": value for direction, r in results.items() for name, value in r.items()}
        accelerator.log(scores, step=step)
        model.train()
    accelerator.wait_for_everyone()
