"""The check of captions and the objects of their words, against an independent brute-force reader."""

from __future__ import annotations

import re
from dataclasses import asdict
from functools import cache, partial
from random import Random
from typing import Any

from caption_evaluator import NUMBERS, TEXTURES, TONES, is_true, labellings
from hypothesis import given, settings
from hypothesis import strategies as st
from shapes_data import known, scene_from_seen
from shapes_evaluator import COLORS, SHAPES, SIZES, values_in
from watching import watched

from clipmapper.data.shapes import captions as generator
from clipmapper.data.shapes.caption_truth import CaptionTruth, KnownScene, check_caption, scene_from_side_file
from clipmapper.data.shapes.scene import Scene, sample_scene, truth
from clipmapper.data.shapes.write import _object

SCENES = 1000


@cache
def cases() -> tuple[tuple[Scene, dict[str, Any], KnownScene, list[str]], ...]:
    """Return scenes, their entries in the evidence file, their known scenes for the check, and five captions each."""
    found = []
    for i in range(SCENES):
        rng = Random(f"caption truth {i}")
        scene = sample_scene(rng, 1, 4)
        entry = {"background": asdict(scene.background), "objects": [_object(o) for o in scene.objects]}
        found.append((scene, entry, scene_from_side_file(entry), generator.captions(scene, 5, rng)))
    return tuple(found)


def changed_captions(text: str, rng: Random) -> list[str]:
    """Return copies of a caption, in each of which one word is replaced by another word of the same kind."""
    kinds = [list(NUMBERS), COLORS, SIZES, TONES, TEXTURES, ["top", "bottom"]]
    shapes = [SHAPES, [f"{s}es" if s.endswith("s") else f"{s}s" for s in SHAPES]]
    relations = [["left of", "right of"], ["above", "below", "over", "under", "higher than", "lower than"]]
    sides = [["in the top left", "in the top right"], ["in the bottom left", "in the bottom right"]]
    found = []
    for kind in (*kinds, *shapes, *relations, *sides):
        for match in re.finditer(rf"\b({'|'.join(kind)})\b", text):
            other = rng.choice([word for word in kind if word != match[1]])
            found.append(text[: match.start()] + other + text[match.end() :])
    return found


def test_every_reference_caption_is_true() -> None:
    for scene, _, ambiguous, texts in cases():
        plain = scene_from_seen(truth(scene), scene.background)
        for text in texts:
            for known_scene in (ambiguous, plain):
                verdict = check_caption(text, known_scene)
                assert verdict.true, (text, verdict)
                assert verdict.readable
                assert all(claim.true for claim in verdict.claims)


def test_changed_captions_are_judged_as_by_brute_force() -> None:
    rng = Random(0)
    verdicts = []
    for _, entry, scene, texts in cases()[: SCENES // 4]:
        for text in (variant for caption in texts for variant in changed_captions(caption, rng)):
            verdict = check_caption(text, scene)
            assert verdict.readable, text
            assert verdict.true == is_true(text, entry), (text, entry, verdict)
            verdicts.append(verdict.true)
    assert len(verdicts) > 3000
    assert 0.03 < sum(verdicts) / len(verdicts) < 0.5


def test_captions_of_other_scenes_are_judged_as_by_brute_force() -> None:
    """A short caption is true of some other scenes too; brute force must find the same ones."""
    rng = Random(1)
    verdicts = []
    for _, entry, scene, _ in cases():
        for text in rng.choice(cases())[3]:
            verdicts.append(check_caption(text, scene).true)
            assert verdicts[-1] == is_true(text, entry), (text, entry)
    assert 0 < sum(verdicts) < 0.2 * len(verdicts)


def test_words_name_the_objects_that_the_generator_described() -> None:
    """The words name the object that the generator described, and others only if brute force finds other readings."""
    described: list[int] = []
    certain = 0
    for i, (scene, entry, known_scene, _) in enumerate(cases()[:300]):
        any_place = partial(generator._place_caption, margin=0.0)
        for kind in (generator._list_caption, generator._relation_caption, any_place):
            described.clear()
            with watched(generator, "_object_words", lambda seen, _: described.append(seen.index)):
                text = kind(scene, truth(scene), Random(i))
            readings = labellings(text, entry)
            found = words_by_phrase(text, check_caption(text, known_scene))
            assert len(found) == len(described)
            for k, (objects, index) in enumerate(zip(found, described, strict=True)):
                assert index in objects, text
                assert objects == {labels.index(k) for labels in readings}, text
                certain += objects == {index}
    assert certain > 1500


def words_by_phrase(text: str, verdict: CaptionTruth) -> list[set[int]]:
    """Return the objects of each phrase in order, and check that its words name the same objects.

    The words of a relation must name the objects of both sides.
    """
    phrases: list[set[int]] = []
    relations = []
    for word in verdict.words:
        assert text[slice(*word.span)] == word.text
        if word.kind == "relation":
            relations.append(set(word.objects))
        elif word.kind == "place" or not starts_phrase(text, word.span[0]):
            assert set(word.objects) == phrases[-1], text
        else:
            phrases.append(set(word.objects))
    assert relations in ([], [set().union(*phrases[:2])])
    return phrases


def starts_phrase(text: str, start: int) -> bool:
    return bool(re.search(r"\b(an?|no|one|two|three|four) $", text[:start]))


def test_words_of_a_count_name_all_counted_objects() -> None:
    for i, (scene, _, _, _) in enumerate(cases()[:300]):
        seen = truth(scene)
        text = generator._count_caption(scene, seen, Random(i))
        for word in check_caption(text, scene_from_seen(seen, scene.background)).words:
            value = values_in(word.text)[0]
            assert word.objects == tuple(s.index for s in seen if value in (s.color, s.shape))


def test_every_prefix_of_a_caption_is_unreadable_or_true() -> None:
    unreadable = 0
    for _, _, scene, texts in cases()[:120]:
        for text in texts:
            for match in re.finditer(r"(?= |$)", text):
                verdict = check_caption(text[: match.start()], scene)
                assert verdict.true == verdict.readable, (text[: match.start()], verdict)
                unreadable += not verdict.readable
    assert unreadable > 2000


LANGUAGE = [*NUMBERS, *COLORS[:3], *SIZES, "circle", "circles", "crosses", "thing", "objects", "a", "an", "the", "and"]
LANGUAGE += [",", ".", "is", "to the left of", "above", "in the", "top", "left", "of", "on a", "dark", "background"]


@given(st.lists(st.sampled_from([*LANGUAGE, "zebra", "ŝtar", "İ", " "]), max_size=14))
@settings(max_examples=200, deadline=None)
def test_any_words_can_be_read_and_none_is_lost(words: list[str]) -> None:
    text = " ".join(words)
    verdict = check_caption(text, known(("small", "red", "circle", 0.2, 0.2), ("large", "orange", "cross", 0.8, 0.8)))
    assert not verdict.true or (verdict.readable and all(claim.true for claim in verdict.claims))
    assert {"zebra", "ŝtar", "İ"} & set(words) <= set(verdict.left_over)
    for word in verdict.words:
        assert text[slice(*word.span)] == word.text
    covered = "".join(text[slice(*claim.span)] for claim in verdict.claims)
    for value in values_in(text.replace(".", " ")):
        assert value in covered or value in verdict.left_over


@given(st.text(max_size=40))
@settings(max_examples=200, deadline=None)
def test_no_text_is_true_of_an_empty_scene(text: str) -> None:
    assert not check_caption(text, known()).true
