"""Retrieval in both directions from a matrix of scores: R@1, R@5, R@10, nDCG@10, median and mean rank."""

import datasets
import evaluate
import numpy as np

_DESCRIPTION = """
Recall, nDCG and ranks of retrieval between texts (or other queries) and items, where several texts may belong to one
item. Ties count against the model: a wrong answer with the same score is ranked before the right one.
"""

_KWARGS_DESCRIPTION = """
Args:
    predictions: (texts, items) scores, all at once or block by block of texts through add_batch.
    references: (texts,) index of the item that each text belongs to.
Returns:
    text_to_item and item_to_text, each with R@1, R@5, R@10, nDCG@10 (percent), MedR, MnR (ranks from 1), num_queries,
    num_items. Text to item: each text is a query, its item the one right answer. Item to text: each item that has a
    text is a query, and its rank is that of the first of its texts; for nDCG@10 all of its texts are right answers of
    relevance 1, and the ideal ranking begins with as many of them as there are, at most 10.
Examples:
    >>> metric = evaluate.load("scripts/fgmm_tools/metrics/fgmm_retrieval")
    >>> metric.compute(predictions=[[0.9, 0.1], [0.8, 0.2]], references=[0, 1])["text_to_item"]["R@1"]
    50.0
"""


# Ranks that nDCG counts, and so the most right answers of a query that do.
DEPTH = 10
# The discounted gain of a right answer at each of these ranks.
DISCOUNTS = 1 / np.log2(np.arange(2, DEPTH + 2))


def text_ranks(scores: np.ndarray, references: np.ndarray) -> np.ndarray:
    """(texts, items) scores and (texts,) right items to (texts,) ranks from 1."""
    right = scores[np.arange(len(scores)), references]
    return (scores >= right[:, None]).sum(1)


def item_ranks(blocks: list[np.ndarray], references: list[np.ndarray]) -> np.ndarray:
    """Ranks from 1 of the texts of each item that has one.

    Args:
        blocks: (texts, items) scores.
        references: (texts,) right items of each block.

    Returns:
        (right, queries): of the first of an item's texts, of the next one, and so on, at most DEPTH; infinite where it
        has no more.
    """
    right, has_right = best_right_scores(blocks, references)
    wrong_before = np.zeros(right.shape, dtype=np.int64)
    for scores, items in zip(blocks, references, strict=True):
        for place in range(len(right)):
            before = scores >= right[place]
            before[np.arange(len(scores)), items] = False
            wrong_before[place] += before.sum(0)
    right_before = np.arange(len(right))[:, None]
    ranks = np.where(has_right, 1 + right_before + wrong_before, np.inf)
    return ranks[:, has_right[0]]


def best_right_scores(blocks: list[np.ndarray], references: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """(right, items) scores of each item's own texts, the best first, at most DEPTH; False where it has no more."""
    items = np.concatenate(references)
    scores = np.concatenate([block[np.arange(len(block)), own] for block, own in zip(blocks, references, strict=True)])
    order = np.lexsort((-scores, items))
    items, scores = items[order], scores[order]
    places = np.arange(len(items)) - np.searchsorted(items, items)  # among the texts of the same item
    kept = places < DEPTH
    items, scores, places = items[kept], scores[kept], places[kept]
    right = np.zeros((1 + places.max(), blocks[0].shape[1]), dtype=scores.dtype)
    has_right = np.zeros(right.shape, dtype=bool)
    right[places, items], has_right[places, items] = scores, True
    return right, has_right


def discounted_gains(ranks: np.ndarray) -> np.ndarray:
    """(right, queries) ranks from 1, infinite for none, to (queries,) nDCG at DEPTH, between 0 and 1."""
    gains = np.where(ranks <= DEPTH, 1 / np.log2(1 + ranks), 0.0).sum(0)
    return gains / np.cumsum(DISCOUNTS)[np.isfinite(ranks).sum(0) - 1]


def summarize(ranks: np.ndarray, num_items: int) -> dict[str, float]:
    """Ranks from 1 of the right answers (right, queries) to what papers report, R@k and nDCG in percent."""
    best = ranks[0]
    recalls = {f"R@{k}": float(100 * np.mean(best <= k)) for k in (1, 5, 10)}
    return {
        **recalls,
        f"nDCG@{DEPTH}": float(100 * np.mean(discounted_gains(ranks))),
        "MedR": float(np.median(best)),
        "MnR": float(np.mean(best)),
        "num_queries": len(best),
        "num_items": num_items,
    }


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _KWARGS_DESCRIPTION)
class FgmmRetrieval(evaluate.Metric):
    """Keeps scores as float32 arrays: as Arrow lists 40,000 texts against 8,000 items would not fit in memory."""

    def _info(self):
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description=_KWARGS_DESCRIPTION,
            features=datasets.Features(
                {"predictions": datasets.Sequence(datasets.Value("float32")), "references": datasets.Value("int64")}
            ),
        )

    def add_batch(self, *, predictions, references):
        """Adds a block of texts: (texts, items) scores and (texts,) right items.

        Raises:
            ValueError: when shapes do not fit, a reference is no item, or a score is not a number.
        """
        scores, items = np.asarray(predictions, dtype=np.float32), np.asarray(references, dtype=np.int64)
        if scores.ndim != 2 or items.shape != scores.shape[:1]:
            raise ValueError(f"Scores {scores.shape} and references {items.shape} are not (texts, items) and (texts,).")
        blocks = self.__dict__.setdefault("blocks", [])
        if blocks and scores.shape[1] != blocks[0][0].shape[1]:
            raise ValueError(f"A block has {scores.shape[1]} items, the ones before {blocks[0][0].shape[1]}.")
        if len(items) and not 0 <= items.min() <= items.max() < scores.shape[1]:
            raise ValueError(f"References {items.min()} to {items.max()} are not all among {scores.shape[1]} items.")
        if np.isnan(scores).any():
            raise ValueError("A score is not a number (NaN), so that it has no rank.")
        blocks.append((scores, items))

    def compute(self, *, predictions=None, references=None):
        """Ranks of everything added since the last call.

        Raises:
            ValueError: when nothing was added.
        """
        if predictions is not None:
            self.add_batch(predictions=predictions, references=references)
        blocks = [block for block in self.__dict__.pop("blocks", []) if len(block[0])]
        if not blocks:
            raise ValueError("There are no scores to rank.")
        scores, items = [block[0] for block in blocks], [block[1] for block in blocks]
        return self._compute(scores, items)

    def _compute(self, predictions, references):
        ranks = np.concatenate([text_ranks(s, i) for s, i in zip(predictions, references, strict=True)])[None]
        answers = item_ranks(predictions, references)
        num_items = predictions[0].shape[1]
        return {"text_to_item": summarize(ranks, num_items), "item_to_text": summarize(answers, ranks.shape[1])}
