"""The structure of what is read from files, checked by pydantic, with one line for whatever does not fit."""

from __future__ import annotations

import reprlib
from functools import cache
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

from clipmapper.errors import UserError

#: Configuration of a TypedDict that refuses fields that it does not list.
CLOSED = ConfigDict(extra="forbid")


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def check(kind: Any, content: Any, at: str, fix: str) -> None:
    """Check the structure of a content.

    Args:
        kind: The expected structure: a ``TypedDict``, or a type such as ``list[str]``.
        content: Plain values, for example read from JSON.
        at: The file, and the place in it, for the error message.
        fix: What the user can do about an error.

    Raises:
        UserError: The content has another structure; the message names the first field that differs.
    """
    try:
        _adapter(kind).validate_python(content, strict=True)  # no text is a number, and no number is true or false
    except ValidationError as error:
        raise UserError(f"{at}: {_first(error)}; {fix}") from None


def _first(error: ValidationError) -> str:
    """Return the field of the first difference with what is wrong about it."""
    first = error.errors(include_url=False, include_context=False)[0]
    field = ".".join(map(str, first["loc"])) or "the content"
    if first["type"] == "missing":
        return f"{field} is missing"
    if first["type"] == "extra_forbidden":
        return f"{field} is unknown"
    return f"{field} is {reprlib.repr(first['input'])} but {first['msg'].removeprefix('Input ')}"
