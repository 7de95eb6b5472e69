"""How much right and wrong region-phrase pairs weigh in the course of training, on clips whose noise is known."""

import math
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import matplotlib
import torch
from accelerate import PartialState
from safetensors.torch import load_file
from torch.nn.modules.utils import consume_prefix_in_state_dict_if_present
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm

from modeling_fgmm import FgmmModel
from modeling_fgmm.loss_fgmm import OBJECTIVES, Attention
from modeling_fgmm.outputs_fgmm import as_keys, as_queries
from processing_fgmm import FgmmProcessor
from processing_fgmm.clips_fgmm import Clip, collate, row_duration
from processing_fgmm.corpora_fgmm import check_captions, load_corpus
from processing_fgmm.streams_fgmm import EvaluationClips

from ..cli import UserError
from ..models import load_model

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.lines import Line2D

# Objectives that compare pooled embeddings, in which all regions weigh the same.
POOLED = [name for name, objective in OBJECTIVES.items() if not objective.needs_phrases]
SHARES = ("attention_on_right_slide", "weight_of_right_captions")
PAIRS = ("right_pairs", "wrong_place_pairs", "chatter_pairs")
# Names of the kinds of pairs in the figure, and their line styles.
LINES = {"right pairs": "-", "pairs in the wrong place": "--", "pairs of chatter": ":"}
# Shows that are encoded at once.
BATCH_SIZE = 32


@dataclass
class Show:
    """A slide show.

    Args:
        clip: its frames and all its captions that can be used.
        caption_slides: of each caption the slide that it tells of, -1 for none.
        slides: the number of slides.
    """

    clip: Clip
    caption_slides: list[int]
    slides: int


def find_checkpoints(folder: str) -> dict[int, Path]:
    """The checkpoints' weights that scripts/pretrain.py kept in a model folder, by training step, oldest first.

    Raises:
        UserError: when there are none.
    """
    paths = sorted(Path(folder).glob("checkpoints/step-*[0-9]/model.safetensors"))
    if not paths:
        raise UserError(
            f"{folder} has no checkpoints; train with save_steps set and save_total_limit high enough to keep them."
        )
    return {int(path.parent.name.removeprefix("step-")): path for path in paths}


def read_rows(dataset: str, split: str, num_clips: int) -> list[dict]:
    """The first slide shows of a corpus, undecoded.

    Raises:
        UserError: when the corpus has no slide shows.
    """
    corpus = load_corpus(dataset, split)
    missing = f"The split {split!r} of {dataset} has no slide shows"
    if "caption_slides" not in (corpus.column_names or []):
        raise UserError(f"{missing} (no column 'caption_slides'); make some by prepare_dataset.py --slides.")
    rows = [row for row in corpus.take(num_clips) if row["caption_slides"]]
    if not rows:
        raise UserError(f"{missing} among its first {num_clips} rows; give the split that was made with --slides.")
    return rows


def read_shows(rows: list[dict], processor: FgmmProcessor) -> list[Show]:
    """Decodes shows as evaluation does.

    Raises:
        UserError: when no show can be decoded.
    """
    reader = EvaluationClips(rows, processor, with_audio=False)
    shows = []
    for row in rows:
        [item] = reader.decode_row(row)
        if isinstance(item, str):
            tqdm.write(f"Skipped a clip: {item}")
        else:
            clip = replace(item.windows[0], captions=item.captions)
            duration = row_duration(row)
            captions = zip(check_captions(row["captions"], duration), row["caption_slides"], strict=True)
            caption_slides = [slide for (caption, _), slide in captions if caption]
            shows.append(Show(clip, caption_slides, slides=round(duration)))  # each slide is shown for one second
    if not shows:
        raise UserError(f"None of the {len(rows)} slide shows can be decoded.")
    return shows


def check_model(name: str, model: FgmmModel, processor: FgmmProcessor, show: Show) -> None:
    """Checks that a model compares text with video, and that each of its moments shows one slide.

    Raises:
        UserError: when it does not.
    """
    if "text_video" not in model.objectives:
        raise UserError(f"{name} does not compare text with video; it has {', '.join(model.config.modalities)}.")
    times = encode(model, processor, [show])["video"].grid[0]
    if times != show.slides or processor.clip_seconds < show.slides:
        raise UserError(
            f"{name} sees {times} times of {processor.clip_seconds:g} s at most, but a show has {show.slides} slides "
            f"of 1 s; train with frame_by_frame, {show.slides} video_processor.num_frames and no fewer clip_seconds."
        )


