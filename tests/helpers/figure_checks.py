"""Samples to draw, and what came out of a figure: its pixels, texts and places."""

import itertools

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg

from explain.figures import Explanation, Photo, Sample

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
