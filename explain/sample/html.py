"""An explanation as a piece of HTML for notebooks: photos under heat maps, and coloured words."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from html import escape
from io import BytesIO

import numpy as np
from PIL import Image

from explain.figures.photo import PALE, Photo
from explain.figures.sample import with_share
from explain.figures.scale import Array, Scale, readable_on
from explain.sample.scores import Scores
from explain.sample.traced import TracedSample

LONGEST = 640  # pixels of the longer side of a stored photo
WIDTH = 320  # of a shown photo, in CSS pixels


def page(sample: TracedSample, scores: Mapping[str, Scores], between: Sequence[Array] | None) -> str:
    """Return a self-contained piece of HTML without scripts.

    A word's map is its interaction with the patches, which is shown while the pointer is on the word. All text is
    escaped.

    Args:
        sample: The sample.
        scores: Its scores by name of the explainer.
        between: Interaction of each word with the patches of each image, [n_words, rows, cols]; None if there is none.
    """
    answer = with_share(str(sample.answer), sample.answer.probability)
    parts = "".join(panels(sample, scores, between))
    return f"<div><p>{escape(sample.question)}<br><b>{escape(answer)}</b></p>{parts}</div>"


def panels(sample: TracedSample, scores: Mapping[str, Scores], between: Sequence[Array] | None) -> list[str]:
    """Return the part of :func:`page` of each explainer: its name, the coloured words, and the photos."""
    return [_one(sample, name, each, between) for name, each in scores.items()]


def _one(sample: TracedSample, name: str, scores: Scores, between: Sequence[Array] | None) -> str:
    image_scale, word_scale = Scale.pair(scores.images, [scores.words])
    photos = []
    for number, patches in enumerate(scores.images):
        maps = [] if between is None else list(between[number])
        photos.append(_photo(sample, number, image_scale, patches, maps))
    colours = word_scale.on_white(scores.words)
    shown = enumerate(zip(sample.words, scores.words.tolist(), strict=True))
    words = "".join(_word(k, word, score, colours[k]) for k, ((word, _), score) in shown)
    body = f"{words}<div>{''.join(photos)}</div>"
    key = "e" + sha256(f"{name} {body}".encode()).hexdigest()[:12]
    rules = "".join(_rules(key, len(sample.words), between is not None))
    return f'<div id="{key}"><style>{rules}</style><p>{escape(name)}</p>{body}</div>'


def _rules(key: str, words: int, hover: bool) -> Iterator[str]:
    yield f"#{key} .photo{{position:relative;display:inline-block;margin:4px}}"
    yield f"#{key} .photo img.map{{position:absolute;image-rendering:pixelated;max-width:none;margin:0}}"
    yield f"#{key} .photo img.word{{visibility:hidden}}"
    yield f"#{key} span{{padding:1px 3px;margin:1px}}"
    for k in range(words if hover else 0):
        yield f"#{key} .w{k}:hover~div .m{k}{{visibility:visible}}#{key} .w{k}:hover~div .all{{visibility:hidden}}"


def _word(number: int, word: str, score: float, colour: Array) -> str:
    red, green, blue = (round(255 * share) for share in colour.tolist())
    style = f"background:rgb({red},{green},{blue});color:{readable_on(colour)}"
    return f'<span class="w{number}" style="{style}" title="{score:.3g}">{escape(word)}</span> '


def _photo(sample: TracedSample, number: int, scale: Scale, patches: Array, maps: list[Array]) -> str:
    photo = Photo(sample.photos[number], sample.seen[number])
    small = Image.fromarray(photo.pixels)
    width, height = small.size
    small.thumbnail((LONGEST, LONGEST))
    left, top, right, bottom = photo.box
    place = f"left:{100 * left / width:.2f}%;top:{100 * top / height:.2f}%;"
    place += f"width:{100 * (right - left) / width:.2f}%;height:{100 * (bottom - top) / height:.2f}%"
    own = Scale.over(maps or [patches])
    layers = [_layer("map all", place, scale, patches)]
    layers += [_layer(f"map word m{k}", place, own, each) for k, each in enumerate(maps)]
    grey = Image.blend(small.convert("L"), Image.new("L", small.size, 255), PALE)
    base = f'<img src="{_data(grey)}" alt="image {number + 1}" width="{WIDTH}">'
    return f'<div class="photo">{base}{"".join(layers)}</div>'


def _layer(kind: str, place: str, scale: Scale, scores: Array) -> str:
    colours = (255 * scale.colormap(scale.norm(scale.share(scores)))).astype(np.uint8)
    return f'<img class="{kind}" style="{place}" src="{_data(Image.fromarray(colours))}" alt="">'


def _data(image: Image.Image) -> str:
    file = BytesIO()
    image.save(file, "png")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
