"""Figures of the interaction between words and patches: a heat map for each word."""

from collections.abc import Sequence
from math import ceil

from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from explain.figures.layout import BAR, BAR_ROOM, MARGIN, Grid, Page, visible
from explain.figures.photo import Overlay, Photo, checked_overlay
from explain.figures.scale import Scale, finite

CELL = 61.0  # seven cells are as wide as the text of a two-column paper, in points
MOST_COLUMNS = 7
TITLE = 7.0  # font size


def draw_interaction(
    photo: Photo, words: Sequence[str], matrix: ArrayLike, grid: tuple[int, int], overlay: Overlay = "bilinear"
) -> Figure:
    """Draw the photo, and for each word a heat map of the patches that interact with it, all on one colour scale.

    Args:
        photo: The photo, and the part of it that the encoder saw.
        words: The words, [n_words].
        matrix: The interaction M, [n_words, rows * cols], with patches row by row.
        grid: Number of rows and columns of the patches, ``(rows, cols)``.
        overlay: ``bilinear`` for smooth maps, ``patches`` for one flat colour per patch.

    Raises:
        ValueError: There are no words, a score is not finite, the matrix has another shape, or ``overlay`` is unknown.
    """
    checked_overlay(overlay)
    scores, (rows, cols) = finite(matrix, "interaction"), grid
    if not words or scores.shape != (len(words), rows * cols):
        raise ValueError(
            f"an interaction of {len(words)} words and {rows} × {cols} patches has shape {list(scores.shape)}; "
            "expected [n_words, rows * cols] with at least one word"
        )
    scale = Scale.over([scores])
    titles = ["", *map(visible, words)]
    lines = ceil(len(titles) / MOST_COLUMNS)
    cells = Grid.of(photo, titles, TITLE, CELL, ceil(len(titles) / lines), room=0)  # rows of similar length
    page = Page(2 * MARGIN + max(cells.width, BAR), 2 * MARGIN + cells.height + BAR_ROOM)
    photo.show(cells.picture(page, 0, MARGIN))
    for place, word_scores in enumerate(scores, start=1):
        photo.show_heat(cells.picture(page, place, MARGIN), word_scores.reshape(rows, cols), scale, overlay)
    page.colour_bar(page.width - MARGIN - BAR, page.height - MARGIN, BAR, scale, "interaction of word and patch")
    return page.figure
