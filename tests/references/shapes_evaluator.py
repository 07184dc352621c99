"""Reference that answers ``shapes`` questions from their text and the objects in the side file only.

It does not use the generator's descriptions, relations and programs, which it tests.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

COLORS = ["red", "orange", "yellow", "green", "teal", "blue", "purple", "pink", "brown", "black", "gray", "white"]
SHAPES = ["circle", "square", "triangle", "rectangle", "diamond", "star", "cross", "heart", "ring", "moon"]
SIZES = ["small", "large"]
NOUNS = ["object", "shape", "thing"]
VALUES = {"color": COLORS, "shape": SHAPES, "size": SIZES}
RELATION = re.compile(r"(?:to the )?(left|right) of|(above|over|higher than)|(below|under|lower than)")
SIDES = {"left", "right", "above", "below", "or", "of"}
KEYWORDS = {"color", "shape", "size", "how", "many", "number", "big", "where", "corner", "same", "not", "no"}


@dataclass(frozen=True)
class Thing:
    """An object of a scene."""

    shape: str
    color: str
    size: str
    x: float
    y: float


def thing(entry: dict) -> Thing:
    """Return an object of the side file."""
    return Thing(entry["shape"]["name"], entry["color"]["name"], entry["size"]["name"], entry["x"], entry["y"])


def values_in(text: str) -> list[str]:
    """Return the attribute values that a text names, in the singular and in order."""
    known = {value for values in VALUES.values() for value in values}
    words = text.replace(",", " ").rstrip("?").split()
    singular = (word if word in known else re.sub(r"(?<=s)es$|s$", "", word) for word in words)
    return [word for word in singular if word in known]


def matching(text: str, things: list[Thing]) -> list[int]:
    """Return the objects that have all values that the text names."""
    named = values_in(text)
    return [i for i, t in enumerate(things) if all(value in (t.color, t.shape, t.size) for value in named)]


def only(text: str, things: list[Thing]) -> int | None:
    """Return the only object that a text describes; None if there are none or several."""
    found = matching(text, things)
    return found[0] if len(found) == 1 else None


def relates(relation: re.Match[str], a: Thing, b: Thing, margin: float = 0.0) -> bool:
    """Return whether the relation holds between a and b."""
    side, above, _ = relation.groups()
    if side:
        return (b.x - a.x if side == "left" else a.x - b.x) > margin
    return (b.y - a.y if above else a.y - b.y) > margin


def evaluate(kind: str, text: str, things: list[Thing]) -> tuple[str, set[int]] | None:
    """Return the answer and the objects it depends on; None if the text is ambiguous about the objects."""
    if kind == "exist":
        negated = bool(re.search(r"\b(not|no)\b", text))
        found = matching(text, things)
        return ("yes" if bool(found) != negated else "no"), set(found)
    if kind == "count":
        return str(len(matching(text, things))), set(matching(text, things))
    if kind in ("relation", "same"):
        return _answer_about_two(kind, text, things)
    if kind == "side":
        return _answer_side(text, things)
    if kind.startswith("relation_"):
        return _answer_about_related(kind.removeprefix("relation_"), text, things)
    i = only(text, things)
    if i is None:
        return None
    return (_corner(things[i]) if kind == "where" else getattr(things[i], kind)), {i}


def _answer_about_two(kind: str, text: str, things: list[Thing]) -> tuple[str, set[int]] | None:
    relation = RELATION.search(text)
    if kind == "relation":
        assert relation is not None
        parts = [text[: relation.start()], text[relation.end() :]]
    else:
        parts = text.split(" have the same ")[0].split(" and the ")
    a, b = (only(part, things) for part in parts)
    if a is None or b is None:
        return None
    if kind == "relation":
        assert relation is not None
        true = relates(relation, things[a], things[b])
    else:
        name = text.split(" have the same ")[1].rstrip("?")
        true = getattr(things[a], name) == getattr(things[b], name)
    return ("yes" if true else "no"), {a, b}


def _answer_side(text: str, things: list[Thing]) -> tuple[str, set[int]] | None:
    offered = re.search(r"(?:(left|right)|(above|below)) or \w+(?: of)?", text)
    assert offered is not None
    a, b = only(text[: offered.start()], things), only(text[offered.end() :], things)
    if a is None or b is None:
        return None
    first, second = things[a], things[b]
    if offered.group(1):
        return ("left" if first.x < second.x else "right"), {a, b}
    return ("above" if first.y < second.y else "below"), {a, b}


def _answer_about_related(name: str, text: str, things: list[Thing]) -> tuple[str, set[int]] | None:
    relation = RELATION.search(text)
    assert relation is not None
    anchor = only(text[relation.end() :], things)
    if anchor is None:
        return None
    found = [i for i, t in enumerate(things) if i != anchor and relates(relation, t, things[anchor])]
    return (getattr(things[found[0]], name), {anchor, found[0]}) if len(found) == 1 else None


def _corner(t: Thing) -> str:
    return f"{'bottom' if t.y >= 0.5 else 'top'} {'right' if t.x >= 0.5 else 'left'}"


def evidence_words(kind: str, text: str) -> list[str]:
    """Return the words that an answer depends on: values and nouns, relations, and the question words."""
    relation = RELATION.search(text)
    skipped = None
    if kind.startswith("relation_") and relation is not None:  # in "the thing left of …", the noun has no information
        before = list(_words(text[: relation.start()]))
        skipped = before[-1][0] if before[-1][1] in NOUNS and len(before) > 2 else None
    chosen = []
    for start, word in _words(text):
        if kind == "side" and word in SIDES:
            chosen.append(word)
            continue
        inside = relation is not None and relation.start() <= start < relation.end()
        if start != skipped and (inside or values_in(word) or word.removesuffix("s") in NOUNS or word in KEYWORDS):
            chosen.append(word)
    return chosen


def _words(text: str) -> Iterator[tuple[int, str]]:
    return ((match.start(), match.group()) for match in re.finditer(r"[a-z]+", text))
