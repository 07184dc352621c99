"""A trained VQA model, and the questions and images of one split to run it on."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from clipmapper.choice import load_found
from clipmapper.config.schema import Config
from clipmapper.data.datasets import load_questions_of
from clipmapper.data.images import BadImage, load_rgb
from clipmapper.data.records import ImageSource, Question
from clipmapper.encoder.load import TextBatch
from clipmapper.tasks.vqa.model import CLIPMapperVQA, load_vqa
from clipmapper.text import printable


@dataclass(frozen=True, eq=False)
class QuestionBatch:
    """B questions with the model's inputs, on its device."""

    questions: tuple[Question, ...]
    images: tuple[Image.Image, ...]
    pixels: Tensor  #: preprocessed images, [B, 3, H, W]
    text: TextBatch  #: tokenised questions

    @property
    def ids(self) -> list[int]:
        """The questions' ids, which also seed the random draws of explainers."""
        return [question.question_id for question in self.questions]

    @property
    def picture_ids(self) -> list[int]:
        """Image id of each question."""
        return [question.image_id for question in self.questions]


@dataclass(frozen=True, eq=False)
class TrainedVQA:
    """A frozen VQA model with the questions to run it on."""

    model: CLIPMapperVQA
    questions: Sequence[Question]
    images: Mapping[int, ImageSource]  #: by image id
    checkpoint: Path
    on_bad_image: str  #: fail, or skip questions whose image can't be read

    @property
    def ids(self) -> list[int]:
        """Id of each question."""
        return [question.question_id for question in self.questions]

    @torch.no_grad()
    def answered(self, rows: Sequence[int], batch_size: int) -> Iterator[tuple[int, Question, str]]:
        """Yield the row, question and predicted answer of each row, except where an unreadable image is skipped."""
        row_of = {self.questions[row].question_id: row for row in rows}
        for start in range(0, len(rows), batch_size):
            if (batch := self.batch(rows[start : start + batch_size])) is not None:
                best = self.model(batch.pixels, batch.text).argmax(1).tolist()
                for question, answer in zip(batch.questions, best, strict=True):
                    yield row_of[question.question_id], question, self.model.answers[answer]

    def batch(self, rows: Sequence[int]) -> QuestionBatch | None:
        """Return the questions of these rows as a batch, or None if all of them are skipped.

        With ``on_bad_image="skip"``, questions whose image can't be read are skipped and reported on stderr.

        Raises:
            BadImage: An image can't be read, and ``on_bad_image`` is ``fail``.
        """
        questions, pictures = [], []
        for row in rows:
            try:
                pictures.append(load_rgb(self.images[self.questions[row].image_id]))
                questions.append(self.questions[row])
            except BadImage as error:
                if self.on_bad_image == "fail":
                    raise
                print(f"skipped: {printable(str(error))}", file=sys.stderr)
        return question_batch(self.model, questions, pictures) if questions else None


def question_batch(
    model: CLIPMapperVQA, questions: Sequence[Question], pictures: Sequence[Image.Image]
) -> QuestionBatch:
    """Return questions and their images as a batch on the model's device."""
    weight = next(model.trained.parameters())
    text = model.encoder.tokenize([question.question for question in questions]).to(weight.device)
    pixels = model.encoder.pixels(list(pictures)).to(weight.device, weight.dtype)
    return QuestionBatch(tuple(questions), tuple(pictures), pixels, text)


def load_trained(config: Config, split: str, checkpoint: str | None) -> TrainedVQA:
    """Load a checkpoint, and a split of the config's data.

    Args:
        config: The command's config.
        split: Name of the split.
        checkpoint: The checkpoint; None finds the newest one that fits the config.

    Raises:
        UserError: No checkpoint fits, or the data can't be read.
    """
    model, path = load_model(config, checkpoint)
    data = load_questions_of(config.data, split, Path(config.paths.cache))
    return TrainedVQA(model, data.questions, data.images, path, config.data.on_bad_image)


def load_model(config: Config, checkpoint: str | None) -> tuple[CLIPMapperVQA, Path]:
    """Load only the model, on the device that ``trainer.accelerator`` names; return it with its checkpoint."""
    return load_found(config, checkpoint, load_vqa)
