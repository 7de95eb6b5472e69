"""Time and memory of attended similarity, forward and backward, each variant in a process of its own."""

import argparse
import ctypes
import functools
import importlib
import json
import subprocess
import sys
import time
import traceback
from importlib import metadata, util
from pathlib import Path
from types import ModuleType

import torch
import torch.nn.functional as F

from modeling_fgmm.scoring_fgmm import attended_similarity

from .cli import UserError
from .records import describe_run

SHARPNESS = 4.0


def plain(queries, keys, gamma):
    """The formula in three lines, for autograd."""
    cosines = torch.einsum("imd,jnd->ijmn", queries, keys).float()
    attention = (gamma * cosines).softmax(-1)
    return (attention * cosines).sum(-1)


def hard_maximum(queries, keys, gamma):
    """FILIP's and ColBERT's score in two lines."""
    return torch.einsum("imd,jnd->ijmn", queries, keys).amax(-1).float()


@functools.cache
def compile_plain():
    """The plain version under torch.compile, made once a process, and only in the process that measures it."""
    return torch.compile(plain)


def compiled(queries, keys, gamma):
    return compile_plain()(queries, keys, gamma)


def tiled(queries, keys, gamma):
    return attended_similarity(queries, keys, sharpness=gamma, implementation="tiled")


def triton(queries, keys, gamma):
    return attended_similarity(queries, keys, sharpness=gamma, implementation="triton")


def late_interaction_kernels(queries, keys, gamma):
    """The package's hard maximum, summed over an item's queries: (B, B)."""
    return import_package("late-interaction-kernels").maxsim(queries, keys)


def flash_maxsim(queries, keys, gamma):
    """The package's hard maximum, summed over an item's queries: (B, B)."""
    return import_package("flash-maxsim").flash_maxsim_batched_train(queries, keys, shared_docs=True)


def import_package(package: str) -> ModuleType:
    """The module of a package that this project does not depend on."""
    module = package.replace("-", "_")
    if util.find_spec(module) is None:
        raise ModuleNotFoundError(f"{package} is not installed: pip install {package}")
    return importlib.import_module(module)


# What is measured, and the matrix products that each must make in forward and backward. All but the packages' give
# (B, B, M).
VARIANTS = {"plain": (plain, 3), "compiled": (compiled, 3), "hard_maximum": (hard_maximum, 3), "tiled": (tiled, 4)}
PACKAGES = {"late_interaction_kernels": (late_interaction_kernels, 1), "flash_maxsim": (flash_maxsim, 1)}
GPU_VARIANTS = {**VARIANTS, "triton": (triton, 5), **PACKAGES}


def unit_vectors(*shape, dtype, device) -> torch.Tensor:
    """Random, L2-normalised."""
    return F.normalize(torch.randn(*shape, device=device), dim=-1).to(dtype).requires_grad_()


def synchronize(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def reset_peak(device: str) -> int:
    """Begins a new peak; bytes held now."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    ctypes.CDLL(None).malloc_trim(0)  # what is freed but kept by the C library would hide new memory
    Path("/proc/self/clear_refs").write_text("5")
    return read_status("VmRSS")


def read_peak(device: str) -> int:
    """Bytes held at the most since [`reset_peak`]."""
    return torch.cuda.max_memory_allocated() if device == "cuda" else read_status("VmHWM")


def read_status(name: str) -> int:
    """A size from Linux' account of this process, bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def measure(args: argparse.Namespace, variant: str) -> dict:
    """One variant, in this process: seconds, bytes, and floating point operations a second.

    Raises:
        RuntimeError: for a variant that the device cannot run.
    """
    if args.device == "cpu" and variant not in VARIANTS:
        raise RuntimeError(f"{variant} needs a CUDA device.")
    torch.manual_seed(0)
    dtype, device = getattr(torch, args.dtype), args.device
    queries = unit_vectors(args.batch_size, args.num_phrases, args.dim, dtype=dtype, device=device)
    keys = unit_vectors(args.batch_size, args.num_regions, args.dim, dtype=dtype, device=device)
    gamma = torch.tensor(SHARPNESS, device=device, requires_grad=True)
    summed = () if variant in PACKAGES else (args.num_phrases,)
    upstream = torch.randn(args.batch_size, args.batch_size, *summed, device=device)
    function, products = GPU_VARIANTS[variant]

    def step() -> None:
        queries.grad = keys.grad = gamma.grad = None
        function(queries, keys, gamma).backward(upstream)
        synchronize(device)

    seconds = []
    for _ in range(args.repeats + 1):  # the first is warm-up: compilation, threads, memory
        started = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - started)
    queries.grad = keys.grad = gamma.grad = None
    held = reset_peak(device)
    step()
    pairs = args.batch_size**2 * args.num_phrases * args.num_regions
    return {
        "seconds": min(seconds[1:]),
        "peak_extra_bytes": read_peak(device) - held,
        "flops_per_s": 2 * products * pairs * args.dim / min(seconds[1:]),
    }


