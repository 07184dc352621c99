"""One sample: what is asked of a model, and what each kind of model returns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image
from torch import Tensor

from explain.adapters.watching import Layers
from explain.capture.needs import EVERYTHING, Needs
from explain.traced import Traced, Word

Box = tuple[float, float, float, float]  #: left, top, right, bottom
Goal = str | int | tuple[str | int, str | int] | None  #: an answer or class, a pair of them, or None for the prediction
WHOLE: Box = (0.0, 0.0, 1.0, 1.0)
MOST_TOKENS = 40  #: of a generated answer by default; the captions of the small LLaVA are shorter


@dataclass(frozen=True, eq=False, kw_only=True)
class Asked:
    """What is asked of a model: the arguments of ``explain.explain`` after the model and its processor."""

    photos: Sequence[Image.Image] = ()
    text: str | None = None
    target: Goal = None
    needs: Needs = EVERYTHING
    context: bool = False  #: whether the earlier words of a generated text are shown as evidence as well
    word: str | int | None = None  #: the only word of a generated text that is explained, by its text or place
    layers: Layers = None
    max_new_tokens: int = MOST_TOKENS  #: most tokens of a generated answer

    def photo(self, model: Any) -> Image.Image:
        """Return the only photo.

        Raises:
            ValueError: There is none, or there are several.
        """
        count = len(self.photos)
        if count != 1:
            raise ValueError(f"{count or 'no'} image{'s' * (count > 1)}: {type(model).__name__} needs one")
        return self.photos[0]

    def question(self, model: Any) -> str:
        """Return the text.

        Raises:
            ValueError: There is none.
        """
        if not isinstance(self.text, str) or not self.text.strip():
            raise ValueError(f"no text: {type(model).__name__} needs a question or another text")
        return self.text

    def check_no_context(self, model: Any) -> None:
        """Raise ValueError if a word of a text is asked for, or its earlier words, that the model does not generate."""
        if self.word is not None:
            raise ValueError(
                f"word={self.word!r}: {type(model).__name__} generates no text whose word could be explained"
            )
        if self.context:
            raise ValueError(f"context: {type(model).__name__} generates no text, whose earlier words could be shown")

    def check_no_layers(self, model: Any) -> None:
        """Raise ValueError if layers are chosen of a model that always records all."""
        if self.layers is not None:
            raise ValueError(f"layers: {type(model).__name__} always records all of its layers; leave layers out")


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

    traced: Traced  #: of one item, or of several whose scores are averaged, such as the sub-words of a word
    photos: Sequence[Image.Image]
    seen: Sequence[Box]  #: the part of each photo that the model saw, in its pixels
    views: Sequence[View]  #: by the number of the image in ``traced.images``
    words: Sequence[Word]  #: the words that are shown as evidence, with the joint positions of their tokens
    question: str  #: the text that the user gave; empty if there is none
    answer: Answer  #: the model's own answer
    explained: Answer  #: the answer that is explained
    over: Answer | None = None  #: the answer that it is preferred to, in a contrast
    #: The second most probable answer; of a generated answer, its second most probable first token. None if the model
    #: has no second one.
    runner_up: Answer | None = None
    read: str | None = None  #: the text as the tokenizer reads it, if that changes more than capitals


def second_class(labels: Sequence[str], shares: Tensor) -> Answer | None:
    """Return the second most probable class; None if there is only one.

    Args:
        labels: Names of the C classes.
        shares: Their probabilities, [C].
    """
    if len(labels) < 2:
        return None
    second = int(shares.argsort(descending=True, stable=True)[1])
    return Answer(labels[second], float(shares[second]))


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
