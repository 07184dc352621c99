"""VQA training with the soft-label binary cross-entropy loss: :func:`soft_label_loss` and its Lightning module."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from clipmapper.config.schema import TrainConfig
from clipmapper.encoder.load import FrozenClip
from clipmapper.features.trial import random_tokens
from clipmapper.mapper.build import START_SAMPLES, initialise
from clipmapper.tasks.base import Needed
from clipmapper.tasks.vqa.data import TaskData, VQABatch
from clipmapper.tasks.vqa.model import VQAMapper, build_vqa
from clipmapper.training.module import MapperTraining


def new_module(config: TrainConfig, data: TaskData) -> VQATraining:
    """Build a new model and its Lightning module; the weights are drawn from torch's global generator."""
    model = build_vqa(config.mapper, data.encoder, len(data.answers))
    some = data.train[list(range(min(START_SAMPLES, len(data.train))))]
    initialise(model.mapper, config.mapper, data.encoder, (some.image, some.text))
    return VQATraining(model, config.task.optim, config.trainer.max_steps, data.card(config), config.seed)


def trial(config: TrainConfig, needs: Needed, encoder: FrozenClip, count: int) -> tuple[VQATraining, VQABatch]:
    """Return a module with new weights and ``count`` samples of random features, to time a step of so many."""
    image, text = random_tokens(encoder, config.encoder, needs.texts, count)
    module = VQATraining(
        build_vqa(config.mapper, encoder, needs.answers), config.task.optim, config.trainer.max_steps, {}, config.seed
    )
    return module, VQABatch(image, text, torch.rand(count, needs.answers), torch.arange(count))


class VQATraining(MapperTraining[VQAMapper]):
    """Lightning module that trains a :class:`VQAMapper` with :func:`soft_label_loss`."""

    def training_step(self, batch: VQABatch, _: int) -> Tensor:
        """Return the soft-label binary cross-entropy loss of a batch; it is logged with the accuracy."""
        logits = self.model(batch.image, batch.text)
        loss = soft_label_loss(logits, batch.targets)
        self.step_values = {"loss": loss.detach(), "accuracy": soft_accuracy(logits, batch.targets)}
        return loss

    def validation_step(self, batch: VQABatch, _: int) -> None:
        """Log the loss and the accuracy of a validation batch; ``val/accuracy`` chooses the best checkpoint."""
        logits = self.model(batch.image, batch.text)
        size = len(batch.rows)
        self.log("val/loss", soft_label_loss(logits, batch.targets), batch_size=size, sync_dist=True)
        accuracy = soft_accuracy(logits, batch.targets)
        self.log("val/accuracy", accuracy, prog_bar=True, batch_size=size, sync_dist=True)


def soft_label_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the soft-label binary cross-entropy loss of VQA: summed over the answers, averaged over the batch.

    Each answer is a separate binary classification with a soft target (docs/method.md, CLIPmapper).

    Args:
        logits: Logit of each answer, [B, answers].
        targets: Soft score of each answer, 0..1, [B, answers].
    """
    return F.binary_cross_entropy_with_logits(logits, targets, reduction="sum") / len(logits)


def soft_accuracy(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the mean soft score of the predicted answers; the arguments are those of :func:`soft_label_loss`."""
    return targets.gather(1, logits.argmax(1, keepdim=True)).mean()
