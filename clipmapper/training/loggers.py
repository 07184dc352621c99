"""The run's logger by config: CSV files, Weights & Biases, or TensorBoard."""

from __future__ import annotations

import os
from pathlib import Path

from pytorch_lightning.loggers import CSVLogger, Logger, TensorBoardLogger, WandbLogger

from clipmapper.config.schema import LoggerConfig
from clipmapper.errors import UserError


def build_logger(config: LoggerConfig, folder: Path) -> Logger:
    """A logger that writes into the run folder; W&B with ``offline`` needs no account."""
    if config.name == "csv":
        return CSVLogger(folder, name="", version="log")
    if config.name == "tensorboard":
        try:
            return TensorBoardLogger(folder, name="", version="log")
        except ModuleNotFoundError as error:
            raise UserError(f"logger=tensorboard needs a package: pip install tensorboard ({error})") from error
    if config.offline:
        os.environ["WANDB_MODE"] = "offline"
    return _wandb(config, folder)


def _wandb(config: LoggerConfig, folder: Path) -> WandbLogger:
    import wandb

    logger = WandbLogger(project=config.project, save_dir=folder, offline=config.offline, name=folder.name)
    try:
        _ = logger.experiment  # signs in now, not after the features were computed
    except wandb.Error as error:
        raise UserError(f"logger=wandb: {error} Or give logger.offline=true") from error
    return logger
