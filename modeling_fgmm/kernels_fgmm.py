"""Attended similarity in Triton: cosines stay in on-chip memory.

The forward kernel holds a block of queries and iterates over the keys of one item with an online softmax; it writes the
result and the softmax's maximum and total. The two backward kernels recompute the cosines: one holds queries and
iterates over the keys of all items, the other holds a block of keys and iterates over all queries. Products are in the
inputs' dtype and accumulate in float32. Without atomic additions the results are deterministic.
"""

import torch
from torch.autograd.function import once_differentiable

try:
    import triton
    import triton.language as tl
except ImportError:
    triton = None

# The largest D for which a block's gradient fits the registers of one program.
MAX_DIM = 512
# Bytes of shared memory that a program needs at most beside its blocks of queries and keys.
SHARED_MARGIN = 10 * 1024


def is_supported(queries: torch.Tensor, dtype: torch.dtype) -> bool:
    """Whether the kernels can take queries (Bq, M, D) in this dtype: Triton and CUDA (or Triton's interpreter) are
    there, D is at most `MAX_DIM`, and it is not float64."""
    if triton is None or not (queries.is_cuda or triton.knobs.runtime.interpret):
        return False
    dtypes = (torch.float32, torch.float16)
    if queries.is_cuda:  # NumPy, which the interpreter uses, has no bfloat16
        dtypes += (torch.bfloat16,)
    return dtype in dtypes and queries.shape[-1] <= MAX_DIM


