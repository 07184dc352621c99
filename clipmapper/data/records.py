"""What every reader returns: questions and images, whatever the files behind them look like."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol


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
