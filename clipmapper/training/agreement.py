"""The processes of a distributed training agree on the step at which they stop."""

from __future__ import annotations

import signal
import time

import pytorch_lightning as pl
import torch

from clipmapper.process import stopping

_APART = 1.0  # seconds between two exchanges


class StopAgreement:
    """Whether a signal has asked any process of a training to stop, with the same answer in all of them.

    An exchange between processes at every step would slow the training, and let a GPU wait. There is one about every
    second: each of them also fixes the step of the next, by the speed of the slowest process.
    """

    def __init__(self) -> None:
        self.exchange_next()

    def exchange_next(self) -> None:
        """Exchange at the next call, because what is done between calls takes another time from now on."""
        self._calls, self._since = 0, time.monotonic()
        self._next = 1

    def reached(self, trainer: pl.Trainer) -> bool:
        """Return whether to stop; all processes call this equally often."""
        if trainer.world_size == 1:
            return stopping.is_asked()
        self._calls += 1
        if self._calls < self._next:
            return False
        calls = int(self._calls * _APART / max(time.monotonic() - self._since, 1e-6))
        mine = torch.tensor([-int(stopping.is_asked()), max(1, calls)], device=trainer.strategy.root_device)
        asked, self._next = trainer.strategy.reduce(mine, reduce_op="min").tolist()
        self._calls, self._since = 0, time.monotonic()
        if asked:
            stopping.ask(signal.SIGTERM)
        return bool(asked)