if triton is not None:

    @triton.jit
    def load_rows(pointer, rows, num_rows, D: tl.constexpr, BLOCK_D: tl.constexpr):
        """Rows of a contiguous (num_rows, D) matrix: (rows, BLOCK_D), 0 outside of it."""
        columns = tl.arange(0, BLOCK_D)
        inside = (rows < num_rows)[:, None] & (columns < D)[None, :]
        return tl.load(pointer + rows.to(tl.int64)[:, None] * D + columns[None, :], mask=inside, other=0.0)

    @triton.jit
    def store_rows(pointer, rows, values, num_rows, D: tl.constexpr, BLOCK_D: tl.constexpr):
        """Writes values (rows, BLOCK_D) into rows of a contiguous (num_rows, D) matrix."""
        columns = tl.arange(0, BLOCK_D)
        inside = (rows < num_rows)[:, None] & (columns < D)[None, :]
        tl.store(pointer + rows.to(tl.int64)[:, None] * D + columns[None, :], values, mask=inside)

    @triton.jit
    def forward_kernel(
        queries, keys, key_mask, sharpness, similarity, maximum, inverse_total,
        num_rows, N, D: tl.constexpr, PRECISION: tl.constexpr,
        BLOCK_ROWS: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr,
    ):  # fmt: skip
        """Attended similarity of a block of rows (queries of any item) with the keys of item `j`: an online softmax."""
        j = tl.program_id(0).to(tl.int64)
        rows = tl.program_id(1) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
        q = load_rows(queries, rows, num_rows, D, BLOCK_D)
        gamma = tl.load(sharpness)
        highest = tl.full([BLOCK_ROWS], -float("inf"), tl.float32)
        total = tl.zeros([BLOCK_ROWS], tl.float32)
        weighted = tl.zeros([BLOCK_ROWS], tl.float32)
        for first in range(0, N, BLOCK_N):
            columns = first + tl.arange(0, BLOCK_N)
            k = load_rows(keys + j * N * D, columns, N, D, BLOCK_D)
            kept = tl.load(key_mask + j * N + columns, mask=columns < N, other=0) != 0
            cosines = tl.dot(q, tl.trans(k), input_precision=PRECISION)
            logits = tl.where(kept[None, :], gamma * cosines, -float("inf"))
            new_highest = tl.maximum(highest, tl.max(logits, 1))
            # The maximum is -inf until a key is kept, and -inf - -inf is NaN.
            shift = tl.where(new_highest == -float("inf"), 0.0, new_highest)
            rescale = tl.exp(highest - shift)
            weights = tl.exp(logits - shift[:, None])
            total = total * rescale + tl.sum(weights, 1)
            weighted = weighted * rescale + tl.sum(weights * cosines, 1)
            highest = new_highest
        # An item without keys has an attention, a result and a gradient of 0.
        empty = total == 0.0
        inverse = tl.where(empty, 0.0, 1.0 / tl.where(empty, 1.0, total))
        place = j * num_rows + rows
        inside = rows < num_rows
        tl.store(similarity + place, weighted * inverse, mask=inside)
        tl.store(maximum + place, tl.where(empty, 0.0, highest), mask=inside)
        tl.store(inverse_total + place, inverse, mask=inside)

    @triton.jit
    def attend(q, k, kept, gamma, result, highest, inverse, PRECISION: tl.constexpr):
        """The attention and the deviation of the cosines from their weighted mean, recomputed: (rows, BLOCK_N) each."""
        cosines = tl.dot(q, tl.trans(k), input_precision=PRECISION)
        weights = tl.where(kept[None, :], tl.exp(gamma * cosines - highest[:, None]), 0.0)
        return weights * inverse[:, None], cosines - result[:, None]

    @triton.jit
    def load_results(similarity, maximum, inverse_total, gradient, place, inside):
        """Result, maximum and inverse total of the softmax, and upstream gradient of a block of rows: (rows,) each."""
        result = tl.load(similarity + place, mask=inside, other=0.0)
        highest = tl.load(maximum + place, mask=inside, other=0.0)
        inverse = tl.load(inverse_total + place, mask=inside, other=0.0)
        upstream = tl.load(gradient + place, mask=inside, other=0.0)
        return result, highest, inverse, upstream

    @triton.jit
    def queries_backward_kernel(
        queries, keys, key_mask, sharpness, similarity, maximum, inverse_total, gradient, queries_grad, sharpness_grad,
        num_rows, num_items, N, D: tl.constexpr, PRECISION: tl.constexpr,
        BLOCK_ROWS: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr,
    ):  # fmt: skip
        """The gradient of a block of rows over the keys of all items, and its share of the sharpness' gradient."""
        program = tl.program_id(0)
        rows = program * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
        inside = rows < num_rows
        q = load_rows(queries, rows, num_rows, D, BLOCK_D)
        gamma = tl.load(sharpness)
        q_grad = tl.zeros([BLOCK_ROWS, BLOCK_D], tl.float32)
        gamma_grad = tl.zeros([BLOCK_ROWS], tl.float32)
        for item in range(0, num_items):
            j = tl.cast(item, tl.int64)
            place = j * num_rows + rows
            result, highest, inverse, upstream = load_results(
                similarity, maximum, inverse_total, gradient, place, inside
            )
            for first in range(0, N, BLOCK_N):
                columns = first + tl.arange(0, BLOCK_N)
                k = load_rows(keys + j * N * D, columns, N, D, BLOCK_D)
                kept = tl.load(key_mask + j * N + columns, mask=columns < N, other=0) != 0
                attention, deviation = attend(q, k, kept, gamma, result, highest, inverse, PRECISION)
                spread = attention * deviation
                gamma_grad += upstream * tl.sum(spread * deviation, 1)
                cosines_grad = upstream[:, None] * (attention + gamma * spread)
                q_grad += tl.dot(cosines_grad.to(k.dtype), k, input_precision=PRECISION)
        store_rows(queries_grad, rows, q_grad, num_rows, D, BLOCK_D)
        tl.store(sharpness_grad + program, tl.sum(gamma_grad, 0))

    @triton.jit
    def keys_backward_kernel(
        queries, keys, key_mask, sharpness, similarity, maximum, inverse_total, gradient, keys_grad,
        num_rows, N, D: tl.constexpr, PRECISION: tl.constexpr,
        BLOCK_ROWS: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr,
    ):  # fmt: skip
        """The gradient of a block of one item's keys over all rows."""
        j = tl.program_id(0).to(tl.int64)
        columns = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
        k = load_rows(keys + j * N * D, columns, N, D, BLOCK_D)
        kept = tl.load(key_mask + j * N + columns, mask=columns < N, other=0) != 0
        gamma = tl.load(sharpness)
        k_grad = tl.zeros([BLOCK_N, BLOCK_D], tl.float32)
        for first in range(0, num_rows, BLOCK_ROWS):
            rows = first + tl.arange(0, BLOCK_ROWS)
            inside = rows < num_rows
            q = load_rows(queries, rows, num_rows, D, BLOCK_D)
            place = j * num_rows + rows
            result, highest, inverse, upstream = load_results(
                similarity, maximum, inverse_total, gradient, place, inside
            )
            attention, deviation = attend(q, k, kept, gamma, result, highest, inverse, PRECISION)
            cosines_grad = upstream[:, None] * attention * (1.0 + gamma * deviation)
            k_grad += tl.dot(tl.trans(cosines_grad).to(q.dtype), q, input_precision=PRECISION)
        store_rows(keys_grad + j * N * D, columns, k_grad, N, D, BLOCK_D)


