import math

import evaluate
import numpy as np
import pytest
from helpers import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import ndcg_score

METRIC = str(ROOT / "scripts" / "fgmm_tools" / "metrics" / "fgmm_retrieval")


@pytest.fixture(scope="module")
def metric():
    return evaluate.load(METRIC)


def plain(scores, targets):
    """Ranks one by one: a wrong answer that scores as much stands before the right one.

    Of an item's texts the rank of the best one.
    """
    num_texts, num_items = scores.shape
    text_ranks = [
        1 + sum(scores[t, i] >= scores[t, targets[t]] for i in range(num_items) if i != targets[t])
        for t in range(num_texts)
    ]
    item_ranks = []
    for i in sorted(set(targets)):
        best = max(scores[t, i] for t in range(num_texts) if targets[t] == i)
        item_ranks.append(1 + sum(scores[t, i] >= best for t in range(num_texts) if targets[t] != i))
    return text_ranks, item_ranks


def plain_ndcg(scores, right) -> float:
    """nDCG@10 of one query from an ordered list: the higher score first, of equal ones the wrong answers first."""
    order = sorted(range(len(scores)), key=lambda answer: (-scores[answer], answer in right))
    gained = [1 / math.log2(place + 2) for place, answer in enumerate(order[:10]) if answer in right]
    return sum(gained) / sum(1 / math.log2(place + 2) for place in range(min(len(right), 10)))


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.integers(1, 30), st.integers(1, 14), st.integers(1, 4), st.integers(0, 1000))
def test_ranks_are_those_of_the_definition(metric, num_texts, num_items, levels, seed):
    random = np.random.default_rng(seed)
    scores = random.integers(0, levels, (num_texts, num_items)).astype(np.float32)  # many ties
    targets = random.integers(0, num_items, num_texts).tolist()
    result = metric.compute(predictions=scores, references=targets)
    text_ranks, item_ranks = plain(scores, targets)
    for name, ranks, items in (("text_to_item", text_ranks, num_items), ("item_to_text", item_ranks, num_texts)):
        values = result[name]
        for k in (1, 5, 10):
            assert values[f"R@{k}"] == pytest.approx(100 * np.mean(np.array(ranks) <= k))
        assert values["MedR"] == np.median(ranks) and values["MnR"] == pytest.approx(np.mean(ranks))
        assert (values["num_queries"], values["num_items"]) == (len(ranks), items)
    texts_of = {item: {text for text, target in enumerate(targets) if target == item} for item in sorted(set(targets))}
    of_texts = [plain_ndcg(scores[text], {target}) for text, target in enumerate(targets)]
    of_items = [plain_ndcg(scores[:, item], texts) for item, texts in texts_of.items()]
    assert result["text_to_item"]["nDCG@10"] == pytest.approx(100 * np.mean(of_texts))
    assert result["item_to_text"]["nDCG@10"] == pytest.approx(100 * np.mean(of_items))


@pytest.mark.parametrize("texts_per_item", [1, 3, 13])
def test_ndcg_is_scikit_learns(metric, texts_per_item):
    """Where no two scores are alike."""
    random = np.random.default_rng(texts_per_item)
    scores = random.random((12 * texts_per_item, 12), dtype=np.float32)
    targets = np.arange(12).repeat(texts_per_item)
    right = targets[:, None] == np.arange(12)
    scores += 0.5 * right * random.random(scores.shape, dtype=np.float32)
    result = metric.compute(predictions=scores, references=targets)
    assert result["text_to_item"]["nDCG@10"] == pytest.approx(100 * ndcg_score(right, scores, k=10), rel=1e-5)
    assert result["item_to_text"]["nDCG@10"] == pytest.approx(100 * ndcg_score(right.T, scores.T, k=10), rel=1e-5)


def test_blocks_equal_all_at_once(metric):
    random = np.random.default_rng(0)
    scores, targets = random.random((50, 9), dtype=np.float32), random.integers(0, 9, 50)
    for first in range(0, 50, 7):
        metric.add_batch(predictions=scores[first : first + 7], references=targets[first : first + 7])
    assert metric.compute() == metric.compute(predictions=scores, references=targets)


def test_a_model_that_says_the_same_of_everything_gets_nothing(metric):
    result = metric.compute(predictions=np.zeros((20, 20)), references=list(range(20)))
    assert result["text_to_item"]["R@10"] == 0 and result["item_to_text"]["MedR"] == 20
    assert result["text_to_item"]["nDCG@10"] == result["item_to_text"]["nDCG@10"] == 0


def test_perfect_scores(metric):
    result = metric.compute(predictions=np.eye(4).repeat(3, 0), references=np.arange(4).repeat(3))
    for values in result.values():
        assert values["R@1"] == values["nDCG@10"] == 100


@pytest.mark.parametrize(
    "scores,targets",
    [([[0.1, 0.2]], [2]), ([[0.1, 0.2]], [-1]), ([[0.1, 0.2]], [0, 1]), ([[float("nan"), 0.2]], [0]), ([0.1], [0])],
)
def test_wrong_input_is_refused(metric, scores, targets):
    with pytest.raises(ValueError):
        metric.compute(predictions=scores, references=targets)
    assert metric.compute(predictions=[[1.0, 0.0]], references=[0])["text_to_item"]["R@1"] == 100


def test_nothing_to_rank_is_an_error(metric):
    with pytest.raises(ValueError, match="no scores"):
        metric.compute()


def test_benchmark_size_fits(metric):
    # 40,000 texts against 8,000 items are 1.3 GB of float32; here a tenth of each, block by block.
    random = np.random.default_rng(0)
    for _ in range(10):
        metric.add_batch(
            predictions=random.random((400, 800), dtype=np.float32), references=random.integers(0, 800, 400)
        )
    assert metric.compute()["text_to_item"]["num_queries"] == 4000
