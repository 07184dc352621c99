"""Captions of ``shapes`` are true of their scenes, according to an independent reader."""

from __future__ import annotations

import re
from collections import Counter
from itertools import permutations
from random import Random

import pytest
from shapes_data import load, written_shapes
from shapes_evaluator import NOUNS, RELATION, Thing, matching, relates, thing, values_in

from clipmapper.data.shapes.captions import captions
from clipmapper.data.shapes.scene import sample_scene, truth

COUNTS = {"a": 1, "an": 1, "one": 1, "two": 2, "three": 3, "four": 4}
PLACE = re.compile(r" in the (top|bottom) (left|right)")


def cases(kind: int) -> list[tuple[str, list[Thing], dict]]:
    """Return the captions of one kind, the caption number ``kind`` of every image, with objects and background."""
    folder = written_shapes()
    scenes = load(folder, "shapes_train_evidence.json")["scenes"]
    annotations = load(folder, "captions_shapes_train.json")["annotations"]
    found = []
    for k, caption in enumerate(annotations):
        scene = scenes[str(caption["image_id"])]
        if k % 5 == kind:
            found.append((caption["caption"], [thing(o) for o in scene["objects"]], scene["background"]))
    return found


def parts_of(text: str) -> list[str]:
    return re.split(r", | and ", re.sub(r"^(a picture of|there is|there are) ", "", text))


def fits_all(parts: list[str], things: list[Thing]) -> bool:
    """Return whether the parts can name different objects."""
    candidates = [matching(part, things) for part in parts]
    return any(
        all(i in found for i, found in zip(chosen, candidates, strict=True))
        for chosen in permutations(range(len(things)), len(parts))
    )


def is_related(text: str, things: list[Thing]) -> bool:
    first, *rest = text.split(" and ")
    relation = RELATION.search(first)
    assert relation is not None, text
    pairs = [
        (a, b)
        for a in matching(first[: relation.start()], things)
        for b in matching(first[relation.end() :], things)
        if a != b and relates(relation, things[a], things[b], 0.04)
    ]
    return any(not rest or any(i not in pair for i in matching(rest[0], things)) for pair in pairs)


def test_lists_name_every_object_and_the_background() -> None:
    backgrounds = 0
    for text, things, background in cases(0):
        objects, _, end = text.partition(" on a ")
        parts = parts_of(objects)
        assert len(parts) == len(things), text
        assert all(len(values_in(part)) >= 2 for part in parts)
        assert fits_all(parts, things), text
        if end:
            backgrounds += 1
            tone, *texture = end.removesuffix(" background").split()
            assert tone == background["tone"]
            assert texture in ([], [background["texture"]])
            assert texture or background["texture"] == "plain"
    assert backgrounds > 50


@pytest.mark.parametrize("kind", [1, 4])
def test_relations_hold(kind: int) -> None:
    related = [(text, things) for text, things, _ in cases(kind) if RELATION.search(text)]
    assert len(related) > 300
    for text, things in related:
        assert is_related(text, things), text
    for text, things, _ in cases(kind):  # if no two objects are clearly related, all are listed
        assert RELATION.search(text) or fits_all(parts_of(text.partition(" on a ")[0]), things)


def test_counts_are_right_and_sum_to_the_number_of_objects() -> None:
    totals = 0
    for text, things, _ in cases(2):
        parts = parts_of(text)
        counted = 0
        for part in parts:
            number, _, rest = part.partition(" ")
            assert len(matching(rest, things)) == COUNTS[number], text
            assert (rest.endswith("s") and not rest.endswith("cross")) == (COUNTS[number] > 1), text
            counted += COUNTS[number]
            totals += not values_in(rest)
        assert counted == len(things), text
    assert totals > 30


def test_places_are_right_and_named_for_objects_clearly_in_one_quarter() -> None:
    with_place = without = 0
    for text, things, _ in cases(3):
        clear = [t for t in things if min(abs(t.x - 0.5), abs(t.y - 0.5)) >= 0.0999]  # positions have 4 digits
        parts = parts_of(text) if PLACE.search(text) else []
        assert len(parts) == min(2, len(clear)), text
        with_place, without = with_place + bool(parts), without + (not parts)
        for part in parts:
            place = PLACE.search(part)
            assert place is not None, text
            down, right = place[1] == "bottom", place[2] == "right"
            found = [t for i in matching(part[: place.start()], things) if (t := things[i]) in clear]
            assert any((t.y > 0.5) == down and (t.x > 0.5) == right for t in found), text
    assert with_place > 300
    assert without > 10


def test_captions_of_the_pretraining_name_the_place_of_any_object() -> None:
    scenes = [sample_scene(Random(f"place {i}")) for i in range(200)]
    texts = [captions(scene, 4, Random(i), clear_places=False)[3] for i, scene in enumerate(scenes)]
    assert all(len(PLACE.findall(text)) == 2 for text in texts)
    unclear = [scene for scene in scenes if all(min(abs(o.x - 0.5), abs(o.y - 0.5)) < 0.1 for o in scene.objects)]
    assert unclear


def test_captions_of_a_single_object_are_grammatical_and_true() -> None:
    for i in range(60):
        scene = sample_scene(Random(f"single {i}"), 1, 1)
        seen = truth(scene)[0]
        things = [Thing(seen.shape, seen.color, seen.size, seen.x, seen.y)]
        for text in captions(scene, 5, Random(i)):
            named = values_in(text.partition(" on a ")[0])
            assert set(named) <= {seen.shape, seen.color, seen.size}, text
            assert matching(" ".join(named), things) == [0]
            assert not any(word in text.split() for word in ("are", *(f"{noun}s" for noun in NOUNS))), text


def test_five_captions_differ_and_the_articles_fit() -> None:
    folder = written_shapes()
    texts = [c["caption"] for c in load(folder, "captions_shapes_train.json")["annotations"]]
    distinct = Counter(len(set(texts[k : k + 5])) for k in range(0, len(texts), 5))
    assert distinct[5] > 350
    assert min(distinct) >= 3
    for text in texts:
        for article, letter in re.findall(r"\b(an?) ([a-z])", text):
            assert (article == "an") == (letter in "aeiou"), text
