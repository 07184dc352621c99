"""Plain text for figures: made printable, measured, and broken into lines; lengths in points (1/72 inch)."""

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.textpath import text_to_path

# matplotlib's own font: the same picture on every machine.
FAMILY = "DejaVu Sans"
NO_GLYPH, BLANK, NBSP = "\u25a1", "\u2423", "\u00a0"


@dataclass(frozen=True)
class Placed:
    """A word, or a part of one too long for a line: ``word`` is its place in the text, ``x`` its left edge."""

    text: str
    word: int
    line: int
    x: float
    width: float


def font(size: float, bold: bool = False) -> FontProperties:
    return FontProperties(family=FAMILY, size=size, weight="bold" if bold else "normal")


def printable(text: str) -> str:
    """``text`` on one line: white space is one blank, what has no shape goes, what the font lacks becomes a box."""
    return " ".join(part for part in "".join(map(_shown, text)).split(" ") if part)


def visible(word: str) -> str:
    """A word as it is drawn; one of nothing but blanks gets a sign, as its score still counts."""
    return printable(word).strip(NBSP) or BLANK


def _shown(character: str) -> str:
    if character == NBSP:
        return character
    if character.isspace():
        return " "
    category = unicodedata.category(character)
    if category != "Cc" and category != "Cf" and ord(character) in _characters():
        return character
    return "" if category in ("Cf", "Mn") else NO_GLYPH


def width_of(text: str, size: float, bold: bool = False) -> float:
    """The advance width of ``text``, in points."""
    return text_to_path.get_text_width_height_descent(text, font(size, bold), ismath=False)[0] if text else 0.0


def flow(
    words: Iterable[str], width: float, size: float, gap: float, pad: float = 0, bold: bool = False
) -> list[Placed]:
    """Words set from left to right and wrapped at ``width``; ``pad`` is room inside each word's box, left and right."""
    placed: list[Placed] = []
    x, line = 0.0, 0
    for index, word in enumerate(words):
        for part in _parts(word, width - 2 * pad, size, bold):
            room = width_of(part, size, bold) + 2 * pad
            if x > 0 and x + room > width:
                x, line = 0.0, line + 1
            placed.append(Placed(part, index, line, x, room))
            x += room + gap
    return placed


def wrapped(text: str, width: float, size: float, bold: bool = False) -> list[str]:
    """The lines of a text; empty for an empty one."""
    lines: dict[int, list[str]] = {}
    for part in flow(filter(None, printable(text).split(" ")), width, size, width_of(" ", size, bold), bold=bold):
        lines.setdefault(part.line, []).append(part.text)
    return [" ".join(parts) for parts in lines.values()]


def _parts(word: str, width: float, size: float, bold: bool) -> list[str]:
    """The word whole where it fits, else cut into pieces that fit, of one character at least."""
    parts = [""]
    for character in word:
        if parts[-1] and width_of(parts[-1] + character, size, bold) > width:
            parts.append("")
        parts[-1] += character
    return parts


@cache
def _characters() -> frozenset[int]:
    return frozenset(get_font(findfont(font(10))).get_charmap())
