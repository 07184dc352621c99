"""Text made printable, measured, and broken into lines."""

import itertools
import warnings

from hypothesis import given, settings
from hypothesis import strategies as st

from explain.figures.text import flow, printable, width_of, wrapped


@settings(deadline=None)
@given(st.text())
def test_printable_text_is_one_line_of_characters_of_the_font(text):
    line = printable(text)
    assert line == line.strip(" ")
    assert all(c.isprintable() or c == "\u00a0" for c in line)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        width_of(line, 7)


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.text(st.characters(codec="latin-1", categories=["L", "N", "P"]), min_size=1, max_size=40), max_size=8)
)
def test_words_flow_without_overlap_inside_the_width(words):
    placed = flow(words, 50, 7, gap=2, pad=1)
    assert "".join(part.text for part in placed) == "".join(words)
    assert all(part.x + part.width <= 50 + 1e-9 for part in placed)
    for a, b in itertools.pairwise(placed):
        assert (b.line, b.x) == (a.line + 1, 0) or (b.line == a.line and b.x >= a.x + a.width)


def test_lines_are_filled():
    lines = wrapped("is it a very red circle or not", 60, 7)
    assert " ".join(lines) == "is it a very red circle or not"
    for line, following in itertools.pairwise(lines):
        assert width_of(f"{line} {following.split()[0]}", 7) > 60
    assert wrapped("", 60, 7) == []
