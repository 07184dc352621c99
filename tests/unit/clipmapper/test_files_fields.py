"""Fields of JSON objects: accepted values, and the one-line error for every other value."""

from __future__ import annotations

from typing import Any

import pytest

from clipmapper.errors import UserError
from clipmapper.files import read_field, read_text


def test_a_field_of_the_expected_type_is_returned_unchanged() -> None:
    answers: list[int] = []
    entry = {"id": 0, "text": "", "answers": answers}
    assert read_field(entry, "id", int, "x") == 0
    assert read_field(entry, "text", str, "x") == ""
    assert read_field(entry, "answers", list, "x") is answers
    assert read_text({"text": " a\n"}, "text", "x") == " a\n"


@pytest.mark.parametrize(
    ("entry", "kind", "expected"),
    [
        ({"a": 1, "b\n": 2}, int, "has no \"id\" (found: 'a', 'b\\n'); add it or give a file that has it"),
        ({}, int, 'has no "id" (found: nothing); add it'),
        ({"id": "3"}, int, "\"id\" is '3', not a whole number; correct it"),
        ({"id": 3.0}, int, '"id" is 3.0, not a whole number'),
        ({"id": True}, int, '"id" is True, not a whole number'),
        ({"id": None}, str, '"id" is None, not a string'),
        ({"id": {}}, list, '"id" is {}, not a list'),
        ({"id": ["x" * 999]}, str, '"id" is ['),
        (["a\nb"], str, "is ['a\\nb'], not an object with \"id\"; correct or remove it"),
        (None, list, 'is None, not an object with "id"'),
    ],
)
def test_a_missing_or_wrong_field_is_one_short_line(entry: Any, kind: type, expected: str) -> None:
    with pytest.raises(UserError) as caught:
        read_field(entry, "id", kind, "f.json: [3]")
    message = str(caught.value)
    assert message.startswith(f"f.json: [3]: {expected}")
    assert "\n" not in message
    assert len(message) < 200


def test_a_blank_string_is_an_error() -> None:
    with pytest.raises(UserError, match=r'^f\.json: "caption" is empty; fill it in or remove the entry$'):
        read_text({"caption": " \n"}, "caption", "f.json")
