"""Merging of tokenizer pieces into words, which must lose no letter and no score."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from explain.figures import merge_pieces

FLOATS = st.floats(-1e3, 1e3)


@given(st.lists(st.tuples(st.text(max_size=4), st.booleans(), FLOATS)))
def test_merging_keeps_letters_and_the_sum(rows):
    pieces, ends, scores = ([row[k] for row in rows] for k in range(3))
    words = merge_pieces(pieces, ends, scores)
    assert "".join(word for word, _ in words) == "".join(pieces)
    assert sum(score for _, score in words) == pytest.approx(sum(scores), abs=1e-6)
    assert len(words) == sum(ends) + (bool(ends) and not ends[-1])


def test_different_numbers_of_pieces_and_scores_are_refused():
    with pytest.raises(ValueError, match="1 pieces, 1 end flags and 0 scores"):
        merge_pieces(["a"], [True], [])
