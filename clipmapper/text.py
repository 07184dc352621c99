r"""Text from outside the program: the check that UTF-8 can hold it, and its form on a terminal.

Strings of Python can hold lone surrogates: halves of a surrogate pair, such as from ``"\ud83d"`` in a JSON file, and
bytes that are not UTF-8, such as from file names and from a terminal in Latin-1. No file in UTF-8, Parquet or YAML can
hold them, so that they are refused where text comes in.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from typing import Any

from clipmapper.errors import UserError

# Characters that change the direction of the text around them, and two that YAML does not allow.
_UNSAFE = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ufffe\uffff]")


def check_text(text: str, at: str, fix: str = "correct it, and save it in UTF-8") -> None:
    """Check that UTF-8 can hold a text.

    Args:
        text: The text.
        at: Where it comes from, for the message, such as ``file.json: questions[3].question``.
        fix: What the user can do.

    Raises:
        UserError: It holds a lone surrogate.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        code = ord(text[error.start])
        what = f"the byte 0x{code - 0xDC00:02X}" if 0xDC80 <= code <= 0xDCFF else f"\\u{code:04x}, half of a character"
        near = printable(text[max(0, error.start - 20) : error.start + 20])
        raise UserError(f"{at} holds {what}, which UTF-8 cannot hold, in {near!r}; {fix}") from None


def check_texts(value: Any, at: str, fix: str = "correct it, and save it in UTF-8") -> None:
    """Check all texts in nested lists and dicts, such as the content of a JSON file.

    Args:
        value: The content.
        at: Text before the place in it, for the message, such as ``file.json: ``.
        fix: What the user can do.

    Raises:
        UserError: UTF-8 cannot hold one of the texts, or one of the keys (:func:`check_text`).
    """
    for place, text in _texts(value, ""):
        check_text(text, f"{at}{printable(place) or 'the text'}", fix)


def _texts(value: Any, place: str) -> Iterator[tuple[str, str]]:
    """Yield all texts in a value, keys too, each with its place, such as ``questions[3].question``."""
    if isinstance(value, str):
        yield place, value
    elif isinstance(value, dict):
        for key, each in value.items():
            inner = f"{place}.{key}" if place else str(key)
            yield inner, str(key)
            yield from _texts(each, inner)
    elif isinstance(value, list):
        for number, each in enumerate(value):
            yield from _texts(each, f"{place}[{number}]")


def printable(text: str) -> str:
    r"""Return a text that a terminal shows as it is, in one line.

    Control characters, which can move the cursor or change the colours, characters that change the direction of the
    text around them, and lone surrogates are written as in Python, such as ``\x1b``.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(_escaped(each) if _is_unsafe(each) else each for each in text)


def _is_unsafe(character: str) -> bool:
    return unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") or bool(_UNSAFE.match(character))


def _escaped(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")
