"""Figures of captions: the photo, and for each explainer a heat map for every word and one for the whole caption."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Literal

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from explain.figures.evidence import KEY
from explain.figures.layout import BAR_ROOM, BARS, GAP, GREY, MARGIN, SPACE, Collage, Grid, Page
from explain.figures.photo import Overlay, Photo, checked_overlay
from explain.figures.scale import Array, Scale, checked_scale, finite
from explain.figures.text import lines_height, visible, wrapped

CELL = 47.0  # nine cells are as wide as the text of a two-column paper, in points
MOST_COLUMNS = 9
HIGHEST = 648.0  # most points of a figure's height, 9 inches
PHOTO = 76.0  # width of the photo
TEXT, NAME, WORD, NOTE = 9.0, 8.0, 7.0, 6.0  # font sizes
BLOCK_GAP = 8.0  # space above each explainer
WHOLE = "all words"  # short enough for one line of a cell
LABELS = ("relevance to a word", "relevance to all words")  # labels of the colour bars


@dataclass(frozen=True, eq=False)
class WordMaps:
    """An explainer's heat maps of a caption: one for each word and one for the whole caption.

    Args:
        explainer: Name of the explainer.
        words: Scores of the patches for each word, [n_words, rows, cols].
        whole: Scores of the patches for the whole caption, [rows, cols].

    Raises:
        ValueError: The maps are not grids or have different shapes, or a score is not finite; the message names the
            explainer.
    """

    explainer: str
    words: ArrayLike
    whole: ArrayLike

    def __post_init__(self) -> None:
        words, whole = self.word_scores, self.whole_scores
        if words.ndim != 3 or words.size == 0 or words.shape[1:] != whole.shape:
            raise ValueError(
                f"{self.explainer}: maps of words must be [n_words, rows, cols] and the map of all [rows, cols], not "
                f"{list(words.shape)} and {list(whole.shape)}"
            )

    @property
    def word_scores(self) -> Array:
        """Scores for each word, [n_words, rows, cols]."""
        return finite(self.words, f"{self.explainer}: scores of words")

    @property
    def whole_scores(self) -> Array:
        """Scores for the whole caption, [rows, cols]."""
        return finite(self.whole, f"{self.explainer}: scores of the caption")


@dataclass(frozen=True, eq=False)
class Caption:
    """A generated caption and its explanations.

    Args:
        photo: The photo, and the part of it that the encoder saw.
        text: The caption.
        words: The words of the caption, each with a map, [n_words].
        explanations: At least one.
        note: A second, small line of text, such as a caption written by a person.
        evidence: Where the objects are that a word names, bool [h, w] over the whole photo, by the number of the word;
            they are outlined by dashes. Words without an entry have no known evidence.

    Raises:
        ValueError: There is no explanation, or an explanation's number of words differs from ``words``.
    """

    photo: Photo
    text: str
    words: Sequence[str]
    explanations: Sequence[WordMaps]
    note: str = ""
    evidence: Mapping[int, NDArray[np.bool_]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.explanations:
            raise ValueError("a caption needs at least one explanation")
        for e in self.explanations:
            if len(e.word_scores) != len(self.words):
                raise ValueError(f"{e.explainer}: maps of {len(e.word_scores)} words for {len(self.words)} words")


def draw_caption(caption: Caption, overlay: Overlay = "bilinear", scale: Literal["each", "common"] = "each") -> Figure:
    """Draw the photo with the caption, and below it for each explainer the maps of all words and of the whole caption.

    A score of zero has no colour, and larger scores are darker. If any drawn score is negative, positive scores are red
    and negative scores are blue.

    Args:
        caption: The caption.
        overlay: ``bilinear`` for smooth maps, ``patches`` for one flat colour per patch.
        scale: ``each``: an explainer has one colour scale for all its words, and one for the whole caption. ``common``:
            all explainers share these two scales. The colour bars are drawn above the maps that they belong to.

    Raises:
        ValueError: ``overlay`` or ``scale`` is unknown.
    """
    return _Layout.of(caption, scale).draw(caption.explanations, overlay)


def draw_caption_pages(
    caption: Caption, overlay: Overlay = "bilinear", scale: Literal["each", "common"] = "each"
) -> list[Figure]:
    """Draw a caption like :func:`draw_caption`, but on as many figures as needed so that none is higher than a page.

    A page is 9 inches high. A figure has at least one explainer; common scales are those of all figures.

    Raises:
        ValueError: ``overlay`` or ``scale`` is unknown.
    """
    layout, every = _Layout.of(caption, scale), caption.explanations
    count = max(1, int((HIGHEST - 2 * MARGIN - layout.header.height) // layout.block))
    pages = math.ceil(len(every) / count)
    edges = [len(every) * page // pages for page in range(pages + 1)]
    return [layout.draw(every[first:last], overlay) for first, last in pairwise(edges)]


@dataclass(frozen=True)
class _Layout:
    """The sizes of a caption's figure, and its common scales if it has such."""

    photos: Sequence[Photo]  # of each word's map, with the word's evidence, and of the map of all words
    grid: Grid
    header: _Header
    common: tuple[Scale, Scale] | None
    width: float
    name: float  # height of an explainer's name, with the colour bars next to it
    block: float  # height of an explainer's maps, with its name

    @classmethod
    def of(cls, caption: Caption, scale: str) -> _Layout:
        """Return the layout of a caption; ``scale`` is ``each`` or ``common``."""
        checked_scale(scale)
        titles = [*map(visible, caption.words), WHOLE]
        lines = math.ceil(len(titles) / MOST_COLUMNS)
        grid = Grid.of([caption.photo], titles, WORD, CELL, math.ceil(len(titles) / lines), room=0)
        width = max(grid.width, PHOTO + GAP + BARS + GAP)
        common = _scales(caption.explanations) if scale == "common" else None
        name = lines_height(1, NAME) if common else BAR_ROOM
        header = _Header(caption, width - PHOTO - GAP, common)
        return cls(_photos(caption), grid, header, common, width, name, BLOCK_GAP + name + grid.height)

    def draw(self, explanations: Sequence[WordMaps], overlay: Overlay) -> Figure:
        """Draw the header and the maps of some of the explainers."""
        checked_overlay(overlay)
        page = Page(2 * MARGIN + self.width, 2 * MARGIN + self.header.height + len(explanations) * self.block)
        self.header.draw(page)
        for number, explanation in enumerate(explanations):
            top = MARGIN + self.header.height + number * self.block + BLOCK_GAP + self.name
            page.lines(MARGIN, top - lines_height(1, NAME), [explanation.explainer], NAME, bold=True)
            scales = self.common or _scales([explanation])
            if self.common is None:
                page.colour_bars(top, scales, LABELS)
            _draw_maps(page, replace(self.grid, top=top), self.photos, explanation, scales, overlay)
        return page.figure


