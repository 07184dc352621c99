"""The time of a training step, from a few steps of the real module on one batch."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch.utils.data import DataLoader

from clipmapper.config.trainer import TrainerConfig
from clipmapper.training.trainer import trial_trainer

_STEPS, _SECONDS = 20, 10.0  # the most steps that are timed, and the seconds after which no further one is begun
_ON_A_CPU = 32  # samples of a batch that are timed on a CPU, where the time of a batch grows with its size


class _Clock(Callback):
    """Callback that notes when each step ends, and stops the training after some seconds."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        """Note the time at which the step has ended on the device."""
        if trainer.global_step == len(self.ends):  # a batch of several that a step accumulates
            return
        if trainer.strategy.root_device.type == "cuda":
            torch.cuda.synchronize(trainer.strategy.root_device)
        self.ends.append(time.monotonic())
        trainer.should_stop = len(self.ends) > 1 and self.ends[-1] - self.ends[0] > _SECONDS


def time_steps(
    t: TrainerConfig, size: int, trial: Callable[[int], tuple[pl.LightningModule, Any]]
) -> tuple[float, str]:
    """Return the seconds of a training step of one process, and what was timed, as text.

    The first step is not timed. On a CPU the steps have fewer samples, and their time is multiplied by the ratio of
    the sizes, which counts the optimizer too often.

    Args:
        t: The trainer's config.
        size: Number of samples of a batch.
        trial: Function that returns a module, whose weights are changed, and a batch of so many samples for all steps.

    Raises:
        UserError: Lightning refuses a key of the config.
    """
    several, clock = t.accumulate_grad_batches, _Clock()
    trainer = trial_trainer(
        t,
        max_epochs=1,
        max_steps=_STEPS + 1,
        limit_val_batches=0,
        accumulate_grad_batches=several,
        gradient_clip_val=t.gradient_clip_val,
        callbacks=[clock],
    )
    few = min(size, _ON_A_CPU) if trainer.strategy.root_device.type == "cpu" else size
    module, batch = trial(few)
    batches: list[Any] = [batch] * several * (_STEPS + 1)
    trainer.fit(module, DataLoader(batches, batch_size=None))  # type: ignore[arg-type]
    timed = len(clock.ends) - 1
    about = f"{timed} timed step{'' if timed == 1 else 's'}{'' if few == size else f' of {few * several:,} samples'}"
    return (clock.ends[-1] - clock.ends[0]) / timed * size / few, about
