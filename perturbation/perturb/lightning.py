"""The tests under Lightning's Trainer: batches handed to the processes, records written as they come."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import pytorch_lightning as pl
from pytorch_lightning.callbacks import BasePredictionWriter
from torch import nn
from torch.utils.data import DataLoader

from perturbation.perturb.parts import Tables, finished, write_part

Prepared = TypeVar("Prepared")


class ExplanationTests(Protocol[Prepared]):
    """The tests of explanations of one task's samples."""

    @property
    def model(self) -> nn.Module:
        """On the trainer's kind of device."""

    @property
    def checkpoint(self) -> Path:
        """The model's."""

    @property
    def batches(self) -> Sequence[Sequence[int]]:
        """The samples, by number, in batches."""

    @property
    def samples(self) -> Mapping[str, str]:
        """What the samples are, and the digest of what they consist of."""

    @property
    def about(self) -> str:
        """How many samples of how many, for the user."""

    def prepare(self, run: Path) -> Prepared:
        """What is worked out once, by the first process, and kept in the run folder; handed to all processes."""

    def record(self, number: int, prepared: Prepared) -> Tables:
        """The records of a batch, which depend on nothing but the batch and what was prepared."""


@dataclass(frozen=True)
class Part:
    """The records of a batch and its number."""

    number: int
    tables: Tables


class RecordingModule(pl.LightningModule):
    """Predicts records: a batch is a number, whatever process it goes to and whatever batches went before."""

    def __init__(self, tests: ExplanationTests[Any], run: Path):
        super().__init__()
        self.model = tests.model
        self.tests, self.run_folder = tests, run
        self.allow_zero_length_dataloader_with_multiple_devices = True

    def setup(self, stage: str) -> None:
        """Lets the first process prepare, for all."""
        here = self.tests.prepare(self.run_folder) if self.trainer.is_global_zero else None
        self.prepared = self.trainer.strategy.broadcast(here)

    def predict_dataloader(self) -> DataLoader[int]:
        """The numbers of the batches that this process has still to do."""
        count = len(self.tests.batches)
        done = set(finished(self.run_folder, count))
        mine = range(self.trainer.global_rank, count, self.trainer.world_size)
        return DataLoader([number for number in mine if number not in done], batch_size=None)  # type: ignore[arg-type]

    def predict_step(self, number: int) -> Part:
        """The records of a batch."""
        return Part(number, self.tests.record(number, self.prepared))

    def teardown(self, stage: str) -> None:
        """Waits for all processes."""
        self.trainer.strategy.barrier()


class PartWriter(BasePredictionWriter):
    """Writes a part for every batch."""

    def __init__(self, run: Path):
        super().__init__(write_interval="batch")
        self.run = run

    def write_on_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, prediction: Any, *_: Any) -> None:
        """Raises ``OSError`` where the disk is full."""
        write_part(self.run, prediction.number, prediction.tables)
