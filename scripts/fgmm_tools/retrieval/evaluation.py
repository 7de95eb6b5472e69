"""Retrieval among the items of a corpus, in both directions of each pair of modalities."""

import math
from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import evaluate
import torch

from modeling_fgmm import FgmmModel
from modeling_fgmm.modeling_fgmm import PAIRS
from modeling_fgmm.scoring_fgmm import Keys, Queries
from processing_fgmm import FgmmProcessor
from processing_fgmm.corpora_fgmm import check_times
from processing_fgmm.streams_fgmm import EvaluationClips

from ..cli import UserError
from ..embedding.encoding import EncodedCorpus, EncodedItem, encode_keys, encode_texts
from ..embedding.stored import StoredEmbeddings
from .scores import clock, score_pairs
from .settings import RetrievalSettings

METRIC = str(Path(__file__).parent.parent / "metrics" / "fgmm_retrieval")

COLUMNS = ("R@1", "R@5", "R@10", "nDCG@10", "MedR", "MnR", "num_queries", "num_items")


@dataclass
class RetrievalItems:
    """The items of a corpus and their captions in the shared space, on the CPU.

    Args:
        keys: under "video" and "audio" [`Keys`] of all items; a modality that no item has is left out.
        texts: the queries: all captions, or those of each item joined; None without captions or a text encoder.
        text_targets: (texts,) the item that each text belongs to.
        visual: what the items' video is called in the results: "image" where all are images, else "video".
        num_undecodable: items that are left out because they cannot be decoded.
    """

    keys: dict[str, Keys]
    texts: Queries | None
    text_targets: torch.Tensor
    visual: str = "video"
    num_undecodable: int = 0


def evaluate_retrieval(
    model: FgmmModel,
    processor: FgmmProcessor,
    corpus,
    settings: RetrievalSettings | None = None,
    seconds: Counter | None = None,
    rank: int = 0,
    world_size: int = 1,
) -> dict[str, dict[str, float]] | None:
    """Encodes a corpus and measures retrieval in both directions of each pair of modalities that its items have.

    Args:
        model, processor: in evaluation mode, as loaded.
        corpus: from [`load_corpus`], or [`StoredEmbeddings`] of it.
        settings: how items are encoded and scored; None: the defaults.
        seconds: the time is added to its stages: encoding (with decoding), coarse_scoring, fine_scoring.
        rank, world_size: index of this process, and number of processes that encode; the first one measures.

    Returns:
        {"text_to_video": {"R@1": percent, ...}, "video_to_text": ...}; image in place of video where all are images.
        Items that cannot be decoded are neither queries nor keys; num_undecodable counts them where there are any.
        None in all processes but the first.

    Raises:
        CorpusError: when each caption is to be an item and one has no times.
        UserError: when nothing can be decoded or compared, scores are not numbers, or stored embeddings do not fit the
            model and settings.
    """
    settings = settings or RetrievalSettings()
    seconds = Counter() if seconds is None else seconds
    if isinstance(corpus, StoredEmbeddings):
        check_stored(corpus, model, settings)
    elif settings.each_caption:
        check_times(corpus)
    with clock(seconds, "encoding"):
        items = encode_items(model, processor, corpus, settings, rank, world_size)
    return None if items is None else measure_retrieval(model, items, settings, seconds)


def check_stored(stored: StoredEmbeddings, model: FgmmModel, settings: RetrievalSettings) -> None:
    """Raises a UserError where stored embeddings cannot be evaluated by the settings."""
    trains_regions = any(objective.needs_phrases for objective in model.objectives.values())
    if not stored.settings.num_regions and (
        settings.score in ("fine", "coarse_then_fine") or (settings.score == "trained" and trains_regions)
    ):
        raise UserError(
            f"{stored.folder} has no regions, which the score {settings.score} needs; give --score coarse, or embed "
            "the corpus with --num_regions."
        )
    if settings.each_caption:
        raise UserError(f"{stored.folder} has no windows of its own for each caption; give the corpus, not embeddings.")
    stored.check_num_windows(settings.num_windows)


def encode_items(
    model: FgmmModel,
    processor: FgmmProcessor,
    corpus,
    settings: RetrievalSettings,
    rank: int = 0,
    world_size: int = 1,
) -> RetrievalItems | None:
    """Encodes all items that can be decoded, and all their captions; arguments as of [`evaluate_retrieval`].

    Returns:
        the items of all processes, in the first one; None in the others.

    Raises:
        UserError: when no item can be decoded.
    """
    if isinstance(corpus, StoredEmbeddings):
        if rank:
            return None
        items, num_undecodable = corpus.read_items(with_regions=settings.score != "coarse")
        cause = f"{corpus.folder}/problems.jsonl says why."
    else:
        encoded = encode_clips(model, processor, corpus, settings, rank, world_size)
        items, num_undecodable = encoded.gather(), len(encoded.failures)
        cause = f"the first: {encoded.failures[0]}" if encoded.failures else "it has no rows."
    if items is None:
        return None
    if not items:
        raise UserError(f"No clip of the corpus could be decoded ({num_undecodable} failed); {cause}")
    return join_items(model, processor, items, settings, num_undecodable)


def encode_clips(
    model: FgmmModel, processor: FgmmProcessor, corpus, settings: RetrievalSettings, rank: int, world_size: int
) -> EncodedCorpus[dict[str, Keys]]:
    """This process' share of the items, yet to be encoded; arguments as of [`evaluate_retrieval`]."""
    modalities, num_windows = model.config.modalities, settings.num_windows or 1
    clips = EvaluationClips(
        corpus,
        processor,
        with_video="video" in modalities,
        with_audio="audio" in modalities,
        num_windows=num_windows,
        each_caption=settings.each_caption,
        block_rows=math.ceil(settings.batch_size / num_windows),
        rank=rank,
        world_size=world_size,
    )
    return EncodedCorpus(
        clips,
        partial(encode_keys, model),
        device=model.device,
        batch_size=settings.batch_size,
        num_workers=settings.num_workers,
    )


