"""What every reader returns, whatever the files behind it look like: questions, images, and splits of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from clipmapper.errors import UserError


class ImageSource(Protocol):
    """Where the encoded bytes of one image come from (a file of an image folder, a cell of a Parquet file)."""

    @property
    def name(self) -> str:
        """How the image is called in messages: a path, or ``file.parquet, row 7``."""

    def read(self) -> bytes:
        """The encoded image (JPEG, PNG, …); raises ``UserError`` where it is missing."""


@dataclass(frozen=True, slots=True)
class Question:
    """One VQA question, in the terms of VQAv2's official JSON.

    ``answers`` holds the ten human answers as ``{"answer", "answer_id", ...}``; it is empty where there are no
    annotations (a test split without labels), and then the three fields after it are empty too.
    """

    question_id: int
    image_id: int
    question: str
    answers: tuple[Mapping[str, object], ...] = ()
    multiple_choice_answer: str = ""
    answer_type: str = ""
    question_type: str = ""


@dataclass(frozen=True)
class VQAData:
    """A split: its questions, and the images they are about, by image id (an image serves several questions)."""

    questions: tuple[Question, ...]
    images: Mapping[int, ImageSource]

    @property
    def sources(self) -> Mapping[int, ImageSource]:
        """The images, by image id."""
        return self.images


class _HasImages(Protocol):
    @property
    def sources(self) -> Mapping[int, ImageSource]: ...


Part = TypeVar("Part", bound=_HasImages)


@dataclass(frozen=True)
class Splits(Generic[Part]):
    """``val`` chooses checkpoints; ``test`` chooses nothing, and is None where the data has no labelled test split."""

    train: Part
    val: Part
    test: Part | None

    @property
    def parts(self) -> dict[str, Part]:
        """The parts that there are, by name."""
        named = {"train": self.train, "val": self.val, "test": self.test}
        return {name: part for name, part in named.items() if part is not None}

    @property
    def images(self) -> dict[int, ImageSource]:
        """Every picture of every part, by image id."""
        return {i: image for part in self.parts.values() for i, image in part.sources.items()}

    def part(self, name: str) -> Part:
        """Raises ``UserError`` where the data has no such part."""
        if name not in self.parts:
            raise UserError(f"split={name}: this data has {', '.join(self.parts)}")
        return self.parts[name]


def reserve(data: VQAData, count: int, seed: int) -> tuple[VQAData, VQAData]:
    """Splits ``count`` questions off for validation: ``(rest, reserved)``, both sorted by question id.

    Whole images are taken, in an order that depends on ``seed`` and the image ids alone, until they carry at least
    ``count`` questions; an image in both parts would leak from training into the evaluation. The last image taken
    may carry more questions than are needed: those with its highest ids are in neither part. So ``reserved`` has
    exactly ``count`` questions, and the result does not depend on the order of the input.

    Raises ``UserError`` where ``count`` is negative or more than there are.
    """
    if not 0 <= count <= len(data.questions):
        raise UserError(f"cannot reserve {count} of {len(data.questions)} questions; choose a count between the two")
    by_image: dict[int, list[Question]] = {}
    for question in sorted(data.questions, key=lambda question: question.question_id):
        by_image.setdefault(question.image_id, []).append(question)
    reserved: list[Question] = []
    for image_id in sorted(by_image, key=lambda image_id: _rank(seed, image_id)):
        if len(reserved) >= count:
            break
        reserved += by_image.pop(image_id)
    rest = [question for questions in by_image.values() for question in questions]
    return _part(rest, data.images), _part(reserved[:count], data.images)


def merge(*parts: VQAData) -> VQAData:
    """All questions of all parts, in their order (VQAv2's models are trained on train2014 and val2014 together).

    Raises ``UserError`` where two parts share a question id, or use one image id for different images.
    """
    questions: dict[int, Question] = {}
    images: dict[int, ImageSource] = {}
    for part in parts:
        for question in part.questions:
            if question.question_id in questions:
                raise UserError(f"question_id {question.question_id} is in two splits; give splits without overlap")
            questions[question.question_id] = question
        for image_id, image in part.images.items():
            if (first := images.setdefault(image_id, image)) != image:
                raise UserError(f"image_id {image_id} is both {first.name} and {image.name}; give each its own id")
    return VQAData(tuple(questions.values()), images)


def _rank(seed: int, image_id: int) -> bytes:
    """A hash, not a random generator: new images do not reshuffle the others, nor does another Python."""
    return hashlib.sha256(f"{seed}/{image_id}".encode()).digest()


def _part(questions: Iterable[Question], images: Mapping[int, ImageSource]) -> VQAData:
    ordered = sorted(questions, key=lambda question: question.question_id)
    return VQAData(tuple(ordered), {question.image_id: images[question.image_id] for question in ordered})
