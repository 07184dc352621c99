"""Figures of samples, checked by their pixels and texts, and invalid arguments."""

import dataclasses
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
    one_hot,
    pictures,
    random_explanations,
    texts,
)
from matplotlib.figure import Figure

from explain.figures import Explanation, Photo, Sample, draw, draw_interaction, save
from explain.figures.scale import Scale


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


def test_a_common_scale_has_bars_with_numbers():
    sample = make_sample(Explanation("e", [[0.5, 0.25]], [2, 3]))
    common = texts(draw(sample, scale="common"))
    assert common[-6:] == ["0", "0.5", "relevance of a patch", "0", "3", "relevance of a word"]


@pytest.mark.parametrize(
    ("scores", "ends"),
    [
        ([0.5], [["0", "largest"]]),
        ([-0.5], [["−largest", "largest", "0"]]),
        ([0.5, -0.5], [["0", "largest"], ["−largest", "largest", "0"]]),
    ],
)
def test_own_scales_have_a_bar_for_each_kind_of_colours(scores, ends):
    """The bar has the colours of the maps, and says that its end is each explainer's largest score."""
    explanations = [Explanation(f"e{k}", [[0, score]], [0, 1]) for k, score in enumerate(scores)]
    figure = draw(make_sample(*explanations, box=(0, 0, WIDTH, HEIGHT)), "patches", "each")
    written = texts(figure)
    after = written[max(k for k, text in enumerate(written) if text == "it") + 1 :]
    assert [text for text in after if "relevance" not in text] == [end for each in ends for end in each]
    assert sum("own scale" in text for text in after) == len(ends)
    bars = [axes for axes in figure.axes if axes.images and axes not in pictures(figure)]
    for bar, score in zip(bars, sorted(scores, reverse=True), strict=True):
        shown, scale = bar.images[0].get_array(), Scale(1, score < 0)
        np.testing.assert_allclose(shown[0, [0, -1]], scale.on_white(np.array([-1.0 if score < 0 else 0.0, 1.0])))


def test_words_are_coloured_in_order():
    scores = [0.3, 0.0, 1.0, 0.6]
    figure = draw(make_sample(Explanation("e", [[0]], scores), words=("a", "b", "c", "d")))
    lightness = [colour.sum() for colour in boxes(figure)]
    assert np.argsort(lightness).tolist() == np.argsort(scores)[::-1].tolist()
    assert lightness[1] == pytest.approx(3, abs=0.02)
    drawn = texts(figure)
    assert [text for text in drawn if len(text) == 1][-5:] == ["a", "b", "c", "d", "0"]


def test_parts_of_a_long_word_have_the_words_colour():
    words = ("short", "x" * 60, "end")
    figure = draw(make_sample(Explanation("e", [[0]], [0.2, 1, 0.5]), words=words))
    colours, written = boxes(figure), texts(figure)
    first = written.index("short")
    parts = written[first : first + len(colours)]
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


@pytest.mark.parametrize(
    ("probability", "shown"), [(1, "100"), (0, "<1"), (0.004, "<1"), (0.125, "12"), (0.996, "100")]
)
def test_the_probability_is_shown_in_percent(probability, shown):
    sample = Sample(Photo(WHITE, BOX), "Is it?", ["it"], "yes", probability, [Explanation("e", [[1]], [1])])
    assert f"yes ({shown}\u00a0%)" in texts(draw(sample))


