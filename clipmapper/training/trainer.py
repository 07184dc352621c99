"""Lightning's Trainer built from a config, with its logger and its checkpoint files in the run folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.environments import LightningEnvironment
from lightning_fabric.plugins.io.torch_io import TorchCheckpointIO
from pytorch_lightning.callbacks import Callback, EarlyStopping, ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger, Logger, TensorBoardLogger, WandbLogger
from pytorch_lightning.profilers import AdvancedProfiler, SimpleProfiler
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from clipmapper.config.schema import BaseConfig, Config
from clipmapper.config.trainer import LoggerConfig, TrainerConfig
from clipmapper.errors import UserError
from clipmapper.files import read_bytes, write_atomic
from clipmapper.places import real_path
from clipmapper.storage.curves import checksum_of_curves
from clipmapper.training.callbacks.divergence import StopAtDivergence
from clipmapper.training.callbacks.progress import FitProgress
from clipmapper.training.callbacks.saved_between import SavedBetween
from clipmapper.training.callbacks.step_log import StepLog
from clipmapper.training.callbacks.stop_at_step import StopAtStep
from clipmapper.training.checkpoint_file import read_checkpoint_file, write_checkpoint
from clipmapper.training.logged import log_config
from clipmapper.training.optional_log import make_optional
from clipmapper.training.processes import environment, keep_signals, processes, start_processes

# With these, Lightning refuses a key; an ImportError names a package that a device or a precision needs.
_REFUSALS = (MisconfigurationException, ValueError, TypeError, RuntimeError, ImportError)


def base_trainer(config: BaseConfig, run: Path, callbacks: list[Callback], **settings: Any) -> pl.Trainer:
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
    if t.profiler is not None:
        kind = SimpleProfiler if t.profiler == "simple" else AdvancedProfiler
        settings["profiler"] = kind(run, "profile")
    return _connected(t, logger=start_log(config, run), callbacks=callbacks, **settings)


def connect(t: TrainerConfig) -> torch.device:
    """Start and connect the processes of a command that trains nothing, and return the device of this one.

    Raises:
        UserError: Lightning refuses a key of the config.
    """
    return _connected(t, logger=False, enable_checkpointing=False).strategy.root_device


def trial_trainer(t: TrainerConfig, **settings: Any) -> pl.Trainer:
    """Build a Trainer of this process alone that logs and saves nothing, to time a few steps.

    Args:
        t: The config of the command's trainer, whose device and precision are used.
        settings: Further arguments of ``pytorch_lightning.Trainer``.

    Raises:
        UserError: Lightning refuses a key of the config.
    """
    alone: dict[str, Any] = {"devices": 1, "num_nodes": 1, "strategy": "auto"}
    own = LightningEnvironment()  # also under torchrun and srun
    return _built(replace(t, **alone), alone, [own], logger=False, enable_checkpointing=False, **settings)


def _connected(t: TrainerConfig, plugins: Sequence[Any] = (), **settings: Any) -> pl.Trainer:
    """Build a Trainer, and start and connect its processes."""
    trainer = _built(t, processes(t), [environment(), *plugins], **settings)
    start_processes(trainer)
    return trainer


def _built(t: TrainerConfig, several: dict[str, Any], plugins: Sequence[Any], **settings: Any) -> pl.Trainer:
    """Build a Trainer; ``several`` are its arguments about processes."""
    shared: dict[str, Any] = {
        "enable_progress_bar": False,  # clipmapper.console shows the progress of all commands
        "enable_model_summary": False,
        "use_distributed_sampler": False,
    }
    chosen = {"accelerator": t.accelerator, **several, "precision": t.precision}
    try:
        trainer = pl.Trainer(**chosen, **shared, **settings, plugins=list(plugins))
    except _REFUSALS as error:
        key = _refused_key(t, shared)
        problem = " ".join(str(error).split())
        raise UserError(f"trainer.{key}={getattr(t, key)}: {problem}; correct this key") from error
    keep_signals(trainer)
    return trainer


def _refused_key(t: TrainerConfig, shared: dict[str, Any]) -> str:
    """Return the first key with which Lightning refuses to build a Trainer, if the keys are given one after another."""
    *others, last = ("accelerator", "devices", "strategy", "precision")
    given = {**shared, "logger": False, "enable_checkpointing": False}
    for key in others:
        given[key] = getattr(t, key)
        try:
            pl.Trainer(**given)
        except _REFUSALS:
            return key
    return last


def build_trainer(config: Config, run: Path, monitor: str) -> pl.Trainer:
    """Build the Trainer that fits a mapper, with its checkpoints in the run folder.

    Args:
        config: The command's config.
        run: The run folder.
        monitor: Logged value whose maximum chooses the best checkpoint.

    Raises:
        UserError: Lightning refuses a key of ``config.trainer``.
    """
    t, last = config.trainer, run / "checkpoints" / f"{LAST}.ckpt"
    divergence = StopAtDivergence(_against_divergence(config), last)
    log = StepLog(t.log_every_n_steps, divergence)
    # The last checkpoint is saved after the best one, because it stores the path and score of the best.
    callbacks: list[Callback] = [
        KeptCheckpoint(run, BEST, monitor),
        KeptCheckpoint(run, LAST),
        divergence,
        log,
        FitProgress(t.log_every_n_steps, log),
        LastValidation(_check_interval(t)),
        SavedBetween(last, t.checkpoint_every_steps, t.checkpoint_every_minutes),
        StopAtStep(last),
    ]
    if t.patience is not None:
        callbacks.append(EarlyStopping(monitor, mode="max", patience=t.patience))
    return base_trainer(
        config,
        run,
        callbacks,
        max_epochs=1,  # one pass over the step sampler, which ends at max_steps
        max_steps=t.max_steps,
        max_time=t.max_time,
        accumulate_grad_batches=t.accumulate_grad_batches,
        gradient_clip_val=t.gradient_clip_val,
        val_check_interval=_check_interval(t) * t.accumulate_grad_batches,  # in batches
        num_sanity_val_steps=0,  # on a CPU it would take longer than the rest of the start
        log_every_n_steps=t.log_every_n_steps,
        fast_dev_run=t.fast_dev_run,
        plugins=[AtomicCheckpointIO()],
    )


def _against_divergence(config: Config) -> str:
    """Return what can be done about a training that diverges."""
    clip = config.trainer.gradient_clip_val
    ways = f" or trainer.gradient_clip_val={clip}" if clip else ", or clip gradients, trainer.gradient_clip_val=1"
    return f"lower task.optim.lr={config.task.optim.lr}{ways}"


def _check_interval(t: TrainerConfig) -> int:
    """Return ``val_check_interval``, or a near one; :class:`LastValidation` validates after steps that it leaves."""
    return t.max_steps // max(1, round(t.max_steps / t.val_check_interval))


class LastValidation(Callback):
    """Callback that validates after the last step, which the interval may leave out, so that its weights are saved.

    Args:
        interval: Number of steps between the other validations.
    """

    def __init__(self, interval: int) -> None:
        self._interval = interval

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        """Let Lightning stop, before which it validates."""
        if trainer.global_step == trainer.max_steps and trainer.global_step % self._interval:
            trainer.should_stop = True


BEST, LAST = "best", "last"


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writer of checkpoints that are complete or absent, also if the process is killed.

    It writes a file in the same folder and renames it. Lightning's own writer uses the system's temporary folder, which
    is often on another disk: a process killed during the copy would leave half a checkpoint in place of the last
    complete one.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Save a checkpoint at ``path``.

        Raises:
            OSError: The file can't be written, for example on a full disk; an earlier file at ``path`` is kept.
        """
        write_checkpoint(Path(path), checkpoint)

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        """Return the content of a checkpoint (:func:`~clipmapper.training.checkpoint_file.read_checkpoint_file`).

        Raises:
            UserError: The file can't be read or is damaged.
        """
        return read_checkpoint_file(Path(path))


