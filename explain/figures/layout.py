"""Where text, pictures and colour bars stand on a figure; lengths in points (1/72 inch) from its top left corner."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.patches import Rectangle
from matplotlib.textpath import text_to_path

from explain.figures.photo import Photo
from explain.figures.scale import Array, Scale, readable_on

# matplotlib's own font: the same picture on every machine.
FAMILY = "DejaVu Sans"
NO_GLYPH, BLANK, NBSP = "\u25a1", "\u2423", "\u00a0"
Align = Literal["left", "center", "right"]
DPI = 300
LEADING = 1.3  # from line to line, in font sizes
WORD_SIZE, WORD_LEADING, WORD_PAD, WORD_GAP = 6.5, 10.0, 1.4, 1.2
BAR_HEIGHT, BAR_LABEL = 5.0, 6.0
BAR_SPACE = 6.0
BAR = 92.0  # the width of a bar
BAR_ROOM = BAR_SPACE + BAR_HEIGHT + 2.8 * BAR_LABEL  # with the white above it
MARGIN = 4.0
GAP = 7.0  # between columns
BARS = 2 * BAR + GAP  # the width of two bars
ROW_GAP = 9.0
TALLEST = 1.8  # a taller photo is drawn narrower than its cell
TITLE_SPACE = 2.0
SPACE = 4.0  # between a picture and its text
GREY = "0.35"  # of small text


class Page:
    """A white ``figure`` of ``width`` × ``height`` points, and an invisible layer ``ink`` that takes text and boxes."""

    def __init__(self, width: float, height: float) -> None:
        self.width, self.height = width, height
        self.figure = Figure(figsize=(width / 72, height / 72), dpi=DPI, facecolor="white")
        self.ink = self.panel(0, 0, width, height)
        self.ink.set(xlim=(0, width), ylim=(height, 0), zorder=1)

    def panel(self, left: float, top: float, width: float, height: float) -> Axes:
        """Bare axes."""
        share = (left / self.width, 1 - (top + height) / self.height, width / self.width, height / self.height)
        axes = self.figure.add_axes(share)
        axes.set_axis_off()
        return axes

    def text(
        self,
        x: float,
        baseline: float,
        text: str,
        size: float,
        align: Align = "left",
        bold: bool = False,
        color: str = "black",
    ) -> None:
        """Plain text: no character has a meaning of its own."""
        properties = font(size, bold)
        drawn = self.ink.text(x, baseline, text, fontproperties=properties, color=color, parse_math=False, usetex=False)
        drawn.set(horizontalalignment=align, verticalalignment="baseline")

    def lines(
        self,
        x: float,
        top: float,
        lines: Sequence[str],
        size: float,
        align: Align = "left",
        bold: bool = False,
        color: str = "black",
    ) -> float:
        """Lines of text under ``top``; the y where they end."""
        for number, line in enumerate(lines):
            self.text(x, top + size * (LEADING * number + 1), line, size, align, bold, color)
        return top + lines_height(len(lines), size)

    def words(self, left: float, top: float, placed: Sequence[Placed], scores: Array, scale: Scale) -> None:
        """Each word on its score's colour."""
        colours = scale.on_white(scores)
        for part in placed:
            colour, x, y = colours[part.word], left + part.x, top + part.line * WORD_LEADING
            self.ink.add_patch(Rectangle((x, y), part.width, WORD_LEADING - 1, facecolor=colour, edgecolor="none"))
            self.text(x + WORD_PAD, y + 0.71 * WORD_LEADING, part.text, WORD_SIZE, color=readable_on(colour))

    def colour_bar(self, left: float, bottom: float, width: float, scale: Scale, label: str) -> None:
        """A bar from the scale's lowest to its highest score, named underneath; all of it above ``bottom``."""
        top = bottom - BAR_ROOM + BAR_SPACE
        ends = np.linspace(-scale.limit if scale.signed else 0, scale.limit, 256)
        self.panel(left, top, width, BAR_HEIGHT).imshow(scale.on_white(ends)[None], aspect="auto")
        self.ink.add_patch(Rectangle((left, top), width, BAR_HEIGHT, fill=False, lw=0.4, ec="0.4"))
        baseline = top + BAR_HEIGHT + 1.25 * BAR_LABEL
        self.text(left, baseline, f"{ends[0]:.2g}".replace("-", "\u2212"), BAR_LABEL)
        self.text(left + width, baseline, f"{ends[-1]:.2g}", BAR_LABEL, "right")
        if scale.signed:
            self.text(left + width / 2, baseline, "0", BAR_LABEL, "center")
        self.text(left + width / 2, baseline + 1.2 * BAR_LABEL, label, BAR_LABEL, "center")

    def colour_bars(self, bottom: float, scales: tuple[Scale, Scale], labels: tuple[str, str]) -> None:
        """Two bars side by side at the right edge, as wide as :data:`BARS`."""
        for place, (scale, label) in enumerate(zip(scales, labels, strict=True)):
            self.colour_bar(self.width - MARGIN - BARS + place * (BAR + GAP), bottom, BAR, scale, label)


