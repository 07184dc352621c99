"""The known evidence of an answer: an outline around the pixels and the words that the answer depends on."""

from __future__ import annotations

import numpy as np
from contourpy import contour_generator
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from PIL import Image, ImageFilter

Line = NDArray[np.float64]  #: corners of a line, [n, 2]: x and y as shares of the image's width and height

INK, HALO = "#111111", "white"  # dashes on a light border are visible on every colour
DASHES = (0.0, (3.7, 1.6))
DETAIL = 512  # pixels of the longer side of the mask that is outlined
SMOOTHING = 5.6  # standard deviation of its blur in these pixels, which makes the mask's corners round
OUTSIDE = 0.15  # level of the outline: below a half, it runs just outside the evidence
ROOM = 16  # pixels added around the mask, so that the outline of evidence at its edge is closed
KEY = "dashed: known evidence"


def outlines(mask: NDArray[np.bool_]) -> list[Line]:
    """Return smooth closed lines around the pixels that are True.

    Args:
        mask: The evidence, bool [H, W].
    """
    height, width = mask.shape
    scale = DETAIL / max(height, width)
    fine = (
        Image.fromarray(mask).convert("L").resize((round(width * scale), round(height * scale)), Image.Resampling.BOX)
    )
    padded = Image.new("L", (fine.width + 2 * ROOM, fine.height + 2 * ROOM))
    padded.paste(fine, (ROOM, ROOM))
    smooth = np.asarray(padded.filter(ImageFilter.GaussianBlur(SMOOTHING)), np.float64)
    found = contour_generator(z=smooth).lines(255 * OUTSIDE)
    return [(np.asarray(line, np.float64) + 0.5 - ROOM) / fine.size for line in found]


def draw_outlines(axes: Axes, lines: list[Line], size: tuple[int, int]) -> None:
    """Draw lines on an image of ``size`` (width, height)."""
    for line in lines:
        x, y = (line * size).T
        axes.plot(x, y, color=HALO, linewidth=1.8, linestyle="-", marker="")
        axes.plot(x, y, color=INK, linewidth=0.8, linestyle=DASHES, marker="")


def draw_frame(axes: Axes, left: float, top: float, width: float, height: float) -> None:
    """Draw a frame around a word."""
    for colour, line, style in ((HALO, 1.3, "-"), (INK, 0.6, DASHES)):
        axes.add_patch(Rectangle((left, top), width, height, fill=False, lw=line, ec=colour, ls=style))
