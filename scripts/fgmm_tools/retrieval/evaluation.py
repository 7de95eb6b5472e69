"""Retrieval among the items of a corpus, in both directions for each pair of modalities."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import evaluate
import torch
from torch.utils.data import DataLoader
from tqdm import tqdm

from modeling_fgmm import FgmmModel
from modeling_fgmm.modeling_fgmm import PAIRS
from modeling_fgmm.outputs_fgmm import as_keys, as_queries
from modeling_fgmm.scoring_fgmm import Keys, Queries
from processing_fgmm import FgmmProcessor
from processing_fgmm.clips_fgmm import collate
from processing_fgmm.corpora_fgmm import check_times
from processing_fgmm.streams_fgmm import EvaluationClips, EvaluationItem, in_order

from ..cli import UserError
from .scores import BLOCK_SIZE, clock, score_pairs

METRIC = str(Path(__file__).parent.parent / "metrics" / "fgmm_retrieval")

COLUMNS = ("R@1", "R@5", "R@10", "nDCG@10", "MedR", "MnR", "num_queries", "num_items")


@dataclass
class EncodedCorpus:
    """A corpus in the shared space, on the CPU.

    parts: of "video" and "audio" the items' keys, of "text" all captions as queries; what no item has is left out.
    targets: (texts,) the item that each caption belongs to. kind: "video", or "image" where every item is one frame.
    num_undecodable: items left out because they cannot be decoded.
    """

    parts: dict[str, Queries | Keys]
    targets: torch.Tensor
    kind: str
    num_undecodable: int


def read_items(clips: EvaluationClips, num_workers: int, failures: list[str]) -> Iterator[EvaluationItem]:
    """The items of a corpus that can be decoded, in its order; the others are named and added to `failures`.

    Raises:
        UserError: when none can be decoded.
    """
    loader = DataLoader(clips, batch_size=None, num_workers=num_workers)
    empty = True
    for _, items in tqdm(in_order(loader), desc="Encoding clips", unit="row", leave=False):
        for item in items:
            if isinstance(item, str):
                tqdm.write(f"Skipped a clip: {item}")
                failures.append(item)
            else:
                empty = False
                yield item
    if empty:
        raise UserError(
            f"No clip of the corpus could be decoded ({len(failures)} failed); one published as ids has no media."
        )


def in_batches(items: Iterator[EvaluationItem], batch_size: int) -> Iterator[list[EvaluationItem]]:
    """Items until their windows are a batch."""
    batch = []
    for item in items:
        batch.append(item)
        if sum(len(item.windows) for item in batch) >= batch_size:
            yield batch
            batch = []
    if batch:
        yield batch


def encode_windows(model: FgmmModel, processor: FgmmProcessor, items: list[EvaluationItem]) -> dict[str, Keys]:
    """The keys of "video" and "audio" of some items, on the CPU."""
    windows = [window for item in items for window in item.windows]
    modalities = model.config.modalities
    inputs = collate(processor, windows, "video" in modalities, "audio" in modalities, with_text=False)
    outputs = model.encode_inputs(**{name: value.to(model.device) for name, value in inputs.items()})
    counts = [len(item.windows) for item in items]
    return {name: as_keys(output).to("cpu").join_windows(counts) for name, output in outputs.items()}


def encode_texts(model: FgmmModel, processor: FgmmProcessor, texts: list[str]) -> Queries:
    """Each text as a query of one caption, on the CPU."""
    pieces = []
    for first in range(0, len(texts), BLOCK_SIZE):
        inputs = processor(text=texts[first : first + BLOCK_SIZE])
        output = model.get_text_features(**{name: value.to(model.device) for name, value in inputs.items()})
        pieces.append(as_queries(output).to("cpu"))
    return Queries.concatenate(pieces)


def encode_corpus(
    model: FgmmModel, processor: FgmmProcessor, clips: EvaluationClips, batch_size: int, num_workers: int
):
    """Encodes all items that can be decoded, and all their captions; gives an [`EncodedCorpus`]."""
    pieces: dict[str, list[Keys]] = {}
    texts, targets, single_frames, number = [], [], True, 0
    failures: list[str] = []
    for batch in in_batches(read_items(clips, num_workers, failures), batch_size):
        for name, keys in encode_windows(model, processor, batch).items():
            pieces.setdefault(name, []).append(keys)
        for item in batch:
            single_frames &= all(clip.frames is not None and len(clip.frames) == 1 for clip in item.windows)
            texts += item.captions
            targets += [number] * len(item.captions)
            number += 1
    parts = {name: Keys.concatenate(keys) for name, keys in pieces.items()}
    parts = {name: keys for name, keys in parts.items() if keys.present.any()}
    if texts and "text" in model.config.modalities:
        parts["text"] = encode_texts(model, processor, texts)
    kind = "image" if single_frames else "video"
    return EncodedCorpus(parts, torch.tensor(targets, dtype=torch.long), kind, len(failures))


def build_task(encoded: EncodedCorpus, query: str, key: str, skip_silent: bool) -> tuple[Queries, Keys, torch.Tensor]:
    """The queries and items of two modalities, and (queries,) the right item of each query."""
    keys = encoded.parts[key]
    if query == "text":
        queries, targets = encoded.parts["text"], encoded.targets
    else:
        queries, targets = Queries.from_keys(encoded.parts[query]), torch.arange(len(keys.mask))
    if skip_silent and "audio" in (query, key):
        has_sound = encoded.parts["audio"].present
        asked = has_sound[targets]
        queries, keys, targets = queries.select(asked), keys.select(has_sound), targets[asked]
        targets = (has_sound.cumsum(0) - 1)[targets]
    return queries, keys, targets


@torch.no_grad()
def evaluate_retrieval(
    model: FgmmModel,
    processor: FgmmProcessor,
    corpus,
    score: str = "trained",
    batch_size: int = 32,
    num_workers: int = 1,
    *,
    rerank_k: int = 100,
    num_windows: int = 1,
    each_caption: bool = False,
    skip_silent: bool = False,
    seconds: Counter | None = None,
) -> dict[str, dict[str, float]]:
    """Retrieval in both directions for each pair of modalities that the clips have.

    Args:
        model, processor: in evaluation mode, as loaded.
        corpus: from [`load_corpus`]; each of a clip's captions is a query of its own.
        score: `"trained"` (what the model's objective trains), `"fine"` (regions and phrases), `"coarse"` (one vector
            each) or `"coarse_then_fine"` (the best `rerank_k` by the coarse score once more by the fine one).
        batch_size: windows encoded at once.
        num_workers: decoding processes.
        rerank_k: items of a query, and queries of an item, that are scored finely.
        num_windows, each_caption: see [`EvaluationClips`].
        skip_silent: leave clips without sound out of text-audio and audio-video; else they count as errors.
        seconds: the time is added to its stages: encoding (with decoding), coarse_scoring, fine_scoring.

    Returns:
        {"text_to_video": {"R@1": percent, ...}, "video_to_text": ...}; image for video where clips are images. Clips
        that cannot be decoded are neither queries nor items; num_undecodable counts them where there are any.

    Raises:
        UserError: when nothing can be decoded or compared, or a caption has no times of its own.
    """
    seconds = Counter() if seconds is None else seconds
    if each_caption:
        check_times(corpus)
    clips = EvaluationClips(
        corpus,
        processor,
        with_video="video" in model.config.modalities,
        with_audio="audio" in model.config.modalities,
        num_windows=num_windows,
        each_caption=each_caption,
    )
    with clock(seconds, "encoding"):
        encoded = encode_corpus(model, processor, clips, batch_size, num_workers)
    names = {"text": "text", "video": encoded.kind, "audio": "audio"}
    metric = evaluate.load(METRIC)
    results = {}
    for query, key in PAIRS:
        if not {query, key} <= encoded.parts.keys():
            continue
        queries, keys, targets = build_task(encoded, query, key, skip_silent)
        if not len(targets):
            continue
        queries, keys = queries.to(model.device), keys.to(model.device)
        objective = model.objectives[f"{query}_{key}"]
        of_queries, of_items = score_pairs(objective, queries, keys, score, rerank_k, seconds)
        found = metric.compute(predictions=of_queries.numpy(), references=targets.numpy())
        results[f"{names[query]}_to_{names[key]}"] = found["text_to_item"]
        found = metric.compute(predictions=of_items.numpy(), references=targets.numpy())
        results[f"{names[key]}_to_{names[query]}"] = found["item_to_text"]
    if encoded.num_undecodable:
        results = {name: values | {"num_undecodable": encoded.num_undecodable} for name, values in results.items()}
    if not results:
        raise UserError(
            "The clips of the corpus share no two modalities with the model, so that nothing is to compare."
        )
    return results


def format_table(results: dict[str, dict[str, float]]) -> str:
    """The results as lines of text."""
    columns = [column for column in COLUMNS if all(column in values for values in results.values())]
    lines = [f"{'':16}" + "".join(f"{column:>12}" for column in columns)]
    for direction, values in results.items():
        cells = (f"{values[column]:12.1f}" if "num" not in column else f"{values[column]:12d}" for column in columns)
        lines.append(f"{direction:16}" + "".join(cells))
    return "\n".join(lines)
