"""Figures of samples: the photos, the question, the answer, and the scores of each explainer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from explain.figures.evidence import KEY
from explain.figures.layout import BAR_ROOM, BARS, GAP, GREY, MARGIN, SPACE, Collage, Grid, Page
from explain.figures.photo import Overlay, Photo, checked_overlay
from explain.figures.scale import Array, Scale, checked_scale, finite
from explain.figures.text import NBSP, Placed, lines_height, set_words, words_height, wrapped

CELL = 92.0  # five cells are as wide as the text of a two-column paper, in points
MOST_COLUMNS = 4  # columns of explainers
WIDE = 2 * CELL + GAP  # width of the words if there is no photo
TITLE, ANSWER, QUESTION, CAPTION = 8.0, 8.0, 7.0, 6.0  # font sizes
LABELS = ("relevance of a patch", "relevance of a word")  # labels of the colour bars


@dataclass(frozen=True, eq=False)
class Explanation:
    """An explainer's scores of the patches and words of a sample.

    Args:
        explainer: Name of the explainer.
        patches: Scores of the patches in the photo's box, [rows, cols]; of several photos a sequence of such arrays,
            which is empty if there is no photo.
        words: Scores of the words, [n_words]; empty if there are none.

    Raises:
        ValueError: The scores have another shape or are not finite; the message names the explainer.
    """

    explainer: str
    patches: ArrayLike | Sequence[ArrayLike]
    words: ArrayLike

    def __post_init__(self) -> None:
        for scores in self.maps:
            if scores.ndim != 2 or scores.size == 0:
                raise ValueError(f"{self.explainer}: patch scores must be [rows, cols], not {list(scores.shape)}")
        if self.word_scores.ndim != 1:
            raise ValueError(f"{self.explainer}: word scores must be [n_words], not {list(self.word_scores.shape)}")

    @property
    def maps(self) -> list[Array]:
        """Scores of the patches of each photo, [rows, cols]."""
        several = isinstance(self.patches, Sequence) and all(np.ndim(each) == 2 for each in self.patches)
        given: Any = self.patches if several else [self.patches]
        return [finite(each, f"{self.explainer}: patch scores") for each in given]

    @property
    def word_scores(self) -> Array:
        """Scores of the words, [n_words]."""
        return finite(self.words, f"{self.explainer}: word scores")


@dataclass(frozen=True, eq=False)
class Sample:
    """A prediction and its explanations.

    Args:
        photo: The photo, and the part of it that the encoder saw; several of them, or none, as a sequence.
        question: The question.
        words: The words that have scores, such as the tokenizer's words of the question, [n_words].
        answer: The predicted answer.
        probability: Probability of the answer, from 0 to 1; None if it has none.
        explanations: At least one.
        caption: Another small line of text, such as the answers of people.
        evidence: Whether the answer is known to depend on each word, [n_words]; such words have a dashed frame. Empty
            if this is not known.

    Raises:
        ValueError: The probability is outside 0..1, there is no explanation, or an explanation's number of words or
            of maps differs from that of ``words`` or photos.
    """

    photo: Photo | Sequence[Photo]
    question: str
    words: Sequence[str]
    answer: str
    probability: float | None
    explanations: Sequence[Explanation]
    caption: str = ""
    evidence: Sequence[bool] = ()

    def __post_init__(self) -> None:
        if self.probability is not None and not 0 <= self.probability <= 1:
            raise ValueError(f"a probability must be between 0 and 1, not {self.probability}")
        if not self.explanations:
            raise ValueError("a sample needs at least one explanation")
        for e in self.explanations:
            if len(e.word_scores) != len(self.words):
                raise ValueError(f"{e.explainer}: {len(e.word_scores)} word scores for {len(self.words)} words")
            if len(e.maps) != len(self.photos):
                raise ValueError(f"{e.explainer}: {len(e.maps)} maps for {len(self.photos)} photos")
        if self.evidence and len(self.evidence) != len(self.words):
            raise ValueError(f"evidence: {len(self.evidence)} values for {len(self.words)} words")

    @property
    def photos(self) -> Sequence[Photo]:
        """The photos."""
        return [self.photo] if isinstance(self.photo, Photo) else self.photo

    @property
    def answered(self) -> str:
        """The answer, with its probability in percent if it has one."""
        return with_share(self.answer, self.probability)


def with_share(answer: str, probability: float | None) -> str:
    """Return an answer with its probability in percent, which is "<1" for the smallest ones; None adds nothing."""
    if probability is None:
        return answer
    percent = 100 * probability
    return f"{answer} ({f'{percent:.0f}' if percent >= 0.5 else '<1'}{NBSP}%)"


def draw(sample: Sample, overlay: Overlay = "bilinear", scale: Literal["each", "common"] = "each") -> Figure:
    """Draw the photos, question and answer on the left, and each explainer's heat maps and coloured words on the right.

    A score of zero has no colour, and larger scores are darker. If any drawn score is negative, positive scores are red
    and negative scores are blue. Colour bars at the bottom say what the colours mean.

    Args:
        sample: The sample.
        overlay: ``bilinear`` for smooth maps, ``patches`` for one flat colour per patch.
        scale: ``each``: every explainer has separate scales for patches and words, up to its largest score. ``common``:
            a colour means the same score in every column. If an explainer's scores are much larger than those of the
            others, its largest have the colour of the scale's end, marked with ≥.

    Raises:
        ValueError: ``overlay`` or ``scale`` is unknown.
    """
    checked_scale(scale)
    checked_overlay(overlay)
    explanations, photos = sample.explanations, sample.photos
    most, cell = (MOST_COLUMNS, CELL) if photos else (1, WIDE)
    words = set_words(sample.words, cell)
    columns = math.ceil(len(explanations) / math.ceil(len(explanations) / most))
    titles = [e.explainer for e in explanations]
    grid = Grid.of(photos, titles, TITLE, cell, columns, room=SPACE + words_height(words))
    asked = grid.title_height + Collage(photos, CELL).height + _legend_height(sample)
    # Next to a single explainer there is no space for the bars, so they are drawn below the question.
    height = max(grid.height, asked) + BAR_ROOM if grid.width < BARS else max(grid.height + BAR_ROOM, asked)
    page = Page(2 * MARGIN + CELL + GAP + grid.width, 2 * MARGIN + height)
    _draw_prediction(page, sample, MARGIN + grid.title_height)
    for place, explanation in enumerate(explanations):
        scales = _scales(explanations if scale == "common" else [explanation])
        _draw_explanation(page, grid, place, explanation, words, scales, overlay, sample.evidence)
    if scale == "common":
        bars = [pair for pair in zip(_scales(explanations), LABELS, [photos, words], strict=True) if pair[2]]
        page.colour_bars(page.height - MARGIN, [bar[0] for bar in bars], [bar[1] for bar in bars])
    else:
        label = (
            "own scales for maps and words of an explainer" if photos and words else "an explainer has its own scale"
        )
        signed = {_scales([each])[0].signed for each in explanations}
        page.colour_key(page.height - MARGIN, signed, f"relevance; {label}")
    return page.figure


def _scales(explanations: Sequence[Explanation]) -> tuple[Scale, Scale]:
    """Return the scale of patches and the scale of words."""
    return Scale.common_pair([e.maps for e in explanations], [[e.word_scores] for e in explanations])


def _draw_explanation(
    page: Page,
    grid: Grid,
    place: int,
    explanation: Explanation,
    words: Sequence[Placed],
    scales: tuple[Scale, Scale],
    overlay: Overlay,
    evidence: Sequence[bool],
) -> None:
    left = MARGIN + CELL + GAP
    for axes, photo, scores in zip(grid.pictures(page, place, left), grid.photos, explanation.maps, strict=True):
        photo.show_heat(axes, scores, scales[0], overlay)
    x, top = grid.corner(place, left)
    page.words(x, top + SPACE, words, explanation.word_scores, scales[1], evidence)


def _legend(sample: Sample) -> list[tuple[list[str], float, bool, str]]:
    """Return the text below the photos, as blocks of (lines, font size, bold, colour)."""
    known = any(sample.evidence) or any(photo.outlines for photo in sample.photos)
    notes = [sample.caption, KEY if known else ""]
    return [
        (wrapped(sample.question, CELL, QUESTION), QUESTION, False, "black"),
        (wrapped(sample.answered, CELL, ANSWER, bold=True), ANSWER, True, "black"),
        *((wrapped(note, CELL, CAPTION), CAPTION, False, GREY) for note in notes),
    ]


def _legend_height(sample: Sample) -> float:
    return SPACE + sum(lines_height(len(lines), size) for lines, size, _, _ in _legend(sample))


def _draw_prediction(page: Page, sample: Sample, top: float) -> None:
    """Draw the photos, with their upper edge at ``top``, and the legend."""
    collage = Collage(sample.photos, CELL)
    for axes, photo in zip(collage.panels(page, MARGIN, top), sample.photos, strict=True):
        photo.show(axes)
    y = top + collage.height + SPACE
    for lines, size, bold, color in _legend(sample):
        y = page.lines(MARGIN, y, lines, size, bold=bold, color=color)
