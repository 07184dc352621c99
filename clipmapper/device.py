"""The device and the threads that a config asks for."""

from __future__ import annotations

import torch

from clipmapper.config.schema import Config, TrainerConfig
from clipmapper.errors import UserError


def use(config: Config) -> torch.device:
    """Have torch use the config's threads, and return the device it asks for.

    Raises:
        UserError: there is no such device.
    """
    use_threads(config.threads)
    return pick_device(config.trainer)


def use_threads(threads: int | None) -> None:
    """Have torch use so many threads on the CPU; with None torch decides."""
    if threads is not None:
        torch.set_num_threads(threads)


def pick_device(trainer: TrainerConfig) -> torch.device:
    """Return the trainer's kind of device, where the encoder runs.

    Raises:
        UserError: there is none.
    """
    if trainer.accelerator in ("gpu", "cuda", "auto") and torch.cuda.is_available():
        return torch.device("cuda")
    if trainer.accelerator in ("gpu", "cuda"):
        raise UserError(f"trainer.accelerator={trainer.accelerator}: torch finds no GPU here; give cpu or auto")
    return torch.device("cpu")