def measure_product(args: argparse.Namespace) -> dict:
    """The limit: one product of all queries and a slice of the keys that fits 256 MB."""
    dtype, device = getattr(torch, args.dtype), args.device
    rows = args.batch_size * args.num_phrases
    columns = min(args.batch_size * args.num_regions, 2**26 // rows)
    left = torch.randn(rows, args.dim, dtype=dtype, device=device)
    right = torch.randn(args.dim, columns, dtype=dtype, device=device)
    seconds = []
    for _ in range(args.repeats + 1):
        started = time.perf_counter()
        left @ right
        synchronize(device)
        seconds.append(time.perf_counter() - started)
    return {"seconds": min(seconds[1:]), "flops_per_s": 2 * rows * columns * args.dim / min(seconds[1:])}


def run_child(variant: str) -> dict:
    """The measurement of one variant, in a fresh process; {"failed": why} where it cannot run."""
    answer = subprocess.run([sys.executable, *sys.argv, "--child", variant], capture_output=True, text=True)
    if answer.returncode:  # ended from outside: the system does so where memory runs out
        return {"failed": f"the process ended with status {answer.returncode}"}
    return json.loads(answer.stdout.splitlines()[-1])


def run_as_child(args: argparse.Namespace) -> dict:
    """What [`run_child`] receives."""
    try:
        return measure_product(args) if args.child == "product" else measure(args, args.child)
    except Exception as error:  # whatever stops one variant is that variant's result
        traceback.print_exc()
        return {"failed": " ".join(str(error).split())[:200] or type(error).__name__}


# What is set beside the plain version.
KEYS = ("seconds", "peak_extra_bytes")


def format_table(results: dict[str, dict]) -> str:
    """One line a variant, beside the plain version; small shapes can leave it without any extra memory to measure."""
    plain_result = results.get("plain", {})
    limit = results["product"]["flops_per_s"]
    lines = [f"{'':24}{'seconds':>9}{'of plain':>10}{'extra MB':>10}{'of plain':>10}{'of the limit':>14}"]
    for name, result in results.items():
        if "failed" in result:
            lines.append(f"{name:24}  not measured: {result['failed']}")
        elif name != "product":
            ratios = [
                f"{result[key] / plain_result[key]:10.2f}" if plain_result.get(key) else f"{'-':>10}" for key in KEYS
            ]
            lines.append(
                f"{name:24}{result['seconds']:9.4f}{ratios[0]}{result['peak_extra_bytes'] / 1e6:10.0f}"
                f"{ratios[1]}{result['flops_per_s'] / limit:14.0%}"
            )
    return "\n".join([*lines, f"the limit: {limit / 1e9:,.0f} GFLOP/s, one matrix product"])


def find_versions() -> dict[str, str]:
    """Of the installed packages whose code is measured."""
    names = {"torch", "triton", *(module.replace("_", "-") for module in PACKAGES)}
    return {package.name: package.version for package in metadata.distributions() if package.name in names}


def benchmark(args: argparse.Namespace) -> None:
    """Measures the wanted variants, prints the table and writes the results file."""
    if args.child:
        print(json.dumps(run_as_child(args)))
        return
    if args.device == "cuda" and not torch.cuda.is_available():
        raise UserError("There is no CUDA device; leave out --device cuda.")
    if args.device == "cpu" and not Path("/proc/self/clear_refs").exists():
        raise UserError("The peak of memory is read from Linux' /proc, which is not there.")
    started = time.monotonic()
    variants = args.variants or list(VARIANTS if args.device == "cpu" else GPU_VARIANTS)
    results = {variant: run_child(variant) for variant in ("product", *variants)}
    if "failed" in results["product"]:
        raise UserError(f"Not even one matrix product could be measured: {results['product']['failed']}")
    print(format_table(results))
    if args.output:
        settings = {name: value for name, value in vars(args).items() if name not in ("output", "child")}
        record = {
            "settings": {**settings, "variants": variants},
            "results": results,
            "versions": find_versions(),
            **describe_run(time.monotonic() - started, launcher="python"),
        }
        args.output.parent.mkdir(parents=True, exist_ok=True)
        args.output.write_text(json.dumps(record, indent=2) + "\n")
        print(f"Wrote {args.output}.")
