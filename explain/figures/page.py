"""A figure measured in points (1/72 inch) from its top left corner, and what is drawn on it."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from explain.figures.colours import Array, Scale, readable_on
from explain.figures.lettering import Placed, flow, font, visible

Align = Literal["left", "center", "right"]
DPI = 300
LEADING = 1.3  # from line to line, in font sizes
WORD_SIZE, WORD_LEADING, WORD_PAD, WORD_GAP = 6.5, 10.0, 1.4, 1.2
BAR_HEIGHT, BAR_LABEL = 5.0, 6.0
BAR_SPACE = 6.0
BAR_ROOM = BAR_SPACE + BAR_HEIGHT + 2.8 * BAR_LABEL  # with the white above it


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


def lines_height(lines: int, size: float) -> float:
    """The room that lines of text take."""
    return lines * size * LEADING


def words_height(words: Sequence[Placed]) -> float:
    """The room that coloured words take."""
    return (words[-1].line + 1) * WORD_LEADING if words else 0.0


def set_words(words: Sequence[str], width: float) -> list[Placed]:
    """Words placed for :meth:`Page.words`."""
    return flow(map(visible, words), width, WORD_SIZE, WORD_GAP, WORD_PAD)
