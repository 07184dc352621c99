"""The perturbation tests as a prediction loop of Lightning's Trainer.

Each process takes a share of the batches and writes the records of a batch as soon as they are computed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import pytorch_lightning as pl
from pytorch_lightning.callbacks import BasePredictionWriter
from torch import nn
from torch.utils.data import DataLoader

from clipmapper.console import progress
from clipmapper.data.records import ImageSource
from explain import Explainer
from perturbation.perturb.parts import Tables, finished, write_part
from perturbation.perturb.shards import Shard, preparing

Prepared = TypeVar("Prepared")


class ExplanationTests(Protocol[Prepared]):
    """The perturbation tests of one task's samples."""

    unit: str  #: plural noun for the samples, such as "questions"

    @property
    def model(self) -> nn.Module:
        """The model, on a device of the trainer's kind."""

    @property
    def name(self) -> str:
        """The model, as text for the user."""

    @property
    def batches(self) -> Sequence[Sequence[int]]:
        """The batches of samples; a sample is given by its row number."""

    @property
    def images(self) -> Iterable[ImageSource]:
        """The images of the samples; one that several samples share may occur several times."""

    @property
    def explainers(self) -> Iterable[Explainer]:
        """The explainers that explain the samples."""

    @property
    def content(self) -> Mapping[str, str]:
        """Hashes of the model (``checkpoint``) and of the samples (by their kind)."""

    @property
    def about(self) -> str:
        """The number of tested samples and the explainers, as text for the user."""

    @property
    def entries(self) -> Mapping[str, Any]:
        """Further entries of ``perturbation.json`` about the samples."""

    def prepare(self, run: Path) -> Prepared:
        """Return the data that all batches share.

        All processes call this, and may share the work out. The first one saves the data in ``run``, and what it
        returns is sent to the others.
        """

    def record(self, number: int, prepared: Prepared) -> Tables:
        """Return the records of a batch, which depend only on the batch and the prepared data."""


@dataclass(frozen=True)
class Part:
    """The number of a batch, and its records by table."""

    number: int
    tables: Tables


class RecordingModule(pl.LightningModule):
    """A module whose predictions are the records of a batch.

    Its input is the number of a batch, so the records do not depend on the process or on the batches before.

    Args:
        tests: The tests.
        run: The run folder.
        shown: The stack that ends the display of the progress after the prediction, also after an error.
        shard: The share of the batches that this run computes.
    """

    def __init__(self, tests: ExplanationTests[Any], run: Path, shown: ExitStack, shard: Shard):
        super().__init__()
        self.model = tests.model
        self.tests, self.run_folder, self.shown, self.shard = tests, run, shown, shard
        self.allow_zero_length_dataloader_with_multiple_devices = True

    def setup(self, stage: str) -> None:
        """Prepare the shared data, and send those of the first process to all."""
        with preparing(self.run_folder, self.shard) if self.trainer.is_global_zero else nullcontext():
            here = self.tests.prepare(self.run_folder)
        self.prepared = self.trainer.strategy.broadcast(here)

    def predict_dataloader(self) -> DataLoader[int]:
        """Return the numbers of this process's batches that are not finished."""
        count = len(self.tests.batches)
        numbers = self.shard.numbers(count)
        done = set(finished(self.run_folder, numbers))
        if done and self.trainer.is_global_zero:
            left = f"{len(numbers) - len(done)} are computed" if len(done) < len(numbers) else "none is computed"
            print(f"{len(done)} of {len(numbers)} parts are finished; {left}", flush=True)
        mine = numbers[self.trainer.global_rank :: self.trainer.world_size]
        self.open = [number for number in mine if number not in done]
        return DataLoader(self.open, batch_size=None)  # type: ignore[arg-type]

    def on_predict_start(self) -> None:
        """Show the progress in samples of the batches that are not finished."""
        total = sum(len(self.tests.batches[number]) for number in self.open)
        self.advance = self.shown.enter_context(progress(total, "removing tokens", self.tests.unit))

    def predict_step(self, number: int) -> Part:
        """Return the records of a batch."""
        part = Part(number, self.tests.record(number, self.prepared))
        self.advance(len(self.tests.batches[number]))
        return part

    def teardown(self, stage: str) -> None:
        """Wait for all processes, so that the first one finds every part."""
        self.trainer.strategy.barrier()


class PartWriter(BasePredictionWriter):
    """A callback that writes the records of each batch to the run folder."""

    def __init__(self, run: Path):
        super().__init__(write_interval="batch")
        self.run = run

    def write_on_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, prediction: Any, *_: Any) -> None:
        """Write the part of one batch.

        Raises:
            OSError: The disk is full.
        """
        write_part(self.run, prediction.number, prediction.tables)