@dataclass(frozen=True)
class _Header:
    """The photo, and to its right the caption and the note, with the colour bars of common scales at the bottom."""

    caption: Caption
    room: float  # width to the right of the photo
    scales: tuple[Scale, Scale] | None

    @property
    def _texts(self) -> Iterator[tuple[list[str], float, bool, str]]:
        """Text blocks as (lines, font size, bold, colour)."""
        yield wrapped(self.caption.text, self.room, TEXT, bold=True), TEXT, True, "black"
        known = f"{KEY} of a word" if self.caption.evidence else ""
        note = "; ".join(filter(None, (self.caption.note, known)))
        yield wrapped(note, self.room, NOTE), NOTE, False, GREY

    @property
    def height(self) -> float:
        """Height of the header in points."""
        texts = SPACE + sum(lines_height(len(lines), size) for lines, size, _, _ in self._texts)
        return max(texts + (BAR_ROOM if self.scales else 0), Collage([self.caption.photo], PHOTO).height)

    def draw(self, page: Page) -> None:
        """Draw the header on the page."""
        self.caption.photo.show(Collage([self.caption.photo], PHOTO).panels(page, MARGIN, MARGIN)[0])
        y = MARGIN
        for lines, size, bold, color in self._texts:
            y = page.lines(MARGIN + PHOTO + GAP, y, lines, size, bold=bold, color=color) + SPACE
        if self.scales:
            page.colour_bars(MARGIN + self.height, self.scales, LABELS)


def _scales(explanations: Sequence[WordMaps]) -> tuple[Scale, Scale]:
    """Return the scale of words and the scale of whole captions."""
    return Scale.common_pair([[e.word_scores] for e in explanations], [[e.whole_scores] for e in explanations])


def _photos(caption: Caption) -> list[Photo]:
    """Return the photo with the evidence of each word, and the photo as it is."""
    own = [replace(caption.photo, evidence=caption.evidence.get(word)) for word in range(len(caption.words))]
    return [*own, caption.photo]


def _draw_maps(
    page: Page,
    grid: Grid,
    photos: Sequence[Photo],
    explanation: WordMaps,
    scales: tuple[Scale, Scale],
    overlay: Overlay,
) -> None:
    maps = [*((scores, scales[0]) for scores in explanation.word_scores), (explanation.whole_scores, scales[1])]
    for place, (photo, (scores, scale)) in enumerate(zip(photos, maps, strict=True)):
        photo.show_heat(grid.pictures(page, place, MARGIN)[0], scores, scale, overlay)
