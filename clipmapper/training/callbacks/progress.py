"""Progress of a training in steps, and of its validations in samples."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback

from clipmapper.console import progress
from clipmapper.training.callbacks.step_log import StepLog


class FitProgress(Callback):
    """Callback that shows the progress of ``Trainer.fit`` with :func:`clipmapper.console.progress`.

    Args:
        every: Number of steps after which the values that the module logs with ``prog_bar=True`` are shown again.
        log: The log of the steps, whose values are shown too.
    """

    def __init__(self, every: int, log: StepLog) -> None:
        self._every, self._log = every, log
        self._fit, self._validation = ExitStack(), ExitStack()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Show the steps, without those of the run that is resumed."""
        self._made = trainer.global_step
        self._steps = self._fit.enter_context(progress(trainer.max_steps - trainer.global_step, "training", "steps"))

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        """Count a step after its last batch."""
        made, self._made = trainer.global_step - self._made, trainer.global_step
        if not made:
            return
        note = None
        if trainer.global_step % self._every == 0:
            shown = (self._log.values | trainer.progress_bar_metrics).items()
            note = ", ".join(f"{name.removeprefix('train/')} {value:.3g}" for name, value in shown)
        self._steps(made, note)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Show the validation samples."""
        loader: Any = trainer.val_dataloaders
        self._sizes = [len(rows) for rows in loader.sampler][: int(trainer.num_val_batches[0])]
        self._samples = self._validation.enter_context(progress(sum(self._sizes), "validating", "samples"))

    def on_validation_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int, *_: Any
    ) -> None:
        """Count the samples of a batch."""
        self._samples(self._sizes[batch_idx])

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Show the steps again."""
        self._validation.close()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """End the display."""
        self._fit.close()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """End the display."""
        self._validation.close()
        self._fit.close()
