"""How words and patches bear on each other: a heat map for each word."""

from collections.abc import Sequence
from math import ceil

from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from explain.figures.layout import BAR, BAR_ROOM, MARGIN, Grid, Page, visible
from explain.figures.photo import Overlay, Photo, checked_overlay
from explain.figures.scale import Scale, finite

CELL = 61.0  # seven cells are as wide as the text of a two-column paper
MOST_COLUMNS = 7
TITLE = 7.0


def draw_interaction(
    photo: Photo, words: Sequence[str], matrix: ArrayLike, grid: tuple[int, int], overlay: Overlay = "bilinear"
) -> Figure:
    """The photo, then for each word the patches that interact with it, all on one scale.

    Args:
        photo: The photo and the part of it that the encoder saw.
        words: The words, [n_words].
        matrix: The interaction M, [n_words, rows * cols], patches row by row.
        grid: ``(rows, cols)`` of the patches.
        overlay: ``bilinear`` for smooth maps, ``patches`` for the patches as they are.

    Raises:
        ValueError: no words, scores that are not finite, a matrix of another shape, or another ``overlay``.
    """
    checked_overlay(overlay)
    scores, (rows, cols) = finite(matrix, "interaction"), grid
    if not words or scores.shape != (len(words), rows * cols):
        raise ValueError(
            f"an interaction of {len(words)} words and {rows} × {cols} patches is not {list(scores.shape)}"
        )
    scale = Scale.over([scores])
    titles = ["", *map(visible, words)]
    lines = ceil(len(titles) / MOST_COLUMNS)
    cells = Grid.of(photo, titles, TITLE, CELL, ceil(len(titles) / lines), room=0)  # lines of much the same length
    page = Page(2 * MARGIN + max(cells.width, BAR), 2 * MARGIN + cells.height + BAR_ROOM)
    photo.show(cells.picture(page, 0, MARGIN))
    for place, word_scores in enumerate(scores, start=1):
        photo.show_heat(cells.picture(page, place, MARGIN), word_scores.reshape(rows, cols), scale, overlay)
    page.colour_bar(page.width - MARGIN - BAR, page.height - MARGIN, BAR, scale, "interaction of word and patch")
    return page.figure
