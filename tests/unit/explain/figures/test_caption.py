"""Figures of captions, checked by their pixels, texts and positions."""

import numpy as np
import pytest
from figure_checks import BOX, ODD, WHITE, WIDTH, cut, no_overlap, pictures, texts
from matplotlib.backends.backend_agg import FigureCanvasAgg

from explain.figures import Caption, Photo, WordMaps, draw_caption, draw_caption_pages, save

GRID = (3, 4)
HEIGHT = WHITE.shape[0]
ALL = Photo(WHITE, (0, 0, WIDTH, HEIGHT))
LONG = ("a", "small", "antidisestablishmentarianism", "left", "of", "the", "$?") * 2


def one_hot(row, column, value=1.0):
    patches = np.zeros(GRID)
    patches[row, column] = value
    return patches


def random_maps(n_words, names=("weighted", "genatt"), sign=1):
    rng = np.random.default_rng(n_words)
    return [WordMaps(name, rng.random((n_words, *GRID)) * sign, rng.random(GRID) / 9) for name in names]


def caption(words, explanations, photo=ALL, note=""):
    return Caption(photo, " ".join(words), words, explanations, note)


def shade(figure, axes):
    """Return the brightness of the darkest pixel of a map, summed over RGB."""
    return cut(figure, axes).sum(2).min()


def places(figure):
    """Return the left and the top edge of each map, in points of the page."""
    width, height = figure.get_size_inches() * 72
    return [(p.x0 * width, (1 - p.y1) * height) for p in (axes.get_position() for axes in pictures(figure))]


def test_each_word_and_the_whole_caption_have_a_map():
    hot = {"first": [(0, 1), (2, 3), (1, 1)], "second": [(2, 0), (0, 3), (0, 0)]}
    maps = [WordMaps(name, [one_hot(*at) for at in where[:2]], one_hot(*where[2])) for name, where in hot.items()]
    figure = draw_caption(caption(["red", "star"], maps), "patches")
    photo, *found = pictures(figure)
    assert cut(figure, photo).min() == 255
    for axes, (row, column) in zip(found, [*hot["first"], *hot["second"]], strict=True):
        pixels = cut(figure, axes).sum(2)
        y, x = (np.mean(np.nonzero(pixels == pixels.min()), axis=1) + 0.5) / pixels.shape * GRID
        assert (int(y), int(x)) == (row, column)


def test_the_figure_shows_caption_note_explainers_and_words():
    figure = draw_caption(caption(["red", "star"], random_maps(2), note="people: a star"))
    written = texts(figure)
    assert written[:2] == ["red star", "people: a star"]
    for name in ("weighted", "genatt"):
        start = written.index(name)
        assert [text for text in written[start:] if text in ("red", "star", "all words")][:3] == [
            "red",
            "star",
            "all words",
        ]


def test_each_word_is_above_its_map():
    words = [f"w{k}" for k in range(14)]
    figure = draw_caption(caption(words, random_maps(14, ("e",))))
    canvas = FigureCanvasAgg(figure)
    renderer = canvas.get_renderer()
    named = {text.get_text(): text.get_window_extent(renderer) for text in figure.axes[0].texts}
    for word, axes in zip([*words, "all words"], pictures(figure)[1:], strict=True):
        box = axes.get_window_extent(renderer)
        assert (named[word].x0 + named[word].x1) / 2 == pytest.approx((box.x0 + box.x1) / 2, abs=6)
        assert 0 < named[word].y0 - box.y1 < 30  # pixels at 300 dpi


