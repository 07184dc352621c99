"""The Lightning module that trains VQA: soft-label classification, warm-up and cosine decay."""

from __future__ import annotations

import math
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.nn import functional as F

from clipmapper.config import OptimConfig
from clipmapper.data.batches import VQABatch
from clipmapper.optimizer import build_optimizer
from clipmapper.vqa_model import VQAMapper


class VQATraining(pl.LightningModule):
    """Trains a :class:`VQAMapper` on frozen features; ``card`` travels in every checkpoint and says what it holds."""

    def __init__(self, model: VQAMapper, optim: OptimConfig, max_steps: int, card: dict[str, Any], seed: int = 0):
        super().__init__()
        self.model = model
        self.optim, self.max_steps, self.card, self.seed = optim, max_steps, card, seed

    def on_train_batch_start(self, batch: VQABatch, batch_idx: int) -> None:
        """Dropout is a function of the seed and the step, so that a resumed run draws what it would have drawn."""
        torch.manual_seed((self.seed << 32) + self.global_step * self.trainer.world_size + self.global_rank)

    def training_step(self, batch: VQABatch, _: int) -> Tensor:
        logits = self.model(batch.image, batch.text)
        loss = soft_label_loss(logits, batch.targets)
        size = len(batch.rows)
        self.log("train/loss", loss, prog_bar=True, batch_size=size)
        self.log("train/accuracy", soft_accuracy(logits, batch.targets), prog_bar=True, batch_size=size)
        return loss

    def validation_step(self, batch: VQABatch, _: int) -> None:
        logits = self.model(batch.image, batch.text)
        size = len(batch.rows)
        self.log("val/loss", soft_label_loss(logits, batch.targets), batch_size=size, sync_dist=True)
        accuracy = soft_accuracy(logits, batch.targets)
        self.log("val/accuracy", accuracy, prog_bar=True, batch_size=size, sync_dist=True)

    def configure_optimizers(self) -> Any:
        o = self.optim
        optimizer = build_optimizer(self.model, o)
        factor = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: learning_rate_factor(step, o, self.max_steps)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": factor, "interval": "step"}}

    def transfer_batch_to_device(self, batch: VQABatch, device: torch.device, _: int) -> VQABatch:
        return batch.to(device)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["clipmapper"] = self.card


def soft_label_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Binary cross-entropy summed over the answers, mean over the batch; both [B, answers]."""
    return F.binary_cross_entropy_with_logits(logits, targets, reduction="sum") / len(logits)


def soft_accuracy(logits: Tensor, targets: Tensor) -> Tensor:
    """The soft score of the answer given, mean over the batch."""
    return targets.gather(1, logits.argmax(1, keepdim=True)).mean()


def learning_rate_factor(step: int, optim: OptimConfig, max_steps: int) -> float:
    """0..1: linear warm-up, constant, then a half cosine from ``decay_start`` to ``max_steps``."""
    warm = min(1.0, (step + 1) / max(1, optim.warmup_steps))
    if step < optim.decay_start:
        return warm
    done = (step - optim.decay_start) / max(1, max_steps - optim.decay_start)
    return warm * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
