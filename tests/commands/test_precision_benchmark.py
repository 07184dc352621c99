"""The benchmark of precisions: its simulation of TF32 on a CPU, and its numbers on a few questions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from small_benchmarks import shrink_benchmarks
from tiny_runs import Tiny, composed

from clipmapper.benchmarks.config import BenchmarkConfig
from clipmapper.cli import typed
from perturbation.benchmark.precision import RoundedProducts, precision


def test_simulated_products_round_their_inputs_to_ten_bits() -> None:
    draw = torch.Generator().manual_seed(0)
    a, b = (torch.randn(8, 8, generator=draw) for _ in range(2))
    with RoundedProducts():
        found = a @ b
    assert not torch.equal(found, a @ b)
    rounded = [torch.from_numpy(np.vectorize(nearest)(each.numpy())) for each in (a, b)]
    torch.testing.assert_close(found.double(), rounded[0] @ rounded[1], rtol=1e-6, atol=1e-6)


def nearest(value: np.float32) -> float:
    """Return the nearest number with one bit before the point and ten after it, times a power of 2."""
    fraction, exponent = np.frexp(np.float64(value))
    return float(np.ldexp(np.round(fraction * 2**11), exponent - 11))


NAMES = (
    *("TF32 (simulated)", "encoder.precision=bfloat16", "encoder.precision=float16"),
    *("all in bf16-mixed", "bfloat16 weights"),
)


@pytest.mark.slow
def test_each_precision_is_compared_with_float32(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    shrink_benchmarks(monkeypatch)
    config = typed(
        composed("benchmark", *tiny.overrides[:4], *tiny.base[:1], "trainer.accelerator=cpu"), BenchmarkConfig
    )
    found = precision(config, torch.device("cpu"))
    for name in NAMES:
        numbers = {key.split(": ")[1]: value for key, value in found.items() if f", {name}:" in key}
        assert 0.9 < numbers["rank correlation of maps, median"] <= 1
        assert 0 < numbers["largest change of a mean area of probability in points"] < 5
        assert numbers["share of answers that change"] <= 0.25
