"""A text, sound, picture or clip to what is compared with the windows of an index."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from modeling_fgmm import FgmmModel
from modeling_fgmm.outputs_fgmm import as_keys, as_queries
from modeling_fgmm.scoring_fgmm import Keys, Queries
from processing_fgmm import FgmmProcessor
from processing_fgmm.media_fgmm import Media

from ..cli import UserError


@dataclass(frozen=True, eq=False)  # each is one of its own, by which what is known of it is kept
class Comparison:
    """What a query is compared with in one modality of the windows.

    modality: "video" or "audio". embeds: (D,) float32, L2-normalised, for the coarse search.
    score: (n) windows' [`Keys`] to (n,) scores, those that the model was trained with where it was trained to compare
        the two, else cosines of pooled embeddings.
    """

    modality: str
    embeds: np.ndarray
    score: Callable[[Keys], torch.Tensor]


@dataclass(frozen=True)
class Query:
    """What is searched for.

    comparisons: one for each modality that it can be compared with; none for a text without a known word.
    text: of a query by text, else None. unknown_words: of the text, that the model does not know.
    """

    comparisons: list[Comparison]
    text: str | None = None
    unknown_words: list[str] = field(default_factory=list)


@torch.no_grad()
def make_text_queries(
    model: FgmmModel, processor: FgmmProcessor, texts: Sequence[str], modalities: Sequence[str]
) -> list[Query]:
    """Queries by text, which are encoded together.

    Args:
        modalities: of the windows.
    """
    inputs = processor(text=list(texts), verbose=False).to(model.device)
    encoded = as_queries(model.get_text_features(**inputs)).to("cpu")
    queries = []
    for row, text in enumerate(texts):
        unknown, without_known = processor.check_words([text])
        own = encoded.select(slice(row, row + 1)).without_padding()
        comparisons = []
        if not without_known and bool(own.present.all()):
            comparisons = [compare(model, "text", name, own) for name in modalities if can_compare(model, "text", name)]
        queries.append(Query(comparisons, text, unknown))
    return queries


def can_compare(model: FgmmModel, query: str, key: str) -> bool:
    """Whether the model was trained to compare two modalities."""
    return f"{query}_{key}" in model.objectives


def compare(model: FgmmModel, query: str, key: str, queries: Queries) -> Comparison:
    """The comparison of one query of a modality with windows, by the objective of the two."""
    objective = model.get_objective(query, key)

    @torch.no_grad()
    def score(keys: Keys) -> torch.Tensor:
        return objective.scores(queries.to(model.device), keys.to(model.device))[0, :, 0].float().cpu()

    return Comparison(key, queries.embeds[0, 0].float().numpy(), score)


def compare_alike(modality: str, embeds: torch.Tensor) -> Comparison:
    """The comparison of a pooled embedding (D,) with windows of its own modality, by cosines."""
    return Comparison(modality, embeds.numpy(), lambda keys: keys.embeds @ embeds)


@torch.no_grad()
def make_media_query(
    model: FgmmModel,
    processor: FgmmProcessor,
    kind: str,
    path: str | Path,
    modalities: Sequence[str],
    seconds: float,
    start: float = 0.0,
    end: float | None = None,
) -> Query:
    """A query by a sound, a picture or a clip.

    A picture is compared with the pictures of windows and a sound with their sounds, by cosines of pooled embeddings; a
    sound with their pictures, too, where the model was trained for that; a clip by both its picture and its sound.

    Args:
        kind: "sound", "picture" or "clip".
        path: of the file; the sound of a video is taken where a sound is asked for.
        modalities: of the windows.
        seconds: length of the windows of the index; a sound or clip without an end is so long at most.
        start, end: s.

    Raises:
        UserError: when the index has nothing to compare it with, or a sound or clip has no sound and no picture.
        MediaError: when the file cannot be decoded.
    """
    path, outputs = str(path), {}
    if kind == "picture" and "video" in modalities:
        inputs = processor(images=[path]).to(model.device)
        outputs["video"] = model.get_video_features(**inputs)
    elif kind != "picture":
        with Media(path) as media:
            end = min(start + seconds, max(media.duration, start + 1e-3)) if end is None else end
            has = {"audio": media.info.has_audio, "video": media.info.has_video and kind == "clip"}
        window = {"start": start, "end": end}
        if has["video"] and "video" in modalities:
            outputs["video"] = model.get_video_features(**processor(videos=[path], **window).to(model.device))
        if has["audio"] and "audio" in model.config.modalities:
            outputs["audio"] = model.get_audio_features(**processor(audio=[path], **window).to(model.device))
    comparisons = []
    for name, output in outputs.items():
        if name in modalities:
            comparisons.append(compare_alike(name, as_keys(output).to("cpu").embeds[0].float()))
    if kind == "sound" and "audio" in outputs and "video" in modalities and can_compare(model, "audio", "video"):
        queries = Queries.from_keys(as_keys(outputs["audio"]).to("cpu"))
        comparisons.append(compare(model, "audio", "video", queries))
    if not comparisons:
        raise UserError(
            f"{path} has nothing that the index could be asked for: it holds {' and '.join(modalities)}, and the "
            f"query is a {kind}."
        )
    return Query(comparisons)
