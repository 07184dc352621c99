"""Captions of a scene, and openings of phrases about one object; all are true of the scene as most people see it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import partial
from random import Random

from clipmapper.data.shapes.language import (
    NOUNS,
    NUMBERS,
    RELATIONS,
    WORDINGS,
    Description,
    article,
    holds,
    place,
    plural,
)
from clipmapper.data.shapes.scene import Background, Scene, Seen, truth

# Shares of the image's width. A caption names a relation only if it holds by more than CLEAR, and the quarter in which
# an object is only if the object's middle is at least CLEAR_PLACE away from the lines between the quarters.
CLEAR = 0.05
CLEAR_PLACE = 0.1


def captions(scene: Scene, count: int, rng: Random, clear_places: bool = True) -> list[str]:
    """Return ``count`` reference captions of alternating kinds, so that they differ like captions by several people.

    Args:
        scene: The scene.
        count: Number of captions.
        rng: Source of random numbers.
        clear_places: Name the quarter of the image only for objects that are clearly in it. The embedded encoder was
            trained on captions that name it for any object.
    """
    seen = truth(scene)
    place_caption = partial(_place_caption, margin=CLEAR_PLACE if clear_places else 0.0)
    kinds = (_list_caption, _relation_caption, _count_caption, place_caption, _relation_caption)
    return [kinds[k % len(kinds)](scene, seen, rng) for k in range(count)]


def _list_caption(scene: Scene, seen: Sequence[Seen], rng: Random) -> str:
    names = [article(_object_words(s, rng)) for s in rng.sample(list(seen), len(seen))]
    return (
        f"{rng.choice(('', '', 'a picture of ', 'there is '))}{_join(names)}{_background_words(scene.background, rng)}"
    )


def _relation_caption(scene: Scene, seen: Sequence[Seen], rng: Random) -> str:
    pairs = [(a, r, b) for a in seen for b in seen if a is not b for r in RELATIONS if holds(r, a, b, CLEAR)]
    if not pairs:
        return _list_caption(scene, seen, rng)
    a, relation, b = rng.choice(pairs)
    verb = rng.choice((" ", " ", " is "))
    text = f"{article(_object_words(a, rng))}{verb}{rng.choice(WORDINGS[relation])} {article(_object_words(b, rng))}"
    rest = [s for s in seen if s is not a and s is not b]
    if rest and rng.random() < 0.5:
        text += f" and {article(_object_words(rng.choice(rest), rng))}"
    return text


def _count_caption(scene: Scene, seen: Sequence[Seen], rng: Random) -> str:
    by = rng.choice(("shape", "color"))
    parts = []
    for name, count in Counter(getattr(s, by) for s in seen).items():
        words = name if by == "shape" else f"{name} {rng.choice(NOUNS)}"
        parts.append(article(words) if count == 1 else f"{NUMBERS[count]} {plural(words)}")
    rng.shuffle(parts)
    if rng.random() < 0.25:
        return f"{NUMBERS[len(seen)]} {plural(rng.choice(NOUNS)) if len(seen) > 1 else rng.choice(NOUNS)}"
    return f"{rng.choice(('', 'there are ' if len(seen) > 1 else 'there is '))}{_join(parts)}"


def _place_caption(scene: Scene, seen: Sequence[Seen], rng: Random, margin: float) -> str:
    clear = [s for s in seen if min(abs(s.x - 0.5), abs(s.y - 0.5)) >= margin]
    if not clear:
        return _list_caption(scene, seen, rng)
    chosen = rng.sample(clear, min(len(clear), 2))
    return _join([f"{article(_object_words(s, rng))} in the {place(s)}" for s in chosen])


def opening(rng: Random) -> str:
    """Return the beginning of a phrase or question about one object."""
    return rng.choice(
        ("the ", "the ", "a ", "is the ", "what color is the ", "what shape is the ", "where is the ", "one ")
    )


def _object_words(seen: Seen, rng: Random) -> str:
    """Return words for the color and shape of an object and, with probability ½, its size."""
    return Description(seen.size if rng.random() < 0.5 else "", seen.color, seen.shape).words("object")


def _join(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _background_words(background: Background, rng: Random) -> str:
    if rng.random() < 0.6:
        return ""
    texture = background.texture if background.texture != "plain" else rng.choice(("plain", ""))
    return f" on {article(' '.join(w for w in (background.tone, texture, 'background') if w))}"
