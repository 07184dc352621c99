"""A training that a signal stops: it finishes its step and writes a checkpoint, from which it can go on."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback

from clipmapper.process import stopping
from clipmapper.training.agreement import StopAgreement

# Where a checkpoint has the progress of the validation.
_VALIDATION = "epoch_loop.val_loop.batch_progress"
_HUNG = 10.0  # seconds that one call of a distributed run may wait for the other processes after a signal


class StopAtStep(Callback):
    """Callback that stops a training at the end of its step when a signal asks for it.

    A resumed run continues as if it had not been stopped: a validation that was due or not complete is run whole. All
    processes of a distributed run stop at the same step. The last step is followed by the end of the training.

    Args:
        path: The file of the last checkpoint.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._agreement = StopAgreement()
        self._validation_due = False
        self._saved = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Let signals wait from now on."""
        stopping.defer(True, math.inf if trainer.world_size == 1 else _HUNG)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Write the checkpoint after a step, unless a validation follows."""
        interval = trainer.val_check_batch
        validates = trainer.enable_validation and interval is not None and (batch_idx + 1) % interval == 0
        if not validates and (batch_idx + 1) % trainer.accumulate_grad_batches == 0:
            self._save_if_asked(trainer)

    def on_train_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        """Stop before the next step: by now the values of the step before it are logged."""
        if self._saved:
            raise stopping.asked()

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop after a step that a validation follows."""
        self._agreement.exchange_next()
        self._stop_in_validation(trainer)

    def on_validation_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        """Stop during a validation."""
        self._stop_in_validation(trainer)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Agree again after the next step, which takes another time than a batch of the validation."""
        self._agreement.exchange_next()

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Note in the checkpoint that its validation is still to be run: as if its first batch were being read."""
        if self._validation_due:
            begun = {"ready": 1, "started": 1, "processed": 0, "completed": 0}
            progress = checkpoint["loops"]["fit_loop"][_VALIDATION]
            progress.update(total=begun, current=dict(begun), is_last_batch=False)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Let signals stop the process again; the checkpoint of the last step is written."""
        self._agreement.exchange_next()
        self._agreement.reached(trainer)
        stopping.defer(False)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Let signals stop the process again."""
        stopping.defer(False)

    def _stop_in_validation(self, trainer: pl.Trainer) -> None:
        self._validation_due = True
        self._save_if_asked(trainer)
        self._validation_due = False
        if self._saved:
            raise stopping.asked()

    def _save_if_asked(self, trainer: pl.Trainer) -> None:
        asked = self._agreement.reached(trainer)
        if not asked or trainer.global_step >= trainer.max_steps or not trainer.checkpoint_callbacks:
            return
        trainer.save_checkpoint(self._path)
        self._saved = True
