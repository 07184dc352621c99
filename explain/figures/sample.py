"""One sample: the photo, the question, the answer, and what each explainer makes of them."""

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

CELL = 92.0  # five cells are as wide as the text of a two-column paper
MOST_COLUMNS = 4  # of explainers
TITLE, ANSWER, QUESTION, CAPTION = 8.0, 8.0, 7.0, 6.0  # font sizes
LABELS = ("relevance of a patch", "relevance of a word")  # of the colour bars


@dataclass(frozen=True, eq=False)
class Explanation:
    """What an explainer says: a score each patch of the box, [rows, cols], and each word, [n_words].

    Raises:
        ValueError: naming the explainer: patches that are no grid, or scores that are not finite numbers.
    """

    explainer: str
    patches: ArrayLike
    words: ArrayLike

    def __post_init__(self) -> None:
        if self.patch_scores.ndim != 2 or self.patch_scores.size == 0:
            raise ValueError(f"{self.explainer}: patch scores are [rows, cols], not {list(self.patch_scores.shape)}")
        if self.word_scores.ndim != 1:
            raise ValueError(f"{self.explainer}: word scores are [n_words], not {list(self.word_scores.shape)}")

    @property
    def patch_scores(self) -> Array:
        """[rows, cols]."""
        return finite(self.patches, f"{self.explainer}: patch scores")

    @property
    def word_scores(self) -> Array:
        """[n_words]."""
        return finite(self.words, f"{self.explainer}: word scores")


@dataclass(frozen=True, eq=False)
class Sample:
    """A prediction and its explanations.

    Args:
        photo: The photo and the part of it that the encoder saw.
        question: The question as it was asked.
        words: The words that have scores, such as the question's as the tokenizer cut them, [n_words].
        answer: What the model says.
        probability: Of the answer, 0 to 1.
        explanations: One or more.
        caption: A further small line, such as what people answered.

    Raises:
        ValueError: a probability outside 0 to 1, no explanation, or one whose words are not as many as ``words``.
    """

    photo: Photo
    question: str
    words: Sequence[str]
    answer: str
    probability: float
    explanations: Sequence[Explanation]
    caption: str = ""

    def __post_init__(self) -> None:
        if not 0 <= self.probability <= 1:
            raise ValueError(f"a probability lies between 0 and 1, not at {self.probability}")
        if not self.explanations:
            raise ValueError("a sample needs an explanation")
        for e in self.explanations:
            if len(e.word_scores) != len(self.words):
                raise ValueError(f"{e.explainer}: {len(e.word_scores)} word scores for {len(self.words)} words")


def draw(sample: Sample, overlay: Overlay = "bilinear", scale: Literal["each", "common"] = "each") -> Figure:
    """The photo, answer and question at the left; beside it a heat map and coloured words for each explainer.

    Zero is colourless, more is darker. If scores of both signs are to be shown, red is positive and blue negative.

    Args:
        sample: The sample.
        overlay: ``bilinear`` for smooth maps, ``patches`` for the patches as they are.
        scale: ``each``: every explainer fills the colours, patches and words each by their own largest score.
            ``common``: one score is one colour in every column, and colour bars tell which.

    Raises:
        ValueError: another ``overlay`` or ``scale``.
    """
    checked_scale(scale)
    checked_overlay(overlay)
    words, explanations = set_words(sample.words, CELL), sample.explanations
    columns = math.ceil(len(explanations) / math.ceil(len(explanations) / MOST_COLUMNS))
    titles = [e.explainer for e in explanations]
    grid = Grid.of(sample.photo, titles, TITLE, CELL, columns, room=SPACE + words_height(words))
    legend = grid.title_height + grid.picture_height + _legend_height(sample)
    bars = BAR_ROOM if scale == "common" else 0.0
    # Beside a single explainer, a bar has to stand under the legend.
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
    """The scales of patches and of words."""
    return Scale.pair((e.patch_scores for e in explanations), (e.word_scores for e in explanations))


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
    """What stands under the photo: lines, font size, bold, colour."""
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
    """The photo, its top ``top`` below the margin, and the legend."""
    axes = picture_axes(page, sample.photo, MARGIN, MARGIN + top, CELL)
    sample.photo.show(axes)
    y = page.height * (1 - axes.get_position().y0) + SPACE
    for lines, size, bold, color in _legend(sample):
        y = page.lines(MARGIN, y, lines, size, bold=bold, color=color)
