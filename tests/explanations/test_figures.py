"""Pictures of explanations, judged by the pixels, texts and bytes that come out."""

import dataclasses
import itertools
import os
import subprocess
import sys
import warnings

import matplotlib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from explain.figures import (
    Explanation,
    Photo,
    Sample,
    centred_square,
    draw,
    draw_interaction,
    save,
)
from explain.figures.colours import Scale, readable_on
from explain.figures.lettering import flow, printable, width_of, wrapped

WIDTH, HEIGHT = 100, 60
BOX = (20, 0, 80, 60)
GRID = (3, 4)
WHITE = np.full((HEIGHT, WIDTH, 3), 255, np.uint8)


def one_hot(row, column, grid=GRID):
    patches = np.zeros(grid)
    patches[row, column] = 1
    return patches


def make_sample(*explanations, image=WHITE, box=BOX, words=("is", "it"), question="Is it?", answer="yes", caption=""):
    return Sample(Photo(image, box), question, words, answer, 0.73, explanations, caption)


def many(n, words=("is", "it"), grid=GRID):
    rng = np.random.default_rng(n)
    return [Explanation(f"explainer_{k}", rng.random(grid), rng.random(len(words))) for k in range(n)]


def rendered(figure):
    """RGB [h, w, 3], and for each picture the slice of rows and of columns that it fills."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].astype(float)


def pictures(figure):
    """Axes with pictures: the photo first, then those with a heat map over it."""
    return [
        axes for axes in figure.axes if axes.images and axes.images[0].get_array().ndim == 3 and axes.get_ylim()[0] > 1
    ]


def cut(figure, axes):
    """The pixels of one picture, without the outermost, which may be blended with the page."""
    page, place = rendered(figure), axes.get_position()
    height, width, _ = page.shape
    rows = slice(round((1 - place.y1) * height), round((1 - place.y0) * height))
    return page[rows, round(place.x0 * width) : round(place.x1 * width)][1:-1, 1:-1]


def boxes(figure):
    """Colours of the word boxes, in order."""
    return [np.array(p.get_facecolor())[:3] for p in figure.axes[0].patches if p.get_fill()]


def texts(figure):
    return [text.get_text() for text in figure.axes[0].texts]


# Geometry


@pytest.mark.parametrize("overlay", ["bilinear", "patches"])
@pytest.mark.parametrize("hot", [(0, 0), (1, 2), (2, 3)])
def test_a_patch_lands_where_it_lies_in_the_photo(overlay, hot):
    """On a white photo the darkest pixel is the hottest."""
    figure = draw(make_sample(Explanation("e", one_hot(*hot), [0, 0])), overlay)
    pixels = cut(figure, pictures(figure)[1]).sum(2)
    shape = np.array(pixels.shape)
    pixels[:, : int(0.21 * shape[1])] = pixels[:, int(0.79 * shape[1]) :] = np.inf  # the outline of the box
    pixels[:4] = pixels[-4:] = np.inf
    y, x = (np.mean(np.nonzero(pixels == pixels.min()), axis=1) + 0.5) / shape * (HEIGHT, WIDTH)
    row, column = hot
    assert 20 + column * 15 < x < 20 + (column + 1) * 15
    assert row * 20 < y < (row + 1) * 20


def test_a_patch_covers_just_its_pixels():
    """A patch's colour covers what a black block at the same place of the photo covers, to a pixel."""
    black = WHITE.copy()
    black[20:40, 50:65] = 0
    heat = draw(make_sample(Explanation("e", one_hot(1, 2), [0, 0])), "patches")
    block = draw(make_sample(Explanation("e", one_hot(1, 2), [0, 0]), image=black))
    coloured = np.ptp(cut(heat, pictures(heat)[1]), axis=2) > 20
    dark = cut(block, pictures(block)[0]).mean(2) < 128
    assert coloured.shape == dark.shape
    for axis in (0, 1):
        found, wanted = (np.flatnonzero(mask.any(axis))[[0, -1]] for mask in (coloured, dark))
        assert np.abs(found - wanted).max() <= 1
    assert np.abs(coloured.mean() - 15 * 20 / (WIDTH * HEIGHT)) < 0.003


