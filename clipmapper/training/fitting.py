"""All steps of a training, or those that are left after a stop."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from clipmapper.process.freed import return_freed
from clipmapper.process.together import first_alone
from clipmapper.storage.curves import keep_curves
from clipmapper.training.batches import Batches
from clipmapper.training.trainer import copy_checkpoints

if TYPE_CHECKING:
    import pytorch_lightning as pl

    from clipmapper.config.schema import TrainConfig
    from clipmapper.tasks.base import TrainingData
    from clipmapper.training.resume import StoppedTraining


def fit(
    config: TrainConfig,
    trainer: pl.Trainer,
    module: pl.LightningModule,
    data: TrainingData,
    stopped: StoppedTraining | None,
    run: Path,
) -> None:
    """Make all training steps, or those after the stop of the run that is continued."""
    steps, last = config.trainer.max_steps, None
    if stopped is not None:
        with first_alone():
            last = copy_checkpoints(stopped.folder, run)
        if stopped.has_ended(steps):
            print(
                f"resume={stopped.folder}: that training has ended after {stopped.step} steps, "
                "so its best checkpoint is evaluated again",
                flush=True,
            )
            return
        keep_curves(trainer.logger, stopped.state)
    t = config.trainer
    batches = Batches(
        data.train,
        data.val,
        config.task.optim.batch_size,
        steps,
        config.seed,
        t.accumulate_grad_batches,
        t.num_workers,
        t.limit_val_batches,
    )
    return_freed()
    trainer.fit(module, batches, ckpt_path=last, weights_only=True)
