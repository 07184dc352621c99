"""Captions of a scene, and phrases for one object of it; all true of what most people see."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
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

CLEAR = 0.05


def captions(scene: Scene, count: int, rng: Random) -> list[str]:
    """``count`` reference captions, each of the kinds in turn, so that five differ as five people's do."""
    seen = truth(scene)
    kinds = (_list, _related, _counted, _placed, _related)
    return [kinds[k % len(kinds)](scene, seen, rng) for k in range(count)]


def _list(scene: Scene, seen: Sequence[Seen], rng: Random) -> str:
    names = [article(_full(s, rng)) for s in rng.sample(list(seen), len(seen))]
    return f"{rng.choice(('', '', 'a picture of ', 'there is '))}{_joined(names)}{_ground(scene.background, rng)}"


def _related(scene: Scene, seen: Sequence[Seen], rng: Random) -> str:
    pairs = [(a, r, b) for a in seen for b in seen if a is not b for r in RELATIONS if holds(r, a, b, CLEAR)]
    if not pairs:
        return _list(scene, seen, rng)
    a, relation, b = rng.choice(pairs)
    verb = rng.choice((" ", " ", " is "))
    text = f"{article(_full(a, rng))}{verb}{rng.choice(WORDINGS[relation])} {article(_full(b, rng))}"
    rest = [s for s in seen if s is not a and s is not b]
    if rest and rng.random() < 0.5:
        text += f" and {article(_full(rng.choice(rest), rng))}"
    return text


def _counted(scene: Scene, seen: Sequence[Seen], rng: Random) -> str:
    by = rng.choice(("shape", "color"))
    parts = []
    for name, count in Counter(getattr(s, by) for s in seen).items():
        words = name if by == "shape" else f"{name} {rng.choice(NOUNS)}"
        parts.append(article(words) if count == 1 else f"{NUMBERS[count]} {plural(words)}")
    rng.shuffle(parts)
    if rng.random() < 0.25:
        return f"{NUMBERS[len(seen)]} {plural(rng.choice(NOUNS)) if len(seen) > 1 else rng.choice(NOUNS)}"
    return f"{rng.choice(('', 'there are ' if len(seen) > 1 else 'there is '))}{_joined(parts)}"


def _placed(scene: Scene, seen: Sequence[Seen], rng: Random) -> str:
    chosen = rng.sample(list(seen), min(len(seen), 2))
    return _joined([f"{article(_full(s, rng))} in the {place(s)}" for s in chosen])


def opening(rng: Random) -> str:
    """What a phrase about one object may begin with, a question among them."""
    return rng.choice(
        ("the ", "the ", "a ", "is the ", "what color is the ", "what shape is the ", "where is the ", "one ")
    )


def _full(seen: Seen, rng: Random) -> str:
    """Colour and shape always, size half the time."""
    return Description(seen.size if rng.random() < 0.5 else "", seen.color, seen.shape).words("object")


def _joined(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _ground(background: Background, rng: Random) -> str:
    if rng.random() < 0.6:
        return ""
    texture = background.texture if background.texture != "plain" else rng.choice(("plain", ""))
    return f" on {article(' '.join(w for w in (background.tone, texture, 'background') if w))}"
