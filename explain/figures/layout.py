"""Positions of text, images and colour bars on a figure, in points (1/72 inch) from its top left corner."""

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

# This font comes with matplotlib, so figures are the same on every machine.
FAMILY = "DejaVu Sans"
NO_GLYPH, BLANK, NBSP = "\u25a1", "\u2423", "\u00a0"
Align = Literal["left", "center", "right"]
DPI = 300
LEADING = 1.3  # distance between lines of text, as a multiple of the font size
WORD_SIZE, WORD_LEADING, WORD_PAD, WORD_GAP = 6.5, 10.0, 1.4, 1.2
BAR_HEIGHT, BAR_LABEL = 5.0, 6.0
BAR_SPACE = 6.0
BAR = 92.0  # width of a colour bar
BAR_ROOM = BAR_SPACE + BAR_HEIGHT + 2.8 * BAR_LABEL  # height of a colour bar, with its label and the space above it
MARGIN = 4.0
GAP = 7.0  # space between columns
BARS = 2 * BAR + GAP  # width of two colour bars
ROW_GAP = 9.0
TALLEST = 1.8  # a taller photo is drawn narrower than its cell
TITLE_SPACE = 2.0
SPACE = 4.0  # space between an image and its text
GREY = "0.35"  # colour of small text


class Page:
    """A white figure of ``width`` × ``height`` points.

    ``ink`` is an invisible layer of axes over the whole figure, on which text and boxes are drawn.
    """

    def __init__(self, width: float, height: float) -> None:
        self.width, self.height = width, height
        self.figure = Figure(figsize=(width / 72, height / 72), dpi=DPI, facecolor="white")
        self.ink = self.panel(0, 0, width, height)
        self.ink.set(xlim=(0, width), ylim=(height, 0), zorder=1)

    def panel(self, left: float, top: float, width: float, height: float) -> Axes:
        """Add axes without ticks or a frame."""
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
        """Draw text literally: no character, such as $ or %, has a special meaning."""
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
        """Draw lines of text below ``top``, and return the y coordinate of their end."""
        for number, line in enumerate(lines):
            self.text(x, top + size * (LEADING * number + 1), line, size, align, bold, color)
        return top + lines_height(len(lines), size)

    def words(self, left: float, top: float, placed: Sequence[Placed], scores: Array, scale: Scale) -> None:
        """Draw each word on the colour of its score."""
        colours = scale.on_white(scores)
        for part in placed:
            colour, x, y = colours[part.word], left + part.x, top + part.line * WORD_LEADING
            self.ink.add_patch(Rectangle((x, y), part.width, WORD_LEADING - 1, facecolor=colour, edgecolor="none"))
            self.text(x + WORD_PAD, y + 0.71 * WORD_LEADING, part.text, WORD_SIZE, color=readable_on(colour))

    def colour_bar(self, left: float, bottom: float, width: float, scale: Scale, label: str) -> None:
        """Draw a colour bar from the scale's lowest to its highest score, with a label below it.

        Its lower edge, including the label, is at ``bottom``.
        """
        top = bottom - BAR_ROOM + BAR_SPACE
        ends = np.linspace(-scale.limit if scale.signed else 0, scale.limit, 256)
        self.panel(left, top, width, BAR_HEIGHT).imshow(scale.on_white(ends)[None], aspect="auto")
        self.ink.add_patch(Rectangle((left, top), width, BAR_HEIGHT, fill=False, lw=0.4, ec="0.4"))
        baseline = top + BAR_HEIGHT + 1.25 * BAR_LABEL
        low, high = ("\u2264 ", "\u2265 ") if scale.exceeded else ("", "")
        first = f"{ends[0]:.2g}".replace("-", "\u2212")
        self.text(left, baseline, f"{low}{first}" if scale.signed else first, BAR_LABEL)
        self.text(left + width, baseline, f"{high}{ends[-1]:.2g}", BAR_LABEL, "right")
        if scale.signed:
            self.text(left + width / 2, baseline, "0", BAR_LABEL, "center")
        self.text(left + width / 2, baseline + 1.2 * BAR_LABEL, label, BAR_LABEL, "center")

    def colour_bars(self, bottom: float, scales: tuple[Scale, Scale], labels: tuple[str, str]) -> None:
        """Draw two colour bars next to each other at the right edge; their width is :data:`BARS`."""
        for place, (scale, label) in enumerate(zip(scales, labels, strict=True)):
            self.colour_bar(self.width - MARGIN - BARS + place * (BAR + GAP), bottom, BAR, scale, label)


def lines_height(lines: int, size: float) -> float:
    """Return the height of lines of text."""
    return lines * size * LEADING


def words_height(words: Sequence[Placed]) -> float:
    """Return the height of coloured words."""
    return (words[-1].line + 1) * WORD_LEADING if words else 0.0


def set_words(words: Sequence[str], width: float) -> list[Placed]:
    """Return the words with their positions, for :meth:`Page.words`."""
    return flow(map(visible, words), width, WORD_SIZE, WORD_GAP, WORD_PAD)


@dataclass(frozen=True)
class Grid:
    """Rows of equal cells, each with a title, an image and free space below.

    Args:
        photo: The photo, which determines the shape of the images.
        titles: Lines of each cell's title.
        title_size: Font size of the titles.
        cell: Width of a cell.
        columns: Number of cells per row.
        room: Height of the free space below an image.
        top: Upper edge of the first row.
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
        """Return a grid whose titles are wrapped to the width of a cell."""
        return cls(photo, [wrapped(title, cell, title_size) for title in titles], title_size, cell, columns, room)

    @property
    def rows(self) -> int:
        """Number of rows."""
        return math.ceil(len(self.titles) / self.columns)

    @property
    def width(self) -> float:
        """Width of the whole grid, in points."""
        return self.columns * (self.cell + GAP) - GAP

    @property
    def title_height(self) -> float:
        """Height of the highest title, with the space below it, in points."""
        return lines_height(max(map(len, self.titles)), self.title_size) + TITLE_SPACE

    @property
    def picture_height(self) -> float:
        """Height of an image, in points."""
        return self.cell * min(self.photo.ratio, TALLEST)

    @property
    def row_height(self) -> float:
        """Height of a row: title, image and free space, in points."""
        return self.title_height + self.picture_height + self.room

    @property
    def height(self) -> float:
        """Height of the whole grid, in points."""
        return self.rows * (self.row_height + ROW_GAP) - ROW_GAP

    def corner(self, place: int, left: float) -> tuple[float, float]:
        """Return the left edge and the top of the free space below image number ``place``.

        ``left`` is the left edge of the grid.
        """
        row, column = divmod(place, self.columns)
        top = self.top + row * (self.row_height + ROW_GAP) + self.title_height + self.picture_height
        return left + column * (self.cell + GAP), top

    def picture(self, page: Page, place: int, left: float) -> Axes:
        """Draw the title of image number ``place``, and return axes for the image."""
        x, bottom = self.corner(place, left)
        top, lines = bottom - self.picture_height, self.titles[place]
        start = top - TITLE_SPACE - lines_height(len(lines), self.title_size)
        page.lines(x + self.cell / 2, start, lines, self.title_size, "center")
        return picture_axes(page, self.photo, x, top, self.cell)


def picture_axes(page: Page, photo: Photo, left: float, top: float, cell: float) -> Axes:
    """Return axes with the photo's shape, centred in a cell."""
    height = cell * min(photo.ratio, TALLEST)
    width = height / photo.ratio
    return page.panel(left + (cell - width) / 2, top, width, height)


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
