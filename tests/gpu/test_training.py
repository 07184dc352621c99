"""Training on a GPU: the losses of a CPU, and no step that waits for the device. Skipped where there is no GPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from tiny_runs import Tiny

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")


@pytest.mark.parametrize(
    "options", [("task.optim.name=muon",), ("task.optim.name=adam", "mapper=a"), ("task=caption",)]
)
def test_the_losses_are_those_of_a_cpu(options: tuple[str, ...], tiny: Tiny, tmp_path: Path) -> None:
    curves = {}
    for device in ("cpu", "cuda"):
        every = "trainer.log_every_n_steps=1"
        tiny.train(tmp_path / device, *options, "mapper.dropout=0", every, f"trainer.accelerator={device}")
        curves[device] = np.genfromtxt(tmp_path / device / "log" / "metrics.csv", delimiter=",", names=True)
    for name in ("trainloss", "valloss"):
        np.testing.assert_allclose(curves["cuda"][name], curves["cpu"][name], rtol=0.02)


class NoWaiting(Callback):
    """Makes torch raise an error where the program waits for the GPU, from the start of a step to its end."""

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        torch.cuda.set_sync_debug_mode("error")

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        torch.cuda.set_sync_debug_mode("default")

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize(
    "options", [("task.optim.name=muon",), ("task.optim.name=adam", "mapper=a"), ("task=caption",)]
)
def test_a_step_does_not_wait_for_the_gpu(
    options: tuple[str, ...], precision: str, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = pl.Trainer

    def with_callback(*args: Any, callbacks: list[Callback], **settings: Any) -> pl.Trainer:
        return build(*args, callbacks=[*callbacks, NoWaiting()], **settings)

    monkeypatch.setattr(pl, "Trainer", with_callback)
    tiny.train(tmp_path / "run", *options, "trainer.accelerator=cuda", f"trainer.precision={precision}")
