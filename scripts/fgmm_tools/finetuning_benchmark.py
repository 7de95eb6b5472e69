"""Time and memory of fine-tuning a dual encoder by scripts/pretrain.py, and the loss of each step."""

import os
import statistics
import subprocess
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import torch
from tokenizers.processors import TemplateProcessing
from transformers import CLIPConfig, CLIPModel, PreTrainedTokenizerFast
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from processing_fgmm.corpora_fgmm import load_corpus

from .cli import UserError
from .paths import ROOT
from .training.tokenizer import iterate_captions, train_word_tokenizer

RECIPE = ROOT / "scripts" / "configs" / "finetune.yaml"
VOCABULARY_SIZE = 49408  # CLIP's
TINY_TOWER = {"hidden_size": 128, "intermediate_size": 512, "num_hidden_layers": 2, "num_attention_heads": 4}
# CLIP's architectures, whose weights are random: ViT-B/32, which are transformers' defaults, and one of two layers.
CONFIGS = {
    "vit-b-32": {},
    "tiny": {
        "vision_config": {**TINY_TOWER, "image_size": 64, "patch_size": 16},
        "text_config": TINY_TOWER,
        "projection_dim": 128,
    },
}
# What is trained beside the objective, as options of scripts/pretrain.py.
VARIANTS = {
    "adapters": (),  # and projections: the recipe
    "projections": ("--lora_rank", "0", "--model.frozen", "[video, text]"),
    "everything": ("--lora_rank", "0", "--encoder_learning_rate", "1e-3"),
}


@dataclass(frozen=True)
class FinetuningSettings:
    """What is measured.

    Args:
        dataset: corpus of videos with captions.
        model: one of `CONFIGS`.
        num_frames: of a clip.
        batch_size: clips of a step.
        steps: of each variant; the first of several is not timed.
    """

    dataset: str
    model: str = "vit-b-32"
    num_frames: int = 8
    batch_size: int = 32
    steps: int = 3


def check_installed() -> None:
    """Checks that losses can be read from the training's log.

    Raises:
        UserError: when they cannot.
    """
    if not find_spec("tensorboard"):
        raise UserError("The losses are read from TensorBoard's log: install the extra dev (pip install 'fgmm[dev]').")


def save_random_clip(settings: FinetuningSettings, folder: Path) -> Path:
    """Saves CLIP with random weights, its image processor, and a tokenizer of the words of the corpus."""
    captions = [text for row in iterate_captions(load_corpus(settings.dataset, "train")) for text in row]
    tokenizer = train_word_tokenizer(captions, VOCABULARY_SIZE - 1)
    add_end_of_text(tokenizer)
    options = CONFIGS[settings.model]
    text = {"eos_token_id": tokenizer.eos_token_id, "bos_token_id": None, "pad_token_id": tokenizer.pad_token_id}
    text = {**options.get("text_config", {}), **text, "vocab_size": VOCABULARY_SIZE}
    config = CLIPConfig(**{**options, "text_config": text})
    torch.manual_seed(0)
    CLIPModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    side = config.vision_config.image_size
    CLIPImageProcessorPil(size={"shortest_edge": side}, crop_size={"height": side, "width": side}).save_pretrained(
        folder
    )
    return folder


def add_end_of_text(tokenizer: PreTrainedTokenizerFast) -> None:
    """Lets each text end with a token of its own, whose vector CLIP pools."""
    tokenizer.add_special_tokens({"eos_token": "[EOS]"})
    end = ("[EOS]", tokenizer.eos_token_id)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing("$A [EOS]", None, [end])


def measure(settings: FinetuningSettings, variant: str, start: Path, folder: Path) -> dict:
    """Trains one variant in a process of its own.

    Args:
        settings: what is measured.
        variant: one of `VARIANTS`.
        start: folder of the dual encoder.
        folder: for the model and its log.

    Returns:
        `seconds_per_step` (the median), `clips_per_s`, `peak_gb` (resident memory of the training process, GB),
        `core_seconds` (of processor cores, from its start to its end), and `losses`, one a step.

    Raises:
        UserError: when the training fails.
    """
    command = [sys.executable, str(ROOT / "scripts" / "pretrain.py"), "--config", str(RECIPE)]
    command += ["--dataset", settings.dataset, "--init_from", str(start), "--output_dir", str(folder)]
    command += ["--video_processor.num_frames", str(settings.num_frames), "--batch_size", str(settings.batch_size)]
    command += ["--max_steps", str(settings.steps), "--warmup_steps", str(settings.steps // 10), "--num_workers", "0"]
    command += ["--log_steps", "1", "--eval_steps", "0", "--save_steps", "0", "--trackers", "[tensorboard]"]
    process = subprocess.Popen([*command, *VARIANTS[variant]])
    _, status, usage = os.wait4(process.pid, 0)  # the peak memory is that of this process alone
    if status:
        raise UserError(f"The training of {variant} failed; what it said is above.")
    log = read_log(folder)
    rate = statistics.median(log["clips_per_s"][1:] or log["clips_per_s"])
    return {
        "seconds_per_step": round(settings.batch_size / rate, 3),
        "clips_per_s": round(rate, 3),
        "peak_gb": round(usage.ru_maxrss * 1024 / 1e9, 2),
        "core_seconds": round(usage.ru_utime + usage.ru_stime, 1),
        "losses": [round(loss, 4) for loss in log["loss"]],
    }


def read_log(folder: Path) -> dict[str, list[float]]:
    """`loss` and `clips_per_s` of each step, from TensorBoard's log below a folder.

    Raises:
        UserError: when there is none.
    """
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # of an extra

    for log in sorted(folder.rglob("events.out.tfevents.*")):
        events = EventAccumulator(str(log)).Reload()
        if "loss" in events.Tags()["scalars"]:
            return {name: [scalar.value for scalar in events.Scalars(name)] for name in ("loss", "clips_per_s")}
    raise UserError(f"There is no log of losses below {folder}.")


def format_table(results: dict[str, dict]) -> str:
    """The results as lines of text, one a variant."""
    lines = [f"{'trained':14}{'s/step':>8}{'clips/s':>9}{'peak GB':>9}{'loss':>18}"]
    for name, values in results.items():
        loss = f"{values['losses'][0]:.3f} -> {values['losses'][-1]:.3f}"
        lines.append(
            f"{name:14}{values['seconds_per_step']:8.2f}{values['clips_per_s']:9.1f}{values['peak_gb']:9.2f}{loss:>18}"
        )
    return "\n".join(lines)
