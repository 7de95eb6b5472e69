"""Time and memory of attended similarity, forward and backward, each variant in a process of its own."""

import ctypes
import functools
import importlib
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from importlib import metadata, util
from multiprocessing import get_context
from pathlib import Path
from types import ModuleType

import torch
import torch.nn.functional as F

from modeling_fgmm.scoring_fgmm import attended_similarity

from .cli import UserError

SHARPNESS = 4.0


@dataclass(frozen=True)
class BenchmarkSettings:
    """What is measured.

    Args:
        device: `"cpu"` or `"cuda"`.
        dtype: of queries and keys: `"float32"` or `"bfloat16"`.
        batch_size: items of queries, and of keys (B).
        num_phrases: queries of an item (M).
        num_regions: keys of an item (N).
        dim: dimensions (D).
        repeats: passes, of which the fastest counts.
    """

    device: str = "cpu"
    dtype: str = "float32"
    batch_size: int = 128
    num_phrases: int = 16
    num_regions: int = 196
    dim: int = 256
    repeats: int = 5


# The variants take queries (B, M, D), keys (B, N, D) and the sharpness, and give float32 (B, B, M) for each item of
# queries, item of keys and query; those of other packages give (B, B), summed over the queries of an item.


def plain(queries: torch.Tensor, keys: torch.Tensor, gamma: torch.Tensor) -> torch.Tensor:
    """The formula in three lines, for autograd."""
    cosines = torch.einsum("imd,jnd->ijmn", queries, keys).float()
    attention = (gamma * cosines).softmax(-1)
    return (attention * cosines).sum(-1)


def hard_maximum(queries: torch.Tensor, keys: torch.Tensor, gamma: torch.Tensor) -> torch.Tensor:
    """The score of FILIP and ColBERT, which has no sharpness."""
    return torch.einsum("imd,jnd->ijmn", queries, keys).amax(-1).float()


@functools.cache
def compile_plain() -> Callable:
    """The plain version under torch.compile, once in each process that measures it."""
    return torch.compile(plain)


def compiled(queries: torch.Tensor, keys: torch.Tensor, gamma: torch.Tensor) -> torch.Tensor:
    return compile_plain()(queries, keys, gamma)


def tiled(queries: torch.Tensor, keys: torch.Tensor, gamma: torch.Tensor) -> torch.Tensor:
    return attended_similarity(queries, keys, sharpness=gamma, implementation="tiled")


def triton(queries: torch.Tensor, keys: torch.Tensor, gamma: torch.Tensor) -> torch.Tensor:
    return attended_similarity(queries, keys, sharpness=gamma, implementation="triton")


def late_interaction_kernels(queries: torch.Tensor, keys: torch.Tensor, gamma: torch.Tensor) -> torch.Tensor:
    """The package's hard maximum: (B, B)."""
    return import_package("late-interaction-kernels").maxsim(queries, keys)


def flash_maxsim(queries: torch.Tensor, keys: torch.Tensor, gamma: torch.Tensor) -> torch.Tensor:
    """The package's hard maximum: (B, B)."""
    return import_package("flash-maxsim").flash_maxsim_batched_train(queries, keys, shared_docs=True)


def import_package(package: str) -> ModuleType:
    """Imports a package that this project does not depend on."""
    module = package.replace("-", "_")
    if util.find_spec(module) is None:
        raise ModuleNotFoundError(f"{package} is not installed: pip install {package}")
    return importlib.import_module(module)


# Variants, and the matrix products that each must make in forward and backward.
VARIANTS = {"plain": (plain, 3), "compiled": (compiled, 3), "hard_maximum": (hard_maximum, 3), "tiled": (tiled, 4)}
PACKAGES = {"late_interaction_kernels": (late_interaction_kernels, 1), "flash_maxsim": (flash_maxsim, 1)}
GPU_VARIANTS = {**VARIANTS, "triton": (triton, 5), **PACKAGES}


def run_benchmark(settings: BenchmarkSettings, variants: list[str]) -> dict[str, dict]:
    """Measures a plain matrix product, which is the limit, and the variants.

    Args:
        settings: what is measured.
        variants: keys of GPU_VARIANTS; empty: all that the device can run.

    Returns:
        the result of each, `"product"` first: see [`measure`], or {"failed": why}.

    Raises:
        UserError: when the device is missing or cannot run a variant, or not even the product can be measured.
    """
    if settings.device == "cuda" and not torch.cuda.is_available():
        raise UserError("There is no CUDA device; leave out --device cuda.")
    if settings.device == "cpu" and not Path("/proc/self/clear_refs").exists():
        raise UserError("Peak memory is read from Linux' /proc, which does not exist here; run it on Linux.")
    possible = VARIANTS if settings.device == "cpu" else GPU_VARIANTS
    if impossible := [variant for variant in variants if variant not in possible]:
        raise UserError(f"{impossible[0]} needs a CUDA device; leave it out, or give --device cuda.")
    results = {"product": run_in_process(measure_product, settings)}
    if "failed" in results["product"]:
        raise UserError(f"Not even one matrix product could be measured: {results['product']['failed']}.")
    return results | {variant: run_in_process(measure, settings, variant) for variant in variants or possible}


