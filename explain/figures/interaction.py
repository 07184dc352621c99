"""Figures of the interaction between words and patches: a heat map for each word."""

from collections.abc import Sequence
from dataclasses import replace
from math import ceil

from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from explain.figures.evidence import KEY
from explain.figures.layout import BAR, BAR_ROOM, GAP, GREY, MARGIN, SPACE, Grid, Page
from explain.figures.photo import Overlay, Photo, checked_overlay
from explain.figures.scale import Scale, finite
from explain.figures.text import lines_height, visible, wrapped

CELL = 61.0  # seven cells are as wide as the text of a two-column paper, in points
MOST_COLUMNS = 7
TITLE, NOTE = 7.0, 6.0  # font sizes
MEANING = "relevance of the patch to the word × relevance of the word to the patch"


def draw_interaction(
    photo: Photo,
    words: Sequence[str],
    matrix: ArrayLike,
    grid: tuple[int, int],
    overlay: Overlay = "bilinear",
    question: str = "",
    answer: str = "",
    meaning: str = MEANING,
) -> Figure:
    """Draw the photo, and for each word a heat map of the patches that interact with it, all on one colour scale.

    Args:
        photo: The photo, and the part of it that the encoder saw.
        words: The words, [n_words].
        matrix: The interaction M, [n_words, rows * cols], with patches row by row.
        grid: Number of rows and columns of the patches, ``(rows, cols)``.
        overlay: ``bilinear`` for smooth maps, ``patches`` for one flat colour per patch.
        question: The question, written above the maps.
        answer: The answer, written below the question.
        meaning: What a value of the matrix is, written next to the colour bar; by default the mutual interaction
            (Huang et al. 2023, Eq. 19).

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
    cells = Grid.of([photo], titles, TITLE, CELL, ceil(len(titles) / lines), room=0)  # rows of similar length
    width = max(cells.width, BAR)
    asked, answered = wrapped(question, width, TITLE, bold=True), wrapped(answer, width, TITLE)
    said = lines_height(len(asked) + len(answered), TITLE) + (SPACE if asked or answered else 0)
    beside = width - BAR - GAP
    notes = [meaning, KEY] if photo.outlines else [meaning]
    explained = wrapped("; ".join(notes), beside if beside >= BAR else width, NOTE)
    below = 0.0 if beside >= BAR else lines_height(len(explained), NOTE)
    cells = replace(cells, top=MARGIN + said)
    page = Page(2 * MARGIN + width, 2 * MARGIN + said + cells.height + BAR_ROOM + below)
    end = page.lines(MARGIN, MARGIN, asked, TITLE, bold=True)
    page.lines(MARGIN, end, answered, TITLE)
    photo.show(cells.pictures(page, 0, MARGIN)[0])
    for place, word_scores in enumerate(scores, start=1):
        photo.show_heat(cells.pictures(page, place, MARGIN)[0], word_scores.reshape(rows, cols), scale, overlay)
    bar = page.height - MARGIN - below
    page.colour_bar(page.width - MARGIN - BAR, bar, BAR, scale, "interaction of word and patch")
    page.lines(MARGIN, page.height - MARGIN - (below or BAR_ROOM - SPACE), explained, NOTE, color=GREY)
    return page.figure
