"""Checkpoints between validations, so that a job that is killed without a signal loses little."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback


class SavedBetween(Callback):
    """Callback that writes the last checkpoint after some steps or minutes, unless a validation follows, which does.

    Args:
        path: The file of the last checkpoint.
        steps: Number of steps between two checkpoints; None: not by steps.
        minutes: Minutes between two checkpoints, by the first process's clock; None: not by time.
    """

    def __init__(self, path: Path, steps: int | None, minutes: float | None) -> None:
        self._path, self._steps, self._seconds = path, steps, None if minutes is None else 60 * minutes
        self._made, self._time = 0, 0.0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin to count."""
        self._made, self._time = trainer.global_step, time.monotonic()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Write a checkpoint if it is time."""
        made = trainer.global_step
        interval = trainer.val_check_batch
        validates = trainer.enable_validation and interval is not None and (batch_idx + 1) % interval == 0
        if made == self._made or made >= trainer.max_steps or validates or not trainer.checkpoint_callbacks:
            return
        after_steps = self._steps is not None and made % self._steps == 0
        self._made = made
        if after_steps or self._is_time(trainer):
            trainer.save_checkpoint(self._path)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Count the minutes from here: also after a validation."""
        self._time = time.monotonic()

    def _is_time(self, trainer: pl.Trainer) -> bool:
        if self._seconds is None:
            return False
        passed = trainer.is_global_zero and time.monotonic() - self._time >= self._seconds
        return bool(trainer.strategy.reduce_boolean_decision(passed, all=False))
