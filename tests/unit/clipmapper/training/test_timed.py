"""The time of a training step, on a CPU from steps with fewer samples."""

from __future__ import annotations

import time

import pytest
import pytorch_lightning as pl
import torch
from tiny_runs import composed
from torch import Tensor

from clipmapper.cli import typed
from clipmapper.config.schema import TrainConfig
from clipmapper.training.timed import time_steps


class Sleeping(pl.LightningModule):
    """A module whose step takes a millisecond a sample."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))

    def training_step(self, batch: Tensor, _: int) -> Tensor:
        time.sleep(len(batch) / 1000)
        return self.weight * 1.0

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters())


@pytest.mark.parametrize(
    ("size", "timed", "about"), [(320, 32, "20 timed steps of 32 samples"), (8, 8, "20 timed steps")]
)
def test_the_time_is_that_of_the_whole_batch(size: int, timed: int, about: str) -> None:
    asked: list[int] = []

    def trial(count: int) -> tuple[pl.LightningModule, Tensor]:
        asked.append(count)
        return Sleeping(), torch.zeros(count)

    config = typed(composed("train", "trainer.accelerator=cpu"), TrainConfig).trainer
    seconds, told = time_steps(config, size, trial)
    assert (asked, told) == ([timed], about)
    assert size / 1000 <= seconds < 3 * size / 1000
