"""Samples to draw, and the pixels, texts and positions of the resulting figures."""

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
    """Return a sample with the given explanations and defaults for everything else."""
    return Sample(Photo(image, box), question, words, answer, 0.73, explanations, caption)


def random_explanations(n, words=("is", "it"), grid=GRID):
    """Return ``n`` random explanations, named ``explainer_0`` and so on."""
    rng = np.random.default_rng(n)
    return [Explanation(f"explainer_{k}", rng.random(grid), rng.random(len(words))) for k in range(n)]


def rendered(figure):
    """Return the figure's pixels, RGB [h, w, 3]."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].astype(float)


def pictures(figure):
    """Return the axes with images: first the photo, then the heat maps over it."""
    return [
        axes for axes in figure.axes if axes.images and axes.images[0].get_array().ndim == 3 and axes.get_ylim()[0] > 1
    ]


def cut(figure, axes):
    """Return the pixels of one image, without its outermost pixels, which can be blended with the page."""
    page, place = rendered(figure), axes.get_position()
    height, width, _ = page.shape
    rows = slice(round((1 - place.y1) * height), round((1 - place.y0) * height))
    return page[rows, round(place.x0 * width) : round(place.x1 * width)][1:-1, 1:-1]


def boxes(figure):
    """Return the colours of the word boxes, in order."""
    return [np.array(p.get_facecolor())[:3] for p in figure.axes[0].patches if p.get_fill()]


def texts(figure):
    """Return the texts on the figure, in order."""
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
    """Check that no text or image is clipped by the page or overlaps another."""
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
        assert min(across, down) < 3  # pixels at 300 dpi; glyphs have white space at their sides
