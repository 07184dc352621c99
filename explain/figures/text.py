"""Text in figures: which characters can be drawn, how wide a text is, and how it is broken into lines."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache

from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.textpath import text_to_path

# This font comes with matplotlib, so figures are the same on every machine.
FAMILY = "DejaVu Sans"
NO_GLYPH, BLANK, NBSP = "\u25a1", "\u2423", "\u00a0"
LEADING = 1.3  # distance between lines of text, as a multiple of the font size
WORD_SIZE, WORD_LEADING, WORD_PAD, WORD_GAP = 6.5, 10.0, 1.4, 1.2  # of coloured words


@dataclass(frozen=True)
class Placed:
    """A word, or a part of a word that is too long for one line, with its position.

    Args:
        text: The characters to draw.
        word: Index of the word in the text.
        line: Index of the line.
        x: Left edge of the word's box.
        width: Width of the word's box.
    """

    text: str
    word: int
    line: int
    x: float
    width: float


def font(size: float, bold: bool = False) -> FontProperties:
    """Return the font of all text in figures."""
    return FontProperties(family=FAMILY, size=size, weight="bold" if bold else "normal")


def printable(text: str) -> str:
    """Return ``text`` as one line that the font can draw.

    Each run of white space becomes one blank, invisible characters are removed, and characters that the font lacks
    become a box.
    """
    return " ".join(part for part in "".join(map(_printable_character, text)).split(" ") if part)


def visible(word: str) -> str:
    """Return a word as it is drawn; an empty word becomes a visible sign, because its score still counts."""
    return printable(word).strip(NBSP) or BLANK


def _printable_character(character: str) -> str:
    if character == NBSP:
        return character
    if character.isspace():
        return " "
    category = unicodedata.category(character)
    if category != "Cc" and category != "Cf" and ord(character) in _font_characters():
        return character
    return "" if category in ("Cf", "Mn") else NO_GLYPH


def width_of(text: str, size: float, bold: bool = False) -> float:
    """Return the advance width of ``text``, in points."""
    return text_to_path.get_text_width_height_descent(text, font(size, bold), ismath=False)[0] if text else 0.0


def flow(
    words: Iterable[str], width: float, size: float, gap: float, pad: float = 0, bold: bool = False
) -> list[Placed]:
    """Place words from left to right, and start a new line at ``width``.

    Args:
        words: The words.
        width: Width of a line.
        size: Font size.
        gap: Space between words.
        pad: Space inside each word's box, on the left and on the right.
        bold: Whether the text is bold.
    """
    placed: list[Placed] = []
    x, line = 0.0, 0
    for index, word in enumerate(words):
        for part in _split_to_width(word, width - 2 * pad, size, bold):
            room = width_of(part, size, bold) + 2 * pad
            if x > 0 and x + room > width:
                x, line = 0.0, line + 1
            placed.append(Placed(part, index, line, x, room))
            x += room + gap
    return placed


def wrapped(text: str, width: float, size: float, bold: bool = False) -> list[str]:
    """Return the lines of a text that is wrapped to ``width``; no lines for an empty text."""
    lines: dict[int, list[str]] = {}
    for part in flow(filter(None, printable(text).split(" ")), width, size, width_of(" ", size, bold), bold=bold):
        lines.setdefault(part.line, []).append(part.text)
    return [" ".join(parts) for parts in lines.values()]


def lines_height(lines: int, size: float) -> float:
    """Return the height of lines of text."""
    return lines * size * LEADING


def words_height(words: Sequence[Placed]) -> float:
    """Return the height of coloured words."""
    return (words[-1].line + 1) * WORD_LEADING if words else 0.0


def set_words(words: Sequence[str], width: float) -> list[Placed]:
    """Return the words with their positions, for :meth:`Page.words`."""
    return flow(map(visible, words), width, WORD_SIZE, WORD_GAP, WORD_PAD)


def _split_to_width(word: str, width: float, size: float, bold: bool) -> list[str]:
    """Return the word as one part if it fits, else parts that fit, of at least one character each."""
    parts = [""]
    for character in word:
        if parts[-1] and width_of(parts[-1] + character, size, bold) > width:
            parts.append("")
        parts[-1] += character
    return parts


@cache
def _font_characters() -> frozenset[int]:
    return frozenset(get_font(findfont(font(10))).get_charmap())