@torch.no_grad()
def encode(model: FgmmModel, processor: FgmmProcessor, shows: list[Show]) -> dict:
    """The model's video and text outputs for some shows."""
    inputs = collate(processor, [show.clip for show in shows], with_audio=False)
    return model.encode_inputs(**{name: value.to(model.device) for name, value in inputs.items()})


class Means:
    """Means of weights over shows, phrases and pairs, added up batch by batch."""

    def __init__(self):
        self.sums, self.counts = Counter(), Counter()

    def add(self, name: str, values: torch.Tensor, mask: torch.Tensor) -> None:
        """Adds the values at which the mask, of the same shape, is True to a mean."""
        self.sums[name] += values[mask].double().sum().item()
        self.counts[name] += int(mask.sum())

    def add_shows(self, attention: Attention, caption_slides: torch.Tensor, slides: int) -> None:
        """Adds a batch of shows.

        Args:
            attention: of B shows; what counts are the weights of each show's captions with its own regions.
            caption_slides: (B, K) the slide that a caption tells of, -1 for none.
            slides: in each show; regions of a slide stand together, in the order of the slides.
        """
        queries = attention.queries
        regions, in_caption, captions = (
            weights.diagonal(dim1=0, dim2=1).movedim(-1, 0)
            for weights in (attention.regions, attention.phrases, attention.captions)
        )
        phrases = in_caption * captions.gather(1, queries.captions)  # (B, P), sum 1 a show
        num_regions = regions.shape[-1]
        slide_of_region = torch.arange(num_regions, device=caption_slides.device) // (num_regions // slides)
        slide_of_phrase = caption_slides.gather(1, queries.captions)
        right = slide_of_phrase.unsqueeze(-1) == slide_of_region  # (B, P, N)
        on_slide = slide_of_phrase >= 0
        self.add("attention_on_right_slide", (regions * right).sum(-1), on_slide & queries.mask)
        self.add("weight_of_right_captions", (captions * (caption_slides >= 0)).sum(1), queries.present)

        uniform = 1 / (queries.mask.sum(1) * num_regions).clamp(min=1)  # (B,)
        relative = phrases.unsqueeze(-1) * regions / uniform.view(-1, 1, 1)
        exists = queries.mask.unsqueeze(-1).expand_as(right)
        on_slide = on_slide.unsqueeze(-1)
        for name, kind in zip(PAIRS, (right, on_slide & ~right, ~on_slide), strict=True):
            self.add(name, relative, kind & exists)

    def get(self, name: str) -> float | None:
        """A mean, None of nothing."""
        return self.sums[name] / self.counts[name] if self.counts[name] else None


def measure(model: FgmmModel, processor: FgmmProcessor, shows: list[Show]) -> Means:
    """The means of one checkpoint over all shows."""
    means, objective = Means(), model.objectives["text_video"]
    for first in range(0, len(shows), BATCH_SIZE):
        batch = shows[first : first + BATCH_SIZE]
        outputs = encode(model, processor, batch)
        attention = objective(as_queries(outputs["text"]), as_keys(outputs["video"]), output="attention")
        slides = [torch.tensor(show.caption_slides) for show in batch]
        caption_slides = pad_sequence(slides, batch_first=True, padding_value=-1)
        caption_slides = caption_slides[:, : attention.captions.shape[-1]]  # the last captions may be without a word
        means.add_shows(attention, caption_slides.to(model.device), batch[0].slides)
    return means


def load_weights(model: FgmmModel, path: Path) -> None:
    """Puts a checkpoint's weights into the model."""
    state = load_file(path)
    consume_prefix_in_state_dict_if_present(state, "module.")  # a run of several processes
    model.load_state_dict(state)


