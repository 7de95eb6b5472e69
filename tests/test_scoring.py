import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_objectives import gradients_of, make_scoring_inputs, plain_similarity

import modeling_fgmm.scoring_fgmm as scoring
from modeling_fgmm.scoring_fgmm import (
    Keys,
    Queries,
    attended_similarity,
    caption_scores,
    pair_scores,
    phrase_attention,
    region_attention,
)

IMPLEMENTATIONS = ("reference", "tiled")


shapes = st.tuples(*(st.integers(1, 5) for _ in range(4)), st.sampled_from([1, 2, 7]))


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    shape=shapes,
    sharpness=st.sampled_from([0.0, 0.3, 4.0, 50.0, 1000.0]),
    tile_size=st.sampled_from([1, 40, 2**20]),
    dtype=st.sampled_from([torch.float64, torch.float32, torch.bfloat16]),
    size=st.sampled_from([1e-20, 1.0, 1e3]),
    seed=st.integers(0, 99),
)
def test_values_and_gradients_are_those_of_the_formula(implementation, shape, sharpness, tile_size, dtype, size, seed):
    """Also for vectors that are not of length one, whose logits are tiny or large."""
    queries, keys, query_mask, key_mask = make_scoring_inputs(*shape, seed=seed)
    key_mask[0] = False  # an item without keys
    inputs = ((size * queries).to(dtype), keys.to(dtype), query_mask, key_mask)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scoring, "TILE_SIZE", tile_size)
        value, gradients = gradients_of(
            lambda *tensors: attended_similarity(*tensors, implementation), *inputs, sharpness
        )
    exact = [tensor.double() if tensor.is_floating_point() else tensor for tensor in inputs]
    expected, expected_gradients = gradients_of(plain_similarity, *exact, sharpness)
    assert value.dtype == torch.promote_types(dtype, torch.float32)
    assert torch.isfinite(value).all() and all(torch.isfinite(gradient).all() for gradient in gradients)
    # The formula itself in the same precision shows how much rounding to expect.
    rounded, rounded_gradients = gradients_of(
        plain_similarity, *(t.to(value.dtype) for t in exact[:2]), *exact[2:], sharpness
    )
    logit = sharpness * size
    assert_close(value, expected, rounded, value.dtype, size, logit)
    dtypes = (dtype, dtype, value.dtype)
    for triple in zip(gradients, expected_gradients, rounded_gradients, dtypes, strict=True):
        slack = assert_close(*triple, size * (1 + logit) ** 2, logit)
        largest = float(triple[1].abs().max())
        # With ordinary logits a gradient of 0 must not pass.
        assert size != 1.0 or sharpness > 50 or largest < 1e-3 or slack < 0.1 * largest


def assert_close(ours, exact, rounded, dtype, cancelled, logit) -> float:
    """Checks that our error is at most some times that of the formula in the same precision; returns what was allowed.

    `cancelled` is the size of terms that cancel on the way to the result, which bounds the error of the exact result
    itself; `logit` the largest logit, whose rounding changes the weights.
    """
    largest, value_dtype = float(exact.abs().max()), rounded.dtype
    slack = 16 * float((rounded.double() - exact).abs().max()) + 4 * torch.finfo(dtype).eps * largest
    slack += (200 + logit) * torch.finfo(value_dtype).eps * largest + 50 * torch.finfo(torch.float64).eps * cancelled
    assert torch.allclose(ours.double(), exact, rtol=0, atol=slack + 1e-38)
    return slack


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@settings(max_examples=10, deadline=None, derandomize=True)
@given(shape=shapes, seed=st.integers(0, 99))
def test_infinite_sharpness_is_the_maximum_with_its_gradient(implementation, shape, seed):
    inputs = make_scoring_inputs(*shape[:4], 7, seed=seed)  # in 7 dimensions no two cosines are alike
    outcomes = [
        gradients_of(lambda q, k, qm, km, _: attended_similarity(q, k, qm, km, math.inf, implementation), *inputs, 1.0),
        gradients_of(lambda q, k, qm, km, _: plain_similarity(q, k, qm, km, math.inf), *inputs, 1.0),
    ]
    assert torch.allclose(outcomes[0][0], outcomes[1][0])
    for ours, plain in zip(outcomes[0][1][:2], outcomes[1][1][:2], strict=True):
        assert torch.allclose(ours, plain)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_gradcheck(implementation):
    queries, keys, query_mask, key_mask = make_scoring_inputs(2, 3, 3, 4, 5)
    sharpness = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda q, k, g: attended_similarity(q, k, query_mask, key_mask, g, implementation),
        (queries.requires_grad_(), keys.requires_grad_(), sharpness),
    )


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_limits_are_mean_and_maximum(implementation):
    queries, keys, _, _ = make_scoring_inputs(3, 2, 4, 9, 8)
    cosines = torch.einsum("imd,jnd->ijmn", queries, keys)
    assert torch.allclose(
        attended_similarity(queries, keys, sharpness=0.0, implementation=implementation), cosines.mean(-1)
    )
    for sharpness in (1e6, math.inf):
        hardest = attended_similarity(queries, keys, sharpness=sharpness, implementation=implementation)
        assert torch.allclose(hardest, cosines.amax(-1), atol=1e-6)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("rubbish", [1e4, float("nan"), float("inf")])
