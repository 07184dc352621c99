"""Colour scales of scores."""

import colorspacious
import numpy as np
import pytest
from figure_checks import GRID, cut, make_sample, one_hot, pictures, rendered, texts
from matplotlib.figure import Figure

from explain.figures import Explanation, Photo, draw
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


@pytest.mark.parametrize("lightness", [10, 50, 90])
@pytest.mark.parametrize(("signed", "sign"), [(False, 1), (True, 1), (True, -1)])
def test_more_is_darker_on_every_photo(lightness: float, signed: bool, sign: int) -> None:
    """L* falls from zero outwards on a flat photo, so the order is visible without colour vision."""
    grey = colorspacious.cspace_convert([lightness, 0, 0], "CIELab", "sRGB255").round().clip(0, 255)
    photo = Photo(np.full((8, 64, 3), grey, dtype=np.uint8), (0, 0, 64, 8))
    figure = Figure(figsize=(6.4, 0.8), dpi=100)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    photo.show_heat(axes, sign * np.linspace(0, 1, 32)[None], Scale(1, signed), "patches")
    shown = colorspacious.cspace_convert(rendered(figure)[40, 10::20, :3], "sRGB255", "CIELab")[:, 0]
    assert len(shown) == 32
    assert (np.diff(shown) < 0).all()
    assert shown[0] - shown[-1] > 30


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


def test_no_single_explainer_blanks_the_others_on_a_common_scale() -> None:
    arrays = [[np.array([0.5, 1.0])], [np.array([0.0, 1.2])], [np.array([0.0])], [np.array([3.0, -900.0])]]
    scale = Scale.common(arrays)
    assert scale.limit == pytest.approx(2 * 1.2)  # twice the median of 1, 1.2 and 900
    assert scale.exceeded
    assert scale.signed
    np.testing.assert_allclose(scale.share(np.array([1.2, 900.0, -900.0])), [0.5, 1, -1])
    assert Scale.common(arrays[:2]) == Scale(1.2, False)
    assert Scale.common([[np.zeros(2)]]) == Scale(0.0, False)
    explanations = [Explanation(name, one_hot(1, 1) * size, [0, 0]) for name, size in (("a", 1), ("b", 900))]
    assert {"\u2265 2"} <= set(texts(draw(make_sample(*explanations), scale="common")))
