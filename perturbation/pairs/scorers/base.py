"""The interface of a model that reads whole pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from PIL import Image

from perturbation.arrays import Array, Mask
from perturbation.pairs.samples import Pair


@dataclass(frozen=True, eq=False)
class PartOfImage:
    """An image of which the model reads only some patches; the tokens of the others do not enter it."""

    image: Image.Image
    kept: Mask  #: the patches that it reads, row by row, bool [P]


Images = Sequence[Image.Image | PartOfImage | None]
Texts = Sequence[str | None]


@dataclass(frozen=True, eq=False)
class Scored:
    """The answers and values of a model for n pairs."""

    said: Sequence[str]  #: its answers, [n]; empty if it gives none
    value: Array  #: the value that is asked for, [n], such as the probability of an answer


class Scorer(Protocol):
    """A model that reads pairs of an image and a text."""

    @property
    def value(self) -> str:
        """Name of its value: ``probability``, ``similarity`` or ``score``."""

    @property
    def answers(self) -> bool:
        """Whether its answers can be compared with those of people."""

    @property
    def drops(self) -> bool:
        """Whether it can read a :class:`PartOfImage`."""

    @property
    def tokens(self) -> Mapping[str, str]:
        """Texts that stand for a removed word, by name: ``mask`` and ``pad``."""

    def ask(self, pairs: Sequence[Pair]) -> list[Any]:
        """Return what is asked about each complete pair, such as the answer whose probability is read."""

    def text(self, asked: Any) -> str:
        """Return the answer that is asked about (one of :meth:`ask`); empty if the model gives none."""

    def keep(self, pairs: Sequence[Pair]) -> None:
        """Prepare for reading parts of these complete pairs; what was kept for earlier ones is forgotten."""

    def score(self, images: Images, texts: Texts, asked: Sequence[Any], say: bool) -> Scored:
        """Read n pairs.

        Args:
            images: The images, or None without.
            texts: The texts, or None without.
            asked: For each pair, what :meth:`ask` returned for the complete one.
            say: Whether the model's answers are needed, too.
        """


def tokens_of(tokenizer: Any) -> dict[str, str]:
    """Return the texts that stand for a removed word in a tokenizer of ``transformers``."""
    found = {name: getattr(tokenizer, f"{name}_token", None) for name in ("mask", "pad")}
    return {name: token for name, token in found.items() if isinstance(token, str)}
