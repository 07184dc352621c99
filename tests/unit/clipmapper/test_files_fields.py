"""Fields of JSON objects: what is taken, and the one line for what is not."""

from __future__ import annotations

from typing import Any

import pytest

from clipmapper.errors import UserError
from clipmapper.files import read_field, read_text


def test_a_field_of_the_wanted_kind_is_returned_as_it_is() -> None:
    answers: list[int] = []
    entry = {"id": 0, "text": "", "answers": answers}
    assert read_field(entry, "id", int, "x") == 0
    assert read_field(entry, "text", str, "x") == ""
    assert read_field(entry, "answers", list, "x") is answers
    assert read_text({"text": " a\n"}, "text", "x") == " a\n"


@pytest.mark.parametrize(
    ("entry", "kind", "said"),
    [
        ({"a": 1, "b\n": 2}, int, "has no \"id\" (found: 'a', 'b\\n'); add it or give a file that has it"),
        ({}, int, 'has no "id" (found: nothing); add it'),
        ({"id": "3"}, int, "\"id\" is '3', not a whole number; correct it"),
        ({"id": 3.0}, int, '"id" is 3.0, not a whole number'),
        ({"id": True}, int, '"id" is True, not a whole number'),
        ({"id": None}, str, '"id" is None, not a text'),
        ({"id": {}}, list, '"id" is {}, not a list'),
        ({"id": ["x" * 999]}, str, '"id" is ['),
        (["a\nb"], str, "is ['a\\nb'], not an object with \"id\"; correct or remove it"),
        (None, list, 'is None, not an object with "id"'),
    ],
)
def test_what_is_not_there_is_one_short_line(entry: Any, kind: type, said: str) -> None:
    with pytest.raises(UserError) as caught:
        read_field(entry, "id", kind, "f.json: [3]")
    message = str(caught.value)
    assert message.startswith(f"f.json: [3]: {said}")
    assert "\n" not in message
    assert len(message) < 200


def test_a_blank_text_is_named() -> None:
    with pytest.raises(UserError, match=r'^f\.json: "caption" is empty; fill it in or remove the entry$'):
        read_text({"caption": " \n"}, "caption", "f.json")
