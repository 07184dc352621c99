"""Lightning's Trainer as a config says, for training and for any other pass over data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback, EarlyStopping
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from clipmapper.config.schema import Config, TrainerConfig
from clipmapper.errors import UserError
from clipmapper.training.checkpoint_files import BEST, LAST, AtomicCheckpointIO, KeptCheckpoint
from clipmapper.training.loggers import build_logger


def base_trainer(config: Config, run: Path, callbacks: list[Callback], **settings: Any) -> pl.Trainer:
    """Build a Trainer on the config's devices, in its precision, with its logger in the run folder.

    Args:
        config: The command's config.
        run: The run folder.
        callbacks: The command's callbacks.
        settings: Further arguments of ``pytorch_lightning.Trainer``.

    Raises:
        UserError: Lightning refuses a key of ``config.trainer``.
    """
    t = config.trainer
    shared: dict[str, Any] = {
        "accelerator": t.accelerator,
        "devices": t.devices,
        "strategy": t.strategy,
        "precision": t.precision,
        "enable_progress_bar": t.enable_progress_bar,
        "enable_model_summary": False,
        "use_distributed_sampler": False,
    }
    try:
        return pl.Trainer(**{**shared, **settings}, logger=build_logger(config.logger, run), callbacks=callbacks)
    except (MisconfigurationException, ValueError, TypeError, RuntimeError) as error:
        raise UserError(f"trainer: {' '.join(str(error).split())}; correct the key in trainer") from error


def build_trainer(config: Config, run: Path, monitor: str) -> pl.Trainer:
    """Build the Trainer that fits a mapper, with its checkpoints in the run folder.

    Args:
        config: The command's config.
        run: The run folder.
        monitor: Logged value whose maximum chooses the best checkpoint.

    Raises:
        UserError: Lightning refuses a key of ``config.trainer``.
    """
    t = config.trainer
    # The last checkpoint comes after the best one, so that it knows of it.
    callbacks: list[Callback] = [KeptCheckpoint(run, BEST, monitor), KeptCheckpoint(run, LAST)]
    if t.patience is not None:
        callbacks.append(EarlyStopping(monitor, mode="max", patience=t.patience))
    return base_trainer(
        config,
        run,
        callbacks,
        strategy=_strategy(t),
        max_epochs=1,  # one pass over the step sampler, which ends at max_steps
        max_steps=t.max_steps,
        gradient_clip_val=t.gradient_clip_val,
        val_check_interval=_check_interval(t),
        limit_val_batches=t.limit_val_batches,
        log_every_n_steps=t.log_every_n_steps,
        fast_dev_run=t.fast_dev_run,
        plugins=[AtomicCheckpointIO()],
    )


def _strategy(t: TrainerConfig) -> str:
    """A mapper's last layer has parts that the read-out token does not see, which plain DDP refuses."""
    several = t.devices != 1 and t.strategy in ("auto", "ddp")
    return "ddp_find_unused_parameters_true" if several else t.strategy


def _check_interval(t: TrainerConfig) -> int:
    """``val_check_interval``, or the nearest that has the last weights validated too."""
    return t.max_steps // max(1, round(t.max_steps / t.val_check_interval))
