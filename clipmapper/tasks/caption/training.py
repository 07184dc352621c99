"""Caption training with the next-token cross-entropy loss: :func:`next_token_loss` and its Lightning module.

The CIDEr of greedy captions chooses the best checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from clipmapper.config.schema import TrainConfig
from clipmapper.encoder.load import FrozenClip
from clipmapper.features.trial import random_tokens, spread
from clipmapper.mapper.build import START_SAMPLES, initialise
from clipmapper.metrics.cider import CiderCorpus
from clipmapper.metrics.tokens import plain_tokens
from clipmapper.nn import Tokens
from clipmapper.tasks.base import Needed
from clipmapper.tasks.caption.config import CaptionTaskConfig
from clipmapper.tasks.caption.data import CaptionBatch, CaptionedImages, TaskData
from clipmapper.tasks.caption.decoding import caption_images
from clipmapper.tasks.caption.model import CaptionMapper, CLIPMapperCaption, build_caption
from clipmapper.tasks.caption.vocabulary import IGNORED, CaptionVocabulary
from clipmapper.training.module import MapperTraining


def new_module(config: TrainConfig, data: TaskData) -> CaptionTraining:
    """Build a new model and its Lightning module; the weights are drawn from torch's global generator."""
    assert isinstance(config.task, CaptionTaskConfig)
    encoder, vocabulary = data.prepared.encoder, data.captions.vocabulary
    model = build_caption(config.mapper, encoder, len(vocabulary))
    some = data.train[list(range(min(START_SAMPLES, len(data.train))))]
    initialise(model.mapper, config.mapper, encoder, (some.image, some.text))
    validation = GreedyCider(data.images["val"], encoder, vocabulary, config.task.val_images)
    steps = config.trainer.max_steps
    return CaptionTraining(model, config.task, steps, data.card(config), validation, config.seed)


_VOCABULARY = 20_000  # captions whose tokens are counted


def trial(config: TrainConfig, needs: Needed, encoder: FrozenClip, count: int) -> tuple[CaptionTraining, CaptionBatch]:
    """Return a module with new weights and ``count`` samples of random features, to time a step of so many.

    The vocabulary is that of some of the captions.
    """
    assert isinstance(config.task, CaptionTaskConfig)
    image, text = random_tokens(encoder, config.encoder, needs.texts, count)
    classes = len(encoder.tokenize(spread(needs.texts, _VOCABULARY)).ids.unique())
    before = Tokens(text.features[:, :-1], text.valid[:, 1:], text.index[:, :-1])
    targets = torch.randint(classes, before.valid.shape).masked_fill(~before.valid, IGNORED)
    model = build_caption(config.mapper, encoder, classes)
    module = CaptionTraining(model, config.task, config.trainer.max_steps, {}, lambda _model, _length: 0.0, config.seed)
    return module, CaptionBatch(image, before, targets)


class GreedyCider:
    """CIDEr of greedy captions on the first validation images that have references.

    Captions are tokenised without Java. The document frequencies are those of these images' references.

    Args:
        images: The validation images.
        encoder: The frozen CLIP.
        vocabulary: The tokens that can be generated.
        count: Greatest number of images to caption.
    """

    def __init__(self, images: CaptionedImages, encoder: FrozenClip, vocabulary: CaptionVocabulary, count: int):
        self._images, self._encoder, self._vocabulary = images, encoder, vocabulary
        self._rows = [row for row, image in enumerate(images.images) if image.captions][:count]
        self._references = [plain_tokens(images.images[row].captions) for row in self._rows]
        self._corpus = CiderCorpus(self._references)

    def __call__(self, model: CaptionMapper, max_length: int) -> float:
        """Return the mean CIDEr of the model's captions, of at most ``max_length`` sub-words."""
        whole = CLIPMapperCaption(self._encoder, model, self._vocabulary)
        captions = caption_images(whole, self._images, self._rows, max_length)
        scores = self._corpus.scores(plain_tokens(captions), self._references)
        return sum(scores) / len(scores)


class CaptionTraining(MapperTraining[CaptionMapper]):
    """Lightning module that trains a :class:`CaptionMapper` with :func:`next_token_loss`.

    Args:
        model: The model to train.
        task: The task's config.
        max_steps: Number of training steps.
        card: Description stored in every checkpoint.
        validation: Measure that chooses the best checkpoint.
        seed: Seed of the run.
    """

    def __init__(
        self,
        model: CaptionMapper,
        task: CaptionTaskConfig,
        max_steps: int,
        card: dict[str, Any],
        validation: Callable[[CaptionMapper, int], float],
        seed: int = 0,
    ):
        super().__init__(model, task.optim, max_steps, card, seed)
        self.task = task
        self._validation = validation

    def training_step(self, batch: CaptionBatch, _: int) -> Tensor:
        """Return the next-token cross-entropy loss of a batch; it is logged with the accuracy."""
        logits = self.model(batch.image, batch.text)
        loss = next_token_loss(logits, batch.targets, self.task.label_smoothing)
        self.step_values = {"loss": loss.detach(), "accuracy": next_token_accuracy(logits, batch.targets)}
        return loss

    def validation_step(self, batch: CaptionBatch, _: int) -> None:
        """Log the loss, without label smoothing, and the accuracy of a validation batch."""
        logits = self.model(batch.image, batch.text)
        size = int((batch.targets != IGNORED).sum())  # so that every token has the same weight in the mean over batches
        self.log("val/loss", next_token_loss(logits, batch.targets), batch_size=size, sync_dist=True)
        self.log("val/accuracy", next_token_accuracy(logits, batch.targets), batch_size=size, sync_dist=True)

    def on_validation_epoch_end(self) -> None:
        """Log the CIDEr of greedy captions; the processes share the images out, and all agree on the best step."""
        self.log("val/CIDEr", self._validation(self.model, self.task.max_length), prog_bar=True, sync_dist=True)


def next_token_loss(logits: Tensor, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Return the next-token cross-entropy loss of captions, averaged over all tokens of the batch that have a target.

    Args:
        logits: Logits of the next token at each text position, [B, N, classes].
        targets: Class of the next token, [B, N]; ``IGNORED`` where there is no target.
        label_smoothing: Share of the target probability that is spread evenly over all classes.

    Returns:
        The loss; 0 if no token has a target.
    """
    counted = (targets != IGNORED).sum().clamp(min=1)
    total = F.cross_entropy(
        logits.flatten(0, 1),
        targets.flatten(),
        ignore_index=IGNORED,
        label_smoothing=label_smoothing,
        reduction="sum",
    )
    return total / counted


def next_token_accuracy(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the share of targets that are the most likely token, 0 if there are none; arguments as for the loss."""
    right = (logits.argmax(-1) == targets).sum()
    return right / (targets != IGNORED).sum().clamp(min=1)
