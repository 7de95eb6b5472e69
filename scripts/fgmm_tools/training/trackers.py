"""What the trackers of a run (TensorBoard, Trackio) are told beside loss and speed, and the pictures that they show.

Nothing is computed where a run has no trackers, and nothing that is computed changes a weight or a random number.
"""

import dataclasses
import resource

import torch
from accelerate import Accelerator
from transformers.utils import ModelOutput

from modeling_fgmm import FgmmModel
from processing_fgmm import FgmmProcessor

from .configuration import PretrainConfig
from .objective_values import PairLosses, measure_attention, read_scales
from .pictures import AttentionPictures
from .run_folder import Run
from .sharding import gather_model


class Tracking:
    """Starts the trackers of a run, with its numbers and names as hyperparameters, and gathers what they are told.

    Args:
        accelerator: with the trackers that `config` names.
        model: prepared by the accelerator, or plain.
        config, processor, run: of the training.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        model: torch.nn.Module,
        config: PretrainConfig,
        processor: FgmmProcessor,
        run: Run,
    ):
        self.is_on = bool(config.trackers)
        self.picture_steps = config.picture_steps if self.is_on else 0
        if not self.is_on:
            return
        plain = {k: v for k, v in dataclasses.asdict(config).items() if isinstance(v, (int, float, str))}
        accelerator.init_trackers("fgmm", config=plain)
        self.pair_losses = PairLosses(accelerator.unwrap_model(model))
        self.gradient_norms: list[torch.Tensor] = []
        if self.picture_steps and accelerator.is_main_process:
            self.pictures = AttentionPictures(config, processor, run.folder / "attention")

    def add_gradient_norm(self, norm: torch.Tensor) -> None:
        """Adds the norm of a step's gradients before they are clipped, a number."""
        if self.is_on:
            self.gradient_norms.append(norm.detach())

    def report(self, accelerator: Accelerator, model: FgmmModel, outputs: dict[str, ModelOutput]) -> dict[str, float]:
        """What has been gathered since the last report, and the state of the model; all processes call it together.

        `loss/PAIR`, `sharpness/PAIR`, `logit_scale/PAIR` and others of each pair of modalities, see
        [`PairLosses`], [`read_scales`] and [`measure_attention`]; `gradient_norm` and `gradient_norm_max` before
        clipping; `memory_gb` and `gpu_memory_gb`, the most that this process has held so far (10^9 bytes).

        Args:
            accelerator, model: as trained; the model without wrappers.
            outputs: of the encoders in the last step, by modality.
        """
        if not self.is_on:
            return {}
        values = self.pair_losses.report(accelerator) | read_scales(model)
        values |= measure_attention(accelerator, model, outputs)
        if self.gradient_norms:
            norms = torch.stack(self.gradient_norms).cpu()
            values |= {"gradient_norm": norms.mean().item(), "gradient_norm_max": norms.max().item()}
            self.gradient_norms.clear()
        values["memory_gb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9  # Linux counts in KiB
        if accelerator.device.type == "cuda":
            values["gpu_memory_gb"] = torch.cuda.max_memory_allocated() / 1e9
        return values

    def draw(self, accelerator: Accelerator, model: torch.nn.Module, step: int) -> None:
        """Draws the picture of every `picture_steps` steps; all processes call it together.

        Args:
            accelerator, model: as trained.
            step: that was taken.
        """
        if self.picture_steps and step % self.picture_steps == 0:
            whole = gather_model(accelerator, model)
            if accelerator.is_main_process:
                self.pictures.draw(accelerator, whole, step)