def lines_height(lines: int, size: float) -> float:
    """The room that lines of text take."""
    return lines * size * LEADING


def words_height(words: Sequence[Placed]) -> float:
    """The room that coloured words take."""
    return (words[-1].line + 1) * WORD_LEADING if words else 0.0


def set_words(words: Sequence[str], width: float) -> list[Placed]:
    """Words placed for :meth:`Page.words`."""
    return flow(map(visible, words), width, WORD_SIZE, WORD_GAP, WORD_PAD)


@dataclass(frozen=True)
class Grid:
    """Rows of equal cells, each a title, a picture and free room below.

    ``cell`` is the width of a cell, ``room`` the free height under a picture, ``top`` the edge of the first row.
    """

    photo: Photo
    titles: Sequence[Sequence[str]]
    title_size: float
    cell: float
    columns: int
    room: float
    top: float = MARGIN

    @classmethod
    def of(cls, photo: Photo, titles: Sequence[str], title_size: float, cell: float, columns: int, room: float) -> Grid:
        """With titles wrapped to the width of a cell."""
        return cls(photo, [wrapped(title, cell, title_size) for title in titles], title_size, cell, columns, room)

    @property
    def rows(self) -> int:
        return math.ceil(len(self.titles) / self.columns)

    @property
    def width(self) -> float:
        return self.columns * (self.cell + GAP) - GAP

    @property
    def title_height(self) -> float:
        return lines_height(max(map(len, self.titles)), self.title_size) + TITLE_SPACE

    @property
    def picture_height(self) -> float:
        return self.cell * min(self.photo.ratio, TALLEST)

    @property
    def row_height(self) -> float:
        return self.title_height + self.picture_height + self.room

    @property
    def height(self) -> float:
        return self.rows * (self.row_height + ROW_GAP) - ROW_GAP

    def corner(self, place: int, left: float) -> tuple[float, float]:
        """Left edge and top of the room under picture number ``place``, in a grid whose left edge is ``left``."""
        row, column = divmod(place, self.columns)
        top = self.top + row * (self.row_height + ROW_GAP) + self.title_height + self.picture_height
        return left + column * (self.cell + GAP), top

    def picture(self, page: Page, place: int, left: float) -> Axes:
        """Axes for picture number ``place``, its title written over them."""
        x, bottom = self.corner(place, left)
        top, lines = bottom - self.picture_height, self.titles[place]
        start = top - TITLE_SPACE - lines_height(len(lines), self.title_size)
        page.lines(x + self.cell / 2, start, lines, self.title_size, "center")
        return picture_axes(page, self.photo, x, top, self.cell)


def picture_axes(page: Page, photo: Photo, left: float, top: float, cell: float) -> Axes:
    """Axes of the photo's shape, in the middle of a cell."""
    height = cell * min(photo.ratio, TALLEST)
    width = height / photo.ratio
    return page.panel(left + (cell - width) / 2, top, width, height)


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
