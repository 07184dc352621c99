"""Figures of samples: the photo, the question, the answer, and the scores of each explainer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from explain.figures.layout import (
    BAR_ROOM,
    GAP,
    GREY,
    MARGIN,
    NBSP,
    SPACE,
    Grid,
    Page,
    Placed,
    lines_height,
    picture_axes,
    set_words,
    words_height,
    wrapped,
)
from explain.figures.photo import Overlay, Photo, checked_overlay
from explain.figures.scale import Array, Scale, checked_scale, finite

CELL = 92.0  # five cells are as wide as the text of a two-column paper, in points
MOST_COLUMNS = 4  # columns of explainers
TITLE, ANSWER, QUESTION, CAPTION = 8.0, 8.0, 7.0, 6.0  # font sizes
LABELS = ("relevance of a patch", "relevance of a word")  # labels of the colour bars


@dataclass(frozen=True, eq=False)
class Explanation:
    """An explainer's scores of the patches and words of a sample.

    Args:
        explainer: Name of the explainer.
        patches: Scores of the patches in the box, [rows, cols].
        words: Scores of the words, [n_words].

    Raises:
        ValueError: The scores have another shape or are not finite; the message names the explainer.
    """

    explainer: str
    patches: ArrayLike
    words: ArrayLike

    def __post_init__(self) -> None:
        if self.patch_scores.ndim != 2 or self.patch_scores.size == 0:
            raise ValueError(
                f"{self.explainer}: patch scores must be [rows, cols], not {list(self.patch_scores.shape)}"
            )
        if self.word_scores.ndim != 1:
            raise ValueError(f"{self.explainer}: word scores must be [n_words], not {list(self.word_scores.shape)}")

    @property
    def patch_scores(self) -> Array:
        """Scores of the patches, [rows, cols]."""
        return finite(self.patches, f"{self.explainer}: patch scores")

    @property
    def word_scores(self) -> Array:
        """Scores of the words, [n_words]."""
        return finite(self.words, f"{self.explainer}: word scores")


@dataclass(frozen=True, eq=False)
class Sample:
    """A prediction and its explanations.

    Args:
        photo: The photo, and the part of it that the encoder saw.
        question: The question.
        words: The words that have scores, such as the tokenizer's words of the question, [n_words].
        answer: The predicted answer.
        probability: Probability of the answer, from 0 to 1; None if it has none.
        explanations: At least one.
        caption: Another small line of text, such as the answers of people.

    Raises:
        ValueError: The probability is outside 0..1, there is no explanation, or an explanation's number of words
            differs from ``words``.
    """

    photo: Photo
    question: str
    words: Sequence[str]
    answer: str
    probability: float | None
    explanations: Sequence[Explanation]
    caption: str = ""

    def __post_init__(self) -> None:
        if self.probability is not None and not 0 <= self.probability <= 1:
            raise ValueError(f"a probability must be between 0 and 1, not {self.probability}")
        if not self.explanations:
            raise ValueError("a sample needs at least one explanation")
        for e in self.explanations:
            if len(e.word_scores) != len(self.words):
                raise ValueError(f"{e.explainer}: {len(e.word_scores)} word scores for {len(self.words)} words")


def draw(sample: Sample, overlay: Overlay = "bilinear", scale: Literal["each", "common"] = "each") -> Figure:
    """Draw the photo, answer and question on the left, and each explainer's heat map and coloured words on the right.

    A score of zero has no colour, and larger scores are darker. If any drawn score is negative, positive scores are red
    and negative scores are blue.

    Args:
        sample: The sample.
        overlay: ``bilinear`` for smooth maps, ``patches`` for one flat colour per patch.
        scale: ``each``: every explainer has separate scales for patches and words, up to its largest score. ``common``:
            a colour means the same score in every column, and colour bars show the scales. If an explainer's scores
            are much larger than those of the others, its largest have the colour of the scale's end, marked with ≥.

    Raises:
        ValueError: ``overlay`` or ``scale`` is unknown.
    """
    checked_scale(scale)
    checked_overlay(overlay)
    words, explanations = set_words(sample.words, CELL), sample.explanations
    columns = math.ceil(len(explanations) / math.ceil(len(explanations) / MOST_COLUMNS))
    titles = [e.explainer for e in explanations]
    grid = Grid.of(sample.photo, titles, TITLE, CELL, columns, room=SPACE + words_height(words))
    legend = grid.title_height + grid.picture_height + _legend_height(sample)
    bars = BAR_ROOM if scale == "common" else 0.0
    # Next to a single explainer there is no space for the bars, so they are drawn below the legend.
    height = max(grid.height, legend) + bars if columns == 1 else max(grid.height + bars, legend)
    page = Page(2 * MARGIN + CELL + GAP + grid.width, 2 * MARGIN + height)
    _draw_prediction(page, sample, grid.title_height)
    for place, explanation in enumerate(explanations):
        scales = _scales(explanations if scale == "common" else [explanation])
        _draw_explanation(page, grid, place, explanation, words, scales, overlay)
    if scale == "common":
        page.colour_bars(page.height - MARGIN, _scales(explanations), LABELS)
    return page.figure


def _scales(explanations: Sequence[Explanation]) -> tuple[Scale, Scale]:
    """Return the scale of patches and the scale of words."""
    return Scale.common_pair([[e.patch_scores] for e in explanations], [[e.word_scores] for e in explanations])


def _draw_explanation(
    page: Page,
    grid: Grid,
    place: int,
    explanation: Explanation,
    words: Sequence[Placed],
    scales: tuple[Scale, Scale],
    overlay: Overlay,
) -> None:
    left = MARGIN + CELL + GAP
    grid.photo.show_heat(grid.picture(page, place, left), explanation.patch_scores, scales[0], overlay)
    x, top = grid.corner(place, left)
    page.words(x, top + SPACE, words, explanation.word_scores, scales[1])


def _legend(sample: Sample) -> list[tuple[list[str], float, bool, str]]:
    """Return the text below the photo, as blocks of (lines, font size, bold, colour)."""
    answer = sample.answer
    if sample.probability is not None:
        percent = sample.probability * 100
        share = f"{percent:.0f}" if percent >= 0.5 or percent == 0 else "<1"
        answer = f"{sample.answer} ({share}{NBSP}%)"
    return [
        (wrapped(sample.question, CELL, QUESTION), QUESTION, False, "black"),
        (wrapped(answer, CELL, ANSWER, bold=True), ANSWER, True, "black"),
        (wrapped(sample.caption, CELL, CAPTION), CAPTION, False, GREY),
    ]


def _legend_height(sample: Sample) -> float:
    return SPACE + sum(lines_height(len(lines), size) for lines, size, _, _ in _legend(sample))


def _draw_prediction(page: Page, sample: Sample, top: float) -> None:
    """Draw the photo, with its upper edge ``top`` below the margin, and the legend."""
    axes = picture_axes(page, sample.photo, MARGIN, MARGIN + top, CELL)
    sample.photo.show(axes)
    y = page.height * (1 - axes.get_position().y0) + SPACE
    for lines, size, bold, color in _legend(sample):
        y = page.lines(MARGIN, y, lines, size, bold=bold, color=color)
