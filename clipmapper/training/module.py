"""What the Lightning modules of all tasks share: seeds by step, the learning rate's course, a checkpoint's card."""

from __future__ import annotations

import math
from typing import Any, Generic, TypeVar

import pytorch_lightning as pl
import torch
from torch import nn

from clipmapper.config.tasks import OptimConfig
from clipmapper.training.optimizers import build_optimizer

Model = TypeVar("Model", bound=nn.Module)


class MapperTraining(pl.LightningModule, Generic[Model]):
    """Trains ``model`` on batches of frozen features; ``card`` travels in every checkpoint and says what it holds."""

    model: Model

    def __init__(self, model: Model, optim: OptimConfig, max_steps: int, card: dict[str, Any], seed: int):
        super().__init__()
        self.model = model
        self.optim, self.max_steps, self.card, self.seed = optim, max_steps, card, seed

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Dropout is a function of the seed and the step, so that a resumed run draws what it would have drawn."""
        torch.manual_seed((self.seed << 32) + self.global_step * self.trainer.world_size + self.global_rank)

    def configure_optimizers(self) -> Any:
        optimizer = build_optimizer(self.model, self.optim)
        factor = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: learning_rate_factor(step, self.optim, self.max_steps)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": factor, "interval": "step"}}

    def transfer_batch_to_device(self, batch: Any, device: torch.device, _: int) -> Any:
        return batch.to(device)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["clipmapper"] = self.card


def learning_rate_factor(step: int, optim: OptimConfig, max_steps: int) -> float:
    """0..1: linear warm-up, constant, then a half cosine from ``decay_start`` to ``max_steps``."""
    warm = min(1.0, (step + 1) / max(1, optim.warmup_steps))
    if step < optim.decay_start:
        return warm
    done = (step - optim.decay_start) / max(1, max_steps - optim.decay_start)
    return warm * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
