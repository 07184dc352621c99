"""Figures of samples, checked by their pixels and texts, and invalid arguments."""

import warnings

import matplotlib
import numpy as np
import pytest
from figure_checks import (
    BOX,
    HEIGHT,
    ODD,
    WHITE,
    WIDTH,
    boxes,
    cut,
    make_sample,
    no_overlap,
    pictures,
    random_explanations,
    texts,
)
from matplotlib.figure import Figure

from explain.figures import Explanation, Photo, Sample, draw, draw_interaction, save


@pytest.mark.parametrize("sign", [1, -1])
def test_with_a_common_scale_equal_scores_have_equal_colours(sign):
    """The largest score of the second explainer is half of the first explainer's largest score."""
    first = Explanation("first", [[1, 0.5 * sign]], [1, 0.5 * sign])
    second = Explanation("second", [[0.5 * sign, 0.25]], [0.5 * sign, 0.25])
    colours = {}
    for scale in ("common", "each"):
        figure = draw(make_sample(first, second, box=(0, 0, WIDTH, HEIGHT)), "patches", scale)
        heat = [cut(figure, axes) for axes in pictures(figure)[1:]]
        half = [heat[0][50, -50], heat[1][50, 50]]
        colours[scale] = half, [boxes(figure)[1], boxes(figure)[2]]
    for a, b in colours["common"]:
        np.testing.assert_allclose(a, b, atol=1e-6)
    for a, b in colours["each"]:
        assert np.abs(a - b).max() > 0.1


def test_only_a_common_scale_has_bars():
    sample = make_sample(Explanation("e", [[0.5, 0.25]], [2, 3]))
    common = texts(draw(sample, scale="common"))
    assert common[-6:] == ["0", "0.5", "relevance of a patch", "0", "3", "relevance of a word"]
    assert "relevance of a patch" not in texts(draw(sample, scale="each"))


def test_words_are_coloured_in_order():
    scores = [0.3, 0.0, 1.0, 0.6]
    figure = draw(make_sample(Explanation("e", [[0]], scores), words=("a", "b", "c", "d")))
    lightness = [colour.sum() for colour in boxes(figure)]
    assert np.argsort(lightness).tolist() == np.argsort(scores)[::-1].tolist()
    assert lightness[1] == pytest.approx(3, abs=0.02)
    drawn = texts(figure)
    assert drawn[-4:] == ["a", "b", "c", "d"]


def test_parts_of_a_long_word_have_the_words_colour():
    words = ("short", "x" * 60, "end")
    figure = draw(make_sample(Explanation("e", [[0]], [0.2, 1, 0.5]), words=words))
    colours, parts = boxes(figure), texts(figure)[-len(boxes(figure)) :]
    assert len(parts) > 3
    assert "".join(parts) == "".join(words)
    for part, colour in zip(parts, colours, strict=True):
        assert np.allclose(colour, colours[1]) == part.startswith("x")


@pytest.mark.parametrize(("patch", "word"), [(-1, 1), (1, -1)])
def test_patches_and_words_of_an_explainer_have_the_same_kind_of_colour_map(patch, word):
    """One negative score anywhere makes negative scores blue and positive scores red in both."""
    e = Explanation("e", [[patch]], [word, word])
    figure = draw(make_sample(e, box=(0, 0, WIDTH, HEIGHT)))
    for colour, score in ((cut(figure, pictures(figure)[1])[40, 40] / 255, patch), (boxes(figure)[0], word)):
        assert (colour[0] - colour[2]) * score > 0.15
        assert colour[1] < 0.5


@pytest.mark.parametrize("usetex", [False, True])
def test_any_text_is_drawn_literally(usetex, tmp_path):
    question = "Is $x_1$ {worth\t$\\frac{ 😀🐶\u202e\ud800\x07?"
    e = Explanation("$\\alpha$_e", np.ones((2, 2)), np.arange(len(ODD)))
    with warnings.catch_warnings(), matplotlib.rc_context({"text.usetex": usetex}):
        warnings.simplefilter("error")
        figure = draw(make_sample(e, words=ODD, question=question, answer="$y_2$", caption="_$"))
        save(figure, tmp_path / "odd")
    drawn = texts(figure)
    for literal in ("$\\alpha$_e", "$5_a$", "\\frac{1}", "^2_", "$y_2$ (73\u00a0%)", "_$", "😀", "a b", "□x", "␣"):
        assert literal in drawn
    assert not any(text.get_parse_math() or text.get_usetex() for text in figure.axes[0].texts)
    assert len(boxes(figure)) == len(ODD)


