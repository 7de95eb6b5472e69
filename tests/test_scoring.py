import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import modeling_fgmm.scoring_fgmm as scoring
from modeling_fgmm.scoring_fgmm import attended_similarity, caption_scores, pair_scores

IMPLEMENTATIONS = ("reference", "tiled")


def random_inputs(num_queries, num_phrases, num_keys, num_regions, dim, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def unit(*shape):
        return torch.nn.functional.normalize(torch.randn(*shape, generator=generator, dtype=dtype), dim=-1)

    query_mask = torch.rand(num_queries, num_phrases, generator=generator) < 0.7
    key_mask = torch.rand(num_keys, num_regions, generator=generator) < 0.7
    return unit(num_queries, num_phrases, dim), unit(num_keys, num_regions, dim), query_mask, key_mask


def plain_similarity(queries, keys, query_mask, key_mask, sharpness):
    """The formula with loops: what every implementation must give."""
    result = queries.new_zeros(len(queries), len(keys), queries.shape[1])
    for i in range(len(queries)):
        for j in range(len(keys)):
            kept = keys[j][key_mask[j]]
            for m in range(queries.shape[1]):
                if query_mask[i, m] and len(kept):
                    cosines = kept @ queries[i, m]
                    if sharpness == math.inf:
                        result[i, j, m] = cosines.max()
                        continue
                    weights = torch.exp(sharpness * cosines - (sharpness * cosines).max().detach())
                    result[i, j, m] = (weights * cosines).sum() / weights.sum()
    return result


def gradients_of(function, queries, keys, query_mask, key_mask, sharpness):
    """The result, and the gradients of queries, keys and sharpness for a fixed random upstream gradient."""
    gamma = torch.tensor(sharpness, dtype=torch.promote_types(keys.dtype, torch.float32))
    tensors = [tensor.clone().requires_grad_() for tensor in (queries, keys, gamma)]
    result = function(tensors[0], tensors[1], query_mask, key_mask, tensors[2])
    upstream = torch.randn(result.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    if result.requires_grad:  # the plain formula is a constant where every query is masked
        result.backward(upstream.to(result))
    return result.detach(), [torch.zeros_like(t) if t.grad is None else t.grad for t in tensors]


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
    """Also for vectors that are not of length one, so that logits get tiny or large."""
    queries, keys, query_mask, key_mask = random_inputs(*shape, seed=seed)
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
    # The formula itself, in the same precision, says how much rounding is to be expected.
    rounded, rounded_gradients = gradients_of(
        plain_similarity, *(t.to(value.dtype) for t in exact[:2]), *exact[2:], sharpness
    )
    assert_close(value, expected, rounded, value.dtype, size)
    dtypes = (dtype, dtype, value.dtype)
    for triple in zip(gradients, expected_gradients, rounded_gradients, dtypes, strict=True):
        slack = assert_close(*triple, size * (1 + sharpness * size) ** 2)
        largest = float(triple[1].abs().max())
        # Where logits are ordinary, no gradient of 0 would pass.
        assert size != 1.0 or sharpness > 50 or largest < 1e-3 or slack < 0.1 * largest


def assert_close(ours, exact, rounded, dtype, cancelled) -> float:
    """Checks that ours is as near to the exact result as the rounded one, but for a factor; gives what was allowed.

    `cancelled` is the size of what takes each other off on the way to the result: in float64 nothing else is known.
    """
    largest, value_dtype = float(exact.abs().max()), rounded.dtype
    slack = 16 * float((rounded.double() - exact).abs().max()) + 4 * torch.finfo(dtype).eps * largest
    slack += 200 * torch.finfo(value_dtype).eps * largest + 50 * torch.finfo(torch.float64).eps * cancelled
    assert torch.allclose(ours.double(), exact, rtol=0, atol=slack + 1e-38)
    return slack


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@settings(max_examples=10, deadline=None, derandomize=True)
@given(shape=shapes, seed=st.integers(0, 99))
def test_infinite_sharpness_is_the_maximum_with_its_gradient(implementation, shape, seed):
    inputs = random_inputs(*shape[:4], 7, seed=seed)  # in 7 dimensions no two cosines are alike
    outcomes = [
        gradients_of(lambda q, k, qm, km, _: attended_similarity(q, k, qm, km, math.inf, implementation), *inputs, 1.0),
        gradients_of(lambda q, k, qm, km, _: plain_similarity(q, k, qm, km, math.inf), *inputs, 1.0),
    ]
    assert torch.allclose(outcomes[0][0], outcomes[1][0])
    for ours, plain in zip(outcomes[0][1][:2], outcomes[1][1][:2], strict=True):
        assert torch.allclose(ours, plain)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_gradcheck(implementation):
    queries, keys, query_mask, key_mask = random_inputs(2, 3, 3, 4, 5)
    sharpness = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda q, k, g: attended_similarity(q, k, query_mask, key_mask, g, implementation),
        (queries.requires_grad_(), keys.requires_grad_(), sharpness),
    )


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_limits_are_mean_and_maximum(implementation):
    queries, keys, _, _ = random_inputs(3, 2, 4, 9, 8)
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
    queries, keys, query_mask, key_mask = random_inputs(4, 3, 5, 6, 7)
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
    queries, keys, query_mask, key_mask = random_inputs(6, 4, 5, 20, 32, dtype=torch.float32)
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
    queries, keys, query_mask, key_mask = random_inputs(8, 2, 9, 4, 3)
    sizes = []
    cosines = scoring._cosines
    monkeypatch.setattr(scoring, "_cosines", lambda q, k: sizes.append(cosines(q, k).numel()) or cosines(q, k))
    attended_similarity(queries.requires_grad_(), keys, query_mask, key_mask, 2.0, "tiled").sum().backward()
    assert len(sizes) > 10 and max(sizes) <= 64


def test_unknown_implementation_is_named():
    queries, keys, _, _ = random_inputs(1, 1, 1, 1, 2)
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
    queries, keys, query_mask, key_mask = random_inputs(3, 4, 2, 5, 6)
    query_mask[:, 0] = True
    scores = pair_scores(queries, keys, query_mask, key_mask, 4.0)
    similarity = plain_similarity(queries, keys, query_mask, key_mask, 4.0)
    assert torch.allclose(scores, similarity.sum(-1) / query_mask.sum(1)[:, None])
    assert pair_scores(queries, keys).shape == (3, 2)
