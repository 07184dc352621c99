"""The log of training steps, which reads all values of a step at once."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch import Tensor

from clipmapper.training.callbacks.divergence import StopAtDivergence


class StepLog(Callback):
    """Callback that logs the values of every ``every``-th step, which the module keeps in ``step_values``.

    A GPU works behind the program, which waits for it when a value is read. The values are therefore kept on the device
    and read together with those of the check for divergence; between logged steps nothing is read.

    Args:
        every: Number of steps from one log to the next.
        divergence: The check for divergence.
    """

    def __init__(self, every: int, divergence: StopAtDivergence) -> None:
        self._every, self._divergence = every, divergence
        self._logged = -1
        #: The values of the last logged step.
        self.values: dict[str, float] = {}

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Log the values, and raise UserError if the training has diverged."""
        step = trainer.global_step
        if step % self._every or step in (0, self._logged):  # 0: before the last batch of the first step
            return
        self._logged = step
        kept: Any = pl_module.step_values
        values: dict[str, Tensor] = {f"train/{name}": value for name, value in kept.items()}
        read = self._divergence.check(trainer, pl_module, torch.stack([v.double() for v in values.values()]))
        self.values = dict(zip(values, read, strict=True))
        for logger in trainer.loggers:
            logger.log_metrics({**self.values, "epoch": trainer.current_epoch}, step - 1)
