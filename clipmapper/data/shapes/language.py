"""The language of the ``shapes`` dataset: descriptions of objects, relations between them, and their wording.

In every wording, the words that the answer depends on are in [brackets]; :func:`parse` removes the brackets and returns
the positions of those words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from clipmapper.data.shapes.scene import Seen

NOUNS = ("object", "shape", "thing")
NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight")
RELATIONS = ("left of", "right of", "above", "below")
WORDINGS = {
    "left of": ("left of", "to the left of"),
    "right of": ("right of", "to the right of"),
    "above": ("above", "over", "higher than"),
    "below": ("below", "under", "lower than"),
}


@dataclass(frozen=True, slots=True)
class Description:
    """Attributes that an object must have; an empty field fits every object."""

    size: str = ""
    color: str = ""
    shape: str = ""

    def fits(self, seen: Seen) -> bool:
        """Return whether an object has all the described attributes."""
        return (
            (not self.size or seen.size == self.size)
            and (not self.color or seen.color == self.color)
            and (not self.shape or seen.shape == self.shape)
        )

    def among(self, scene: Sequence[Seen]) -> tuple[Seen, ...]:
        """Return the objects of a scene that fit."""
        return tuple(seen for seen in scene if self.fits(seen))

    def words(self, noun: str) -> str:
        """Return the description in words: ``small red circle``, or ``red object`` without a shape."""
        return " ".join(word for word in (self.size, self.color, self.shape or noun) if word)


def describe(seen: Seen, rng: Random, without: str = "") -> Description:
    """Draw a description of one to three words that fits the object, without the attribute ``without`` if given."""
    size, color, shape = rng.choice(
        ((0, 1, 1), (0, 1, 1), (0, 1, 1), (1, 0, 1), (1, 1, 0), (1, 1, 1), (0, 0, 1), (0, 1, 0))
    )
    description = Description(
        seen.size if size and without != "size" else "",
        seen.color if color and without != "color" else "",
        seen.shape if shape and without != "shape" else "",
    )
    return description if description != Description() else describe(seen, rng, without)


def holds(relation: str, a: Seen, b: Seen, margin: float = 0.0) -> bool:
    """Return whether ``a`` is ``relation`` ``b`` by more than ``margin``, a share of the image's width."""
    if relation == "left of":
        return b.x - a.x > margin
    if relation == "right of":
        return a.x - b.x > margin
    if relation == "above":
        return b.y - a.y > margin
    if relation == "below":
        return a.y - b.y > margin
    raise ValueError(f"no such relation: {relation}")


def place(seen: Seen) -> str:
    """Return the quarter of the image in which the object is, such as ``top left``."""
    return f"{'top' if seen.y < 0.5 else 'bottom'} {'left' if seen.x < 0.5 else 'right'}"


def plural(word: str) -> str:
    """Return the plural of a noun of this language."""
    return f"{word}es" if word.endswith(("s", "ss")) else f"{word}s"


def article(words: str) -> str:
    """Return the words with the article ``a`` or ``an`` in front."""
    return f"an {words}" if words[0] in "aeiou" else f"a {words}"


def parse(wording: str) -> tuple[str, tuple[tuple[int, int], ...]]:
    """Return a wording without its brackets, and the [start, end) characters of each bracketed part."""
    text, spans = "", []
    for k, part in enumerate(wording.replace("]", "[").split("[")):
        if k % 2:
            spans.append((len(text), len(text) + len(part)))
        text += part
    return text, tuple(spans)