@pytest.mark.parametrize("n_words", [1, 8, 9, 17, 19])
def test_long_captions_wrap_into_rows_of_similar_length_within_a_papers_width(n_words):
    figure = draw_caption(caption(["word"] * n_words, random_maps(n_words)))
    lines = {}
    for left, top in places(figure)[1:]:
        lines.setdefault(round(top, 3), []).append(left)
    assert len(lines) == 2 * -(-(n_words + 1) // 9)
    lengths = [len(line) for line in lines.values()]
    assert max(lengths) <= 9
    assert sum(lengths) == 2 * (n_words + 1)
    assert all(line == sorted(line) for line in lines.values())
    assert figure.get_size_inches()[0] <= 7.0


@pytest.mark.parametrize("scale", ["each", "common"])
@pytest.mark.parametrize("words", [("a",), LONG])
def test_nothing_is_clipped_or_overlaps(words, scale):
    for photo in (ALL, Photo(np.zeros((90, 20, 3), np.uint8), (0, 35, 20, 55))):
        no_overlap(draw_caption(caption(words, random_maps(len(words)), photo, "people: " * 20), scale=scale))


def test_any_word_is_drawn(tmp_path):
    figure = draw_caption(caption(ODD, random_maps(len(ODD), ("e",))))
    no_overlap(figure)
    save(figure, tmp_path / "odd", ["pdf"])
    for literal in ("$5_a$", "\\frac{1}", "^2_", "😀", "□x", "␣"):
        assert literal in texts(figure)


@pytest.mark.parametrize("sign", [1, -1])
def test_with_common_scales_equal_scores_have_equal_colours(sign):
    maps = [
        WordMaps("strong", [one_hot(0, 0, 4.0 * sign), one_hot(0, 0, 2.0 * sign)], one_hot(0, 0, 1.0 * sign)),
        WordMaps("weak", [one_hot(0, 0, 2.0 * sign), one_hot(0, 0, 1.0 * sign)], one_hot(0, 0, 0.5 * sign)),
    ]
    figure = draw_caption(caption(["a", "b"], maps), "patches", "common")
    a, b, whole, weak_a, weak_b, weak_whole = (shade(figure, axes) for axes in pictures(figure)[1:])
    assert a < b == weak_a < weak_b
    assert whole < weak_whole
    assert whole == a  # the whole caption has a separate limit
    figure = draw_caption(caption(["a", "b"], maps), "patches", "each")
    a, b, whole, weak_a, weak_b, weak_whole = (shade(figure, axes) for axes in pictures(figure)[1:])
    assert a == weak_a == whole == weak_whole < b == weak_b


def test_colour_bars_show_the_limits():
    maps = [WordMaps(name, [one_hot(0, 0, k)], one_hot(0, 0, k / 10)) for name, k in (("x", 4.0), ("y", 2.0))]
    each, common = (texts(draw_caption(caption(["a"], maps), scale=scale)) for scale in ("each", "common"))
    assert {"4", "2", "0.4", "0.2"} <= set(each)
    assert {"4", "0.4"} <= set(common)
    assert not {"2", "0.2"} & set(common)
    assert each.count("relevance to a word") == 2 * common.count("relevance to a word") == 2


def test_one_negative_score_makes_every_map_of_an_explainer_signed():
    signed = WordMaps("e", [one_hot(0, 0), one_hot(1, 1)], one_hot(2, 2, -1.0))
    figure = draw_caption(caption(["a", "b"], [signed]), "patches")
    for axes, kind in zip(pictures(figure)[1:], ("red", "red", "blue"), strict=True):
        pixels = cut(figure, axes)
        red, _, blue = pixels.reshape(-1, 3)[pixels.sum(2).argmin()]
        assert (red > blue + 20) if kind == "red" else (blue > red + 20)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Caption(ALL, "a", ["a"], []), "a caption needs at least one explanation"),
        (lambda: Caption(ALL, "a", ["a"], random_maps(2)), "weighted: maps of 2 words for 1 words"),
        (lambda: WordMaps("e", np.ones((2, 3)), np.ones((2, 3))), r"e: maps of words must be .* not \[2, 3\]"),
        (lambda: WordMaps("e", np.ones((0, 2, 3)), np.ones((2, 3))), "e: maps of words must be"),
        (lambda: WordMaps("e", np.ones((1, 2, 3)), np.ones((3, 2))), r"\[1, 2, 3\] and \[3, 2\]"),
        (lambda: WordMaps("e", [[[np.nan]]], [[1]]), "e: scores of words: 1 of 1 are not finite"),
        (lambda: WordMaps("e", [[[1]]], [[np.inf]]), "e: scores of the caption: 1 of 1 are not finite"),
        (lambda: draw_caption(caption(["a"], random_maps(1)), scale="all"), "scale must be each or common, not 'all'"),
        (lambda: draw_caption(caption(["a"], random_maps(1)), "smooth"), "overlay must be bilinear or patches"),
    ],
)
def test_errors_name_the_cause(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_outside_the_box_nothing_is_coloured():
    figure = draw_caption(caption(["a"], [WordMaps("e", np.ones((1, *GRID)), np.ones(GRID))], Photo(WHITE, BOX)))
    pixels = cut(figure, pictures(figure)[1])
    edge = round(pixels.shape[1] * 0.15)
    assert pixels[:, :edge].min() > 250
    assert pixels[:, edge * 3 : -edge * 3].min() < 200


@pytest.mark.parametrize("scale", ["each", pytest.param("common", marks=pytest.mark.slow)])
def test_no_page_is_higher_than_nine_inches_and_every_explainer_is_on_one(scale):
    names = [f"e{k}" for k in range(9)]
    drawn = caption(["word"] * 14, random_maps(14, names))
    pages = draw_caption_pages(drawn, scale=scale)
    assert len(pages) > 1
    assert all(page.get_figheight() <= 9 for page in pages)
    assert [text for page in pages for text in texts(page) if text in names] == names
    if scale == "common":  # all pages have the scales of the figure without pages
        ends = {text for text in texts(draw_caption(drawn, scale=scale)) if text.startswith("0.")}
        assert ends
        assert all(ends <= set(texts(page)) for page in pages)
    (page,) = draw_caption_pages(caption(["a"], random_maps(1)))
    assert texts(page) == texts(draw_caption(caption(["a"], random_maps(1))))
