"""The data types that all readers return: questions, image sources, and splits."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from clipmapper.errors import UserError


class ImageSource(Protocol):
    """A source of one encoded image, such as a file of an image folder or a cell of a Parquet file."""

    @property
    def name(self) -> str:
        """Name of the image in messages: a path, or ``file.parquet, row 7``."""

    def read(self) -> bytes:
        """Return the encoded image (JPEG, PNG, …).

        Raises:
            UserError: The image is missing.
        """


@dataclass(frozen=True, slots=True)
class Question:
    """A VQA question with the fields of VQAv2's official JSON.

    ``answers`` contains the ten human answers as ``{"answer", "answer_id", ...}``. In a split without annotations,
    ``answers`` and the three fields after it are empty.
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
    """The questions of a split, and their images by image id (several questions can share an image)."""

    questions: tuple[Question, ...]
    images: Mapping[int, ImageSource]

    @property
    def sources(self) -> Mapping[int, ImageSource]:
        """The images by image id."""
        return self.images


class _HasImages(Protocol):
    @property
    def sources(self) -> Mapping[int, ImageSource]: ...


Part = TypeVar("Part", bound=_HasImages)


@dataclass(frozen=True)
class Splits(Generic[Part]):
    """The splits of a dataset.

    ``val`` is used to select checkpoints; ``test`` is used for evaluation only. ``test`` is None for data without a
    test split.
    """

    train: Part
    val: Part
    test: Part | None

    @property
    def parts(self) -> dict[str, Part]:
        """The existing parts by name: train, val and, if there is one, test."""
        named = {"train": self.train, "val": self.val, "test": self.test}
        return {name: part for name, part in named.items() if part is not None}

    @property
    def images(self) -> dict[int, ImageSource]:
        """All images of all parts by image id."""
        return {i: image for part in self.parts.values() for i, image in part.sources.items()}

    def part(self, name: str) -> Part:
        """Return the part with this name.

        Raises:
            UserError: The data has no such part.
        """
        if name not in self.parts:
            raise UserError(f"split={name}: this data has {', '.join(self.parts)}")
        return self.parts[name]


def reserve(data: VQAData, count: int, seed: int) -> tuple[VQAData, VQAData]:
    """Split the data into a rest for training and ``count`` reserved questions for validation.

    All questions of an image are taken together, since an image in both parts would leak from training into the
    evaluation. The images are taken in an order that depends only on ``seed`` and the image ids, until they have at
    least ``count`` questions. If the last image has more questions than needed, its questions with the highest ids are
    in neither part. So the reserved part has exactly ``count`` questions, and the result does not depend on the order
    of the input.

    Returns:
        ``(rest, reserved)``, both sorted by question id.

    Raises:
        UserError: ``count`` is negative or greater than the number of questions.
    """
    if not 0 <= count <= len(data.questions):
        total = len(data.questions)
        raise UserError(f"cannot reserve {count} of {total} questions; choose a count from 0 to {total}")
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
    """Merge parts into one, with their questions in order (VQAv2 models are trained on train2014 and val2014 together).

    Raises:
        UserError: Two parts share a question id, or use one image id for different images.
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
    """Return a hash to sort images by; new images or another Python version do not change the order of the others."""
    return hashlib.sha256(f"{seed}/{image_id}".encode()).digest()


def _part(questions: Iterable[Question], images: Mapping[int, ImageSource]) -> VQAData:
    ordered = sorted(questions, key=lambda question: question.question_id)
    return VQAData(tuple(ordered), {question.image_id: images[question.image_id] for question in ordered})
