"""What a search loses by looking coarsely first, and by keeping few regions of a window with few digits."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import evaluate
import numpy as np
import torch

from modeling_fgmm import FgmmModel
from modeling_fgmm.outputs_fgmm import as_keys
from modeling_fgmm.scoring_fgmm import Keys, Queries, attended_similarity, caption_scores
from processing_fgmm.corpora_fgmm import load_corpus
from processing_fgmm.streams_fgmm import EvaluationClips

from ..embedding.encoding import EncodedCorpus, encode_texts
from ..embedding.pooling import compress, decompress, pool_regions
from ..embedding.settings import PRECISIONS
from ..models import load_model
from ..retrieval.evaluation import METRIC
from ..retrieval.scores import MISSING, best_of, score_all
from .settings import BenchmarkSettings

REGION_COUNTS = (1, 4, 8, 16, 32)
# Of a coarse search by some vectors of a window in place of one.
FEW_REGIONS = 4


@dataclass
class RegionMap:
    """All regions of the picture of an item: (N, D), their mask (N,) and grid, and the pooled embedding (D,)."""

    regions: torch.Tensor
    mask: torch.Tensor
    grid: tuple[int, ...]
    embeds: torch.Tensor

    def as_keys(self, num_regions: int | None = None, precision: str = "float16") -> Keys:
        """What an index keeps of it, as a batch of one; `num_regions` None: all regions as they are."""
        regions = self.regions[self.mask]
        if num_regions is not None:
            pooled = pool_regions(self.regions, self.mask, self.grid, num_regions)
            regions = decompress(*compress(pooled, precision))
        return Keys(regions[None], torch.ones(1, len(regions), dtype=torch.bool), self.embeds[None])


@dataclass
class SearchTask:
    """A corpus to search in: the model, each item's regions, its captions as queries, and which item each is of."""

    model: FgmmModel
    maps: list[RegionMap]
    texts: Queries
    targets: torch.Tensor

    @property
    def objective(self):
        return self.model.get_objective("text", "video")


@torch.no_grad()
def encode_maps(model: FgmmModel, inputs: dict[str, torch.Tensor]) -> list[RegionMap]:
    """B windows to their regions, on the CPU; `encode` of [`EncodedCorpus`], once the model is bound."""
    output = model.encode_inputs(**inputs)["video"]
    keys = as_keys(output).to("cpu")
    return [
        RegionMap(keys.regions[row], keys.mask[row], output.grid, keys.embeds[row]) for row in range(len(keys.mask))
    ]


def load_task(model_name: str, dataset: str, settings: BenchmarkSettings) -> SearchTask:
    """Encodes the split `test` of a corpus: the middle window of each item, and all its captions."""
    model, processor = load_model(model_name)
    clips = EvaluationClips(load_corpus(dataset, "test"), processor, with_video=True, with_audio=False)
    encoded = EncodedCorpus(
        clips,
        lambda inputs: encode_maps(model, inputs),
        device=model.device,
        batch_size=32,
        num_workers=settings.num_workers,
    )
    maps, texts, targets = [], [], []
    for number, item in enumerate(encoded):
        maps += item.windows
        texts += item.captions
        targets += [number] * len(item.captions)
    return SearchTask(model, maps, encode_texts(model, processor, texts), torch.tensor(targets))


