"""Positions of text, images and colour bars on a figure, in points (1/72 inch) from its top left corner."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from explain.figures.evidence import draw_frame
from explain.figures.photo import Photo
from explain.figures.scale import Array, Scale, readable_on
from explain.figures.text import (
    LEADING,
    WORD_LEADING,
    WORD_PAD,
    WORD_SIZE,
    Placed,
    font,
    lines_height,
    wrapped,
)

Align = Literal["left", "center", "right"]
DPI = 300
BAR_HEIGHT, BAR_LABEL = 5.0, 6.0
BAR_SPACE = 6.0
BAR = 92.0  # width of a colour bar
BAR_ROOM = BAR_SPACE + BAR_HEIGHT + 2.8 * BAR_LABEL  # height of a colour bar, with its label and the space above it
MARGIN = 4.0
GAP = 7.0  # space between columns
BARS = 2 * BAR + GAP  # width of two colour bars
ROW_GAP = 9.0
INNER = 3.0  # space between the photos of a cell
TALLEST = 1.8  # a taller photo is drawn narrower than its cell
TITLE_SPACE = 2.0
SPACE = 4.0  # space between an image and its text
GREY = "0.35"  # colour of small text
OWN = {False: "relevance, own scales", True: "signed relevance, own scales"}  # labels of colour bars


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

    def words(
        self,
        left: float,
        top: float,
        placed: Sequence[Placed],
        scores: Array,
        scale: Scale,
        evidence: Sequence[bool] = (),
    ) -> None:
        """Draw each word on the colour of its score; those that are known evidence get a dashed frame."""
        colours = scale.on_white(scores)
        for part in placed:
            colour, x, y = colours[part.word], left + part.x, top + part.line * WORD_LEADING
            self.ink.add_patch(Rectangle((x, y), part.width, WORD_LEADING - 1, facecolor=colour, edgecolor="none"))
            self.text(x + WORD_PAD, y + 0.71 * WORD_LEADING, part.text, WORD_SIZE, color=readable_on(colour))
            if evidence and evidence[part.word]:
                draw_frame(self.ink, x, y, part.width, WORD_LEADING - 1)

    def colour_bar(
        self, left: float, bottom: float, width: float, scale: Scale, label: str, largest: str | None = None
    ) -> None:
        """Draw a colour bar from the scale's lowest to its highest score, with a label below it.

        Its lower edge, including the label, is at ``bottom``. The highest score is written as ``largest``, by default
        as a number.
        """
        top = bottom - BAR_ROOM + BAR_SPACE
        ends = np.linspace(-scale.limit if scale.signed else 0, scale.limit, 256)
        self.panel(left, top, width, BAR_HEIGHT).imshow(scale.on_white(ends)[None], aspect="auto")
        self.ink.add_patch(Rectangle((left, top), width, BAR_HEIGHT, fill=False, lw=0.4, ec="0.4"))
        baseline = top + BAR_HEIGHT + 1.25 * BAR_LABEL
        low, high = ("\u2264 ", "\u2265 ") if scale.exceeded else ("", "")
        largest = f"{scale.limit:.2g}" if largest is None else largest
        self.text(left, baseline, f"{low}\u2212{largest}" if scale.signed else "0", BAR_LABEL)
        self.text(left + width, baseline, f"{high}{largest}", BAR_LABEL, "right")
        if scale.signed:
            self.text(left + width / 2, baseline, "0", BAR_LABEL, "center")
        self.text(left + width / 2, baseline + 1.2 * BAR_LABEL, label, BAR_LABEL, "center")

    def colour_key(self, bottom: float, signed: Collection[bool], label: str) -> None:
        """Draw what the colours mean if explainers have scales of their own, at the right edge.

        Args:
            bottom: Its lower edge.
            signed: Whether scores are signed, in any order: one colour bar for each kind.
            label: Label of the colour bar if there is only one.
        """
        kinds = sorted(set(signed))
        width = BARS if len(kinds) == 1 else BAR
        for place, kind in enumerate(kinds):
            left = self.width - MARGIN - BARS + place * (BAR + GAP)
            self.colour_bar(left, bottom, width, Scale(1.0, kind), label if len(kinds) == 1 else OWN[kind], "largest")

    def colour_bars(self, bottom: float, scales: Sequence[Scale], labels: Sequence[str]) -> None:
        """Draw one or two colour bars next to each other at the right edge; their width is at most :data:`BARS`."""
        first = self.width - MARGIN + GAP - len(scales) * (BAR + GAP)
        for place, (scale, label) in enumerate(zip(scales, labels, strict=True)):
            self.colour_bar(first + place * (BAR + GAP), bottom, BAR, scale, label)


@dataclass(frozen=True)
class Collage:
    """The photos of a sample in a cell: up to two below each other, more of them also side by side."""

    photos: Sequence[Photo]
    width: float  #: of the cell, in points

    @property
    def places(self) -> list[tuple[float, float, float, float]]:
        """Left edge, upper edge, width and height of each photo in the cell, in points."""
        columns = max(1, math.ceil(math.sqrt(len(self.photos) / 2)))
        found, top = [], 0.0
        for first in range(0, len(self.photos), columns):
            row = self.photos[first : first + columns]
            cell = (self.width + INNER) / columns - INNER
            heights = [cell * min(photo.ratio, TALLEST) for photo in row]
            for column, (photo, height) in enumerate(zip(row, heights, strict=True)):
                width = height / photo.ratio
                found.append((column * (cell + INNER) + (cell - width) / 2, top, width, height))
            top += max(heights) + INNER
        return found

    @property
    def height(self) -> float:
        """Height of all photos, in points."""
        return max((top + height for _, top, _, height in self.places), default=0.0)

    def panels(self, page: Page, left: float, top: float) -> list[Axes]:
        """Add axes for each photo in a cell with this left and upper edge."""
        return [page.panel(left + x, top + y, width, height) for x, y, width, height in self.places]


@dataclass(frozen=True)
class Grid:
    """Rows of equal cells, each with a title, images and free space below.

    Args:
        photos: The photos of a cell, which determine the shape of the images.
        titles: Lines of each cell's title.
        title_size: Font size of the titles.
        cell: Width of a cell.
        columns: Number of cells per row.
        room: Height of the free space below the images.
        top: Upper edge of the first row.
    """

    photos: Sequence[Photo]
    titles: Sequence[Sequence[str]]
    title_size: float
    cell: float
    columns: int
    room: float
    top: float = MARGIN

    @classmethod
    def of(
        cls, photos: Sequence[Photo], titles: Sequence[str], title_size: float, cell: float, columns: int, room: float
    ) -> Grid:
        """Return a grid whose titles are wrapped to the width of a cell."""
        return cls(photos, [wrapped(title, cell, title_size) for title in titles], title_size, cell, columns, room)

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
        """Height of the images of a cell, in points."""
        return Collage(self.photos, self.cell).height

    @property
    def row_height(self) -> float:
        """Height of a row: title, images and free space, in points."""
        return self.title_height + self.picture_height + self.room

    @property
    def height(self) -> float:
        """Height of the whole grid, in points."""
        return self.rows * (self.row_height + ROW_GAP) - ROW_GAP

    def corner(self, place: int, left: float) -> tuple[float, float]:
        """Return the left edge and the top of the free space of cell number ``place``.

        ``left`` is the left edge of the grid.
        """
        row, column = divmod(place, self.columns)
        top = self.top + row * (self.row_height + ROW_GAP) + self.title_height + self.picture_height
        return left + column * (self.cell + GAP), top

    def pictures(self, page: Page, place: int, left: float) -> list[Axes]:
        """Draw the title of cell number ``place``, and return axes for its images."""
        x, bottom = self.corner(place, left)
        top, lines = bottom - self.picture_height, self.titles[place]
        start = top - TITLE_SPACE - lines_height(len(lines), self.title_size)
        if self.photos:
            page.lines(x + self.cell / 2, start, lines, self.title_size, "center")
        else:  # words alone begin at the left edge
            page.lines(x, start, lines, self.title_size)
        return Collage(self.photos, self.cell).panels(page, x, top)
