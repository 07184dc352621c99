"""Colour scales of scores."""

import numpy as np
import pytest
from figure_checks import GRID, cut, make_sample, one_hot, pictures, rendered

from explain.figures import Explanation, draw
from explain.figures.scale import Scale, readable_on


def test_zero_is_colourless_and_signs_differ():
    signed = Scale.over([np.array([-2.0, 1.0])])
    red, white, blue = signed.on_white(np.array([1.0, 0.0, -1.0]))
    assert red[0] > red[2] + 0.15
    assert blue[2] > blue[0] + 0.15
    np.testing.assert_allclose(white, 1, atol=0.01)
    assert signed.signed
    assert not Scale.over([np.array([-1e-12, 1.0])]).signed
    figure = draw(make_sample(Explanation("e", np.zeros(GRID), [0, 0])), scale="common")
    assert np.ptp(cut(figure, pictures(figure)[1]), axis=2).max() == 0


def test_more_is_darker():
    """Relative luminance falls from zero outwards on both sides, so the order is visible without colour vision."""
    linear = lambda c: np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)  # noqa: E731
    outwards = np.linspace(0, 1, 60)
    for scale, scores in ((Scale(1, False), outwards), (Scale(1, True), outwards), (Scale(1, True), -outwards)):
        assert (np.diff(linear(scale.on_white(scores)) @ [0.2126, 0.7152, 0.0722]) < 0).all()


@pytest.mark.parametrize("signed", [False, True])
def test_words_stay_readable(signed):
    """The contrast is at least 4.5, which WCAG requires for small text."""
    for colour in Scale(1, signed).on_white(np.linspace(-1 if signed else 0, 1, 101)):
        linear = np.where(colour <= 0.04045, colour / 12.92, ((colour + 0.055) / 1.055) ** 2.4)
        luminance = linear @ [0.2126, 0.7152, 0.0722] + 0.05
        ink = 1.05 if readable_on(colour) == "white" else 0.05
        assert max(luminance, ink) / min(luminance, ink) >= 4.5


@pytest.mark.parametrize("size", [1e-310, 1e300])
def test_tiny_and_huge_scores_give_the_same_figure(size):
    figures = [draw(make_sample(Explanation("e", one_hot(1, 1) * s, [0, s])), "patches") for s in (1.0, size)]
    np.testing.assert_array_equal(rendered(figures[0]), rendered(figures[1]))