@torch.no_grad()
def measure_recall(task: SearchTask, candidates: int) -> dict[str, float]:
    """Coarse search whose best are scored finely, against scoring everything finely.

    Args:
        candidates: that are scored finely, of a query.

    Returns:
        R@1 and R@10 (%), those of the fine search of everything (`_of_full`) and of the coarse one alone
        (`_of_coarse`); `share_of_R@10` (%) that is kept of the full one's, also `by_candidates`, and by coarse searches
        with more vectors, `by_coarse_search`; `share_of_top_10` (%): of the ten best by the fine score those that are
        among the candidates.
    """
    keys = Keys.concatenate([one.as_keys() for one in task.maps])
    fine = score_all(task.objective.scores, task.texts, keys)
    coarse = score_all(task.objective.coarse_scores, task.texts, keys)
    full = recalls(fine, task.targets)

    def rerank(coarse: torch.Tensor, number: int) -> dict[str, float]:
        return recalls(torch.where(best_of(coarse, number, 1), fine, coarse + MISSING), task.targets)

    def share(found: dict[str, float]) -> float:
        return percent(found["R@10"] / max(full["R@10"], 1e-9))

    numbers = sorted({candidates // 2, candidates, 2 * candidates, 4 * candidates} - {0})
    of_candidates = {number: rerank(coarse, number) for number in numbers}
    few = Keys.concatenate([one.as_keys(FEW_REGIONS) for one in task.maps])
    others = {
        f"text_with_{FEW_REGIONS}_regions": score_all(text_with_regions, task.texts, few),
        f"phrases_with_{FEW_REGIONS}_regions": score_all(phrases_with_regions, task.texts, few),
    }
    best = fine.topk(min(10, fine.shape[1]), dim=1).indices
    return {
        **of_candidates[candidates],
        **{f"{name}_of_full": value for name, value in full.items()},
        **{f"{name}_of_coarse": value for name, value in recalls(coarse, task.targets).items()},
        "share_of_R@10": share(of_candidates[candidates]),
        "share_of_top_10": percent(best_of(coarse, candidates, 1).gather(1, best).float().mean()),
        "by_candidates": {str(number): share(found) for number, found in of_candidates.items()},
        "by_coarse_search": {name: share(rerank(scores, candidates)) for name, scores in others.items()},
        "candidates": candidates,
        "num_queries": len(task.targets),
        "num_items": len(task.maps),
    }


def text_with_regions(queries: Queries, keys: Keys) -> torch.Tensor:
    """The maximum over an item's regions of their cosines with a text's pooled embedding: (Bq, Bk, 1)."""
    return attended_similarity(queries.embeds, keys.regions, None, keys.mask, math.inf)


def phrases_with_regions(queries: Queries, keys: Keys) -> torch.Tensor:
    """The mean over a text's phrases of the maximum over an item's regions of their cosines: (Bq, Bk, 1)."""
    similarity = attended_similarity(queries.phrases, keys.regions, queries.mask, keys.mask, math.inf)
    return caption_scores(similarity, queries.captions, queries.mask, 1)


def recalls(scores: torch.Tensor, targets: torch.Tensor) -> dict[str, float]:
    """R@1 and R@10 (%) of scores (queries, items), with the item (queries,) that each query is of."""
    metric = evaluate.load(METRIC)
    found = metric.compute(predictions=scores.numpy(), references=targets.numpy())["text_to_item"]
    return {name: round(found[name], 2) for name in ("R@1", "R@10")}


@torch.no_grad()
def measure_regions(task: SearchTask, counts: Sequence[int] = REGION_COUNTS) -> dict[str, dict]:
    """Fine search among windows of which few regions are kept.

    Args:
        counts: most regions of a window.

    Returns:
        `R@10_by_regions` and `R@1_by_regions` (%), and `bytes_a_window`: of regions, their factor, and the pooled
        embedding in float32; each by precision and number of regions, "all" as the model gives them, in float32.
    """
    results: dict[str, dict] = {"R@10_by_regions": {}, "R@1_by_regions": {}, "bytes_a_window": {}}
    dim = len(task.maps[0].embeds)

    def add(precision: str, number: int | None, bytes_a_value: int) -> None:
        pieces = [one.as_keys(number, precision) for one in task.maps]
        found = recalls(score_all(task.objective.scores, task.texts, Keys.concatenate(pieces)), task.targets)
        name = "all" if number is None else str(number)
        for metric, value in found.items():
            results[f"{metric}_by_regions"].setdefault(precision, {})[name] = value
        regions = np.mean([piece.mask.sum().item() for piece in pieces])
        size = round(regions * dim * bytes_a_value + 4 + 4 * dim)
        results["bytes_a_window"].setdefault(precision, {})[name] = size

    add("float32", None, 4)
    for precision, bytes_a_value in zip(PRECISIONS, (2, 1), strict=True):
        for number in (*counts, max(int(one.mask.sum()) for one in task.maps)):
            add(precision, number, bytes_a_value)
    return results


def percent(share: float) -> float:
    """A share in percent, to two decimals."""
    return round(100 * float(share), 2)


def run_recall(settings: BenchmarkSettings) -> dict:
    """The part `recall`."""
    return {"recall_of_full_fine": {name: measure_recall(task, settings.candidates) for name, task in tasks(settings)}}


def run_regions(settings: BenchmarkSettings) -> dict:
    """The part `regions`."""
    results: dict[str, dict] = {}
    for name, task in tasks(settings):
        for metric, values in measure_regions(task).items():
            results.setdefault(metric, {})[name] = values
    return results


def tasks(settings: BenchmarkSettings):
    """Name and [`SearchTask`] of each corpus that is given."""
    yield "narrated", load_task(settings.model, settings.narrated, settings)
    if settings.flickr8k:
        yield "flickr8k", load_task(settings.flickr8k_model or settings.model, settings.flickr8k, settings)
