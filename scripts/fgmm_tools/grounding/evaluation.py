"""Measures grounding on a corpus whose captions say where and when the things are that they name."""

from modeling_fgmm import FgmmModel
from processing_fgmm import FgmmProcessor

from ..cli import UserError
from .clips import LocatedText, read_clips
from .refusal import measure_refusal
from .settings import GroundingSettings
from .spatial import choose_space_threshold, measure_space
from .temporal import choose_time_threshold, measure_time

MODALITIES = ("video", "audio")


def evaluate_grounding(
    model: FgmmModel,
    processor: FgmmProcessor,
    dataset: str,
    split: str,
    dataset_config: str | None,
    settings: GroundingSettings,
) -> dict[str, dict[str, float]]:
    """Measures grounding in space, in time and in what is refused.

    Args:
        model, processor: in evaluation mode, as loaded.
        dataset, split, dataset_config: of the corpus, whose rows have the column `mentions`.
        settings: how it is measured.

    Returns:
        of each measurement the model's values, and beside them those of what needs no model; shares from 0 to 100.

    Raises:
        UserError: when the corpus has no mentions, or nothing in it can be decoded or compared.
    """
    measured = read_clips(model, processor, dataset, split, dataset_config, settings.limit)
    chosen_on = []
    if settings.threshold == "train":
        chosen_on = read_clips(model, processor, dataset, settings.train_split, dataset_config, settings.limit)
    results = {}
    if any(clip.of("video") for clip in measured):
        threshold = choose_space_threshold(model, processor, chosen_on) if chosen_on else None
        results["space"] = measure_space(model, processor, measured, threshold)
    for modality in MODALITIES:
        timed = [clip for clip in measured if any(has_times(located) for located in clip.of(modality))]
        if settings.num_joined > 1 and chosen_on and len(timed) >= settings.num_joined:
            threshold = choose_time_threshold(model, processor, chosen_on, modality, settings.num_joined)
            results[f"time_{modality}"] = measure_time(
                model, processor, timed, modality, settings.num_joined, threshold
            )
        some = [clip for clip in measured if clip.of(modality)][: settings.num_negatives]
        if some and chosen_on:
            results[f"refusal_{modality}"] = measure_refusal(
                model, processor, some, chosen_on[: settings.num_negatives], modality, settings.seed
            )
    if not results:
        raise UserError(f"Nothing that the captions of {dataset} mention can be compared by this model.")
    return results


def has_times(located: LocatedText) -> bool:
    """Whether it is known from when to when a text holds."""
    return located.mention.start is not None


def describe_protocol(settings: GroundingSettings, objective: str, random_init: bool = False) -> str:
    """One line for the results file."""
    source = "attention" if objective in ("fine", "filip") else "similarity of unpooled regions"
    if random_init:
        source += " of random weights"
    extent = "thresholds chosen on training clips" if settings.threshold == "train" else "the upper half of each map"
    joined = f", in time {settings.num_joined} clips end to end" if settings.num_joined > 1 else ""
    return f"grounding of mentions, {source}, {extent}{joined}"


def format_table(results: dict[str, dict[str, float]]) -> str:
    """The results as lines of text."""
    lines = []
    for name, values in results.items():
        lines.append(name)
        lines += [
            f"  {key:22}" + (f"{value:10.1f}" if isinstance(value, float) else f"{value!s:>10}")
            for key, value in values.items()
        ]
    return "\n".join(lines)
