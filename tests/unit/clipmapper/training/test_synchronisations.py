"""Reads of values from the device during training: for each of them a GPU has to end all earlier operations."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from tiny_runs import Tiny
from torch.utils._python_dispatch import TorchDispatchMode

from clipmapper.mapper import blocks

# Optimizers count their steps, and loaders draw their seeds, in tensors that are on the CPU also if a GPU trains.
ON_THE_CPU = ("torch/optim", "torch/utils/data")


class Reads(TorchDispatchMode):
    """Lists where single values are read, or the number of values is found that a condition selects."""

    def __init__(self) -> None:
        super().__init__()
        self.places: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func._overloadpacket in (torch.ops.aten._local_scalar_dense, torch.ops.aten.nonzero):
            self.note()
        return func(*args, **(kwargs or {}))

    def note(self) -> None:
        frames = [f"{frame.filename}:{frame.lineno}" for frame in traceback.extract_stack()[-20:-2]]
        if not any(place in frame for frame in frames for place in ON_THE_CPU):
            self.places.append(" < ".join(reversed(frames)))


class ReadsOfEachStep(Callback):
    """Lists the reads from the start of each step to the start of the next one, or of a validation."""

    def __init__(self) -> None:
        self.steps: list[list[str]] = []
        self.mode: Reads | None = None

    def _end(self) -> None:
        if self.mode is not None:
            self.mode.__exit__(None, None, None)
            self.steps.append(self.mode.places)
            self.mode = None

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        self._end()
        self.mode = Reads()
        self.mode.__enter__()

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._end()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._end()


@pytest.mark.parametrize(
    "options", [("task.optim.name=muon",), ("task.optim.name=adam", "mapper=a"), ("task=caption",)]
)
def test_a_training_step_reads_nothing_and_a_logged_step_reads_once(
    options: tuple[str, ...], tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = ReadsOfEachStep()
    build, as_list = pl.Trainer, torch.Tensor.tolist

    def with_callback(*args: Any, callbacks: list[Callback], **settings: Any) -> pl.Trainer:
        return build(*args, callbacks=[*callbacks, counted], **settings)

    def noted(tensor: torch.Tensor) -> Any:  # on a CPU this is no operation that the mode could see
        if counted.mode is not None:
            counted.mode.note()
        return as_list(tensor)

    monkeypatch.setattr(pl, "Trainer", with_callback)
    monkeypatch.setattr(torch.Tensor, "tolist", noted)
    monkeypatch.setattr(blocks, "reads_at_once", lambda device: False)  # as on a GPU
    tiny.train(tmp_path / "run", *options, "trainer.log_every_n_steps=3")
    numbers = [len(places) for places in counted.steps]
    # Steps 3 and 6 are logged. After steps 4 and 8 a validation follows, before which losses and weights are checked.
    assert numbers == [0, 0, 1, 1, 0, 1, 0, 1], counted.steps


def test_masks_of_nothing_change_no_result(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usual = tiny.train(tmp_path / "usual")
    monkeypatch.setattr(blocks, "reads_at_once", lambda device: False)
    masked = tiny.train(tmp_path / "masked")
    assert masked == usual
    curves = [
        np.genfromtxt(tmp_path / run / "log" / "metrics.csv", delimiter=",", names=True) for run in ("usual", "masked")
    ]
    assert curves[0].dtype.names == curves[1].dtype.names
    for name in curves[0].dtype.names or ():
        np.testing.assert_allclose(curves[1][name], curves[0][name], rtol=1e-5)
