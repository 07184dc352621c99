"""Captions as training sees them: data, Lightning module, what a resumed run must share, and the evaluation."""

from __future__ import annotations

import hashlib
import sys
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from clipmapper.checkpoint import card
from clipmapper.config.schema import TrainConfig
from clipmapper.data.shapes.caption_words import caption_judge
from clipmapper.files import write_json
from clipmapper.tasks.caption.config import CaptionTaskConfig
from clipmapper.tasks.caption.data import CaptionDataset, prepare_captions, prepare_images
from clipmapper.tasks.caption.decoding import check_length
from clipmapper.tasks.caption.evaluation import evaluate_captions, table
from clipmapper.tasks.caption.model import CLIPMapperCaption, build_caption
from clipmapper.tasks.caption.training import CaptionTraining, GreedyCider


class CaptionTask:
    """Reads the data and computes its features.

    Raises ``UserError`` as :func:`clipmapper.tasks.caption.data.prepare_images` does, and for a length that the
    encoder's context can't hold.
    """

    monitor: ClassVar[str] = "val/CIDEr"  # the greatest chooses the best checkpoint

    def __init__(self, config: TrainConfig):
        assert isinstance(config.task, CaptionTaskConfig)
        self._config, self._task = config, config.task
        self._prepared = prepare_images(config)
        check_length(self._prepared.encoder, self._task.max_length)
        self._images = {part: self._prepared.images(part) for part in self._prepared.splits.parts}
        self._captions = prepare_captions(config, self._prepared, self._task.vocabulary)
        self._prepared.encoder.cpu()
        self.train: CaptionDataset = self._captions.dataset(self._images["train"], "train")
        self.val: CaptionDataset = self._captions.dataset(self._images["val"], "val")
        self._describe()

    def write_split(self, path: Path) -> None:
        """Notes the image ids of each part."""
        parts = self._prepared.splits.parts.items()
        write_json(path, {name: [image.image_id for image in part.images] for name, part in parts})

    @cached_property
    def about(self) -> dict[str, Any]:
        """What a checkpoint says of itself: the model, and what the order of the batches and their loss follow from."""
        digest = hashlib.blake2b(digest_size=16)
        rows = self._images["train"].images
        for row, caption in zip(self.train.image_rows.tolist(), self.train.captions, strict=True):
            digest.update(f"{rows[row].image_id} {caption}".encode("utf-8", "surrogatepass") + b"\0")
        order = {
            "seed": self._config.seed,
            "optim": asdict(self._task.optim),
            "label_smoothing": self._task.label_smoothing,
            "training captions": digest.hexdigest(),
        }
        return card(self._config, self._prepared.encoder, self._captions.vocabulary) | order

    @cached_property
    def module(self) -> CaptionTraining:
        """A new model, ready to be trained; the first look at it draws its weights from torch's generator."""
        encoder, vocabulary = self._prepared.encoder, self._captions.vocabulary
        model = build_caption(self._config.mapper, encoder, len(vocabulary))
        validation = GreedyCider(self._images["val"], encoder, vocabulary, self._task.val_images)
        steps = self._config.trainer.max_steps
        return CaptionTraining(model, self._task, steps, self.about, validation, self._config.seed)

    def evaluate(self, run: Path) -> dict[str, Any]:
        """Captions validation and test, writes the captions, prints and returns their scores."""
        model = CLIPMapperCaption(self._prepared.encoder, self.module.model, self._captions.vocabulary)
        metrics: dict[str, Any] = {}
        for part in ("val", "test"):
            if part not in self._images:
                continue
            common, judge = self._prepared.splits.train.images, caption_judge(self._config.data, part)
            if scores := evaluate_captions(model, self._images[part], common, self._task.max_length, run, part, judge):
                metrics[part] = scores
                print(table(f"{self._config.data.name} {part}", scores), flush=True)
        return metrics

    def _describe(self) -> None:
        context = self._prepared.encoder.text.context_length
        cut = f", {self._captions.truncated} of them cut off at the encoder's {context} tokens"
        sizes = f"{len(self.train)} train, {len(self.val)} val{cut if self._captions.truncated else ''}"
        print(f"captions: {sizes}; tokens to choose from: {len(self._captions.vocabulary)}", flush=True)
        for part in (self._prepared.splits.train, self._prepared.splits.val):
            if part.left_out:
                print(part.left_out, file=sys.stderr)