@pytest.mark.parametrize("overlay", ["bilinear", "patches"])
def test_nothing_is_coloured_outside_the_box(overlay):
    figure = draw(make_sample(Explanation("e", np.ones(GRID), [0, 0])), overlay)
    pixels = cut(figure, pictures(figure)[1])
    coloured = np.ptp(pixels, axis=2).mean(0) > 20
    edges = np.flatnonzero(coloured)[[0, -1]] / len(coloured) * WIDTH
    assert edges == pytest.approx([20, 80], abs=0.6)
    left, right, bottom, top = pictures(figure)[1].images[1].get_extent()
    assert (left, top, right, bottom) == BOX


def test_the_photo_is_untouched_at_the_left_and_seen_through_the_heat():
    image = np.random.default_rng(0).integers(0, 256, (4, 4, 3)).astype(np.uint8)
    photo = {"image": image, "box": (0, 0, 4, 4)}
    figure = draw(make_sample(Explanation("e", np.ones((1, 1)), [0, 0]), **photo))
    untouched, heat = (cut(figure, axes) for axes in pictures(figure))
    step = len(untouched) / 4
    centres = (np.arange(4) * step + step / 2).astype(int)
    np.testing.assert_allclose(untouched[np.ix_(centres, centres)], image, atol=1)
    grey = np.asarray(Image.fromarray(image).convert("L"), float)
    assert np.corrcoef(heat[np.ix_(centres, centres)].sum(2).ravel(), grey.ravel())[0, 1] > 0.98


def test_pictures_keep_the_shape_of_the_photo():
    for height, width in ((60, 100), (100, 60), (300, 20)):
        photo = {"image": np.zeros((height, width, 3), np.uint8), "box": centred_square(width, height)}
        figure = draw(make_sample(*many(2), **photo))
        for axes in pictures(figure):
            size = axes.get_position().size * figure.get_size_inches()
            assert size[1] / size[0] == pytest.approx(height / width)


def test_the_centred_square_is_what_clip_keeps():
    assert centred_square(100, 60) == BOX
    assert centred_square(60, 101) == (0, 20.5, 60, 80.5)


def test_a_pil_image_of_any_mode_draws_as_its_rgb_array(tmp_path):
    image = Image.effect_noise((WIDTH, HEIGHT), 50)
    array = np.asarray(image.convert("RGB"))
    files = [
        save(draw(make_sample(*many(1), image=i)), tmp_path / str(k), ["png"])[0] for k, i in enumerate((image, array))
    ]
    assert files[0].read_bytes() == files[1].read_bytes()


# Colours


@pytest.mark.parametrize("sign", [1, -1])
def test_common_scale_gives_one_score_one_colour(sign):
    """The second explainer scores half of everything: its largest score is the half of the first one's."""
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


def test_parts_of_a_long_word_have_its_colour():
    words = ("short", "x" * 60, "end")
    figure = draw(make_sample(Explanation("e", [[0]], [0.2, 1, 0.5]), words=words))
    colours, parts = boxes(figure), texts(figure)[-len(boxes(figure)) :]
    assert len(parts) > 3
    assert "".join(parts) == "".join(words)
    for part, colour in zip(parts, colours, strict=True):
        assert np.allclose(colour, colours[1]) == part.startswith("x")


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


@pytest.mark.parametrize(("patch", "word"), [(-1, 1), (1, -1)])
def test_patches_and_words_of_an_explainer_share_the_kind_of_map(patch, word):
    """One negative score anywhere: negative is blue and positive is red in both."""
    e = Explanation("e", [[patch]], [word, word])
    figure = draw(make_sample(e, box=(0, 0, WIDTH, HEIGHT)))
    for colour, score in ((cut(figure, pictures(figure)[1])[40, 40] / 255, patch), (boxes(figure)[0], word)):
        assert (colour[0] - colour[2]) * score > 0.15
        assert colour[1] < 0.5


