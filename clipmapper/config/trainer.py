"""Typed schemas of Lightning's Trainer and of the logger."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from omegaconf import MISSING

from clipmapper.config.fields import MOST, MOST_THREADS, choice, real, ruled, text, whole

ACCELERATORS = ("auto", "cpu", "gpu", "cuda", "mps", "tpu")
# What Lightning takes.
PRECISIONS = (
    *("32-true", "bf16-mixed", "16-mixed", "bf16-true", "16-true", "64-true"),
    *("32", "bf16", "16", "64", "transformer-engine", "transformer-engine-float16"),
)


def _devices(value: Any) -> str | None:
    """Return what ``trainer.devices`` takes, for any other value."""
    each = value if isinstance(value, list) else str(value).split(",")
    numbers = [int(str(number)) for number in each if re.fullmatch(r" *\d{1,4} *", str(number), re.ASCII)]
    if str(value) in ("auto", "-1") or (numbers and len(numbers) == len(each) and value not in (0, "0")):
        return None
    return "is not auto, a number of devices of 1 or more, or a list of their indices such as [0,2]"


def _duration(value: Any) -> str | None:
    """Return what ``trainer.max_time`` takes, for any other value."""
    if value is None or re.fullmatch(r"\d{1,3}:[0-2]?\d:[0-5]?\d:[0-5]?\d", str(value), re.ASCII):
        return None
    return "is not null or a time DAYS:HOURS:MINUTES:SECONDS, such as 00:23:30:00"


def _validation_batches(value: Any) -> str | None:
    """Return what ``trainer.limit_val_batches`` takes, for any other value."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if value is None or (number and (0 < value <= 1 or (value == value // 1 and 1 < value <= MOST))):
        return None
    return "is not null (all), a number of batches of 1 or more, or a share above 0 and at most 1"


@dataclass
class TrainerConfig:
    """Arguments of Lightning's Trainer with the same names, ``float32_matmul`` and ``patience``."""

    max_steps: int = whole(1)
    accelerator: str = choice(*ACCELERATORS)
    devices: Any = ruled(_devices)
    num_nodes: int = whole(1, 100_000)
    strategy: str = text()  # checked by Lightning
    precision: str = choice(*PRECISIONS)
    float32_matmul: str = choice("highest", "high", "medium")  # arguments of torch.set_float32_matmul_precision
    gradient_clip_val: float | None = real(0)
    val_check_interval: int = whole(1)
    limit_val_batches: Any = ruled(_validation_batches)
    accumulate_grad_batches: int = whole(1, 10**6)
    max_time: str | None = ruled(_duration)  # of training, over all jobs that continue the run
    checkpoint_every_steps: int | None = whole(1)  # last.ckpt is also written after so many steps
    checkpoint_every_minutes: float | None = real(0, 10**6, above=True)
    num_workers: int = whole(0, MOST_THREADS)  # processes that read training batches
    log_every_n_steps: int = whole(1)
    fast_dev_run: bool = MISSING
    enable_progress_bar: bool = MISSING
    profiler: str | None = choice("simple", "advanced")
    patience: int | None = whole(0)  # validations without improvement before an early stop; None: no early stop


@dataclass
class LoggerConfig:
    """The logger of a training run."""

    name: str = choice("csv", "wandb", "tensorboard")
    project: str = text()
    offline: bool = MISSING  # wandb without an account