def block_sizes(queries: torch.Tensor) -> dict[str, int]:
    """Block sizes, warps and stages for queries (Bq, M, D), so that a program fits registers and shared memory.

    At D = 512 the gradient of 64 rows takes 128 KB of registers, half of what eight warps have at 255 a thread. Blocks
    have fewer rows on devices with less shared memory than an H100.
    """
    block_d = max(16, triton.next_power_of_2(queries.shape[-1]))
    row_bytes = block_d * queries.element_size()
    wide = row_bytes > 512
    block_n = 32 if wide else 64
    fitting = [rows for rows in (64, 32, 16) if (rows + block_n) * row_bytes + SHARED_MARGIN <= shared_memory(queries)]
    return {
        "BLOCK_ROWS": fitting[0] if fitting else 16,
        "BLOCK_N": block_n,
        "BLOCK_D": block_d,
        "num_warps": 8 if wide else 4,
        "num_stages": 2,
    }


def shared_memory(queries: torch.Tensor) -> int:
    """Bytes of shared memory that one program can have on the device of queries (of any shape)."""
    if not queries.is_cuda:  # the interpreter
        return 2**30
    return torch.cuda.get_device_properties(queries.device).shared_memory_per_block_optin


class TritonAttendedSimilarity(torch.autograd.Function):
    """The kernels under autograd; see [`scoring_fgmm.attended_similarity`] for the formula."""

    @staticmethod
    def forward(ctx, queries, keys, key_mask, gamma):
        """
        Args:
            queries: (Bq, M, D) with 0 where masked.
            keys: (Bk, N, D) of the same dtype, with 0 where masked.
            key_mask: (Bk, N) bool.
            gamma: float32 tensor of one element.

        Returns:
            (Bq, Bk, M) float32.
        """
        queries, keys, key_mask = queries.contiguous(), keys.contiguous(), key_mask.contiguous()
        num_rows, (num_items, num_keys, dim) = queries.shape[0] * queries.shape[1], keys.shape
        # Item by item, so that a block of rows is contiguous in memory.
        similarity = queries.new_empty(num_items, num_rows, dtype=torch.float32)
        maximum, inverse_total = torch.empty_like(similarity), torch.empty_like(similarity)
        blocks = block_sizes(queries)
        if similarity.numel():
            with torch.cuda.device_of(queries):
                forward_kernel[(num_items, triton.cdiv(num_rows, blocks["BLOCK_ROWS"]))](
                    queries, keys, key_mask, gamma, similarity, maximum, inverse_total,
                    num_rows, num_keys, dim, precision(queries), **blocks,
                )  # fmt: skip
        ctx.save_for_backward(queries, keys, key_mask, gamma, similarity, maximum, inverse_total)
        return similarity.unflatten(1, queries.shape[:2]).transpose(0, 1)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        queries, keys, key_mask, gamma, *results = ctx.saved_tensors
        num_rows, (num_items, num_keys, dim) = queries.shape[0] * queries.shape[1], keys.shape
        queries_grad, keys_grad = torch.zeros_like(queries), torch.zeros_like(keys)
        if not results[0].numel():
            return queries_grad, keys_grad, None, torch.zeros_like(gamma)
        gradient = gradient.transpose(0, 1).float().contiguous()
        blocks = block_sizes(queries)
        row_blocks = triton.cdiv(num_rows, blocks["BLOCK_ROWS"])
        gamma_grad = gamma.new_empty(row_blocks)
        inputs = (queries, keys, key_mask, gamma, *results, gradient)
        with torch.cuda.device_of(queries):
            queries_backward_kernel[(row_blocks,)](
                *inputs, queries_grad, gamma_grad, num_rows, num_items, num_keys, dim, precision(queries), **blocks
            )
            keys_backward_kernel[(num_items, triton.cdiv(num_keys, blocks["BLOCK_N"]))](
                *inputs, keys_grad, num_rows, num_keys, dim, precision(queries), **blocks
            )
        return queries_grad, keys_grad, None, gamma_grad.sum().view(gamma.shape)


def precision(queries: torch.Tensor) -> str:
    """The precision of products: float32 inputs are multiplied in float32, not in the 19 bits of TF32."""
    return "ieee" if queries.dtype == torch.float32 else "tf32"