def test_more_is_darker():
    """Relative luminance falls from zero outwards, on both sides: seen without telling hues apart."""
    linear = lambda c: np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)  # noqa: E731
    outwards = np.linspace(0, 1, 60)
    for scale, scores in ((Scale(1, False), outwards), (Scale(1, True), outwards), (Scale(1, True), -outwards)):
        assert (np.diff(linear(scale.on_white(scores)) @ [0.2126, 0.7152, 0.0722]) < 0).all()


@pytest.mark.parametrize("signed", [False, True])
def test_words_stay_readable(signed):
    """Contrast of at least 4.5, what WCAG asks of small text."""
    for colour in Scale(1, signed).on_white(np.linspace(-1 if signed else 0, 1, 101)):
        linear = np.where(colour <= 0.04045, colour / 12.92, ((colour + 0.055) / 1.055) ** 2.4)
        luminance = linear @ [0.2126, 0.7152, 0.0722] + 0.05
        ink = 1.05 if readable_on(colour) == "white" else 0.05
        assert max(luminance, ink) / min(luminance, ink) >= 4.5


@pytest.mark.parametrize("size", [1e-310, 1e300])
def test_tiny_and_huge_scores_draw_alike(size):
    figures = [draw(make_sample(Explanation("e", one_hot(1, 1) * s, [0, s])), "patches") for s in (1.0, size)]
    np.testing.assert_array_equal(rendered(figures[0]), rendered(figures[1]))


# Text

ODD = [
    "$5_a$",
    "\\frac{1}",
    "^2_",
    "{",
    "%",
    "&",
    "naïve",
    "😀",
    "🐶",
    "中文",
    "a\nb",
    "\x00x",
    "",
    "\u200b",
    "\ud800",
    "</b>",
    "א",
    "e\u0301",
]


@pytest.mark.parametrize("usetex", [False, True])
def test_any_text_is_drawn_as_it_is(usetex, tmp_path):
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


@settings(deadline=None)
@given(st.text())
def test_printable_text_is_one_line_of_known_characters(text):
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


@pytest.mark.parametrize("n", [1, 2, 5, 12])
@pytest.mark.parametrize("scale", ["each", "common"])
def test_nothing_is_clipped_or_overlaps(n, scale):
    words = ("what", "is", "the", "colour", "of", "the", "antidisestablishmentarianism", "?") * 2
    photo = {"image": np.zeros((40 + n, 50, 3), np.uint8), "box": (0, 0, 40, 40)}
    sample = make_sample(*many(n, words), words=words, question=" ".join(words), caption="people: " * 9, **photo)
    no_overlap(draw(sample, scale=scale))


def test_nothing_is_clipped_or_overlaps_in_an_interaction():
    for words in (["a"], ["what", "is", "antidisestablishmentarianism", "$?"] * 4):
        no_overlap(draw_interaction(Photo(WHITE, BOX), words, np.ones((len(words), 12)), GRID))


@pytest.mark.parametrize(("words", "lines"), [(6, [7]), (7, [4, 4]), (8, [5, 4]), (14, [5, 5, 5])])
def test_an_interaction_has_lines_of_much_the_same_length(words, lines):
    figure = draw_interaction(Photo(WHITE, BOX), ["w"] * words, np.ones((words, 12)), GRID)
    tops = [round(axes.get_position().y1, 3) for axes in figure.axes[1:-1]]  # but the page and the colour bar
    assert [tops.count(top) for top in sorted(set(tops), reverse=True)] == lines