@pytest.mark.parametrize("n", [1, 2, 5, 12])
@pytest.mark.parametrize("scale", ["each", "common"])
def test_nothing_is_clipped_or_overlaps(n, scale):
    words = ("what", "is", "the", "colour", "of", "the", "antidisestablishmentarianism", "?") * 2
    photo = {"image": np.zeros((40 + n, 50, 3), np.uint8), "box": (0, 0, 40, 40)}
    sample = make_sample(
        *random_explanations(n, words), words=words, question=" ".join(words), caption="people: " * 9, **photo
    )
    no_overlap(draw(sample, scale=scale))


@pytest.mark.parametrize(("probability", "shown"), [(1, "100"), (0, "0"), (0.004, "<1"), (0.125, "12"), (0.996, "100")])
def test_the_probability_is_shown_in_percent(probability, shown):
    sample = Sample(Photo(WHITE, BOX), "Is it?", ["it"], "yes", probability, [Explanation("e", [[1]], [1])])
    assert f"yes ({shown}\u00a0%)" in texts(draw(sample))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Explanation("rollout", [[1, np.nan]], [1, 1]), "rollout: patch scores: 1 of 2 are not finite"),
        (lambda: Explanation("rollout", [[1]], [1, np.inf]), "rollout: word scores: 1 of 2 are not finite"),
        (lambda: Explanation("rollout", [1, 2], [1]), r"rollout: patch scores must be \[rows, cols\], not \[2\]"),
        (lambda: Explanation("rollout", np.zeros((0, 3)), [1]), r"rollout: patch scores .* not \[0, 3\]"),
        (lambda: Explanation("rollout", [[1]], [[1]]), r"rollout: word scores must be \[n_words\], not \[1, 1\]"),
        (lambda: make_sample(Explanation("rollout", [[1]], [1])), "rollout: 1 word scores for 2 words"),
        (lambda: make_sample(), "a sample needs at least one explanation"),
        (lambda: Sample(Photo(WHITE, BOX), "", [], "", 1.5, random_explanations(1, ())), "between 0 and 1, not 1.5"),
        (lambda: Sample(Photo(WHITE, BOX), "", [], "", np.nan, random_explanations(1, ())), "between 0 and 1, not nan"),
        (lambda: Photo(WHITE, (20, 0, 101, 60)), "is not inside the image of 100 × 60"),
        (lambda: Photo(WHITE, (20, 0, 20, 60)), "is not inside"),
        (lambda: Photo(WHITE / 255, BOX), r"uint8 \[H, W, 3\], not float64 \[60, 100, 3\]"),
        (lambda: Photo(WHITE[..., 0], BOX), r"uint8 \[H, W, 3\], not uint8 \[60, 100\]"),
        (
            lambda: draw(make_sample(*random_explanations(1)), "nearest"),
            "overlay must be bilinear or patches, not 'nearest'",
        ),
        (lambda: draw(make_sample(*random_explanations(1)), scale="both"), "scale must be each or common, not 'both'"),
        (
            lambda: draw_interaction(Photo(WHITE, BOX), ["a"], np.zeros((1, 5)), (2, 3)),
            r"1 words and 2 × 3 .* \[1, 5\]",
        ),
        (lambda: draw_interaction(Photo(WHITE, BOX), [], np.zeros((0, 6)), (2, 3)), "0 words"),
        (lambda: draw_interaction(Photo(WHITE, BOX), ["a"], [[np.nan]], (1, 1)), "interaction: 1 of 1 are not finite"),
        (lambda: draw_interaction(Photo(WHITE, BOX), ["a"], [[1]], (1, 1), "x"), "overlay must be bilinear or patches"),
        (lambda: save(Figure(), "x", ["svg"]), "unknown format 'svg'; a figure is saved as png or pdf"),
    ],
)
def test_errors_name_the_cause(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("grid", [(1, 1), (1, 5), (7, 2)])
@pytest.mark.parametrize("overlay", ["bilinear", "patches"])
def test_grids_of_any_shape_and_no_words(grid, overlay):
    figure = draw(make_sample(Explanation("e", np.ones(grid), []), words=(), question=""), overlay, "common")
    pixels = cut(figure, pictures(figure)[1])
    inside = pixels[5:-5, round(0.25 * pixels.shape[1]) : round(0.75 * pixels.shape[1])]
    assert np.ptp(inside.reshape(-1, 3), axis=0).max() == 0
    assert np.ptp(inside[0, 0]) > 20
