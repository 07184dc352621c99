"""Typed schemas that the configs of all tasks share; each task's own is in its folder of :mod:`clipmapper.tasks`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from omegaconf import MISSING

from clipmapper.config.checks import at_least, one_of


@dataclass
class OptimConfig:
    """``adam`` (the paper's) or ``muon`` (``clipmapper.training.optimizers``), with a linear warm-up, a constant
    stretch, and a cosine decay from ``decay_start`` to the last step."""

    name: str = MISSING
    lr: float = MISSING
    batch_size: int = MISSING
    warmup_steps: int = MISSING
    decay_start: int = MISSING
    weight_decay: float = MISSING

    def __post_init__(self) -> None:
        one_of("task.optim.name", self.name, ("adam", "muon"))
        steps = {"warmup_steps": self.warmup_steps, "decay_start": self.decay_start}
        at_least(0, "task.optim", lr=self.lr, weight_decay=self.weight_decay, **steps)
        at_least(1, "task.optim", batch_size=self.batch_size)


@dataclass
class TaskConfig:
    """What every task has.

    ``sees`` is both, or the one modality that a blind baseline sees, with one constant in place of the other.
    ``steps`` and ``validate_every`` are the trainer's ``max_steps`` and ``val_check_interval`` unless it has its own.
    """

    name: str = MISSING
    sees: str = MISSING
    steps: int = MISSING
    validate_every: int = MISSING
    optim: OptimConfig = MISSING

    def __post_init__(self) -> None:
        at_least(1, "task", steps=self.steps, validate_every=self.validate_every)

    def identity(self) -> dict[str, Any]:
        """The keys in which a checkpoint and a config that is run with it must agree, with their values."""
        return {"task": self.name, "sees": self.sees}