def no_overlap(figure):
    renderer = FigureCanvasAgg(figure).get_renderer()
    items = [text.get_window_extent(renderer) for text in figure.axes[0].texts]
    items += [axes.get_window_extent(renderer) for axes in figure.axes[1:]]
    width, height = figure.bbox.size
    for item in items:
        assert item.x0 > 0
        assert item.x1 < width
        assert item.y0 > 0
        assert item.y1 < height
    for a, b in itertools.combinations(items, 2):
        across, down = min(a.x1, b.x1) - max(a.x0, b.x0), min(a.y1, b.y1) - max(a.y0, b.y0)
        assert min(across, down) < 3  # pixels at 300 dpi: side bearings


@pytest.mark.parametrize(("probability", "shown"), [(1, "100"), (0, "0"), (0.004, "<1"), (0.125, "12"), (0.996, "100")])
def test_the_probability_is_in_percent(probability, shown):
    sample = Sample(Photo(WHITE, BOX), "Is it?", ["it"], "yes", probability, [Explanation("e", [[1]], [1])])
    assert f"yes ({shown}\u00a0%)" in texts(draw(sample))


# Interaction


@pytest.mark.parametrize("overlay", ["bilinear", "patches"])
def test_each_word_has_its_own_row_of_the_matrix(overlay):
    matrix = np.zeros((3, 12))
    hot = [(0, 1), (2, 3), (1, 0)]
    for word, (row, column) in enumerate(hot):
        matrix[word, row * 4 + column] = 1
    figure = draw_interaction(Photo(WHITE, (0, 0, WIDTH, HEIGHT)), ["a", "b", "c"], matrix, GRID, overlay)
    assert texts(figure)[:3] == ["a", "b", "c"]
    photo, *maps = pictures(figure)
    for axes, (row, column) in zip(maps, hot, strict=True):
        pixels = cut(figure, axes).sum(2)
        y, x = (np.mean(np.nonzero(pixels == pixels.min()), axis=1) + 0.5) / pixels.shape * GRID
        assert (int(y), int(x)) == (row, column)
    assert cut(figure, photo).min() == 255


def test_an_interaction_has_one_scale():
    figure = draw_interaction(Photo(WHITE, (0, 0, WIDTH, HEIGHT)), ["a", "b"], [[0.5, 1], [2, 0.5]], (1, 2), "patches")
    first, second = (cut(figure, axes) for axes in pictures(figure)[1:])
    np.testing.assert_array_equal(first[40, 40], second[40, -40])
    assert first[40, 40].sum() > first[40, -40].sum() + 30 > second[40, 40].sum() + 60  # 0.5, 1, 2
    assert "2" in texts(figure)


# Files


def test_the_same_input_gives_the_same_bytes(tmp_path):
    sample = make_sample(*many(2))
    figure = draw(sample)
    first, again = save(figure, tmp_path / "a"), save(figure, tmp_path / "b.c" / "d.e")
    user = {
        "savefig.bbox": "tight",
        "pdf.fonttype": 3,
        "image.origin": "lower",
        "font.size": 20,
    }
    with matplotlib.rc_context(user):
        others = save(draw(sample), tmp_path / "c")
    assert [p.name for p in again] == ["d.e.png", "d.e.pdf"]
    for a, b, c in zip(first, again, others, strict=True):
        assert a.read_bytes() == b.read_bytes() == c.read_bytes()
    pdf = first[1].read_bytes()
    assert b"Date" not in pdf
    assert b"/FontFile2" in pdf
    assert b"/Type3" not in pdf
    with Image.open(first[0]) as png:
        assert png.info["dpi"] == pytest.approx((300, 300), abs=0.1)
        assert not {"Software", "Creation Time"} & set(png.info)


