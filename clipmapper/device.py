"""The device that a config asks for."""

from __future__ import annotations

import torch

from clipmapper.config.schema import TrainerConfig
from clipmapper.errors import UserError


def pick_device(trainer: TrainerConfig) -> torch.device:
    """Where the encoder runs: on the trainer's kind of device; raises ``UserError`` where there is none."""
    if trainer.accelerator in ("gpu", "cuda", "auto") and torch.cuda.is_available():
        return torch.device("cuda")
    if trainer.accelerator in ("gpu", "cuda"):
        raise UserError(f"trainer.accelerator={trainer.accelerator}: torch finds no GPU here; give cpu or auto")
    return torch.device("cpu")
