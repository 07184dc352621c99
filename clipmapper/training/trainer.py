"""Lightning's Trainer as a config says, with checkpoints and logs in the run folder."""

from __future__ import annotations

from pathlib import Path

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback, EarlyStopping
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from clipmapper.config.schema import Config, TrainerConfig
from clipmapper.errors import UserError
from clipmapper.training.checkpoint_files import BEST, LAST, KeptCheckpoint, WholeCheckpointIO
from clipmapper.training.loggers import build_logger


def build_trainer(config: Config, run: Path, monitor: str) -> pl.Trainer:
    """Lightning's Trainer as the config says, with checkpoints and logs in the run folder.

    The greatest value of ``monitor`` chooses the best checkpoint.

    Raises ``UserError`` for what Lightning refuses.
    """
    try:
        return _trainer(config, run, monitor)
    except (MisconfigurationException, ValueError, TypeError, RuntimeError) as error:
        raise UserError(f"trainer: {' '.join(str(error).split())}; correct the key in trainer") from error


def _trainer(config: Config, run: Path, monitor: str) -> pl.Trainer:
    t = config.trainer
    # The last checkpoint comes after the best one, so that it knows of it.
    callbacks: list[Callback] = [KeptCheckpoint(run, BEST, monitor), KeptCheckpoint(run, LAST)]
    if t.patience is not None:
        callbacks.append(EarlyStopping(monitor, mode="max", patience=t.patience))
    return pl.Trainer(
        max_epochs=1,  # one pass over the step sampler, which ends at max_steps
        max_steps=t.max_steps,
        accelerator=t.accelerator,
        devices=t.devices,
        strategy=_strategy(t),
        precision=t.precision,  # type: ignore[arg-type]
        gradient_clip_val=t.gradient_clip_val,
        val_check_interval=_check_interval(t),
        limit_val_batches=t.limit_val_batches,
        log_every_n_steps=t.log_every_n_steps,
        fast_dev_run=t.fast_dev_run,
        enable_progress_bar=t.enable_progress_bar,
        enable_model_summary=False,
        use_distributed_sampler=False,
        logger=build_logger(config.logger, run),
        callbacks=callbacks,
        plugins=[WholeCheckpointIO()],
    )


def _strategy(t: TrainerConfig) -> str:
    """A mapper's last layer has parts that the read-out token does not see, which plain DDP refuses."""
    several = t.devices != 1 and t.strategy in ("auto", "ddp")
    return "ddp_find_unused_parameters_true" if several else t.strategy


def _check_interval(t: TrainerConfig) -> int:
    """``val_check_interval``, or the nearest that has the last weights validated too."""
    return t.max_steps // max(1, round(t.max_steps / t.val_check_interval))
