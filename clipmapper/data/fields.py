"""Fields of JSON objects, checked: what is missing or of another kind ends in one line that says where it is."""

from __future__ import annotations

import reprlib
from typing import Any, TypeVar

from clipmapper.errors import UserError

_T = TypeVar("_T", int, str, list)
_KINDS = {int: "a whole number", str: "a text", list: "a list"}


def read_field(entry: Any, name: str, kind: type[_T], at: str) -> _T:
    """``entry[name]``, a value of ``kind``.

    Args:
        entry: what stands in the file; anything that JSON can hold.
        name: the field's name.
        kind: int, str or list; a bool is no int.
        at: where the entry is, for messages: ``file.json: images[3]``.

    Raises:
        UserError: ``entry`` is no object, has no such field, or has one of another kind.
    """
    value = entry.get(name) if isinstance(entry, dict) else None
    if type(value) is kind:  # not isinstance: a bool is no id
        return value
    if not isinstance(entry, dict):
        raise UserError(f'{at}: is {reprlib.repr(entry)}, not an object with "{name}"; correct or remove it')
    if name not in entry:
        found = ", ".join(map(repr, entry)) or "nothing"
        raise UserError(f'{at}: has no "{name}" (found: {found:.80}); add it or give a file that has it')
    raise UserError(f'{at}: "{name}" is {reprlib.repr(value)}, not {_KINDS[kind]}; correct it')


def read_text(entry: Any, name: str, at: str) -> str:
    """A field with a text that says something; raises ``UserError`` as ``read_field``, and where it is blank."""
    value = read_field(entry, name, str, at)
    if not value.strip():
        raise UserError(f'{at}: "{name}" is empty; fill it in or remove the entry')
    return value
