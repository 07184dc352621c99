"""The content of a figure as plain values, for programs that draw it themselves, such as an HTML page."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image

from explain.figures.caption import Caption
from explain.figures.evidence import Line, outlines
from explain.figures.photo import Photo
from explain.figures.sample import Sample

LONGEST = 320  # pixels of the longer side of a stored photo
QUALITY = 80  # of the lossy compression
DIGITS = 5  # significant digits of a score
SPARSE, PLACES = 4, 4  # every how many corners of an outline one is stored, and with how many decimals


def sample_content(sample: Sample, interaction: ArrayLike | None = None) -> dict[str, Any]:
    """Return the content of a sample's figure, as values that JSON can store.

    Args:
        sample: The sample, with at most one photo.
        interaction: The interaction of its words and patches, [n_words, rows, cols]; None if there is none.
    """
    maps = [
        {"explainer": e.explainer, "patches": _rounded(e.maps[0] if e.maps else []), "words": _rounded(e.word_scores)}
        for e in sample.explanations
    ]
    photo = next(iter(sample.photos), None)
    return {
        "text": sample.question,
        "answer": sample.answer,
        "probability": None if sample.probability is None else float(sample.probability),
        "note": sample.caption,
        "photo": None if photo is None else _stored(photo),
        "words": list(sample.words),
        "evidence": list(map(bool, sample.evidence)),
        "maps": maps,
        "interaction": None if interaction is None else _rounded(interaction),
    }


def caption_content(caption: Caption) -> dict[str, Any]:
    """Return the content of a caption's figure, as values that JSON can store."""
    maps = [
        {"explainer": e.explainer, "patches": _rounded(e.whole_scores), "by_word": _rounded(e.word_scores)}
        for e in caption.explanations
    ]
    return {
        "text": caption.text,
        "note": caption.note,
        "photo": _stored(caption.photo),
        "words": list(caption.words),
        "evidence": {str(word): _lines(outlines(mask)) for word, mask in caption.evidence.items()},
        "maps": maps,
    }


def _stored(photo: Photo) -> dict[str, Any]:
    """Return the photo as WebP in base64 and its size in pixels, with the encoder's box as shares of this size."""
    small = Image.fromarray(photo.pixels)
    width, height = small.size
    small.thumbnail((LONGEST, LONGEST))
    file = BytesIO()
    small.save(file, "webp", quality=QUALITY)
    box = [edge / length for edge, length in zip(photo.box, (width, height, width, height), strict=True)]
    return {
        "webp": base64.b64encode(file.getvalue()).decode(),
        "size": list(small.size),
        "box": _rounded(box),
        "outlines": _lines(photo.outlines),
    }


def _lines(lines: Sequence[Line]) -> list[Any]:
    """Return lines as nested lists, with a fraction of their corners and few digits."""
    return [line[::SPARSE].round(PLACES).tolist() for line in lines]


def _rounded(scores: ArrayLike) -> list[Any]:
    """Return an array as nested lists of numbers with few digits."""
    array = np.asarray(scores, dtype=np.float64)
    short = np.array([float(f"{score:.{DIGITS}g}") for score in array.ravel().tolist()])
    nested: list[Any] = short.reshape(array.shape).tolist()
    return nested
