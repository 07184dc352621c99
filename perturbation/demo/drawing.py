"""The HTML of what the demo shows. Templates and the functions of ``explain`` escape all text."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from functools import cache
from io import BytesIO
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

from clipmapper.text import printable
from explain.figures.scale import Scale, readable_on
from explain.sample.html import panels
from explain.sample.result import Explained
from explain.sample.traced import Answer
from perturbation.arrays import Mask
from perturbation.demo.answered import Answered, Said, Strip
from perturbation.demo.scenes import Scene

THUMB, PHOTO, SMALL = 96, 640, 160  # pixels of the longer side of a scene in the list, of the photo, and of a step
NBSP = "\u00a0"
LEGEND = 11  # colours of the legend's gradient


def problem(error: Exception) -> str:
    """Return what is wrong, in one line."""
    return _drawn("problem.html", text=printable(" ".join(str(error).split())))


def scene_list(scenes: Sequence[Scene], chosen: int | None) -> str:
    """Return the pictures of the dataset as buttons."""
    pictures = [{"data": _data(scene.image, THUMB), "chosen": k == chosen} for k, scene in enumerate(scenes)]
    return _drawn("scenes.html", scenes=pictures)


def question_list(questions: Sequence[str]) -> str:
    """Return the questions of a scene as buttons."""
    return _drawn("questions.html", questions=questions)


def answer(found: Explained, warnings: Sequence[str]) -> str:
    """Return the answer with its probability, the second most probable one, and warnings."""
    answers = [each for each in (found.answer, found.runner_up) if each is not None]
    return _drawn("answer.html", answers=[_shown(each) for each in answers], warnings=warnings)


def maps(found: Explained) -> str:
    """Return the map and the coloured words of each explainer, with the legend of the colours."""
    drawn = panels(found.sample, found.scores, found.interaction)
    signed = any(Scale.over([*each.images, each.words]).signed for each in found.scores.values())
    return _drawn("maps.html", maps=[Markup(each) for each in drawn], signed=signed, gradient=_gradient(signed))


def parts(answered: Answered, cells: frozenset[int], words: frozenset[int], said: Said, before: Said) -> str:
    """Return the photo and the words, whose parts are buttons, and what the model says without the removed ones.

    Args:
        answered: The question.
        cells: Numbers of the removed cells.
        words: Numbers of the removed words.
        said: What the model says now.
        before: What it says when nothing is removed.
    """
    kept = _all_but(len(answered.units.boxes), cells)
    first = next((name for name, scored in answered.scored.items() if "text" in scored), None)
    return _drawn(
        "parts.html",
        photo=_data(answered.picture(kept), PHOTO),
        cells=_cells(answered, kept),
        words=_words(answered, words, first),
        explainer=first,
        removed=(len(cells), len(words)),
        now=_value(answered, said),
        before=_value(answered, before),
        changed=said.text != before.text,
    )


def strips(answered: Answered, of_image: Sequence[Strip], of_text: Sequence[Strip]) -> str:
    """Return pictures and texts from which the most relevant parts are removed, with the model's answers."""
    whole = next((strip.steps[0].said.text for strip in [*of_image, *of_text]), "")

    def picture(kept: Mask) -> dict[str, Any]:
        return {"data": _data(answered.picture(kept), SMALL)}

    def text(kept: Mask) -> dict[str, Any]:
        return {"words": _struck(answered, kept)}

    pictures = [_steps(answered, each, picture) for each in of_image]
    texts = [_steps(answered, each, text) for each in of_text]
    return _drawn("strips.html", pictures=pictures, texts=texts, value=answered.value, answer=whole)


def _steps(answered: Answered, strip: Strip, left: Any) -> dict[str, Any]:
    whole = strip.steps[0].said.text
    steps = [
        {
            "share": f"{100 * step.share:.0f}{NBSP}%",
            "said": _value(answered, step.said),
            "changed": step.said.text != whole,
            **left(step.kept),
        }
        for step in strip.steps
    ]
    return {"name": strip.explainer, "steps": steps}


def _shown(each: Answer) -> dict[str, Any]:
    """Return an answer as text, and its probability as text and as the width of a bar."""
    percent = None if each.probability is None else 100 * each.probability
    return {"text": str(each), "share": "" if percent is None else _percent(percent), "width": percent}


def _value(answered: Answered, said: Said) -> dict[str, str]:
    """Return what a model says, and the value of the answer to the complete question."""
    value = _percent(100 * said.value) if answered.value == "probability" else f"{said.value:.3f}"
    return {"text": said.text, "value": value, "name": answered.value}


def _percent(percent: float) -> str:
    number = "<0.1" if 0 < percent < 0.05 else ">99.9" if 99.95 < percent < 100 else f"{percent:.1f}"
    return f"{number}{NBSP}%"


def _cells(answered: Answered, kept: Mask) -> list[dict[str, Any]]:
    """Return the places of the cells, in percent of the photo."""
    width, height = answered.image.size
    cols = answered.units.grid[1]
    found = []
    for k, (left, top, right, bottom) in enumerate(answered.units.boxes.tolist()):
        place = (100 * left / width, 100 * top / height, 100 * (right - left) / width, 100 * (bottom - top) / height)
        style = "left:{:.3f}%;top:{:.3f}%;width:{:.3f}%;height:{:.3f}%".format(*place)
        found.append({"style": style, "row": k // cols + 1, "col": k % cols + 1, "removed": not kept[k]})
    return found


def _words(answered: Answered, removed: frozenset[int], explainer: str | None) -> list[dict[str, Any]]:
    """Return the words with the colours of an explainer's scores."""
    text = answered.units.text or ""
    texts = [text[start:stop] for start, stop in answered.units.words]
    scores = np.zeros(len(texts)) if explainer is None else answered.scores[explainer].words
    colours = Scale.over([scores]).on_white(scores)
    return [
        {"text": each, "removed": k in removed, "back": _rgb(colour), "ink": readable_on(colour)}
        for k, (each, colour) in enumerate(zip(texts, colours, strict=True))
    ]


def _struck(answered: Answered, kept: Mask) -> list[dict[str, Any]]:
    text = answered.units.text or ""
    return [
        {"text": text[start:stop], "removed": not keep}
        for (start, stop), keep in zip(answered.units.words, kept.tolist(), strict=True)
    ]


def _all_but(count: int, removed: frozenset[int]) -> Mask:
    kept = np.ones(count, np.bool_)
    kept[sorted(removed)] = False
    return kept


@cache
def _gradient(signed: bool) -> str:
    """Return the colours of scores from the smallest to the largest as a gradient of CSS."""
    scores = np.linspace(-1 if signed else 0, 1, LEGEND)
    colours = Scale(1.0, signed).on_white(scores)
    return f"linear-gradient(to right,{','.join(map(_rgb, colours))})"


def _rgb(colour: Any) -> str:
    return "rgb({},{},{})".format(*(round(255 * share) for share in colour.tolist()))


def _data(image: Image.Image, longest: int) -> str:
    """Return an image, reduced to a length, as a data URL."""
    small = image.copy()
    small.thumbnail((longest, longest))
    file = BytesIO()
    small.save(file, "webp", quality=85)
    return f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode()}"


def _drawn(template: str, **values: Any) -> str:
    return _environment().get_template(template).render(values)


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("perturbation.demo"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
