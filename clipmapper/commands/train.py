"""Training, end to end: data, frozen features, the Lightning fit, and the evaluation of the best checkpoint."""

from __future__ import annotations

import logging
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from clipmapper.checkpoint import CARD, read_checkpoint
from clipmapper.config.schema import TrainConfig
from clipmapper.errors import UserError
from clipmapper.results import write_metrics
from clipmapper.tasks.caption.task import CaptionTask
from clipmapper.tasks.vqa.task import VQATask
from clipmapper.training.batches import Batches
from clipmapper.training.checkpoint_files import LAST, bring_best
from clipmapper.training.trainer import build_trainer

Task = VQATask | CaptionTask
TASKS: dict[str, type[VQATask] | type[CaptionTask]] = {"vqa": VQATask, "caption": CaptionTask}

# What Lightning warns of and this project has taken care of, or means.
_NOT_NEWS = (
    ".*dataloader is not resumable.*",  # the step sampler is
    ".*exists and is not empty.*",  # holds the best checkpoint of the run that goes on
    ".*transfer_batch_to_device.*",
    ".*smaller than the logging interval.*",
    ".*does not have many workers.*",
    ".*isinstance.treespec, LeafSpec.*",
)


def train(config: TrainConfig, run: Path) -> dict[str, Any]:
    """Trains, evaluates the best checkpoint by the task's own measure, writes ``metrics.json``; returns its metrics.

    Raises ``UserError`` for what the user can mend.
    """
    for message in _NOT_NEWS:
        warnings.filterwarnings("ignore", message)
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    trainer = build_trainer(config, run, TASKS[config.task.name].monitor)  # first, for its errors
    task = TASKS[config.task.name](config)
    task.write_split(run / "split.json")
    last = _to_resume(config, task.about, run)
    pl.seed_everything(config.seed, verbose=False)  # before the model is made
    batches = Batches(task, config.task.optim.batch_size, config.trainer.max_steps, config.seed)
    trainer.fit(task.module, batches, ckpt_path=last, weights_only=True)
    if not trainer.is_global_zero:
        return {}
    _best(trainer, task.module)
    metrics = task.evaluate(run)
    write_metrics(run / "metrics.json", metrics, asdict(config))
    return metrics


def _best(trainer: pl.Trainer, module: pl.LightningModule) -> None:
    """Puts the weights of the best checkpoint into the module; after ``fast_dev_run`` there is none."""
    checkpoint = trainer.checkpoint_callback
    path = getattr(checkpoint, "best_model_path", "")
    if path:
        module.load_state_dict(read_checkpoint(Path(path))["state_dict"])


def _to_resume(config: TrainConfig, about: dict[str, Any], run: Path) -> str | None:
    """The last checkpoint of the run to go on with; raises ``UserError`` where there is none or it does not fit."""
    if config.resume is None:
        return None
    last = Path(config.resume) / "checkpoints" / f"{LAST}.ckpt"
    held = read_checkpoint(last)[CARD]
    differing = [key for key in about if about[key] != held.get(key)]
    if differing:
        raise UserError(f"resume={config.resume}: that run has another {differing[0]}; resume with its own config")
    bring_best(Path(config.resume), run)
    return str(last)
