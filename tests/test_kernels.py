"""The Triton kernels against the formula: on a GPU where there is one, else through Triton's interpreter."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_objectives import gradients_of, make_scoring_inputs, plain_similarity

from modeling_fgmm import kernels_fgmm
from modeling_fgmm.scoring_fgmm import attended_similarity

pytest.importorskip("triton", reason="Triton is not installed")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
# Numpy, on which the interpreter stands, has no bfloat16.
HALF = torch.bfloat16 if torch.cuda.is_available() else torch.float16


def attend(queries, keys, query_mask, key_mask, sharpness):
    tensors = (tensor.to(DEVICE) for tensor in (queries, keys, query_mask, key_mask, sharpness))
    return attended_similarity(*tensors, implementation="triton").cpu()


# More rows, keys and dimensions than one block, primes, ones.
shapes = st.tuples(
    st.integers(1, 9),
    st.integers(1, 11),
    st.integers(1, 4),
    st.sampled_from([1, 7, 64, 131]),
    st.sampled_from([1, 17, 40]),
)


@settings(max_examples=12, deadline=None, derandomize=True)
@given(shape=shapes, sharpness=st.sampled_from([0.0, 0.5, 4.0, 40.0, 1000.0]), seed=st.integers(0, 99))
def test_values_and_gradients_are_those_of_the_formula(shape, sharpness, seed):
    inputs = make_scoring_inputs(*shape, dtype=torch.float32, seed=seed)
    inputs[3][0] = False  # an item without keys
    value, gradients = gradients_of(attend, *inputs, sharpness)
    exact = [tensor.double() if tensor.is_floating_point() else tensor for tensor in inputs]
    expected, expected_gradients = gradients_of(plain_similarity, *exact, sharpness)
    assert value.dtype == torch.float32
    assert torch.allclose(value.double(), expected, atol=1e-5)
    # A cosine's rounding of 1e-7 moves the attention by γ times that.
    for ours, plain in zip(gradients, expected_gradients, strict=True):
        assert torch.allclose(ours.double(), plain, atol=1e-4 * max(1, sharpness / 20), rtol=1e-4)


@pytest.mark.parametrize("sharpness", [0.0, 4.0, 1000.0])
def test_low_precision_inputs_accumulate_in_float32(sharpness):
    inputs = make_scoring_inputs(5, 6, 3, 70, 48, dtype=torch.float32)
    low = [tensor.to(HALF) if tensor.is_floating_point() else tensor for tensor in inputs]
    value, gradients = gradients_of(attend, *low, sharpness)
    exact = [tensor.double() if tensor.is_floating_point() else tensor for tensor in low]
    expected, expected_gradients = gradients_of(plain_similarity, *exact, sharpness)
    assert value.dtype == torch.float32
    assert torch.allclose(value.double(), expected, atol=1e-5)
    eps = torch.finfo(HALF).eps
    for ours, plain in zip(gradients[:2], expected_gradients[:2], strict=True):
        assert ours.dtype == HALF
        assert torch.allclose(ours.double(), plain, atol=4 * eps * float(plain.abs().max()), rtol=4 * eps)


@pytest.mark.parametrize("rubbish", [1e4, float("nan"), float("inf")])
def test_what_stands_in_the_padding_changes_nothing(rubbish):
    queries, keys, query_mask, key_mask = make_scoring_inputs(4, 3, 5, 70, 7, dtype=torch.float32)
    query_mask[1], key_mask[2] = False, False
    clean = gradients_of(attend, queries, keys, query_mask, key_mask, 4.0)
    dirty = gradients_of(
        attend,
        queries.masked_fill(~query_mask.unsqueeze(-1), rubbish),
        keys.masked_fill(~key_mask.unsqueeze(-1), rubbish),
        query_mask,
        key_mask,
        4.0,
    )
    assert torch.equal(clean[0], dirty[0]) and torch.isfinite(dirty[0]).all()
    assert all(torch.equal(a, b) and torch.isfinite(b).all() for a, b in zip(clean[1], dirty[1], strict=True))


def test_the_widest_dimension():
    inputs = make_scoring_inputs(2, 3, 2, 5, kernels_fgmm.MAX_DIM, dtype=torch.float32)
    value, _ = gradients_of(attend, *inputs, 4.0)
    assert torch.allclose(value, plain_similarity(*inputs, 4.0), atol=1e-5)


@pytest.mark.parametrize(("dim", "dtype"), [(kernels_fgmm.MAX_DIM + 1, torch.float32), (8, torch.float64)])
def test_inputs_that_the_kernels_cannot_take_are_refused(dim, dtype):
    with pytest.raises(ValueError, match="512 dimensions"):
        attend(*make_scoring_inputs(2, 2, 2, 2, dim, dtype=dtype), torch.tensor(1.0))


def test_autocast_decides_on_the_products_dtype():
    queries, keys, _, _ = make_scoring_inputs(2, 3, 4, 5, 8, dtype=torch.float32)
    queries, keys = queries.to(DEVICE), keys.to(DEVICE)
    exact = attended_similarity(queries, keys, sharpness=4.0, implementation="triton")
    with torch.autocast(DEVICE, dtype=HALF):
        low = attended_similarity(queries, keys, sharpness=4.0, implementation="triton")
    rounded = attended_similarity(queries.to(HALF), keys.to(HALF), sharpness=4.0, implementation="triton")
    assert torch.equal(low, rounded) and not torch.equal(low, exact)
