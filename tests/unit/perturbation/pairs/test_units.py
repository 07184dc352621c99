"""Cells tile what the model sees, and words are removed from the text as a reader would strike them out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perturbation.pairs.units import cells, without_words, words_of

TEXT = "Is the dog's ball  left of the cat?"


@given(st.integers(1, 9), st.integers(1, 9), st.integers(9, 50), st.integers(9, 50), st.integers(0, 5))
def test_cells_tile_the_seen_part(rows: int, cols: int, width: int, height: int, shift: int) -> None:
    boxes = cells((rows, cols), (shift, 2 * shift, shift + width, 2 * shift + height))
    count = np.zeros((2 * shift + height + 3, shift + width + 3), int)
    for left, top, right, bottom in boxes:
        count[top:bottom, left:right] += 1
    expected = np.zeros_like(count)
    expected[2 * shift : 2 * shift + height, shift : shift + width] = 1
    np.testing.assert_array_equal(count, expected)
    assert len(boxes) == rows * cols
    assert (boxes[1:, 1] >= boxes[:-1, 1]).all()


def test_words_and_their_characters() -> None:
    words = [TEXT[start:stop] for start, stop in words_of(TEXT)]
    assert words == ["Is", "the", "dog's", "ball", "left", "of", "the", "cat", "?"]


@pytest.mark.parametrize(
    ("removed", "replacement", "expected"),
    [
        ((), None, TEXT),
        ((0,), None, "the dog's ball  left of the cat?"),
        ((2, 3), None, "Is the  left of the cat?"),
        ((7,), None, "Is the dog's ball  left of the?"),
        ((7, 8), None, "Is the dog's ball  left of the"),
        ((1, 7), "[MASK]", "Is [MASK] dog's ball  left of the [MASK]?"),
        (tuple(range(9)), None, ""),
    ],
)
def test_removed_words(removed: tuple[int, ...], replacement: str | None, expected: str) -> None:
    kept = ~np.isin(np.arange(9), removed)
    assert without_words(TEXT, words_of(TEXT), kept, replacement) == expected