def run_in_process(function: Callable[..., dict], *arguments) -> dict:
    """The result of a function in a new process; {"failed": why} where it raises or the process is killed."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        try:
            return pool.submit(function, *arguments).result()
        except BrokenProcessPool:
            return {"failed": "the process was killed, as the system does where memory runs out"}
        except Exception as error:  # whatever stops one variant is the result of that variant
            return {"failed": " ".join(str(error).split())[:200] or type(error).__name__}


def measure(settings: BenchmarkSettings, variant: str) -> dict:
    """Measures one variant in this process.

    Returns:
        {"seconds", "peak_extra_bytes": beyond inputs and libraries, "flops_per_s": floating point operations}.
    """
    torch.manual_seed(0)
    dtype, device = getattr(torch, settings.dtype), settings.device
    queries = unit_vectors(settings.batch_size, settings.num_phrases, settings.dim, dtype=dtype, device=device)
    keys = unit_vectors(settings.batch_size, settings.num_regions, settings.dim, dtype=dtype, device=device)
    gamma = torch.tensor(SHARPNESS, device=device, requires_grad=True)
    per_query = () if variant in PACKAGES else (settings.num_phrases,)
    upstream = torch.randn(settings.batch_size, settings.batch_size, *per_query, device=device)
    function, products = GPU_VARIANTS[variant]

    def step() -> None:
        queries.grad = keys.grad = gamma.grad = None
        function(queries, keys, gamma).backward(upstream)
        synchronize(device)

    seconds = time_best(step, settings.repeats)
    queries.grad = keys.grad = gamma.grad = None
    held = reset_peak(device)
    step()
    pairs = settings.batch_size**2 * settings.num_phrases * settings.num_regions
    return {
        "seconds": seconds,
        "peak_extra_bytes": read_peak(device) - held,
        "flops_per_s": 2 * products * pairs * settings.dim / seconds,
    }


def measure_product(settings: BenchmarkSettings) -> dict:
    """Measures one product of all queries and a slice of the keys whose result has at most 2**26 elements."""
    dtype, device = getattr(torch, settings.dtype), settings.device
    rows = settings.batch_size * settings.num_phrases
    columns = min(settings.batch_size * settings.num_regions, 2**26 // rows)
    left = torch.randn(rows, settings.dim, dtype=dtype, device=device)
    right = torch.randn(settings.dim, columns, dtype=dtype, device=device)

    def step() -> None:
        left @ right
        synchronize(device)

    seconds = time_best(step, settings.repeats)
    return {"seconds": seconds, "flops_per_s": 2 * rows * columns * settings.dim / seconds}


def time_best(step: Callable[[], None], repeats: int) -> float:
    """The shortest time of a step, seconds, after one that warms up compilation, threads and memory."""
    step()
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - started)
    return min(seconds)


def unit_vectors(*shape: int, dtype: torch.dtype, device: str) -> torch.Tensor:
    """Random L2-normalised vectors of this shape that require a gradient."""
    return F.normalize(torch.randn(*shape, device=device), dim=-1).to(dtype).requires_grad_()


def synchronize(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def reset_peak(device: str) -> int:
    """Starts a new peak of memory; gives the bytes in use now."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    ctypes.CDLL(None).malloc_trim(0)  # memory that the C library keeps for reuse would hide new memory
    Path("/proc/self/clear_refs").write_text("5")
    return read_status("VmRSS")


def read_peak(device: str) -> int:
    """The most bytes in use since [`reset_peak`]."""
    return torch.cuda.max_memory_allocated() if device == "cuda" else read_status("VmHWM")


def read_status(name: str) -> int:
    """A size of this process from /proc, bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def format_table(results: dict[str, dict]) -> str:
    """One line for each variant, relative to the plain version; "-" where that needs too little memory to measure."""
    plain_result = results.get("plain", {})
    limit = results["product"]["flops_per_s"]
    lines = [f"{'':24}{'seconds':>9}{'of plain':>10}{'extra MB':>10}{'of plain':>10}{'of the limit':>14}"]
    for name, result in results.items():
        if "failed" in result:
            lines.append(f"{name:24}  not measured: {result['failed']}")
        elif name != "product":
            time_ratio, memory_ratio = (
                f"{result[key] / plain_result[key]:10.2f}" if plain_result.get(key) else f"{'-':>10}"
                for key in ("seconds", "peak_extra_bytes")
            )
            lines.append(
                f"{name:24}{result['seconds']:9.4f}{time_ratio}{result['peak_extra_bytes'] / 1e6:10.0f}"
                f"{memory_ratio}{result['flops_per_s'] / limit:14.0%}"
            )
    return "\n".join([*lines, f"the limit: {limit / 1e9:,.0f} GFLOP/s, one matrix product"])


def find_versions() -> dict[str, str]:
    """The versions of the installed packages whose code is measured."""
    names = {"torch", "triton", *(module.replace("_", "-") for module in PACKAGES)}
    return {package.name: package.version for package in metadata.distributions() if package.name in names}
