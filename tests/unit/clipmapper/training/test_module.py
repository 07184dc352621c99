"""Tests of the learning-rate schedule against its closed form."""

from __future__ import annotations

import math

import pytest

from clipmapper.config.schema import OptimConfig
from clipmapper.training.module import learning_rate_factor


@pytest.mark.parametrize(
    ("step", "factor"),
    [
        (0, 0.01),
        (49, 0.5),
        (99, 1),
        (100, 1),
        (299, 1),
        (300, 1),
        (525, 0.5 + math.sqrt(0.5) / 2),
        (750, 0.5),
        (1200, 0),
        (2000, 0),
    ],
)
def test_the_learning_rate_rises_stays_and_decays(step: int, factor: float) -> None:
    optim = OptimConfig(lr=1.0, batch_size=1, warmup_steps=100, decay_start=300)
    assert learning_rate_factor(step, optim, 1200) == pytest.approx(factor, abs=1e-12)


def test_the_learning_rate_is_constant_without_warm_up_and_decay() -> None:
    optim = OptimConfig(lr=1.0, batch_size=1, warmup_steps=0, decay_start=10)
    assert [learning_rate_factor(step, optim, 10) for step in range(10)] == [1] * 10
    assert learning_rate_factor(10, optim, 10) == 1
