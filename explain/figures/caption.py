"""A caption: the photo, and for each explainer a heat map for every word and one for all of them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from explain.figures.layout import (
    BAR_ROOM,
    BARS,
    GAP,
    GREY,
    MARGIN,
    SPACE,
    TALLEST,
    Grid,
    Page,
    lines_height,
    picture_axes,
    visible,
    wrapped,
)
from explain.figures.photo import Overlay, Photo, checked_overlay
from explain.figures.scale import Array, Scale, checked_scale, finite

CELL = 47.0  # nine cells are as wide as the text of a two-column paper
MOST_COLUMNS = 9
PHOTO = 76.0
TEXT, NAME, WORD, NOTE = 9.0, 8.0, 7.0, 6.0  # font sizes
BLOCK_GAP = 8.0  # above each explainer
WHOLE = "all words"  # on one line of a cell
LABELS = ("relevance to a word", "relevance to all words")  # of the colour bars


@dataclass(frozen=True, eq=False)
class WordMaps:
    """What an explainer says of a caption: a map for each word, [n_words, rows, cols], and for all, [rows, cols].

    Raises:
        ValueError: naming the explainer: maps that are no grids or not of one shape, or scores that are not finite.
    """

    explainer: str
    words: ArrayLike
    whole: ArrayLike

    def __post_init__(self) -> None:
        words, whole = self.word_scores, self.whole_scores
        if words.ndim != 3 or words.size == 0 or words.shape[1:] != whole.shape:
            raise ValueError(
                f"{self.explainer}: maps of words are [n_words, rows, cols] and that of all [rows, cols], not "
                f"{list(words.shape)} and {list(whole.shape)}"
            )

    @property
    def word_scores(self) -> Array:
        """[n_words, rows, cols]."""
        return finite(self.words, f"{self.explainer}: scores of words")

    @property
    def whole_scores(self) -> Array:
        """[rows, cols]."""
        return finite(self.whole, f"{self.explainer}: scores of the caption")


@dataclass(frozen=True, eq=False)
class Caption:
    """A generated caption and its explanations.

    Args:
        photo: The photo and the part of it that the encoder saw.
        text: The caption as it is read.
        words: Its words, each with a map, [n_words].
        explanations: One or more.
        note: A further small line, such as what people said.

    Raises:
        ValueError: no explanation, or one whose words are not as many as ``words``.
    """

    photo: Photo
    text: str
    words: Sequence[str]
    explanations: Sequence[WordMaps]
    note: str = ""

    def __post_init__(self) -> None:
        if not self.explanations:
            raise ValueError("a caption needs an explanation")
        for e in self.explanations:
            if len(e.word_scores) != len(self.words):
                raise ValueError(f"{e.explainer}: maps of {len(e.word_scores)} words for {len(self.words)} words")


def draw_caption(caption: Caption, overlay: Overlay = "bilinear", scale: Literal["each", "common"] = "each") -> Figure:
    """The photo and the caption; under them, for each explainer, lines of maps: all words, then the whole caption.

    Zero is colourless, more is darker. If scores of both signs are to be shown, red is positive and blue negative.

    Args:
        caption: The caption.
        overlay: ``bilinear`` for smooth maps, ``patches`` for the patches as they are.
        scale: ``each``: every explainer fills the colours, all its words on one scale, the whole caption on another.
            ``common``: these two are those of the whole figure. Colour bars stand over what they are for.

    Raises:
        ValueError: another ``overlay`` or ``scale``.
    """
    checked_scale(scale)
    checked_overlay(overlay)
    titles = [*map(visible, caption.words), WHOLE]
    lines = math.ceil(len(titles) / MOST_COLUMNS)
    grid = Grid.of(caption.photo, titles, WORD, CELL, math.ceil(len(titles) / lines), room=0)
    width = max(grid.width, PHOTO + GAP + BARS + GAP)
    common = _scales(caption.explanations) if scale == "common" else None
    header = _Header(caption, width - PHOTO - GAP, common)
    name = lines_height(1, NAME) if common else BAR_ROOM
    block = BLOCK_GAP + name + grid.height
    page = Page(2 * MARGIN + width, 2 * MARGIN + header.height + len(caption.explanations) * block)
    header.draw(page)
    for number, explanation in enumerate(caption.explanations):
        top = MARGIN + header.height + number * block + BLOCK_GAP + name
        page.lines(MARGIN, top - lines_height(1, NAME), [explanation.explainer], NAME, bold=True)
        if common is None:
            page.colour_bars(top, _scales([explanation]), LABELS)
        _draw_maps(page, replace(grid, top=top), explanation, common or _scales([explanation]), overlay)
    return page.figure


@dataclass(frozen=True)
class _Header:
    """The photo, and beside it the caption, the note, and at the bottom the bars of common scales."""

    caption: Caption
    room: float  # beside the photo
    scales: tuple[Scale, Scale] | None

    @property
    def _texts(self) -> Iterator[tuple[list[str], float, bool, str]]:
        """Lines, font size, bold, colour."""
        yield wrapped(self.caption.text, self.room, TEXT, bold=True), TEXT, True, "black"
        yield wrapped(self.caption.note, self.room, NOTE), NOTE, False, GREY

    @property
    def height(self) -> float:
        texts = SPACE + sum(lines_height(len(lines), size) for lines, size, _, _ in self._texts)
        return max(texts + (BAR_ROOM if self.scales else 0), PHOTO * min(self.caption.photo.ratio, TALLEST))

    def draw(self, page: Page) -> None:
        self.caption.photo.show(picture_axes(page, self.caption.photo, MARGIN, MARGIN, PHOTO))
        y = MARGIN
        for lines, size, bold, color in self._texts:
            y = page.lines(MARGIN + PHOTO + GAP, y, lines, size, bold=bold, color=color) + SPACE
        if self.scales:
            page.colour_bars(MARGIN + self.height, self.scales, LABELS)


def _scales(explanations: Sequence[WordMaps]) -> tuple[Scale, Scale]:
    """The scales of words and of whole captions."""
    return Scale.pair((e.word_scores for e in explanations), (e.whole_scores for e in explanations))


def _draw_maps(page: Page, grid: Grid, explanation: WordMaps, scales: tuple[Scale, Scale], overlay: Overlay) -> None:
    maps = [*((scores, scales[0]) for scores in explanation.word_scores), (explanation.whole_scores, scales[1])]
    for place, (scores, scale) in enumerate(maps):
        grid.photo.show_heat(grid.picture(page, place, MARGIN), scores, scale, overlay)
