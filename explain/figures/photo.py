"""The photo, the part of it that the encoder saw, and heat maps over that part."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from PIL import Image

from explain.figures.evidence import Line, draw_outlines, outlines
from explain.figures.scale import Array, Scale

Box = tuple[float, float, float, float]
Overlay = Literal["bilinear", "patches"]
INTERPOLATION = {"bilinear": "bilinear", "patches": "nearest"}
PALE = 0.5  # share of white added to the photo under a heat map, so that every colour of the scale is darker
FADED = 0.75  # the same for the part that the encoder did not see


def checked_overlay(overlay: str) -> None:
    """Raise ValueError for an unknown overlay name."""
    if overlay not in INTERPOLATION:
        raise ValueError(f"overlay must be {' or '.join(INTERPOLATION)}, not {overlay!r}")


@dataclass(frozen=True, eq=False)
class Photo:
    """A photo, and the box of it that the encoder saw.

    Args:
        image: uint8 [H, W, 3], or a PIL image of any mode.
        box: Left, top, right and bottom edge in pixels.
        evidence: Where the answer's known evidence is, bool [h, w] over the whole photo; it is outlined by dashes. None
            if it is not known.

    Raises:
        ValueError: The array or the evidence is of another kind, or the box is empty or not inside the photo.
    """

    image: NDArray[np.uint8] | Image.Image
    box: Box
    evidence: NDArray[np.bool_] | None = None

    def __post_init__(self) -> None:
        shape, dtype = self.pixels.shape, self.pixels.dtype
        if len(shape) != 3 or shape[2] != 3 or dtype != np.uint8 or 0 in shape:
            raise ValueError(f"an image must be uint8 [H, W, 3], not {dtype} {list(shape)}")
        left, top, right, bottom = self.box
        if not (0 <= left < right <= shape[1] and 0 <= top < bottom <= shape[0]):
            raise ValueError(f"the box {self.box} is not inside the image of {shape[1]} × {shape[0]} pixels")
        if self.evidence is not None and (self.evidence.ndim != 2 or self.evidence.dtype != np.bool_):
            raise ValueError(f"evidence must be bool [h, w], not {self.evidence.dtype} {list(self.evidence.shape)}")

    @property
    def pixels(self) -> NDArray[np.uint8]:
        """RGB pixels, uint8 [H, W, 3]."""
        return np.asarray(self.image.convert("RGB") if isinstance(self.image, Image.Image) else self.image)

    @property
    def ratio(self) -> float:
        """Height divided by width."""
        height, width, _ = self.pixels.shape
        return height / width

    @cached_property
    def outlines(self) -> list[Line]:
        """Lines around the known evidence, [n, 2] each, as shares of the photo's width and height."""
        return [] if self.evidence is None else outlines(self.evidence)

    def show(self, axes: Axes) -> None:
        """Draw the photo without changes, with the outline of the evidence."""
        self._draw_pixels(axes, self.pixels)
        self._show_whole_photo(axes)

    def show_heat(self, axes: Axes, patches: Array, scale: Scale, overlay: Overlay) -> None:
        """Draw scores [rows, cols] over the box.

        The photo under them is pale grey, so that no colour of the photo can be mistaken for heat.
        """
        self._draw_pixels(axes, self._pale_grey())
        left, top, right, bottom = self.box
        axes.imshow(
            scale.share(patches),
            cmap=scale.colormap,
            norm=scale.norm,
            extent=(left, right, bottom, top),
            origin="upper",
            interpolation=INTERPOLATION[overlay],
            interpolation_stage="data",
            aspect="auto",
        )
        if (right - left, bottom - top) != self.pixels.shape[1::-1]:
            axes.add_patch(Rectangle((left, top), right - left, bottom - top, fill=False, lw=0.5, ec="0.25"))
        self._show_whole_photo(axes)

    def _draw_pixels(self, axes: Axes, pixels: NDArray[np.uint8]) -> None:
        extent = (0, pixels.shape[1], pixels.shape[0], 0)
        axes.imshow(pixels, extent=extent, origin="upper", interpolation="antialiased", aspect="auto")

    def _show_whole_photo(self, axes: Axes) -> None:
        """Draw the outline of the evidence, and set the axes' limits to the whole photo, which drawing changes."""
        height, width, _ = self.pixels.shape
        draw_outlines(axes, self.outlines, (width, height))
        axes.set(xlim=(0, width), ylim=(height, 0))

    def _pale_grey(self) -> NDArray[np.uint8]:
        """Return the photo in pale grey, [H, W, 3]; it is even paler outside the box."""
        grey = np.asarray(Image.fromarray(self.pixels).convert("L"), dtype=float)
        left, top, right, bottom = (round(edge) for edge in self.box)
        white = np.full_like(grey, FADED)
        white[top:bottom, left:right] = PALE
        return np.repeat((grey + (255 - grey) * white).astype(np.uint8)[..., None], 3, axis=2)
