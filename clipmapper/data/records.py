"""The data types that all readers return: questions, image sources, and splits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    """The questions of a split, and their images by image id (several questions can share an image).

    What readers return has the questions as a :class:`~clipmapper.data.question_table.Questions`.
    """

    questions: Sequence[Question]
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