def test_an_answer_without_a_probability_has_no_percentage():
    figure = draw(Sample(Photo(WHITE, BOX), "Is it?", ["it"], "similarity 0.31", None, [Explanation("e", [[1]], [1])]))
    assert "similarity 0.31" in texts(figure)
    assert not any("%" in text for text in texts(figure))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Explanation("rollout", [[1, np.nan]], [1, 1]), "rollout: patch scores: 1 of 2 are not finite"),
        (lambda: Explanation("rollout", [[1]], [1, np.inf]), "rollout: word scores: 1 of 2 are not finite"),
        (lambda: Explanation("rollout", [1, 2], [1]), r"rollout: patch scores must be \[rows, cols\], not \[2\]"),
        (lambda: Explanation("rollout", np.zeros((0, 3)), [1]), r"rollout: patch scores .* not \[0, 3\]"),
        (lambda: Explanation("rollout", [[1]], [[1]]), r"rollout: word scores must be \[n_words\], not \[1, 1\]"),
        (lambda: make_sample(Explanation("rollout", [[1]], [1])), "rollout: 1 word scores for 2 words"),
        (lambda: make_sample(Explanation("rollout", [[[1]]] * 2, [1, 1])), "rollout: 2 maps for 1 photos"),
        (lambda: dataclasses.replace(make_sample(*random_explanations(1)), evidence=[True]), "1 values for 2 words"),
        (lambda: Photo(WHITE, BOX, WHITE[..., 0]), r"evidence must be bool \[h, w\], not uint8 \[60, 100\]"),
        (lambda: Photo(WHITE, BOX, WHITE > 0), r"evidence must be bool \[h, w\], not bool \[60, 100, 3\]"),
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


@pytest.mark.parametrize("scale", ["each", "common"])
@pytest.mark.parametrize("n", [1, 5])
@pytest.mark.parametrize("photos", [0, 1, 2, 3, pytest.param(7, marks=pytest.mark.slow)])
def test_any_number_of_photos_is_drawn(photos, n, scale):
    """Every photo is drawn once, and has a map of every explainer with the explainer's own scores."""
    shown = [Photo(np.full((20 + 10 * k, 40, 3), 255, np.uint8), (0, 0, 40, 20 + 10 * k)) for k in range(photos)]
    rng = np.random.default_rng(photos)
    hot = rng.integers(0, 3, (n, photos, 2))
    words = ["is", "it", "antidisestablishmentarianism"]
    explanations = [Explanation(f"e{k}", [one_hot(*at, (3, 3)) for at in hot[k]], rng.random(3)) for k in range(n)]
    figure = draw(Sample(shown, "is it " * 9, words, "yes", 0.5, explanations), "patches", scale)
    no_overlap(figure)
    found = pictures(figure)
    assert len(found) == photos * (n + 1)
    for axes, (row, column) in zip(found[photos:], hot.reshape(-1, 2), strict=True):
        pixels = cut(figure, axes).sum(2)
        y, x = (np.mean(np.nonzero(pixels == pixels.min()), axis=1) + 0.5) / pixels.shape * 3
        assert (int(y), int(x)) == (row, column)
    assert [text for text in texts(figure) if text in ("is", "it")] == ["is", "it"] * n
    assert figure.get_figwidth() <= 7


def test_without_words_there_is_no_scale_of_words():
    photo = Photo(WHITE, BOX)
    figure = draw(Sample(photo, "", [], "cat", 0.9, [Explanation("e", [[1]], [])]), scale="common")
    assert "relevance of a patch" in texts(figure)
    assert "relevance of a word" not in texts(figure)
    figure = draw(Sample([], "is it", ["is"], "cat", 0.9, [Explanation("e", [], [1])]), scale="common")
    assert "relevance of a patch" not in texts(figure)


@pytest.mark.parametrize("scale", ["each", "common"])
def test_a_sample_without_photo_and_words_has_its_answer(scale):
    figure = draw(Sample([], "", [], "cat", 0.9, [Explanation("e", [], [])]), scale=scale)
    no_overlap(figure)
    assert {"cat (90\u00a0%)", "e"} <= set(texts(figure))


@pytest.mark.parametrize("grid", [(1, 1), (1, 5), (7, 2)])
@pytest.mark.parametrize("overlay", ["bilinear", "patches"])
def test_grids_of_any_shape_and_no_words(grid, overlay):
    figure = draw(make_sample(Explanation("e", np.ones(grid), []), words=(), question=""), overlay, "common")
    pixels = cut(figure, pictures(figure)[1])
    inside = pixels[5:-5, round(0.25 * pixels.shape[1]) : round(0.75 * pixels.shape[1])]
    assert np.ptp(inside.reshape(-1, 3), axis=0).max() == 0
    assert np.ptp(inside[0, 0]) > 20
