"""The photo, the part of it that the encoder saw, and a heat map over that part."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from PIL import Image

from explain.figures.scale import Array, Scale

Box = tuple[float, float, float, float]
Overlay = Literal["bilinear", "patches"]
INTERPOLATION = {"bilinear": "bilinear", "patches": "nearest"}
PALE = 0.3  # how much the photo under a heat map goes white, so that dark places do not hide the heat
FADED = 0.75  # the same for what the encoder did not see


def checked_overlay(overlay: str) -> None:
    """Raise ValueError for an overlay that there is not."""
    if overlay not in INTERPOLATION:
        raise ValueError(f"overlay is {' or '.join(INTERPOLATION)}, not {overlay!r}")


@dataclass(frozen=True, eq=False)
class Photo:
    """A photo, uint8 [H, W, 3] or any PIL image, and the box (left, top, right, bottom) that the encoder saw.

    Raises:
        ValueError: another kind of array, or a box that is empty or not inside the photo.
    """

    image: NDArray[np.uint8] | Image.Image
    box: Box

    def __post_init__(self) -> None:
        shape, dtype = self.pixels.shape, self.pixels.dtype
        if len(shape) != 3 or shape[2] != 3 or dtype != np.uint8 or 0 in shape:
            raise ValueError(f"an image is uint8 [H, W, 3], not {dtype} {list(shape)}")
        left, top, right, bottom = self.box
        if not (0 <= left < right <= shape[1] and 0 <= top < bottom <= shape[0]):
            raise ValueError(f"the box {self.box} does not lie inside the image of {shape[1]} × {shape[0]} pixels")

    @property
    def pixels(self) -> NDArray[np.uint8]:
        """[H, W, 3]."""
        return np.asarray(self.image.convert("RGB") if isinstance(self.image, Image.Image) else self.image)

    @property
    def ratio(self) -> float:
        """Height over width."""
        height, width, _ = self.pixels.shape
        return height / width

    def show(self, axes: Axes) -> None:
        """The photo as it is."""
        self._show(axes, self.pixels)

    def show_heat(self, axes: Axes, patches: Array, scale: Scale, overlay: Overlay) -> None:
        """Scores [rows, cols] over the box; the photo under them is pale grey: no colour of its own is read as heat."""
        self._show(axes, self._grey())
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
        self._frame(axes)

    def _show(self, axes: Axes, pixels: NDArray[np.uint8]) -> None:
        extent = (0, pixels.shape[1], pixels.shape[0], 0)
        axes.imshow(pixels, extent=extent, origin="upper", interpolation="antialiased", aspect="auto")
        self._frame(axes)

    def _frame(self, axes: Axes) -> None:
        """The whole photo, whatever was drawn last."""
        height, width, _ = self.pixels.shape
        axes.set(xlim=(0, width), ylim=(height, 0))

    def _grey(self) -> NDArray[np.uint8]:
        """[H, W, 3]; paler outside the box."""
        grey = np.asarray(Image.fromarray(self.pixels).convert("L"), dtype=float)
        left, top, right, bottom = (round(edge) for edge in self.box)
        white = np.full_like(grey, FADED)
        white[top:bottom, left:right] = PALE
        return np.repeat((grey + (255 - grey) * white).astype(np.uint8)[..., None], 3, axis=2)
