"""What a model was trained on, and warnings about questions and images that are far from it.

The card of a checkpoint describes the training data in its entry ``familiarity`` (:func:`describe`): the words of the
questions, and the mean and covariance of the images' mean patch features. A question is compared word by word, an image
by its Mahalanobis distance. A known word for an object that is not in the image is not noticed.
"""

from __future__ import annotations

import math
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from clipmapper.encoder.load import FrozenClip
from clipmapper.explaining.image_statistics import ImageStatistics
from clipmapper.features.store import FrozenFeatures
from clipmapper.nn import Tokens
from clipmapper.text import printable

FAMILIARITY = "familiarity"  #: the entry of the card
MOST_IMAGES = 8000  # training images whose features are read
MOST_WORDS = 20  # unknown words that one line names
UNASKED = "occur in no training question"
_AT_ONCE = 256  # images read together
_TEXTS = 4096  # texts read together


def words_of(text: str) -> list[str]:
    """Return the distinct words of a text in lower case, in order; no word spans a line break."""
    return list(dict.fromkeys(re.findall(r"\w+(?:'\w+)*", text.lower().replace("’", "'"))))


def describe(
    questions: Iterable[str] | None, features: FrozenFeatures, image_ids: Iterable[int], first: int = 1
) -> dict[str, list[str] | dict[str, str] | None]:
    """Return the entry ``familiarity`` of a card.

    All words of the questions are kept: the about 20,000 words of VQAv2 take 0.2 MB. The statistics are those of at
    most ``MOST_IMAGES`` images, evenly spaced in the order of their ids.

    Args:
        questions: The training questions; None for a task without questions.
        features: Frozen features of the images.
        image_ids: Ids of the training images that could be read.
        first: Number of image tokens before the patches.

    Returns:
        ``words``, sorted, and ``images``, as :meth:`ImageStatistics.entry` gives them; None for what is not known.
    """
    ids = sorted(set(image_ids))
    chosen = np.array([features.place[each] for each in ids[:: math.ceil(len(ids) / MOST_IMAGES)]], np.int64)
    parts = np.split(chosen, range(_AT_ONCE, len(chosen), _AT_ONCE))
    images = ImageStatistics.fit(np.concatenate([_mean_patch(features.store.gather(part), first) for part in parts]))
    words = None if questions is None else sorted(_all_words(list(questions)))
    return {"words": words, "images": None if images is None else images.entry()}


def _all_words(texts: Sequence[str]) -> set[str]:
    """Return the words of all texts; those of many texts are found together, which is several times as fast."""
    parts = (texts[start : start + _TEXTS] for start in range(0, len(texts), _TEXTS))
    return {word for part in parts for word in words_of("\n".join(part))}


def _mean_patch(tokens: Tokens, first: int) -> np.ndarray:
    """Return the mean over the patches of image tokens, [B, D]; the ``first`` tokens are no patches."""
    mean: np.ndarray = tokens.features[:, first:].float().mean(1).cpu().numpy()
    return mean


@dataclass(frozen=True, eq=False)
class Familiarity:
    """What a checkpoint knows about its training data."""

    words: frozenset[str] | None = None  #: the words of the training questions; None if they are not known
    images: ImageStatistics | None = None  #: None if they are not known

    @classmethod
    def of_card(cls, card: Mapping[str, Any]) -> Familiarity:
        """Return what a card holds; nothing is known from cards that were written before it had the entry."""
        entry = card.get(FAMILIARITY, {})
        words, images = entry.get("words"), entry.get("images")
        return cls(
            None if words is None else frozenset(words), None if images is None else ImageStatistics.read(images)
        )


@dataclass(frozen=True)
class Finding:
    """How far one question and its image are from the training data."""

    unknown_words: list[str] | None  #: words of the question that no training question has; None if not known
    image_distance: float | None  #: 1 is the distance that 99 % of the training images do not exceed; None if not known

    @property
    def warnings(self) -> list[str]:
        """One line for each reason to doubt the answer."""
        lines = []
        if self.unknown_words:
            lines.append(f"no training question contains: {', '.join(self.unknown_words)}")
        if self.image_distance is not None and self.image_distance > 1:
            far = f"{self.image_distance:.2f} times the distance that 99 % of them do not exceed"
            lines.append(f"the image is far from the training images, at {far}")
        return lines


