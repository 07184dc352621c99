"""The tests under Lightning's Trainer: batches dealt to the processes, records written as they come."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import BasePredictionWriter
from torch.utils.data import DataLoader

from clipmapper.data.json_files import read_json, write_json
from clipmapper.subject import Subject
from perturbation.batch_size import fastest
from perturbation.config import PerturbConfig
from perturbation.engine import Engine, Removal
from perturbation.identity import CHOSEN
from perturbation.parts import Tables, finished, write_part
from perturbation.records import Entrant, Examiner


@dataclass(frozen=True)
class Part:
    """The records of a batch and its number."""

    number: int
    tables: Tables


class PerturbationTests(pl.LightningModule):
    """Predicts records: a batch is a number, whatever process it is dealt to and whatever batches went before."""

    def __init__(
        self,
        subject: Subject,
        batches: Sequence[Sequence[int]],
        entrants: Sequence[Entrant],
        config: PerturbConfig,
        steps: Sequence[float],
        run: Path,
    ):
        """``batches``: the rows of the subject's questions in each batch."""
        super().__init__()
        self.model = subject.model
        self.subject, self.batches, self.entrants = subject, batches, entrants
        self.config, self.steps, self.run_folder = config, steps, run
        self.allow_zero_length_dataloader_with_multiple_devices = True

    def setup(self, stage: str) -> None:
        """Chooses the engine's batch size, unless the config or the run that goes on has one: the same for all."""
        here = self._engine_batch() if self.trainer.is_global_zero else 0
        size = self.trainer.strategy.broadcast(here)
        removal = Removal(self.config.removal.image, self.config.removal.text)  # type: ignore[arg-type]
        self.examiner = Examiner(self.model, Engine(self.model, size, removal), self.entrants, self.config, self.steps)

    def _engine_batch(self) -> int:
        if self.config.engine_batch is not None:
            return self.config.engine_batch
        chosen = self.run_folder / CHOSEN
        if not chosen.is_file():
            first = self.subject.batch(self.batches[0])
            write_json(chosen, {"engine_batch": 32 if first is None else fastest(self.model, first)})
        return int(read_json(chosen)["engine_batch"])

    def predict_dataloader(self) -> DataLoader[int]:
        """The numbers of the batches that this process has still to do."""
        done = set(finished(self.run_folder, len(self.batches)))
        mine = range(self.trainer.global_rank, len(self.batches), self.trainer.world_size)
        return DataLoader([number for number in mine if number not in done], batch_size=None)  # type: ignore[arg-type]

    def predict_step(self, number: int) -> Part:
        """The records of a batch; none where no picture of it could be read."""
        batch = self.subject.batch(self.batches[number])
        if batch is None:
            return Part(number, {})
        before = sum(map(len, self.batches[:number]))
        return Part(number, self.examiner.examine(batch, max(0, self.config.ceiling.samples - before)))

    def teardown(self, stage: str) -> None:
        """Nobody goes on before all are done."""
        self.trainer.strategy.barrier()


class PartWriter(BasePredictionWriter):
    """Writes a part for every batch."""

    def __init__(self, run: Path):
        super().__init__(write_interval="batch")
        self.run = run

    def write_on_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, prediction: Any, *_: Any) -> None:
        """Raises ``OSError`` where the disk is full."""
        write_part(self.run, prediction.number, prediction.tables)
