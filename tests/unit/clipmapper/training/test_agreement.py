"""Processes of a distributed training stop at the same step, and rarely exchange whether to stop."""

from __future__ import annotations

import signal
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from clipmapper.process import stopping
from clipmapper.training import agreement
from clipmapper.training.agreement import StopAgreement


@dataclass
class Exchanging:
    """A trainer's strategy that exchanges with another process, which runs fewer steps a second and may be asked."""

    root_device = torch.device("cpu")
    other: list[int]
    calls: list[float] = field(default_factory=list)
    clock: float = 0.0

    def reduce(self, mine: Tensor, reduce_op: str) -> Tensor:
        assert reduce_op == "min"
        self.calls.append(self.clock)
        return torch.minimum(mine, torch.tensor(self.other))


@dataclass
class Trainer:
    """The part of a trainer that is asked."""

    strategy: Exchanging
    world_size: int = 2


@pytest.fixture
def strategy(monkeypatch: pytest.MonkeyPatch) -> Exchanging:
    found = Exchanging([0, 80])
    monkeypatch.setattr(agreement.time, "monotonic", lambda: found.clock)
    return found


def run(agreed: StopAgreement, strategy: Exchanging, steps: int, seconds: float) -> list[bool]:
    """Run steps that take some seconds."""
    trainer = cast(Any, Trainer(strategy))
    found = []
    for _ in range(steps):
        strategy.clock += seconds
        found.append(agreed.reached(trainer))
    return found


def test_they_exchange_about_every_second(strategy: Exchanging) -> None:
    agreed = StopAgreement()
    assert not any(run(agreed, strategy, 1000, 0.01))
    assert len(strategy.calls) == 1 + 999 // 80  # 80: the steps that the slower one runs in a second


def test_slow_steps_are_exchanged_after_each(strategy: Exchanging) -> None:
    assert not any(run(StopAgreement(), strategy, 20, 3.0))
    assert len(strategy.calls) == 20


def test_the_first_step_of_another_kind_is_exchanged(strategy: Exchanging) -> None:
    agreed = StopAgreement()
    run(agreed, strategy, 10, 0.01)
    agreed.exchange_next()
    run(agreed, strategy, 1, 0.01)
    assert len(strategy.calls) == 2


def test_all_stop_when_one_is_asked(strategy: Exchanging) -> None:
    with stopping.stoppable():
        agreed = StopAgreement()
        assert not any(run(agreed, strategy, 50, 0.01))
        strategy.other = [-1, 80]
        assert run(agreed, strategy, 50, 0.01).index(True) == 80 - 50
        assert stopping.asked().signum == signal.SIGTERM


def test_one_process_needs_no_exchange(strategy: Exchanging) -> None:
    with stopping.stoppable():
        agreed, alone = StopAgreement(), cast(Any, Trainer(strategy, world_size=1))
        assert not agreed.reached(alone)
        stopping.ask(signal.SIGINT)
        assert agreed.reached(alone)
    assert not strategy.calls