@dataclass(frozen=True)
class WordCount:
    """How many of the words of some questions no training question has, so that the model has not learnt them."""

    words: int  #: number of distinct words
    questions: int  #: number of questions
    affected: int  #: number of questions with an unknown word
    unknown: dict[str, int]  #: the unknown words with their numbers of questions, the most frequent first
    why: str = field(default=UNASKED, repr=False, compare=False)  #: what the unknown words are, as text for the user

    @classmethod
    def of(cls, familiarity: Familiarity, questions: Sequence[str]) -> WordCount | None:
        """Count the words of questions; None if the words of the training questions are not known."""
        if familiarity.words is None:
            return None
        return cls.count(questions, familiarity.words.__contains__)

    @classmethod
    def count(cls, questions: Sequence[str], known: Callable[[str], bool], why: str = UNASKED) -> WordCount:
        """Count the words of questions, of which ``known`` tells whether the model can know them."""
        asked = [words_of(question) for question in questions]
        every = Counter(word for words in asked for word in words)
        unknown = {word: count for word, count in every.items() if not known(word)}
        affected = sum(not unknown.keys().isdisjoint(words) for words in asked)
        ordered = dict(sorted(unknown.items(), key=lambda item: (-item[1], item[0])))
        return cls(len(every), len(questions), affected, ordered, why)

    def entry(self) -> dict[str, Any]:
        """Return the entry ``question_words`` of a file of results."""
        return {"words": self.words, "questions": self.questions, "affected": self.affected, "unknown": self.unknown}

    def __str__(self) -> str:
        """Return one line with the counts and the unknown words, at most ``MOST_WORDS`` of them."""
        if not self.unknown:
            known = "occur in training questions" if self.why == UNASKED else "are known to the model"
            return f"words: all {self.words} of the questions {known}"
        named = [f"{printable(word)} ({count})" for word, count in self.unknown.items()]
        shown = ", ".join(named[:MOST_WORDS]) + (", …" if len(named) > MOST_WORDS else "")
        what = f"{len(named)} of the {self.words} words of the questions {self.why}"
        return f"words: {what}; they are in {self.affected} of {self.questions} questions: {shown}"


class DoubtfulInput(UserWarning):
    """A warning that a model's answer is doubtful, because its input is unlike that of the training, or was cut off."""


class Examined(Protocol):
    """A model whose inputs can be examined."""

    encoder: FrozenClip
    familiarity: Familiarity


@torch.no_grad()
def examine(model: Examined, pixels: Tensor, questions: Sequence[str] | None = None) -> list[Finding]:
    """Compare images, and the questions about them, with what the model was trained on.

    Args:
        model: A ``CLIPMapperVQA`` or a ``CLIPMapperCaption``.
        pixels: Preprocessed images on the model's device, [B, 3, H, W].
        questions: B questions; None if there are none.

    Returns:
        B findings. Their ``warnings`` are empty for ordinary inputs, and for all inputs if the checkpoint does not
        describe its training data.
    """
    known, images = model.familiarity.words, model.familiarity.images
    distances: list[Any] = [None] * len(pixels)
    if images is not None:
        distances = images.distance(_mean_patch(model.encoder.vision(pixels), model.encoder.vision.first)).tolist()
    if questions is None or known is None:
        return [Finding(None, distance) for distance in distances]
    return [
        Finding([word for word in words_of(question) if word not in known], distance)
        for question, distance in zip(questions, distances, strict=True)
    ]


def unknown_parts(familiarity: Familiarity, asked: bool) -> str:
    """Return which warnings are not possible, since no warning would otherwise look like no reason for one.

    Args:
        familiarity: What is known about the training data.
        asked: Whether the model is asked questions.

    Returns:
        A sentence without a full stop; empty if all warnings are possible.
    """
    parts = {"questions": familiarity.words is None and asked, "images": familiarity.images is None}
    missing = " and ".join(name for name, absent in parts.items() if absent)
    what = f"the checkpoint does not describe its training {missing}"
    return f"{what}, so there are no warnings about unfamiliar {missing}" if missing else ""


def note_unknown(familiarity: Familiarity, asked: bool) -> None:
    """Report on stderr which warnings are not possible (:func:`unknown_parts`)."""
    if line := unknown_parts(familiarity, asked):
        print(f"warning: {line}", file=sys.stderr)
