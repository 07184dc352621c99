"""Claims of captions about handmade scenes."""

from __future__ import annotations

import re

import pytest
from shapes_data import known

from clipmapper.data.shapes.caption_truth import check_caption, scene_from_side_file
from clipmapper.errors import UserError

TWO = known(("small", "red", "circle", 0.2, 0.3), ("large", "blue", "square", 0.8, 0.7))


TRUE_OF_TWO = """
a red circle; A Red  Circle.; the small red circle, and the blue square; red circle left of blue square;
a circle is to the left of a large square; a circle is higher than a square; a square under a circle;
an small circle is in the top left corner;
there is a circle in the top left above a square in the bottom right;
two objects on a dark striped background; one circle and one blue thing; no stars; on a dark background;
two thing; a red circle a blue square
"""


@pytest.mark.parametrize("text", re.split(r";\s+", TRUE_OF_TWO.strip()))
def test_a_true_caption_of_a_red_circle_and_a_blue_square(text: str) -> None:
    verdict = check_caption(text, TWO)
    assert verdict.true, verdict


FALSE_OF_TWO = """
a red circle and a red circle; a red square; a large circle; a circle right of a square;
a circle below a square; a circle is left of a circle; a circle left of a square and a blue square;
a circle in the top right; two circles; one object; no circles; three things; two objects and a circle;
a circle on a pale background; a circle on a dark plain background
"""


@pytest.mark.parametrize("text", re.split(r";\s+", FALSE_OF_TWO.strip()))
def test_a_false_caption_of_a_red_circle_and_a_blue_square(text: str) -> None:
    verdict = check_caption(text, TWO)
    assert verdict.readable
    assert not verdict.true


@pytest.mark.parametrize(
    ("text", "left_over"),
    [
        ("", ()),
        ("a picture of", ()),
        ("a red circle and", ("and",)),
        ("a red circle left of a", ("left", "of", "a")),
        ("a red circle is", ("is",)),
        ("a red circle in the top", ("in", "the", "top")),
        ("a red red circle", ("a", "red")),
        ("a red circle on a background", ("on", "a", "background")),
        ("a red circle on a dark", ("on", "a", "dark")),
        ("a red circle and and a blue square", ("and",)),
        ("a red circle and a zebra", ("and", "a", "zebra")),
        ("one circle left of a square", ("left", "of")),
        ("two things in the top left", ("in", "the", "top", "left")),
        (", a red circle", (",",)),
        ("there is and a red circle", ("and",)),
        ("circleish", ("circleish",)),
        ("qqq !", ("qqq", "!")),
    ],
)
def test_words_outside_the_grammar_are_left_over(text: str, left_over: tuple[str, ...]) -> None:
    verdict = check_caption(text, TWO)
    assert verdict.left_over == left_over
    assert not verdict.readable
    assert not verdict.true


def test_an_ambiguous_object_can_have_either_name_but_only_one_in_a_caption() -> None:
    entry = {
        "background": {"tone": "pale", "texture": "plain"},
        "objects": [
            {
                "shape": {"name": "square", "other": "rectangle", "doubt": 0.3},
                "color": {"name": "red", "other": "orange", "doubt": 0.0},
                "size": {"name": "small", "other": "", "doubt": 0.0},
                "x": 0.5,
                "y": 0.5,
            }
        ],
    }
    scene = scene_from_side_file(entry)
    middle = (
        "a rectangle in the top left",
        "a square in the bottom right",
    )  # both are true, since positions are rounded
    for text in ("a red square", "one rectangle", "no squares", *middle):
        assert check_caption(text, scene).true, text
    for text in (
        "an orange square",
        "a square and a rectangle",
        "one rectangle and a square",
        "a square below a square",
    ):
        assert not check_caption(text, scene).true, text


def test_claims_are_judged_independently_and_words_name_existing_objects() -> None:
    scene = known(
        ("small", "red", "circle", 0.2, 0.2), ("small", "blue", "star", 0.8, 0.8), ("large", "red", "circle", 0.6, 0.1)
    )
    verdict = check_caption("a small red circle right of a star and a red circle in the bottom left", scene)
    assert [(c.kind, c.true, c.objects) for c in verdict.claims] == [
        ("object", True, (0,)),
        ("relation", False, ()),
        ("object", True, (1,)),
        ("object", True, (0, 2)),
        ("place", False, ()),
    ]
    named = {(w.kind, w.text): w.objects for w in verdict.words if w.span[0] < 40}
    assert named[("size", "small")] == (0,)
    assert named[("relation", "right of")] == ()
    assert named[("shape", "star")] == (1,)
    assert [w.objects for w in verdict.words if w.span[0] > 40] == [(0, 2), (0, 2), (), ()]


def test_a_relation_decides_between_two_similar_objects() -> None:
    scene = known(
        ("small", "red", "circle", 0.2, 0.2), ("small", "blue", "star", 0.5, 0.8), ("large", "red", "circle", 0.8, 0.1)
    )
    words = check_caption("a red circle to the left of a blue star", scene).words
    assert {w.text: w.objects for w in words} == {
        "red": (0,),
        "circle": (0,),
        "to the left of": (0, 1),
        "blue": (1,),
        "star": (1,),
    }


def test_an_entry_of_another_file_is_an_error() -> None:
    with pytest.raises(UserError, match="objects"):
        scene_from_side_file({"background": {}})