def test_another_process_writes_the_same_bytes_and_leaves_pyplot_alone(tmp_path):
    code = """
import sys, numpy as np
from explain.figures import *
e = Explanation("weighted", np.eye(3), [0.5, 1])
s = Sample(Photo(np.zeros((9, 9, 3), np.uint8), (0, 0, 9, 9)), "Is it 😀?", ["is", "it"], "yes", 0.5, [e])
files = save(draw(s, scale="common"), sys.argv[1])
assert "matplotlib.pyplot" not in sys.modules
"""
    environment = os.environ | {"PYTHONHASHSEED": "7", "SOURCE_DATE_EPOCH": "7"}
    subprocess.run([sys.executable, "-c", code, tmp_path / "other"], check=True, env=environment)
    image = np.zeros((9, 9, 3), np.uint8)
    e = Explanation("weighted", np.eye(3), [0.5, 1])
    sample = make_sample(e, image=image, box=(0, 0, 9, 9), question="Is it 😀?")
    sample = dataclasses.replace(sample, probability=0.5)
    for file in save(draw(sample, scale="common"), tmp_path / "own"):
        assert file.read_bytes() == (tmp_path / f"other{file.suffix}").read_bytes()


def test_a_file_is_whole_or_the_old_one(tmp_path, monkeypatch):
    figure = draw(make_sample(*many(1)))

    def break_off(self, file, **_):
        file.write_bytes(b"half")
        raise OSError("disk full")

    (tmp_path / "a.png").write_bytes(b"old")
    monkeypatch.setattr(Figure, "savefig", break_off)
    with pytest.raises(OSError, match="disk full"):
        save(figure, tmp_path / "a")
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("a.png", b"old")]


# Errors


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Explanation("rollout", [[1, np.nan]], [1, 1]), "rollout: patch scores: 1 of 2 are not finite"),
        (lambda: Explanation("rollout", [[1]], [1, np.inf]), "rollout: word scores: 1 of 2 are not finite"),
        (lambda: Explanation("rollout", [1, 2], [1]), r"rollout: patch scores are \[rows, cols\], not \[2\]"),
        (lambda: Explanation("rollout", np.zeros((0, 3)), [1]), r"rollout: patch scores .* not \[0, 3\]"),
        (lambda: Explanation("rollout", [[1]], [[1]]), r"rollout: word scores are \[n_words\], not \[1, 1\]"),
        (lambda: make_sample(Explanation("rollout", [[1]], [1])), "rollout: 1 word scores for 2 words"),
        (lambda: make_sample(), "needs an explanation"),
        (lambda: Sample(Photo(WHITE, BOX), "", [], "", 1.5, many(1, ())), "between 0 and 1, not at 1.5"),
        (lambda: Sample(Photo(WHITE, BOX), "", [], "", np.nan, many(1, ())), "between 0 and 1, not at nan"),
        (lambda: Photo(WHITE, (20, 0, 101, 60)), "does not lie inside the image of 100 × 60"),
        (lambda: Photo(WHITE, (20, 0, 20, 60)), "does not lie inside"),
        (lambda: Photo(WHITE / 255, BOX), r"uint8 \[H, W, 3\], not float64 \[60, 100, 3\]"),
        (lambda: Photo(WHITE[..., 0], BOX), r"uint8 \[H, W, 3\], not uint8 \[60, 100\]"),
        (lambda: draw(make_sample(*many(1)), "nearest"), "overlay is bilinear or patches, not 'nearest'"),
        (lambda: draw(make_sample(*many(1)), scale="both"), "scale is each or common, not 'both'"),
        (
            lambda: draw_interaction(Photo(WHITE, BOX), ["a"], np.zeros((1, 5)), (2, 3)),
            r"1 words and 2 × 3 .* \[1, 5\]",
        ),
        (lambda: draw_interaction(Photo(WHITE, BOX), [], np.zeros((0, 6)), (2, 3)), "0 words"),
        (lambda: draw_interaction(Photo(WHITE, BOX), ["a"], [[np.nan]], (1, 1)), "interaction: 1 of 1 are not finite"),
        (lambda: draw_interaction(Photo(WHITE, BOX), ["a"], [[1]], (1, 1), "x"), "overlay is bilinear or patches"),
        (lambda: save(Figure(), "x", ["svg"]), "unknown format 'svg'; a figure is saved as png or pdf"),
    ],
)
def test_errors_name_what_is_wrong(make, message):
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