def test_what_stands_in_the_padding_changes_nothing(implementation, rubbish):
    queries, keys, query_mask, key_mask = make_scoring_inputs(4, 3, 5, 6, 7)
    query_mask[1], key_mask[2] = False, False  # an item without phrases, an item without regions
    outcomes = []
    for value in (0.0, rubbish):
        q = queries.masked_fill(~query_mask.unsqueeze(-1), value).requires_grad_()
        k = keys.masked_fill(~key_mask.unsqueeze(-1), value).requires_grad_()
        g = torch.tensor(4.0, dtype=torch.float64, requires_grad=True)
        result = attended_similarity(q, k, query_mask, key_mask, g, implementation)
        result.square().sum().backward()
        outcomes.append((result.detach(), q.grad, k.grad, g.grad))
    for clean, dirty in zip(*outcomes, strict=True):
        assert torch.equal(clean, dirty) and torch.isfinite(dirty).all()
    assert (outcomes[0][0][1] == 0).all() and (outcomes[0][0][:, 2] == 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_low_precision_inputs_are_scored_in_float32(dtype):
    queries, keys, query_mask, key_mask = make_scoring_inputs(6, 4, 5, 20, 32, dtype=torch.float32)
    results = [
        attended_similarity(queries.to(dtype), keys.to(dtype), query_mask, key_mask, 8.0, implementation)
        for implementation in IMPLEMENTATIONS
    ]
    assert results[0].dtype == torch.float32
    assert torch.allclose(*results, atol=1e-6)
    exact = plain_similarity(queries.to(dtype).double(), keys.to(dtype).double(), query_mask, key_mask, 8.0)
    assert torch.allclose(results[0].double(), exact, atol=1e-5)


def test_tiled_holds_no_tensor_larger_than_a_tile(monkeypatch):
    monkeypatch.setattr(scoring, "TILE_SIZE", 64)
    queries, keys, query_mask, key_mask = make_scoring_inputs(8, 2, 9, 4, 3)
    sizes = []
    cosines = scoring._cosines
    monkeypatch.setattr(scoring, "_cosines", lambda q, k: sizes.append(cosines(q, k).numel()) or cosines(q, k))
    attended_similarity(queries.requires_grad_(), keys, query_mask, key_mask, 2.0, "tiled").sum().backward()
    assert len(sizes) > 10 and max(sizes) <= 64


def test_unknown_implementation_is_named():
    queries, keys, _, _ = make_scoring_inputs(1, 1, 1, 1, 2)
    with pytest.raises(ValueError, match="quick"):
        attended_similarity(queries, keys, implementation="quick")


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("phrase_sharpness", [0.0, 2.0, -3.0, 200.0])
def test_caption_scores_are_weighted_means_over_their_phrases(phrase_sharpness, gated):
    generator = torch.Generator().manual_seed(3)
    similarity = torch.rand(3, 4, 6, generator=generator, dtype=torch.float64) * 2 - 1
    captions = torch.tensor([[0, 0, 1, 1, 2, 0], [0, 0, 0, 0, 0, 0], [1, 1, 2, 2, 2, 2]])
    mask = torch.tensor([[True] * 5 + [False], [True, True] + [False] * 4, [True] * 6])
    gates = 3 * torch.randn(3, 6, generator=generator, dtype=torch.float64) * gated
    given = gates.masked_fill(~mask, float("nan")) if gated else None  # what stands under the mask is not read
    scores = caption_scores(similarity, captions, mask, 3, phrase_sharpness, given)
    for i in range(3):
        for j in range(4):
            for k in range(3):
                own = [m for m in range(6) if mask[i, m] and captions[i, m] == k]
                values = [float(similarity[i, j, m]) for m in own]
                logits = [phrase_sharpness * float(similarity[i, j, m]) + float(gates[i, m]) for m in own]
                weights = [math.exp(logit - max(logits)) for logit in logits]
                mean = sum(w * v for w, v in zip(weights, values, strict=True)) / sum(weights) if values else 0.0
                assert float(scores[i, j, k]) == pytest.approx(mean, abs=1e-9)


def test_autocast_does_not_round_caption_scores():
    similarity = torch.rand(2, 3, 4, generator=torch.Generator().manual_seed(0))
    captions, mask = torch.zeros(2, 4, dtype=torch.long), torch.ones(2, 4, dtype=torch.bool)
    exact = caption_scores(similarity, captions, mask, 1, 2.0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(caption_scores(similarity, captions, mask, 1, 2.0), exact)


def test_caption_scores_gradcheck():
    captions, mask = torch.tensor([[0, 1, 1], [0, 0, 0]]), torch.tensor([[True, True, True], [True, True, False]])
    similarity = torch.rand(2, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    delta = torch.tensor(1.5, dtype=torch.float64, requires_grad=True)
    gates = torch.rand(2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda s, d, g: caption_scores(s, captions, mask, 2, d, g), (similarity, delta, gates)
    )


def test_pair_scores_take_all_queries_as_one_caption():
    queries, keys, query_mask, key_mask = make_scoring_inputs(3, 4, 2, 5, 6)
    query_mask[:, 0] = True
    scores = pair_scores(queries, keys, query_mask, key_mask, 4.0)
    similarity = plain_similarity(queries, keys, query_mask, key_mask, 4.0)
    assert torch.allclose(scores, similarity.sum(-1) / query_mask.sum(1)[:, None])
    assert pair_scores(queries, keys).shape == (3, 2)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(shape=shapes, sharpness=st.sampled_from([0.0, 4.0, 1000.0, math.inf]), seed=st.integers(0, 99))
def test_region_attention_gives_the_attended_similarity(shape, sharpness, seed):
    queries, keys, query_mask, key_mask = make_scoring_inputs(*shape, seed=seed)
    key_mask[0] = False  # an item without keys
    rubbish = keys.masked_fill(~key_mask.unsqueeze(-1), float("nan"))
    attention = region_attention(queries, rubbish, query_mask, key_mask, sharpness)
    similarity = (attention * torch.einsum("imd,jnd->ijmn", queries, keys)).sum(-1)
    assert torch.allclose(similarity, plain_similarity(queries, keys, query_mask, key_mask, sharpness), atol=1e-9)
    assert (attention[~key_mask[None, :, None, :].expand_as(attention)] == 0).all()
    present = query_mask.unsqueeze(1) & key_mask.any(1).view(1, -1, 1)
    assert torch.allclose(attention.sum(-1), present.double(), atol=1e-12)


@pytest.mark.parametrize("phrase_sharpness", [0.0, 2.0, 200.0])
def test_phrase_attention_gives_the_caption_scores(phrase_sharpness):
    generator = torch.Generator().manual_seed(4)
    similarity = torch.rand(3, 4, 6, generator=generator, dtype=torch.float64) * 2 - 1
    captions = torch.randint(0, 3, (3, 6), generator=generator)
    mask = torch.rand(3, 6, generator=generator) < 0.7
    gates = torch.randn(3, 6, generator=generator, dtype=torch.float64)
    weights = phrase_attention(similarity, captions, mask, 3, phrase_sharpness, gates)
    belongs = (torch.nn.functional.one_hot(captions, 3) * mask.unsqueeze(-1)).double()
    scores = torch.einsum("ijm,imk->ijk", weights * similarity, belongs)
    assert torch.allclose(scores, caption_scores(similarity, captions, mask, 3, phrase_sharpness, gates), atol=1e-12)
    sums = torch.einsum("ijm,imk->ijk", weights, belongs)
    assert torch.allclose(sums, belongs.any(1).double().unsqueeze(1).expand_as(sums), atol=1e-12)
    assert (weights.masked_select(~mask.unsqueeze(1)) == 0).all() and 0.1 < mask.double().mean() < 0.9


def make_texts(*shapes) -> list[Queries]:
    """Batches of one text each, of M phrases and K captions."""
    generator = torch.Generator().manual_seed(5)
    return [
        Queries(
            torch.randn(1, phrases, 4, generator=generator),
            torch.ones(1, phrases, dtype=torch.bool),
            torch.arange(phrases).view(1, -1) % captions,
            torch.randn(1, captions, 4, generator=generator),
            torch.ones(1, captions, dtype=torch.bool),
        )
        for phrases, captions in shapes
    ]


def test_batches_are_concatenated_and_selected():
    pieces = make_texts((2, 1), (5, 3), (3, 2))
    together = Queries.concatenate(pieces)
    assert together.phrases.shape == (3, 5, 4) and together.embeds.shape == (3, 3, 4)
    assert together.mask.sum(1).tolist() == [2, 5, 3] and together.caption_mask.sum(1).tolist() == [1, 3, 2]
    for row, piece in enumerate(pieces):
        alone = together.select(slice(row, row + 1)).without_padding()
        assert torch.equal(alone.phrases, piece.phrases) and torch.equal(alone.captions, piece.captions)
        assert torch.equal(alone.embeds[:, : piece.embeds.shape[1]], piece.embeds)
    assert together.select(torch.tensor([True, False, True])).mask.sum(1).tolist() == [2, 3]
    assert together.without_phrases().phrases.shape == (3, 0, 4)
    whole = together.with_whole_captions()
    assert whole.phrases.shape == (3, 8, 4) and whole.captions[0].tolist() == [0, 0, 0, 0, 0, 0, 1, 2]
    assert torch.equal(whole.phrases[:, 5:], together.embeds)
    assert whole.mask[0].tolist() == [True, True, False, False, False, True, False, False]


def test_windows_are_joined_to_items():
    generator = torch.Generator().manual_seed(6)
    mask = torch.tensor([[True, True], [True, False], [True, True]])
    windows = Keys(torch.randn(3, 2, 4, generator=generator), mask, torch.randn(3, 4, generator=generator))
    joined = windows.join_windows([2, 1])
    assert torch.equal(joined.regions[0], windows.regions[:2].flatten(0, 1)) and joined.regions.shape == (2, 4, 4)
    assert joined.mask.tolist() == [[True, True, True, False], [True, True, False, False]]
    mean = torch.nn.functional.normalize(windows.embeds[:2].mean(0), dim=0)
    assert torch.allclose(joined.embeds[0], mean, atol=1e-6)
    assert windows.join_windows([1, 1, 1]) is windows


def test_sounds_are_queries_of_one_caption():
    keys = Keys(torch.randn(2, 3, 4), torch.tensor([[True, True, False], [False] * 3]), torch.randn(2, 4))
    queries = Queries.from_keys(keys)
    assert torch.equal(queries.phrases, keys.regions) and torch.equal(queries.embeds[:, 0], keys.embeds)
    assert queries.present.tolist() == keys.present.tolist() == [True, False]
    assert queries.captions.tolist() == [[0, 0, 0]] * 2


def test_inputs_follow_their_objective_to_its_device():
    keys = Keys(torch.zeros(2, 3, 4), torch.ones(2, 3, dtype=torch.bool), torch.zeros(2, 4))
    assert {value.device.type for value in vars(keys.to("meta")).values()} == {"meta"}