class KeptCheckpoint(ModelCheckpoint):
    """The file ``checkpoints/{name}.ckpt`` of the run folder, written after validations.

    It holds the newest checkpoint, or the weights with the greatest value of ``monitor``, without the optimizer's
    state. A resumed run writes into a new folder, and Lightning forgets the best checkpoint when the folder changes.
    This class keeps the best checkpoint, which :func:`copy_checkpoints` copies, and its score.

    Args:
        run: The run folder.
        name: File name without its ending.
        monitor: Logged value whose maximum is kept; None keeps the newest checkpoint.
    """

    def __init__(self, run: Path, name: str, monitor: str | None = None):
        super().__init__(
            run / "checkpoints",
            name,
            monitor=monitor,
            mode="max",
            save_weights_only=monitor is not None,  # training continues from the newest checkpoint only
            save_on_train_epoch_end=False,
            enable_version_counter=False,
        )

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Write the curves first, up to the step from which a stopped run continues, and keep their checksum."""
        for logger in trainer.loggers:
            logger.save()
        if trainer.is_global_zero:  # the process that writes both files
            checkpoint |= checksum_of_curves(trainer.logger, trainer.global_step)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load the stopped run's state, with its paths replaced by this run's, if the checkpoint was copied here."""
        here = Path(str(self.dirpath)) / f"{self.filename}.ckpt"
        if not here.is_file():
            return
        moved = {name: str(here) for name in ("best_model_path", "kth_best_model_path", "last_model_path")}
        best = {str(here): score for score in state_dict["best_k_models"].values()}
        super().load_state_dict({**state_dict, **moved, "best_k_models": best, "dirpath": self.dirpath})


