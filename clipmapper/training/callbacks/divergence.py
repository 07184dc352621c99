"""The end of a training whose loss or weights are no numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch import Tensor, nn

from clipmapper.errors import UserError

_NEVER = 2.0**52  # float64 holds all steps up to this one


class StopAtDivergence(Callback):
    """Callback that ends a training with an error when its loss or a weight is NaN or infinite.

    The first step with such a loss is kept on the device. It is read, with the weights, when
    :class:`~clipmapper.training.callbacks.step_log.StepLog` logs values, before a validation, before a checkpoint is
    written and at the end, so a GPU does not wait at every step, and no checkpoint ever has such weights.

    Args:
        advice: What the user can do about a divergence.
        last: File of the last checkpoint.
    """

    def __init__(self, advice: str, last: Path) -> None:
        self._advice, self._last = advice, last
        self._first = torch.tensor(_NEVER, dtype=torch.float64)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin to watch the loss."""
        self._first = torch.tensor(_NEVER, dtype=torch.float64, device=pl_module.device)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Keep the step if its loss is the first that is no number."""
        first = self._first.clamp(max=trainer.global_step)
        self._first = torch.where(torch.isfinite(outputs["loss"]), self._first, first)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Raise UserError if the training has diverged."""
        self.check(trainer, pl_module)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Raise UserError if the training has diverged."""
        self.check(trainer, pl_module)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Raise UserError if the training has diverged."""
        self.check(trainer, pl_module)

    def check(self, trainer: pl.Trainer, module: nn.Module, *values: Tensor) -> list[float]:
        """Check the losses so far and the weights, in all processes of a run at once.

        Args:
            trainer: The trainer.
            module: The model.
            values: Further values on the device, float64 [n], which are read at the same time.

        Returns:
            The further values.

        Raises:
            UserError: The training has diverged.
        """
        weights = torch.where(all_finite(module), _NEVER, trainer.global_step).double()
        # A validation before the training begins comes before on_train_start.
        steps = torch.stack([self._first.to(weights.device), weights])
        first, bad, *read = torch.cat([trainer.strategy.reduce(steps, reduce_op="min"), *values]).tolist()
        if first < _NEVER or bad < _NEVER:
            raise UserError(self._message(int(first), int(bad)))
        return read

    def _message(self, first: int, bad: int) -> str:
        what = f"the loss of step {first} is" if first <= bad else f"weights after step {bad} are"
        kept = "no checkpoint was written yet"
        if self._last.is_file():
            step = torch.load(self._last, map_location="cpu", weights_only=True)["global_step"]
            kept = f"the weights of step {step} are kept in {self._last}"
        return f"the training diverged: {what} NaN or infinite; {self._advice}; {kept}"


def all_finite(module: nn.Module) -> Tensor:
    """Return whether all weights of a module are finite, as a bool tensor on its device."""
    return torch.stack([torch.isfinite(weight).all() for weight in module.parameters()]).all()
