"""What is removed from a pair: cells of a grid on the image, and words of the text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from explain.sample.words import WORD
from perturbation.arrays import Mask


@dataclass(frozen=True, eq=False)
class Units:
    """The removable parts of one pair."""

    grid: tuple[int, int]  #: rows and columns of the cells; (0, 0) without an image
    boxes: NDArray[np.intp]  #: left, top, right and bottom of each cell in the image's pixels, [P, 4]
    words: Sequence[tuple[int, int]]  #: the characters of each word in the text
    text: str | None  #: the text, as the tokenizer reads it; None without


def cells(grid: tuple[int, int], seen: tuple[float, float, float, float]) -> NDArray[np.intp]:
    """Return the boxes of equal cells, row by row, [P, 4].

    Args:
        grid: Rows and columns.
        seen: Left, top, right and bottom of the part of the image that they cover, in its pixels.
    """
    rows, cols = grid
    down = np.rint(np.linspace(seen[1], seen[3], rows + 1)).astype(np.intp)
    across = np.rint(np.linspace(seen[0], seen[2], cols + 1)).astype(np.intp)
    boxes = [(left, top, right, bottom) for top, bottom in pairwise(down) for left, right in pairwise(across)]
    return np.array(boxes, dtype=np.intp).reshape(-1, 4)


def words_of(text: str) -> list[tuple[int, int]]:
    """Return the characters of the words and of the punctuation marks of a text."""
    return [found.span() for found in WORD.finditer(text)]


def without_words(text: str, words: Sequence[tuple[int, int]], kept: Mask, replacement: str | None) -> str:
    """Return a text without some of its words.

    Args:
        text: The text.
        words: The characters of each word.
        kept: Which words are kept, bool [W].
        replacement: What stands in the place of a removed word; None leaves the word and the space before it out.
    """
    parts, end = [], 0
    for (start, stop), keep in zip(words, kept, strict=True):
        before = text[end:start]
        if keep:
            parts += [before, text[start:stop]]
        elif replacement is not None:
            parts += [before, replacement]
        else:
            parts.append(before.rstrip())
        end = stop
    return "".join([*parts, text[end:]]).strip()