def best_score(run: Path) -> float | None:
    """Return the greatest value of the monitored measure in a run; None if it has no checkpoint (``fast_dev_run``)."""
    path = run / "checkpoints" / f"{LAST}.ckpt"
    if not path.is_file():
        return None
    states = read_checkpoint_file(path)["callbacks"].values()
    return next(float(state["best_model_score"]) for state in states if state.get("monitor") is not None)


def copy_checkpoints(stopped: Path, run: Path) -> Path:
    """Copy the checkpoints of a stopped run into the folder of the run that continues it, the last one at the end.

    Whenever the new run is stopped, its folder then holds the newest checkpoint.

    Returns:
        The path of the last checkpoint in the new folder.

    Raises:
        UserError: A checkpoint is damaged.
    """
    for name in (BEST, LAST):
        source, target = (folder / "checkpoints" / f"{name}.ckpt" for folder in (stopped, run))
        if source.is_file() and real_path(source) != real_path(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            read_checkpoint_file(source)  # a damaged best checkpoint would be noticed only at the end
            write_atomic(target, read_bytes(source, "weights"))
    return run / "checkpoints" / f"{LAST}.ckpt"


def start_log(config: BaseConfig, run: Path) -> Logger:
    """Build the logger of a config and log the config; a logger that fails later costs no result.

    Raises:
        UserError: The logger cannot be built (:func:`build_logger`).
    """
    logger = build_logger(config.logger, run)
    log_config(logger, asdict(config))
    make_optional(logger)
    return logger


def build_logger(config: LoggerConfig, folder: Path) -> Logger:
    """Build the logger that a config names, writing into the run folder.

    Raises:
        UserError: A package that the logger needs is missing, or W&B refuses to start a run; ``offline`` needs no
            account.
    """
    if config.name == "csv":
        return CSVLogger(folder, name="", version="log")
    if config.name == "tensorboard":
        try:
            return TensorBoardLogger(folder, name="", version="log")
        except ModuleNotFoundError as error:
            raise UserError(f"logger=tensorboard needs a package: pip install tensorboard ({error})") from error
    return _wandb(config, folder)


def _wandb(config: LoggerConfig, folder: Path) -> WandbLogger:
    try:
        import wandb
    except ImportError as error:
        raise UserError(f"logger=wandb needs a package: pip install wandb ({error})") from error

    settings = wandb.Settings(silent=True, console="off")
    if config.offline:  # not by WANDB_MODE: W&B reads the environment once a process, and a later run may be online
        settings.mode = "offline"
    logger = WandbLogger(folder.name, folder, project=config.project, settings=settings)
    try:
        run = logger.experiment  # log in now, so that a refused login is reported before features are computed
    except wandb.Error as error:
        raise UserError(f"logger=wandb: {str(error).rstrip('.')}; or give logger.offline=true") from error
    if run.url:
        print(f"W&B run: {run.url}", flush=True)
    return logger