@torch.no_grad()
def trace(
    model: FgmmModel, processor: FgmmProcessor, shows: list[Show], checkpoints: dict[int, Path], bar: tqdm
) -> dict:
    """Measures one model's checkpoints: lists of each mean, in the order of the steps.

    sharpness is that of the attention over regions, null for the maximum; pairs counts the region-phrase pairs of each
    kind.
    """
    traced = {"objective": model.config.objective, "steps": list(checkpoints)}
    traced |= {name: [] for name in (*SHARES, *PAIRS, "sharpness")}
    for path in checkpoints.values():
        load_weights(model, path)
        means = measure(model, processor, shows)
        for name in (*SHARES, *PAIRS):
            traced[name].append(means.get(name))
        sharpness = float(model.objectives["text_video"].attention_sharpness())
        traced["sharpness"].append(None if math.isinf(sharpness) else sharpness)
        bar.update()
    return {**traced, "pairs": {name: means.counts[name] for name in PAIRS}}


def trace_models(folders: list[str], dataset: str, split: str, num_clips: int) -> dict:
    """The content of the results file, without the description of the run.

    Raises:
        UserError, CorpusError: when a model or the corpus does not fit.
    """
    checkpoints = {folder: find_checkpoints(folder) for folder in folders}
    rows = read_rows(dataset, split, num_clips)
    models = {}
    with tqdm(total=sum(map(len, checkpoints.values())), desc="Measuring", unit="checkpoint") as bar:
        for folder in folders:
            model, processor = load_model(folder)
            model.to(PartialState().device)
            shows = read_shows(rows, processor)
            check_model(folder, model, processor, shows[0])
            models[Path(folder).name] = trace(model, processor, shows, checkpoints[folder], bar)
    right = [sum(slide >= 0 for slide in show.caption_slides) / len(show.caption_slides) for show in shows]
    chance = dict(zip(SHARES, (1 / shows[0].slides, sum(right) / len(right)), strict=True))
    about = {"dataset": dataset, "split": split, "num_clips": len(shows), "slides": shows[0].slides}
    return {**about, "models": models, "chance": {**chance, **dict.fromkeys(PAIRS, 1.0)}}


def draw(record: dict, path: Path) -> None:
    """The figure of a results file, over training steps: both shares, and the weights of the three kinds of pairs."""
    models = record["models"]
    objectives = {name: traced["objective"] for name, traced in models.items()}
    # The objective is a shorter name than the folder, where no two models share it.
    labels = objectives if len(set(objectives.values())) == len(models) else {name: name for name in models}
    uniform = [labels[name] for name, objective in objectives.items() if objective in POOLED]
    figure, axes = plt.subplots(1, 3, figsize=(9, 3.4), layout="constrained")
    titles = ("Attention on the right slide", "Weight of the right captions", "Weight of a region-phrase pair")
    for axis, title in zip(axes, titles, strict=True):
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("training step")
        axis.set_ylabel("weight, uniform = 1" if axis is axes[2] else "share, %")
        axis.spines[["top", "right"]].set_visible(False)
    for axis, share, label in zip(axes, SHARES, (", ".join(["chance", *uniform]), "chance"), strict=False):
        axis.axhline(100 * record["chance"][share], color="grey", linestyle="--", linewidth=1)
        place = {"xy": (1, 100 * record["chance"][share]), "xycoords": ("axes fraction", "data")}
        axis.annotate(label, **place, xytext=(0, -3), textcoords="offset points", ha="right", va="top", fontsize=8)
        axis.margins(y=0.12)  # room for the label
    axes[2].axhline(1, color="grey", linestyle="--", linewidth=1)
    for number, traced in enumerate(models.values()):
        for axis, share in zip(axes, SHARES, strict=False):
            if share != "attention_on_right_slide" or traced["objective"] not in POOLED:
                axis.plot(traced["steps"], percent(traced[share]), marker=".", color=f"C{number}")
        for kind, line in zip(PAIRS, LINES.values(), strict=True):
            axes[2].plot(traced["steps"], as_numbers(traced[kind]), line, color=f"C{number}")
    handles = [Line2D([], [], marker=".", color=f"C{number}", label=labels[name]) for number, name in enumerate(models)]
    handles += [Line2D([], [], color="black", linestyle=line, label=label) for label, line in LINES.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False, fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def as_numbers(values: list[float | None]) -> list[float]:
    """Values to plot: a gap where there is none."""
    return [math.nan if value is None else value for value in values]


def percent(shares: list[float | None]) -> list[float]:
    """Shares to plot, in percent."""
    return [100 * value for value in as_numbers(shares)]
