"""The Lightning module that trains VQA: soft-label classification."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from clipmapper.config.schema import TrainConfig
from clipmapper.mapper.build import START_SAMPLES, initialise
from clipmapper.tasks.vqa.data import TaskData, VQABatch
from clipmapper.tasks.vqa.model import VQAMapper, build_vqa
from clipmapper.training.module import MapperTraining


def new_module(config: TrainConfig, data: TaskData) -> VQATraining:
    """A new model, ready to be trained; its weights are drawn from torch's generator."""
    model = build_vqa(config.mapper, data.encoder, len(data.answers))
    some = data.train[list(range(min(START_SAMPLES, len(data.train))))]
    initialise(model.mapper, config.mapper, data.encoder, (some.image, some.text))
    return VQATraining(model, config.task.optim, config.trainer.max_steps, data.card(config), config.seed)


class VQATraining(MapperTraining[VQAMapper]):
    """Trains a :class:`VQAMapper`."""

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


def soft_label_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Binary cross-entropy summed over the answers, mean over the batch; both [B, answers]."""
    return F.binary_cross_entropy_with_logits(logits, targets, reduction="sum") / len(logits)


def soft_accuracy(logits: Tensor, targets: Tensor) -> Tensor:
    """The soft score of the answer given, mean over the batch."""
    return targets.gather(1, logits.argmax(1, keepdim=True)).mean()
