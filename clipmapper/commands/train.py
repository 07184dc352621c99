"""Trains a mapper: data, frozen features, the Lightning fit, and the evaluation of the best checkpoint."""

from __future__ import annotations

import logging
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from clipmapper.cli import command, typed
from clipmapper.config.schema import TrainConfig
from clipmapper.errors import UserError
from clipmapper.tasks import TASKS

if TYPE_CHECKING:
    import pytorch_lightning as pl

# What Lightning warns of and this project has taken care of, or means.
IGNORED_WARNINGS = (
    ".*dataloader is not resumable.*",  # the step sampler is
    ".*exists and is not empty.*",  # holds the best checkpoint of the run that goes on
    ".*transfer_batch_to_device.*",
    ".*smaller than the logging interval.*",
    ".*does not have many workers.*",
    ".*isinstance.treespec, LeafSpec.*",
)


@command("train")
def main(config: DictConfig, run: Path) -> None:
    """One training run."""
    train(typed(config, TrainConfig), run)


def train(config: TrainConfig, run: Path) -> dict[str, Any]:
    """Trains, evaluates the best checkpoint by the task's own measure, writes ``metrics.json``; returns its metrics.

    Raises ``UserError`` for what the user can mend.
    """
    import pytorch_lightning as pl

    from clipmapper.files import write_metrics
    from clipmapper.training.batches import Batches
    from clipmapper.training.trainer import build_trainer

    for message in IGNORED_WARNINGS:
        warnings.filterwarnings("ignore", message)
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    task = TASKS[config.task.name]
    trainer = build_trainer(config, run, task.monitor)  # first, for its errors
    data = task.data(config)
    data.write_split(run / "split.json")
    last = _to_resume(config, data.card(config), run)
    pl.seed_everything(config.seed, verbose=False)  # before the model is made
    module = task.module(config, data)
    batches = Batches(data.train, data.val, config.task.optim.batch_size, config.trainer.max_steps, config.seed)
    trainer.fit(module, batches, ckpt_path=last, weights_only=True)
    if not trainer.is_global_zero:
        return {}
    _load_best(trainer, module)
    metrics = task.evaluate(config, data, module.model, run)
    write_metrics(run / "metrics.json", metrics, asdict(config))
    return metrics


def _load_best(trainer: pl.Trainer, module: pl.LightningModule) -> None:
    """Puts the weights of the best checkpoint into the module; after ``fast_dev_run`` there is none."""
    from clipmapper.checkpoint import read_checkpoint

    if path := getattr(trainer.checkpoint_callback, "best_model_path", ""):
        module.load_state_dict(read_checkpoint(Path(path))["state_dict"])


def _to_resume(config: TrainConfig, card: dict[str, Any], run: Path) -> str | None:
    """The last checkpoint of the run to go on with; raises ``UserError`` where there is none or it does not fit."""
    from clipmapper.checkpoint import CARD, read_checkpoint
    from clipmapper.training.trainer import LAST, copy_best

    if config.resume is None:
        return None
    last = Path(config.resume) / "checkpoints" / f"{LAST}.ckpt"
    held = read_checkpoint(last)[CARD]
    differing = [key for key in card if card[key] != held.get(key)]
    if differing:
        raise UserError(f"resume={config.resume}: that run has another {differing[0]}; resume with its own config")
    copy_best(Path(config.resume), run)
    return str(last)
