"""Where the pictures of a figure stand: rows of equal cells, each a title, a picture and room under it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes

from explain.figures.lettering import wrapped
from explain.figures.page import Page, lines_height
from explain.figures.photo import Photo

MARGIN = 4.0
GAP = 7.0  # between columns
ROW_GAP = 9.0
TALLEST = 1.8  # a taller photo is drawn narrower than its cell
TITLE_SPACE = 2.0


@dataclass(frozen=True)
class Grid:
    """``cell`` is the width of a cell, ``room`` what stays free under a picture, ``top`` the edge of the first row;
    lengths in points."""

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
