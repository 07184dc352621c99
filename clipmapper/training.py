"""Training, end to end: data, frozen features, the Lightning fit, and the evaluation of the best checkpoint."""

from __future__ import annotations

import logging
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback, EarlyStopping
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from torch.utils.data import DataLoader

from clipmapper.captioning.task import CaptionTask
from clipmapper.checkpoint import CARD, read_checkpoint
from clipmapper.checkpointing import BEST, LAST, KeptCheckpoint, WholeCheckpointIO, bring_best
from clipmapper.config import Config, TrainConfig, TrainerConfig
from clipmapper.data.batches import StepSampler, in_order
from clipmapper.errors import UserError
from clipmapper.loggers import build_logger
from clipmapper.results import write_metrics
from clipmapper.vqa_task import VQATask

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


class Batches(pl.LightningDataModule):
    """Training batches by step, so that a resumed run goes on with the very batch it would have seen next."""

    def __init__(self, task: Task, batch_size: int, max_steps: int, seed: int):
        super().__init__()
        self.train, self.val = task.train, task.val
        self.batch_size, self.max_steps, self.seed = batch_size, max_steps, seed

    def train_dataloader(self) -> DataLoader[Any]:
        trainer = self.trainer
        assert trainer is not None
        sampler = StepSampler(
            len(self.train), self.batch_size, self.max_steps, self.seed, trainer.global_rank, trainer.world_size
        )
        sampler.start = trainer.global_step
        return DataLoader(self.train, sampler=sampler, batch_size=None)

    def val_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.val, sampler=in_order(len(self.val), 256), batch_size=None)


def train(config: TrainConfig, run: Path) -> dict[str, Any]:
    """Trains, evaluates the best checkpoint by the task's own measure, writes ``metrics.json``; returns its metrics.

    Raises ``UserError`` for what the user can mend.
    """
    for message in _NOT_NEWS:
        warnings.filterwarnings("ignore", message)
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    trainer = build_trainer(config, run)  # first, for its errors
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


def build_trainer(config: Config, run: Path) -> pl.Trainer:
    """Lightning's Trainer as the config says, with checkpoints and logs in the run folder.

    Raises ``UserError`` for what Lightning refuses.
    """
    try:
        return _trainer(config, run)
    except (MisconfigurationException, ValueError, TypeError, RuntimeError) as error:
        raise UserError(f"trainer: {' '.join(str(error).split())}; correct the key in trainer") from error


def _trainer(config: Config, run: Path) -> pl.Trainer:
    t = config.trainer
    # The last checkpoint comes after the best one, so that it knows of it.
    monitor = TASKS[config.task.name].monitor
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
