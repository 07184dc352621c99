"""Slow reference that decides whether a ``shapes`` caption is true, by trying all labels of all objects.

It is independent of the tested checker's grammar.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import product
from typing import Any

from shapes_evaluator import RELATION, Thing, relates, values_in

NUMBERS = {"no": 0, "one": 1, "two": 2, "three": 3, "four": 4}
TONES, TEXTURES = ["dark", "pale"], ["plain", "striped", "checked", "dotted", "noisy", "graded"]
PLACE = re.compile(r" (?:is )?in the (top|bottom) (left|right)")


@dataclass(frozen=True)
class Slot:
    """A phrase of a caption: the objects that it describes."""

    number: int | None  #: number of objects; None for one object without a number word
    values: frozenset[str]  #: attribute values
    place: tuple[str, str] | None  #: top or bottom, and left or right


def slots_of(text: str) -> tuple[list[Slot], re.Match[str] | None]:
    """Return the phrases of a caption in the generator's language, and the relation of the first two."""
    objects = re.split(r" on an? (?=[a-z ]*background)", text)[0]
    parts = re.split(r", | and ", re.sub(r"^(a picture of|there is|there are) ", "", objects))
    relation = RELATION.search(PLACE.sub("", parts[0]))
    if relation is not None:
        parts[:1] = [parts[0][: relation.start()], parts[0][relation.end() :]]
    slots = []
    for part in parts:
        place = PLACE.search(part)
        number = NUMBERS.get(part.split()[0])
        slots.append(Slot(number, frozenset(values_in(PLACE.sub("", part))), (place[1], place[2]) if place else None))
    return slots, relation


def names_of(entry: dict[str, Any]) -> list[set[str]]:
    """Return all descriptions of an object, each a set of shape, colour and size."""
    either = [
        [a["name"], a["other"]] if a["doubt"] else [a["name"]] for a in (entry[k] for k in ("shape", "color", "size"))
    ]
    return [set(names) for names in product(*either)]


def on_side(side: str, share: float) -> bool:
    """Return whether a coordinate is on a side; 0.5 counts for both, since the side file has rounded coordinates."""
    return share == 0.5 or (share < 0.5) == (side in ("top", "left"))


def may_take(entry: dict[str, Any], label: int, slots: list[Slot]) -> bool:
    """Return whether a description of the object fits its own phrase and no other phrase with a number."""
    own = slots[label] if label < len(slots) else None
    if own is not None and own.place and not (on_side(own.place[0], entry["y"]) and on_side(own.place[1], entry["x"])):
        return False
    counted = [s for k, s in enumerate(slots) if s.number is not None and k != label]
    return any(
        (own is None or own.values <= names) and not any(slot.values <= names for slot in counted)
        for names in names_of(entry)
    )


def labellings(text: str, entry: dict[str, Any]) -> list[tuple[int, ...]]:
    """Return every assignment of objects to phrases that makes the caption true, as the phrase of each object."""
    slots, relation = slots_of(text)
    objects = entry["objects"]
    things = [Thing("", "", "", o["x"], o["y"]) for o in objects]
    options = [[label for label in range(len(slots) + 1) if may_take(o, label, slots)] for o in objects]
    return [
        labels
        for labels in product(*options)
        if all(labels.count(k) == (1 if s.number is None else s.number) for k, s in enumerate(slots))
        and (relation is None or relates(relation, things[labels.index(0)], things[labels.index(1)]))
    ]


def is_true(text: str, entry: dict[str, Any]) -> bool:
    ground = re.search(r" on an? ([a-z ]*)background$", text)
    words = ground[1].split() if ground else []
    of_scene = (entry["background"]["tone"], entry["background"]["texture"])
    return all(word in of_scene for word in words) and bool(labellings(text, entry))
