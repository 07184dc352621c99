"""hero.png: one scene and question beside the maps of the paper's four explainers, with the known evidence."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from clipmapper.explaining.output import seen_box, small_photo
from clipmapper.tasks.vqa.explaining import AnswerTarget
from clipmapper.tasks.vqa.pictures import figure_of
from clipmapper.tasks.vqa.sample import explain_samples
from explain.figures.evidence import INK
from explain.figures.layout import GREY, MARGIN, Page
from explain.figures.sample import Sample
from explain.figures.scale import Scale
from explain.figures.text import WORD_LEADING, flow, set_words, width_of, words_height
from readme_pictures.subject import RULE, Subject

#: Title and source of each map.
TITLES = {
    "weighted": ("weighted", "Huang et al. 2023"),
    "uniform": ("uniform", "both weights ½"),
    "rollout": ("rollout", "Abnar and Zuidema 2020"),
    "genatt": ("genatt", "Chefer et al. 2021"),
}
CELL, GAP, EDGE = 256 / 3, 9.0, 10.0
QUESTION, TITLE, SOURCE = 10.0, 8.0, 6.0  # font sizes
HEAD = 40.0  # height of the question and answer
UNDER = 3.0  # space between a word and the line under it
ABOVE, BELOW = 23.0, 6.0  # space for the titles, and between a map and its words
BAR = 4.0
DPI = 216  # 3 pixels per point, so that a pixel of a scene becomes 2 × 2 pixels and stays sharp


def explained(subject: Subject) -> Sample:
    """Explain the model's answer by the paper's explainers."""
    explainers = {name: each for name, each in subject.explainers().items() if name in TITLES}
    sample = next(explain_samples(subject.trained.model, subject.batch, explainers, AnswerTarget()))
    box = seen_box(sample.photo.size, subject.trained.model.encoder.vision.visual.preprocess_cfg)
    return figure_of(sample, small_photo(sample.photo, box), subject.evidence)


def scores(subject: Subject) -> Any:
    """Return what the picture shows; the scores of patches and of words are shares of the largest one."""
    sample = explained(subject)
    shown = {"rule": RULE, "question": sample.question, "answer": sample.answer, "probability": sample.probability}
    return shown | {"maps": map_scores(sample), "evidence words": list(sample.evidence)}


def map_scores(sample: Sample) -> dict[str, dict[str, list[float]]]:
    """Return the scores of patches and of words of each explainer, as shares of the largest one."""
    return {
        each.explainer: {
            name: Scale.over([values]).share(np.ravel(values)).tolist()
            for name, values in (("patches", each.maps[0]), ("words", each.word_scores))
        }
        for each in sample.explanations
    }


def draw(subject: Subject) -> Figure:
    """Draw the picture."""
    sample = explained(subject)
    words, [scene] = set_words(sample.words, CELL), sample.photos
    columns = 1 + len(sample.explanations)
    top = EDGE + HEAD + ABOVE
    width = 2 * EDGE + columns * (CELL + GAP) - GAP
    page = Page(width, top + CELL + BELOW + words_height(words) + EDGE - MARGIN)
    page.figure.set_dpi(DPI)
    _draw_head(page, sample)
    scene.show(page.panel(EDGE, top, CELL, CELL))
    _draw_title(page, EDGE, "scene", "dashes: known evidence")
    _draw_key(page, EDGE, top + CELL + BELOW)
    for column, each in enumerate(sample.explanations, 1):
        left = EDGE + column * (CELL + GAP)
        patches, text = Scale.pair([each.maps[0]], [each.word_scores])
        scene.show_heat(page.panel(left, top, CELL, CELL), each.maps[0], patches, "patches")
        _draw_title(page, left, *TITLES[each.explainer])
        page.words(left, top + CELL + BELOW, words, each.word_scores, text)
    return page.figure


def _draw_head(page: Page, sample: Sample) -> None:
    """Draw the question, with a dashed line under the words that are evidence, and the answer below it."""
    y = EDGE + QUESTION
    placed = flow(sample.words, page.width - 2 * EDGE, QUESTION, width_of(" ", QUESTION, bold=True), bold=True)
    for part in placed:
        x = EDGE + (part.x if part.text != "?" else placed[-2].x + placed[-2].width)
        page.text(x, y, part.text, QUESTION, bold=True)
        if sample.evidence[part.word]:
            page.ink.plot([x, x + part.width], [y + UNDER, y + UNDER], color=INK, linewidth=0.8, linestyle="--")
    answer = f"answer: {sample.answer}, probability {sample.probability:.3f}"
    page.text(EDGE, y + 1.8 * QUESTION, answer, TITLE, color=GREY)


def _draw_title(page: Page, left: float, title: str, source: str) -> None:
    top = EDGE + HEAD
    page.text(left, top + TITLE, title, TITLE, bold=True)
    page.text(left, top + TITLE + 1.4 * SOURCE, source, SOURCE, color=GREY)


def _draw_key(page: Page, left: float, top: float) -> None:
    """Draw the colour bar, whose ends are no relevance and the largest relevance of a map."""
    shades = Scale(1.0, False).on_white(np.linspace(0, 1, 128))
    page.panel(left, top + 2, CELL, BAR).imshow(shades[None], aspect="auto")
    page.text(left, top + BAR + WORD_LEADING, "no relevance", SOURCE, color=INK)
    page.text(left + CELL, top + BAR + WORD_LEADING, "most", SOURCE, "right", color=INK)