def join_items(
    model: FgmmModel,
    processor: FgmmProcessor,
    items: list[EncodedItem[dict[str, Keys]]],
    settings: RetrievalSettings,
    num_undecodable: int,
) -> RetrievalItems:
    """The keys of items, whose windows are merged, and their captions encoded."""
    keys: dict[str, list[Keys]] = {}
    texts, text_targets = [], []
    for number, item in enumerate(items):
        for name in item.windows[0]:
            windows = Keys.concatenate([window[name] for window in item.windows])
            keys.setdefault(name, []).append(windows.join_windows([len(item.windows)]))
        queries = [" ".join(item.captions)] if settings.join_captions and item.captions else item.captions
        texts += queries
        text_targets += [number] * len(queries)
    joined = {name: Keys.concatenate(pieces) for name, pieces in keys.items()}
    return RetrievalItems(
        {name: pieces for name, pieces in joined.items() if pieces.present.any()},
        encode_texts(model, processor, texts) if texts and "text" in model.config.modalities else None,
        torch.tensor(text_targets, dtype=torch.long),
        "image" if all(item.is_image for item in items) else "video",
        num_undecodable,
    )


@torch.no_grad()
def measure_retrieval(
    model: FgmmModel, items: RetrievalItems, settings: RetrievalSettings, seconds: Counter
) -> dict[str, dict[str, float]]:
    """Scores and metrics of encoded items; arguments, results and errors as of [`evaluate_retrieval`]."""
    names = {"text": "text", "video": items.visual, "audio": "audio"}
    given = {*items.keys, *(["text"] if items.texts is not None else [])}
    metric = evaluate.load(METRIC)
    results = {}
    for query, key in PAIRS:
        if not {query, key} <= given:
            continue
        queries, keys, targets = build_task(items, query, key, settings.skip_silent)
        if not len(targets):
            continue
        queries, keys = queries.to(model.device), keys.to(model.device)
        objective = model.objectives[f"{query}_{key}"]
        scores = score_pairs(objective, queries, keys, settings.score, settings.rerank_k, seconds)
        if any(score.isnan().any() for score in scores):
            raise UserError(
                f"Scores of {names[query]} with {names[key]} are not numbers (NaN): the model's weights are damaged; "
                "give an earlier checkpoint or train it again."
            )
        directions = (f"{names[query]}_to_{names[key]}", f"{names[key]}_to_{names[query]}")
        for direction, ranked, score in zip(directions, ("text_to_item", "item_to_text"), scores, strict=True):
            results[direction] = metric.compute(predictions=score.numpy(), references=targets.numpy())[ranked]
    if not results:
        raise UserError(
            "The clips of the corpus share no two modalities with the model, so that nothing can be compared."
        )
    if items.num_undecodable:
        results = {name: values | {"num_undecodable": items.num_undecodable} for name, values in results.items()}
    return results


def build_task(items: RetrievalItems, query: str, key: str, skip_silent: bool) -> tuple[Queries, Keys, torch.Tensor]:
    """The queries and keys of two modalities, and (queries,) the key that each query belongs to."""
    keys = items.keys[key]
    if query == "text":
        queries, targets = items.texts, items.text_targets
    else:
        queries, targets = Queries.from_keys(items.keys[query]), torch.arange(len(keys.mask))
    if skip_silent and "audio" in (query, key):
        has_sound = items.keys["audio"].present
        kept = has_sound[targets]
        queries, keys, targets = queries.select(kept), keys.select(has_sound), targets[kept]
        targets = (has_sound.cumsum(0) - 1)[targets]
    return queries, keys, targets


def describe_protocol(
    settings: RetrievalSettings,
    clip_seconds: float,
    with_sound: bool,
    random_init: bool = False,
    stored: StoredEmbeddings | None = None,
) -> str:
    """One line for the results file.

    Args:
        clip_seconds: length of a window, s.
        with_sound: whether a direction with audio was measured.
        random_init: whether the weights were random.
        stored: the embeddings that were taken in place of media.
    """
    score = f"{settings.score} score"
    if random_init:
        score += " of random weights"
    if settings.score == "coarse_then_fine":
        score += f" (the best {settings.rerank_k} finely)"
    number = stored.settings.num_windows if stored else settings.num_windows or 1
    windows = {None: f"all windows of {clip_seconds:g} s", 1: f"the middle {clip_seconds:g} s"}
    windows = windows.get(number, f"{number} x {clip_seconds:g} s")
    parts = ["retrieval", score, f"{windows} of each {'caption' if settings.each_caption else 'item'}"]
    if stored:
        parts.append(stored.describe())
    if settings.join_captions:
        parts.append("an item's captions as one query")
    if with_sound:
        convention = "are left out" if settings.skip_silent else "count as errors (AVLnet's convention)"
        parts.append(f"clips without sound {convention}")
    return ", ".join(parts)


def format_table(results: dict[str, dict[str, float]]) -> str:
    """The results as lines of text."""
    columns = [column for column in COLUMNS if all(column in values for values in results.values())]
    lines = [f"{'':16}" + "".join(f"{column:>12}" for column in columns)]
    for direction, values in results.items():
        cells = (f"{values[column]:12.1f}" if "num" not in column else f"{values[column]:12d}" for column in columns)
        lines.append(f"{direction:16}" + "".join(cells))
    return "\n".join(lines)
