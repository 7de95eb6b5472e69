"""What does not point: foreign phrases, silence and noise must be told from what a clip shows or sounds like."""

import random

import numpy as np
import torch

from modeling_fgmm import ClipRegions, FgmmModel
from modeling_fgmm.grounding_fgmm import NUM_FOREIGN
from processing_fgmm import FgmmProcessor

from .clips import LocatedClip
from .maps import encode_queries, map_texts
from .metrics import area_under_roc

# The share of a corpus' own phrases that must pass as shown, on training clips.
KEPT = 0.9
# Of sounds and frames that hold nothing: seconds, sampling rate (Hz), frames and their side (pixels).
SECONDS, RATE, FRAMES, SIDE = 5.0, 16000, 16, 96


def measure_refusal(
    model: FgmmModel,
    processor: FgmmProcessor,
    clips: list[LocatedClip],
    chosen_on: list[LocatedClip],
    modality: str,
    seed: int,
) -> dict[str, float]:
    """How surely own phrases are told from foreign ones, by their confidence: the share of foreign texts of the same
    form that fit the clip less well (see [`~FgmmModel.ground`]).

    Of each clip one of its own phrases and one of another clip, which names something that this one does not.

    Args:
        clips, chosen_on: those that are measured, and the training clips on which the least confidence is chosen with
            which 90 % of own phrases pass.
        modality: "video" or "audio".
        seed: of the choice of phrases.

    Returns:
        `auc`, the probability in percent that an own phrase is more confident than a foreign one; `auc_score`, the same
        of the plain score; in percent the own and foreign phrases that pass, and those of all own phrases with a clip
        that holds nothing: silence and noise, or black frames and noise; the least confidence and numbers.
    """
    least = torch.tensor(compare(model, processor, chosen_on, modality, seed)["own"]).quantile(1 - KEPT).item()
    found = {name: torch.tensor(values) for name, values in compare(model, processor, clips, modality, seed).items()}
    values = {
        "auc": 100 * area_under_roc(found["own"], found["foreign"]),
        "auc_score": 100 * area_under_roc(found["own_score"], found["foreign_score"]),
        "own_pass": 100 * (found["own"] >= least).float().mean().item(),
        "foreign_pass": 100 * (found["foreign"] >= least).float().mean().item(),
    }
    texts = [clip.of(modality)[0].text for clip in clips if clip.of(modality)]
    for name, item in make_empty(modality, seed).items():
        regions = model.encode_regions(**{modality: item}, processor=processor)
        passed = [rate_text(model, processor, text, regions)[0] >= least for text in texts]
        values[f"{name}_pass"] = 100 * float(np.mean(passed))
    return {**values, "least_confidence": least, "num_phrases": len(found["own"])}


def compare(
    model: FgmmModel, processor: FgmmProcessor, clips: list[LocatedClip], modality: str, seed: int
) -> dict[str, list[float]]:
    """Confidence and score of an own and of a foreign phrase of each clip: "own", "foreign", "own_score" and
    "foreign_score"."""
    generator = random.Random(seed)
    clips = [clip for clip in clips if clip.of(modality)]
    found: dict[str, list[float]] = {name: [] for name in ("own", "foreign", "own_score", "foreign_score")}
    for clip in clips:
        names = clip.names()
        strangers = [
            entry
            for other in generator.sample(clips, min(len(clips), 8))
            for entry in other.of(modality)
            if entry.mention.name not in names
        ]
        if not strangers:
            continue
        for name, entry in (("own", generator.choice(clip.of(modality))), ("foreign", generator.choice(strangers))):
            confidence, score = rate_text(model, processor, entry.text, clip.regions[modality])
            found[name].append(confidence)
            found[f"{name}_score"].append(score)
    return found


def rate_text(model: FgmmModel, processor: FgmmProcessor, text: str, regions: ClipRegions) -> tuple[float, float]:
    """The confidence and the score of a text in a clip."""
    texts = [text, *processor.make_foreign_texts(text, NUM_FOREIGN)]
    scores = map_texts(model, encode_queries(model, processor, texts), regions).scores
    return (scores[1:] < scores[0]).float().mean().item(), scores[0].item()


def make_empty(modality: str, seed: int) -> dict[str, object]:
    """Clips that show nothing, or sound like nothing."""
    generator = np.random.default_rng(seed)
    if modality == "audio":
        noise = generator.normal(0, 0.1, round(SECONDS * RATE)).astype(np.float32)
        sounds = {"silence": np.zeros_like(noise), "noise": noise}
        return {name: {"array": sound, "sampling_rate": RATE} for name, sound in sounds.items()}
    shape = (FRAMES, SIDE, SIDE, 3)
    return {"black": np.zeros(shape, np.uint8), "noise": generator.integers(0, 256, shape, dtype=np.uint8)}
