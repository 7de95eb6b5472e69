"""The benchmark of attended similarity: its variants' values and gradients, its table and its record."""

import json
import os
import sys
from importlib import util

import benchmark_scoring
import pytest
import torch
from helpers import run_main

from fgmm_tools import scoring_benchmark
from fgmm_tools.cli import UserError
from fgmm_tools.scoring_benchmark import GPU_VARIANTS, PACKAGES, VARIANTS

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
# `compiled` is `plain` under torch.compile, which PyTorch tests; here it would compile for a minute.
MEASURED = [name for name in GPU_VARIANTS if name != "compiled"]


def expected_result(variant, queries, keys, gamma) -> torch.Tensor:
    """The formula with loops: (B, B, M), or (B, B) for the packages, which sum it over the queries of an item."""
    items = []
    for item_queries in queries:
        for item_keys in keys:
            for query in item_queries:
                cosines = item_keys @ query
                hard = variant == "hard_maximum" or variant in PACKAGES
                items.append(cosines.max() if hard else ((gamma * cosines).softmax(0) * cosines).sum())
    similarity = torch.stack(items).view(len(queries), len(keys), -1)
    return similarity.sum(-1) if variant in PACKAGES else similarity


def skip_if_missing(variant) -> None:
    """Skips a variant whose package or device is missing."""
    if variant == "triton" and util.find_spec("triton") is None:
        pytest.skip("Triton is not installed")
    if variant in PACKAGES and (DEVICE == "cpu" or util.find_spec(variant) is None):
        pytest.skip(f"{variant} needs a GPU, and to be installed")


@pytest.mark.parametrize("variant", MEASURED)
def test_every_variant_computes_what_it_is_compared_for(variant):
    skip_if_missing(variant)
    torch.manual_seed(0)
    queries = scoring_benchmark.unit_vectors(3, 4, 16, dtype=torch.float32, device=DEVICE)
    keys = scoring_benchmark.unit_vectors(3, 20, 16, dtype=torch.float32, device=DEVICE)
    gamma = torch.tensor(scoring_benchmark.SHARPNESS, device=DEVICE, requires_grad=True)
    exact = [tensor.detach().double().requires_grad_() for tensor in (queries, keys, gamma)]
    function, _ = GPU_VARIANTS[variant]

    result, expected = function(queries, keys, gamma), expected_result(variant, *exact)
    assert result.shape == expected.shape
    tolerance = 5e-3 if variant in PACKAGES else 1e-5  # the packages multiply in float16 or TF32
    assert torch.allclose(result.double(), expected, atol=tolerance)

    upstream = torch.randn(expected.shape, device=DEVICE)
    result.backward(upstream)
    expected.backward(upstream.double())
    for ours, theirs in zip((queries, keys, gamma), exact, strict=True):
        assert (ours.grad is None) == (theirs.grad is None)  # a hard maximum has no sharpness
        assert ours.grad is None or torch.allclose(ours.grad.double(), theirs.grad, atol=tolerance)


def test_the_command_lists_the_variants():
    assert tuple(VARIANTS) == benchmark_scoring.ON_CPU and tuple(GPU_VARIANTS) == benchmark_scoring.ON_GPU


def test_the_table_and_the_record_hold_what_was_run(tmp_path, monkeypatch, capsys):
    output = tmp_path / "results" / "scoring.json"
    options = ["--batch_size", 3, "--num_phrases", 2, "--num_regions", 5, "--dim", 8, "--repeats", 1]
    options += ["--variants", "plain", "--output", output]
    run_main(monkeypatch, benchmark_scoring, *options)
    header, plain, limit, wrote = capsys.readouterr().out.splitlines()
    assert header.split() == ["seconds", "of", "plain", "extra", "MB", "of", "plain", "of", "the", "limit"]
    name, _, time_ratio, *_ = plain.split()
    assert (name, time_ratio) == ("plain", "1.00")
    assert limit.startswith("the limit: ") and wrote == f"Wrote {output}."

    record = json.loads(output.read_text())
    shape = {"batch_size": 3, "num_phrases": 2, "num_regions": 5, "dim": 8}
    assert record["settings"] == {**shape, "device": "cpu", "dtype": "float32", "repeats": 1, "variants": ["plain"]}
    assert list(record["results"]) == ["product", "plain"]
    product, measured = record["results"].values()
    assert product.keys() == {"seconds", "flops_per_s"}
    assert measured.keys() == {"seconds", "peak_extra_bytes", "flops_per_s"}
    assert min(*product.values(), measured["seconds"], measured["flops_per_s"]) > 0
    # Three products of 3·2 queries, 3·5 keys and 8 dimensions.
    assert measured["seconds"] * measured["flops_per_s"] == pytest.approx(2 * 3 * (3 * 2) * (3 * 5) * 8)
    assert record["versions"]["torch"] == torch.__version__
    assert record["command"] == " ".join(map(str, ["python scripts/benchmark_scoring.py", *options]))
    assert {"commit", "device", "seconds", "date"} <= record.keys()


def test_a_variant_that_fails_or_is_killed_does_not_stop_the_others():
    failed = scoring_benchmark.run_in_process(int, "no number")
    assert failed == {"failed": "invalid literal for int() with base 10: 'no number'"}
    killed = scoring_benchmark.run_in_process(os._exit, 9)
    assert killed == {"failed": "the process was killed, as the system does where memory runs out"}
    results = {"product": {"seconds": 1.0, "flops_per_s": 2.0}, "plain": killed}
    assert (
        scoring_benchmark.format_table(results).splitlines()[1].split(maxsplit=1)[1]
        == f"not measured: {killed['failed']}"
    )


def test_a_plain_version_too_small_to_measure_has_no_ratio():
    plain, tiled = ({"seconds": seconds, "peak_extra_bytes": 0, "flops_per_s": 1.0} for seconds in (2.0, 1.0))
    results = {"product": {"seconds": 1.0, "flops_per_s": 2.0}, "plain": plain, "tiled": tiled}
    _, _, line, _ = scoring_benchmark.format_table(results).splitlines()
    assert line.split() == ["tiled", "1.0000", "0.50", "0", "-", "50%"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--device", "cuda"], "There is no CUDA device; leave out --device cuda"),
        (["--variants", "plain", "triton"], "triton needs a CUDA device; leave it out"),
    ],
)
def test_what_the_device_cannot_run_is_refused(options, message, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match=message):
        run_main(monkeypatch, benchmark_scoring, *options)


@pytest.mark.parametrize("variant", PACKAGES)
def test_a_package_that_is_not_installed_is_named(variant, monkeypatch):
    monkeypatch.setitem(sys.modules, variant, None)  # as if it were not there
    function, _ = PACKAGES[variant]
    package = variant.replace("_", "-")
    with pytest.raises(ModuleNotFoundError, match=f"^{package} is not installed: pip install {package}$"):
        function(torch.ones(1, 1, 16), torch.ones(1, 1, 16), torch.tensor(1.0))
