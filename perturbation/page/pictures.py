"""Explained samples: maps of the patches as small images, and the colours of words."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import replace
from io import BytesIO
from typing import Any

import numpy as np
from matplotlib.colors import to_hex
from PIL import Image

from explain.figures.sample import with_share
from explain.figures.scale import Array, Scale, readable_on
from perturbation.page.numbers import MINUS, counted
from perturbation.page.view import Explained, Gallery, Tab, Word

Content = Mapping[str, Any]
INTERACTION, WORD = "interaction with “{}”", "relevance to “{}”"
WHOLE, ANSWER, NO_MAP = "relevance to the whole caption", "relevance to the answer", "no scores of patches"
POINT = {
    INTERACTION: "which patches interact with it, for any explainer (mutual interaction, Huang et al. 2023, Eq. 19)",
    WORD: "the relevance of the patches to it",
}


def gallery(
    contents: Sequence[Content], warnings: Mapping[str, Sequence[str]], most: int, smooth: bool, common: bool
) -> Gallery:
    """Return the explained samples of a run.

    Args:
        contents: What the figures of the run show (:mod:`explain.figures.content`).
        warnings: Reasons to doubt the answer, by the name of the figure.
        most: The number of samples to show.
        smooth: Whether maps are interpolated between the patches.
        common: Whether all explainers of a sample share a colour scale.
    """
    shown = [explained(content, warnings.get(content["name"], ()), smooth, common) for content in contents[:most]]
    left = f" The first {len(shown)} of {len(contents)} are shown." if len(contents) > len(shown) else ""
    scale = "The same colour means the same score." if common else "The colours span the scores of each explainer."
    captions = any("by_word" in each for content in contents for each in content["maps"])
    known = any(each.outline or any(word.outline for word in each.tabs[0].words) for each in shown if each.tabs)
    evidence = " Dashed lines are the known evidence." if known else ""
    caption = (
        f"{counted(len(shown), 'explained sample')}.{left} A score of zero has no colour, larger scores are darker; "
        f"negative scores are blue. {scale}{evidence} Point at a framed word, or move to it with the Tab and "
        f"arrow keys, to see {POINT[WORD if captions else INTERACTION]}."
    )
    return Gallery(caption, shown)


def explained(content: Content, warnings: Sequence[str], smooth: bool, common: bool) -> Explained:
    """Return one sample with the maps and words of every explainer."""
    photo = content["photo"] or {"webp": "", "size": (0, 0), "box": (0, 0, 0, 0)}
    width, height = photo["size"]
    left, top, right, bottom = photo["box"]
    scales = [_scales(content["maps"] if common else [each]) for each in content["maps"]]
    interaction = _maps(content.get("interaction"))
    return Explained(
        title=content["text"],
        answer=with_share(content["answer"], content["probability"]) if "answer" in content else "",
        note=content["note"],
        warnings=warnings,
        photo=f"data:image/webp;base64,{photo['webp']}" if photo["webp"] else "",
        size=(width, height),
        box=(left * width, top * height, (right - left) * width, (bottom - top) * height),
        smooth=smooth,
        tabs=[
            _tab(_words(content, (width, height)), each, pair, interaction)
            for each, pair in zip(content["maps"], scales, strict=True)
        ],
        outline=_path(photo.get("outlines", ()), (width, height)),
    )


def _scales(maps: Sequence[Content]) -> tuple[Scale, Scale]:
    """Return the scales of the maps of whole samples, and of words."""
    whole = [[_array(each["patches"])] for each in maps]
    words = [[_array(each.get("by_word") or each.get("words"))] for each in maps]
    return Scale.common_pair(whole, words)


def _words(content: Content, size: tuple[int, int]) -> list[Word]:
    """Return the words with their evidence, without colours and maps.

    The evidence of a question is a truth value for each word, that of a caption the outlines of what a word names.
    """
    known = content.get("evidence") or {}
    by_word = known if isinstance(known, Mapping) else {}
    marked = [] if isinstance(known, Mapping) else known
    return [
        Word(word, evidence=any(marked[k : k + 1]), outline=_path(by_word.get(str(k), ()), size))
        for k, word in enumerate(content["words"])
    ]


def _path(lines: Sequence[Any], size: tuple[int, int]) -> str:
    """Return closed lines, whose corners are shares of the size, as an SVG path in pixels."""
    width, height = size
    return "".join(f"M{'L'.join(f'{width * x:.1f} {height * y:.1f}' for x, y in line)}Z" for line in lines)


def _tab(words: Sequence[Word], content: Content, scales: tuple[Scale, Scale], interaction: Array | None) -> Tab:
    """Return the view of one explainer.

    The map of a word is that of the explainer if there is one (captions), else the word's interaction with the patches.
    """
    by_word, patches = _maps(content.get("by_word")), _maps([content["patches"]])
    colours = [("", "", "")] * len(words)
    if content.get("words") and scales[1].limit:
        colours = [_colours(float(score), scales[1]) for score in content["words"]]
    maps, scale, label = by_word, scales[1], WORD
    if by_word is None and interaction is not None:
        maps, scale, label = interaction, Scale.over([interaction]), INTERACTION
    heats = [heat_map(each, scale) for each in maps] if maps is not None else [""] * len(words)
    shown = [
        replace(word, colour=colour, ink=ink, score=score, heat=heat, label=label.format(word.text))
        for word, (colour, ink, score), heat in zip(words, colours, heats, strict=True)
    ]
    if patches is None or not patches.any():
        return Tab(content["explainer"], "", NO_MAP, NO_MAP, shown)
    whole = ANSWER if by_word is None else WHOLE
    return Tab(
        content["explainer"], heat_map(patches[0], scales[0]), whole, f"{whole}; {_strongest(patches[0])}", shown
    )


def _colours(score: float, scale: Scale) -> tuple[str, str, str]:
    """Return a word's background, the colour of its letters, and its score with two significant digits."""
    [rgb] = scale.on_white(np.array([score]))
    return to_hex((rgb[0], rgb[1], rgb[2])), readable_on(rgb), f"{score:.2g}".replace("-", MINUS)


def heat_map(scores: Array, scale: Scale) -> str:
    """Return the colours of scores [rows, cols] as a PNG with one pixel per patch, in a data URI."""
    rgba = scale.colormap(scale.norm(scale.share(scores)))
    file = BytesIO()
    Image.fromarray((255 * rgba).round().astype(np.uint8)).save(file, "png", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def _strongest(scores: Array) -> str:
    row, column = np.unravel_index(np.abs(scores).argmax(), scores.shape)
    rows, columns = scores.shape
    return f"the strongest patch is in row {row + 1} of {rows}, column {column + 1} of {columns}"


def _maps(values: Any) -> Array | None:
    """Return maps as [n, rows, cols], or None if there are none."""
    array = _array(values)
    return array if array.ndim == 3 and array.size else None


def _array(values: Any) -> Array:
    return np.asarray([] if values is None else values, dtype=np.float64)
