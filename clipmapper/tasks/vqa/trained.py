"""What is explained: a trained model, and the questions and pictures of one split of the data."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from clipmapper.checkpoint import load_found
from clipmapper.config.schema import Config
from clipmapper.data.datasets import load_data
from clipmapper.data.images import BadImage, load_rgb
from clipmapper.data.records import ImageSource, Question
from clipmapper.encoder.load import TextBatch
from clipmapper.tasks.vqa.model import CLIPMapperVQA, load_vqa


@dataclass(frozen=True, eq=False)
class QuestionBatch:
    """B questions as the model takes them: ``pixels`` [B, 3, H, W] and ``text`` on its device."""

    questions: tuple[Question, ...]
    images: tuple[Image.Image, ...]
    pixels: Tensor
    text: TextBatch

    @property
    def ids(self) -> list[int]:
        """The questions' ids, by which explainers that draw at random know them."""
        return [question.question_id for question in self.questions]

    @property
    def picture_ids(self) -> list[int]:
        """The ids of the pictures that the questions are about."""
        return [question.image_id for question in self.questions]


@dataclass(frozen=True, eq=False)
class Subject:
    """A frozen model with the data it is asked about."""

    model: CLIPMapperVQA
    questions: tuple[Question, ...]
    images: Mapping[int, ImageSource]
    checkpoint: Path
    on_bad_image: str

    @property
    def ids(self) -> list[int]:
        """The questions' ids."""
        return [question.question_id for question in self.questions]

    @torch.no_grad()
    def answered(self, rows: Sequence[int], batch_size: int) -> Iterator[tuple[int, Question, str]]:
        """Row, question and the model's answer, in the order of the rows; without those whose picture is left out."""
        row_of = {self.questions[row].question_id: row for row in rows}
        for start in range(0, len(rows), batch_size):
            if (batch := self.batch(rows[start : start + batch_size])) is not None:
                best = self.model(batch.pixels, batch.text).argmax(1).tolist()
                for question, answer in zip(batch.questions, best, strict=True):
                    yield row_of[question.question_id], question, self.model.answers[answer]

    def batch(self, rows: Sequence[int]) -> QuestionBatch | None:
        """The questions of these rows.

        Raises ``BadImage`` at a picture that can't be read; with ``on_bad_image="skip"`` it is named on stderr and its
        questions are left out: None where nothing is left.
        """
        questions, pictures = [], []
        for row in rows:
            try:
                pictures.append(load_rgb(self.images[self.questions[row].image_id]))
                questions.append(self.questions[row])
            except BadImage as error:
                if self.on_bad_image == "fail":
                    raise
                print(f"skipped: {error}", file=sys.stderr)
        return question_batch(self.model, questions, pictures) if questions else None


def question_batch(
    model: CLIPMapperVQA, questions: Sequence[Question], pictures: Sequence[Image.Image]
) -> QuestionBatch:
    """Any pictures and questions, as the model takes them."""
    weight = next(model.vqa.parameters())
    text = model.encoder.tokenize([question.question for question in questions])
    moved = TextBatch(text.ids.to(weight.device), text.valid.to(weight.device), text.truncated)
    pixels = model.encoder.pixels(list(pictures)).to(weight.device, weight.dtype)
    return QuestionBatch(tuple(questions), tuple(pictures), pixels, moved)


def load_subject(config: Config, split: str, checkpoint: str | None) -> Subject:
    """The newest checkpoint that fits the config, or the one given, and a split of the config's data.

    Raises ``UserError`` as the readers and :func:`clipmapper.checkpoint.find_checkpoint` do.
    """
    model, path = load_model(config, checkpoint)
    data = load_data(config.data).part(split)
    return Subject(model, data.questions, data.images, path, config.data.on_bad_image)


def load_model(config: Config, checkpoint: str | None) -> tuple[CLIPMapperVQA, Path]:
    """The model alone, on the trainer's kind of device, and its checkpoint."""
    return load_found(config, checkpoint, load_vqa)
