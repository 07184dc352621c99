"""The known evidence of a question as a picture shows it: an outline around the objects, and a line under the words."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray
from scipy.ndimage import binary_fill_holes, gaussian_filter, zoom

from readme_pictures.subject import Subject

INK, HALO = "#111111", "white"
SMOOTH = 4  # the mask is enlarged by this factor before it is outlined
SMOOTHING = 1.4  # standard deviation of the blur, in pixels of the mask; it makes the pixels' corners round
OUTSIDE = 0.15  # level of the outline: below a half, it runs just outside the object


def evidence_mask(subject: Subject) -> NDArray[np.bool_]:
    """Return the pixels of the objects that the answer depends on, without their holes, [S, S]."""
    objects = subject.evidence.questions[subject.question.question_id].objects
    shown = np.isin(subject.evidence.mask(subject.question.image_id), [number + 1 for number in objects])
    return np.asarray(binary_fill_holes(shown), np.bool_)


def outline(axes: Axes, mask: NDArray[np.bool_]) -> None:
    """Draw a thin line around the evidence, dark with a light border, so that it is visible on every colour."""
    size = len(mask)
    padded = np.pad(mask.astype(float), 2)
    smooth = gaussian_filter(zoom(padded, SMOOTH, order=0), SMOOTHING * SMOOTH)
    centres = (np.arange(len(smooth)) + 0.5) / SMOOTH - 2
    for colour, width, style in ((HALO, 1.8, "solid"), (INK, 0.8, "dashed")):
        axes.contour(centres, centres, smooth, levels=[OUTSIDE], colors=colour, linewidths=width, linestyles=style)
    axes.set(xlim=(0, size), ylim=(size, 0))


def evidence_words(subject: Subject, words: Sequence[str]) -> list[bool]:
    """Return for each word of the question whether the answer depends on it."""
    spans = subject.evidence.questions[subject.question.question_id].words
    text, start = subject.question.question.lower(), 0
    found = []
    for word in words:
        place = re.compile(re.escape(word)).search(text, start)
        assert place is not None, f"{word} is not a word of {text}"
        start = place.end()
        found.append(any(first <= place.start() and place.end() <= last for first, last in spans))
    return found
