from collections import Counter

import evaluate
import pytest
import torch
import torch.nn.functional as F

from fgmm_tools.retrieval import scores
from fgmm_tools.retrieval.evaluation import METRIC
from modeling_fgmm import FgmmConfig
from modeling_fgmm.loss_fgmm import OBJECTIVES
from modeling_fgmm.scoring_fgmm import Keys, Queries


def random_queries(number, generator, num_phrases=3, dim=16, empty=()) -> Queries:
    def unit(*shape):
        return F.normalize(torch.randn(*shape, generator=generator), dim=-1)

    mask = torch.arange(num_phrases) < torch.randint(1, num_phrases + 1, (number, 1), generator=generator)
    mask[list(empty)] = False
    captions = torch.zeros_like(mask, dtype=torch.long)
    return Queries(unit(number, num_phrases, dim), mask, captions, unit(number, 1, dim), mask.any(1, keepdim=True))


def random_keys(number, generator, num_regions=5, dim=16, empty=()) -> Keys:
    mask = torch.rand(number, num_regions, generator=generator) < 0.7
    mask[:, 0] = True
    mask[list(empty)] = False
    regions = F.normalize(torch.randn(number, num_regions, dim, generator=generator), dim=-1)
    embeds = F.normalize(torch.randn(number, dim, generator=generator), dim=-1)
    return Keys(regions, mask, embeds * mask.any(1, keepdim=True))


@pytest.fixture
def objective():
    torch.manual_seed(0)
    objective = OBJECTIVES["fine"](FgmmConfig(projection_dim=16))
    with torch.no_grad():
        for name, value in objective.initial_values().items():
            getattr(objective, name).fill_(value)
        objective.phrase_gate.normal_()
    return objective


def score(objective, queries, keys, name, k=100):
    with torch.no_grad():
        return scores.score_pairs(objective, queries, keys, name, k, Counter())


@pytest.mark.parametrize("queries_are_texts", [True, False])
def test_the_best_are_scored_finely_and_the_others_keep_their_order(objective, queries_are_texts):
    """With loops: of each query the k best by cosine, in the order of their fine scores, then the rest by cosine."""
    generator, k = torch.Generator().manual_seed(1), 4
    keys = random_keys(12, generator, empty=[3])
    queries = random_queries(30, generator, empty=[7])
    if not queries_are_texts:
        queries = Queries.from_keys(random_keys(30, generator, empty=[7]))
    coarse, fine = (score(objective, queries, keys, name)[0] for name in ("coarse", "fine"))
    of_queries, of_items = score(objective, queries, keys, "coarse_then_fine", k)
    differs = 0
    for both, cosines, exact, missing in (
        (of_queries, coarse, fine, (7, 3)),
        (of_items.T, coarse.T, fine.T, (3, 7)),
    ):
        for row in range(len(both)):
            ranked = both[row].argsort(descending=True).tolist()
            if row == missing[0]:
                assert len(set(both[row].tolist())) == 1
                continue
            by_cosine = [place for place in cosines[row].argsort(descending=True).tolist() if place != missing[1]]
            best = sorted(by_cosine[:k], key=lambda place: -exact[row][place])
            assert ranked == [*best, *by_cosine[k:], missing[1]]
            differs += best != by_cosine[:k]
    assert differs > 20  # the fine score says something else
    lowest = of_queries.min()
    assert (of_queries[7] == lowest).all() and (of_queries[:, 3] == lowest).all()


def test_embeddings_that_are_not_normalised_are_ranked_likewise(objective):
    """Their dot products go beyond -1 and 1; pairs with a missing side come last all the same."""
    generator = torch.Generator().manual_seed(6)
    queries, keys = random_queries(20, generator), random_keys(30, generator, empty=[3])
    expected = score(objective, queries, keys, "coarse_then_fine", 5)
    expected_coarse, _ = score(objective, queries, keys, "coarse")
    keys.embeds *= 400
    found = score(objective, queries, keys, "coarse_then_fine", 5)
    for ours, normalised in zip(found, expected, strict=True):
        assert torch.equal(ours.argsort(1), normalised.argsort(1))
    coarse, _ = score(objective, queries, keys, "coarse")
    assert coarse[:, :3].min() < -20 and torch.equal(coarse.argsort(1), expected_coarse.argsort(1))
    assert (coarse.argmin(1) == 3).all()


def test_as_many_as_there_are_give_the_ranks_of_the_fine_score(objective):
    generator = torch.Generator().manual_seed(2)
    queries, keys = random_queries(40, generator, empty=[0]), random_keys(15, generator, empty=[14])
    targets = torch.arange(40).numpy() % 15
    metric = evaluate.load(METRIC)
    exact = metric.compute(predictions=score(objective, queries, keys, "fine")[0].numpy(), references=targets)
    of_queries, of_items = score(objective, queries, keys, "coarse_then_fine", 40)
    assert metric.compute(predictions=of_queries.numpy(), references=targets)["text_to_item"] == exact["text_to_item"]
    assert metric.compute(predictions=of_items.numpy(), references=targets)["item_to_text"] == exact["item_to_text"]
    coarse = metric.compute(predictions=score(objective, queries, keys, "coarse")[0].numpy(), references=targets)
    assert coarse["text_to_item"]["MnR"] != exact["text_to_item"]["MnR"]


def test_only_the_best_are_scored_finely(objective, monkeypatch):
    generator, pairs = torch.Generator().manual_seed(3), []
    queries, keys = random_queries(200, generator), random_keys(100, generator)
    fine_scores = objective.fine_scores

    def counted(queries, keys):
        pairs.append(len(queries.mask) * len(keys.mask))
        return fine_scores(queries, keys)

    monkeypatch.setattr(objective, "fine_scores", counted)
    score(objective, queries, keys, "coarse_then_fine", 5)
    assert 5 * 200 <= sum(pairs) <= 5 * (200 + 100)  # of 20,000


@pytest.mark.parametrize("name", ["trained", "fine", "coarse", "coarse_then_fine"])
def test_texts_without_any_word_come_last(objective, name):
    generator = torch.Generator().manual_seed(4)
    queries, keys = random_queries(3, generator, empty=[0, 1, 2]), random_keys(4, generator)
    for found in score(objective, queries, keys, name):
        assert (found == scores.MISSING).all()


@pytest.mark.parametrize(
    "objective_name, name, stage",
    [
        ("fine", "trained", "fine"),
        ("filip", "trained", "fine"),
        ("mil_nce", "trained", "coarse"),
        ("mil_nce", "fine", "fine"),
        ("fine", "coarse", "coarse"),
    ],
)
def test_time_belongs_to_its_stage(objective_name, name, stage):
    generator, seconds = torch.Generator().manual_seed(5), Counter()
    objective = OBJECTIVES[objective_name](FgmmConfig(projection_dim=16))
    with torch.no_grad():
        for parameter in (*objective.parameters(), *objective.buffers()):
            parameter.fill_(1.0)
        queries, keys = random_queries(3, generator), random_keys(3, generator)
        scores.score_pairs(objective, queries, keys, name, 2, seconds)
    assert set(seconds) == {f"{stage}_scoring"} and seconds[f"{stage}_scoring"] > 0
