"""One traced sample: what each kind of model returns, and the method by which models of other packages join in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from PIL import Image

from explain.capture.needs import Needs
from explain.traced import Traced, Word

Box = tuple[float, float, float, float]  #: left, top, right, bottom
Goal = str | int | tuple[str | int, str | int] | None  #: an answer or class, a pair of them, or None for the prediction
WHOLE: Box = (0.0, 0.0, 1.0, 1.0)


@dataclass(frozen=True)
class Answer:
    """An answer of a model."""

    text: str  #: the class, the generated text, or ``similarity`` of a dual encoder
    probability: float | None = None  #: from 0 to 1; of a generated text, the product over its tokens
    similarity: float | None = None  #: cosine of image and text, from a dual encoder

    def __str__(self) -> str:
        return self.text if self.similarity is None else f"{self.text} {self.similarity:.3f}"


@dataclass(frozen=True)
class View:
    """A part of a photo that the model read as one image: the whole of it, or a tile."""

    photo: int  #: number of the photo
    box: Box = WHOLE  #: as fractions of the photo's seen part; a padded tile reaches outside 0..1


@dataclass(frozen=True, eq=False, kw_only=True)
class TracedSample:
    """A trace of one sample, with its photos, its words and the answer."""

    traced: Traced  #: of one item
    photos: Sequence[Image.Image]
    seen: Sequence[Box]  #: the part of each photo that the model saw, in its pixels
    views: Sequence[View]  #: by the number of the image in ``traced.images``
    words: Sequence[Word]  #: the words that are shown as evidence, with the joint positions of their tokens
    question: str
    answer: Answer  #: the model's own answer
    explained: Answer  #: the answer that is explained
    over: Answer | None = None  #: the answer that it is preferred to, in a contrast


@runtime_checkable
class Traceable(Protocol):
    """A model that traces a sample by its own method, and needs no processor."""

    def trace_sample(self, image: Image.Image, text: str, target: Goal, needs: Needs) -> TracedSample:
        """Run the model on an image and a text and return the trace.

        Raises:
            ValueError: The target is no answer of the model, or the input does not fit.
        """


def class_of(labels: Sequence[str], goal: Any) -> int:
    """Return the class that a goal names, by its index or its label.

    Raises:
        ValueError: There is no such class.
    """
    if isinstance(goal, int) and 0 <= goal < len(labels):
        return goal
    if isinstance(goal, str) and goal in labels:
        return list(labels).index(goal)
    known = ", ".join(labels[:5]) + (", …" if len(labels) > 5 else "")
    raise ValueError(f"target={goal!r} is not one of the model's {len(labels)} classes: {known}")
