"""Retrieval in both directions from a matrix of scores: R@1, R@5, R@10, median and mean rank."""

import datasets
import evaluate
import numpy as np

_DESCRIPTION = """
Ranks of the right answers in retrieval between texts (or other queries) and items, where several texts may belong to
one item. Ties count against the model: a wrong answer with the same score stands before the right one.
"""

_KWARGS_DESCRIPTION = """
Args:
    predictions: (texts, items) scores, all at once or block by block of texts through add_batch.
    references: (texts,) index of the item that each text belongs to.
Returns:
    text_to_item and item_to_text, each with R@1, R@5, R@10 (percent), MedR, MnR (ranks from 1), num_queries, num_items.
    Text to item: each text is a query, its item the one right answer. Item to text: each item that has a text is a
    query, answered by the best placed of its texts.
Examples:
    >>> metric = evaluate.load("scripts/metrics/fgmm_retrieval")
    >>> metric.compute(predictions=[[0.9, 0.1], [0.8, 0.2]], references=[0, 1])["text_to_item"]["R@1"]
    50.0
"""


def text_ranks(scores: np.ndarray, references: np.ndarray) -> np.ndarray:
    """(texts, items) scores and (texts,) right items to (texts,) ranks from 1."""
    right = scores[np.arange(len(scores)), references]
    return (scores >= right[:, None]).sum(1)


def item_ranks(blocks: list[np.ndarray], references: list[np.ndarray]) -> np.ndarray:
    """Blocks of (texts, items) scores and (texts,) right items to the ranks from 1 of the items that have a text."""
    num_items = blocks[0].shape[1]
    best = np.full(num_items, -np.inf, dtype=blocks[0].dtype)
    for scores, items in zip(blocks, references, strict=True):
        np.maximum.at(best, items, scores[np.arange(len(scores)), items])
    wrong_before = np.zeros(num_items, dtype=np.int64)
    for scores, items in zip(blocks, references, strict=True):
        before = scores >= best
        before[np.arange(len(scores)), items] = False
        wrong_before += before.sum(0)
    return 1 + wrong_before[np.unique(np.concatenate(references))]


def summarize(ranks: np.ndarray, num_items: int) -> dict[str, float]:
    """Ranks from 1 to what papers report, R@k in percent."""
    recalls = {f"R@{k}": float(100 * np.mean(ranks <= k)) for k in (1, 5, 10)}
    return {
        **recalls,
        "MedR": float(np.median(ranks)),
        "MnR": float(np.mean(ranks)),
        "num_queries": len(ranks),
        "num_items": num_items,
    }


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _KWARGS_DESCRIPTION)
class FgmmRetrieval(evaluate.Metric):
    """Keeps scores as float32 arrays: as Arrow lists, 40,000 texts against 8,000 items would not fit in memory."""

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
        ranks = np.concatenate([text_ranks(s, i) for s, i in zip(predictions, references, strict=True)])
        answers = item_ranks(predictions, references)
        num_items = predictions[0].shape[1]
        return {"text_to_item": summarize(ranks, num_items), "item_to_text": summarize(answers, len(ranks))}
