"""What is seen in the place of removed cells of an image."""

from __future__ import annotations

from functools import cached_property
from typing import Literal, get_args

import numpy as np
import scipy.sparse
import scipy.sparse.linalg
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from clipmapper.errors import UserError
from perturbation.arrays import Array, Mask

Fill = Literal["mean", "zero", "blur", "noise", "noisy_linear"]
#: Weights of the neighbours of a pixel, by row and column offset (Rong et al. 2022, section 5.1).
NEIGHBOURS = {(i, j): (1 / 6 if i == 0 or j == 0 else 1 / 12) for i in (-1, 0, 1) for j in (-1, 0, 1) if i or j}
NOISE = 0.01  # standard deviation of the noise of ``noisy_linear``; colours are from 0 to 1
LARGEST = 224  # ``noisy_linear`` solves its equations on an image whose longer side has at most this many pixels


class Filler:
    """Removes cells of one image.

    - ``mean``: the mean colour of the image.
    - ``zero``: black.
    - ``blur``: the image blurred by a Gaussian whose standard deviation is the longer side of a cell.
    - ``noise``: a random colour for every pixel.
    - ``noisy_linear``: each removed pixel is the weighted mean of its neighbours, which may be removed too, plus a
      little noise (ROAD, Rong et al. 2022).

    Args:
        pixels: The image's RGB colours from 0 (black) to 1, [H, W, 3].
        boxes: Left, top, right and bottom of each cell, [P, 4].
        how: One of the above.
        name: Name of the sample, from which random colours and noise are drawn.

    Raises:
        UserError: ``how`` is unknown.
    """

    def __init__(self, pixels: Array, boxes: NDArray[np.intp], how: Fill, name: str) -> None:
        check_fill(how)
        self.pixels, self.boxes, self.how = pixels, boxes, how
        self._random = np.random.default_rng(list(name.encode()))
        self._noise = self._random.normal(0, NOISE, self.pixels.shape) if how == "noisy_linear" else None
        self._background = None if how == "noisy_linear" else self._filled()

    def without(self, kept: Mask) -> Array:
        """Return the image without the cells for which ``kept``, bool [P], is False: colours from 0 to 1, [H, W, 3]."""
        removed = self._removed(kept)
        background = self._imputed(removed) if self._background is None else self._background
        return np.where(removed[:, :, None], background, self.pixels).clip(0, 1)

    def image_without(self, kept: Mask) -> Image.Image:
        """Return :meth:`without` as an 8-bit image; a background that is always the same is converted once."""
        if self._background is None:
            return rgb_image(self.without(kept))
        return Image.fromarray(np.where(self._removed(kept)[:, :, None], *self._in_eight_bits))

    @cached_property
    def _in_eight_bits(self) -> list[NDArray[np.uint8]]:
        """The background and the image."""
        return [np.asarray(rgb_image(each)) for each in (self._background, self.pixels) if each is not None]

    def _removed(self, kept: Mask) -> Mask:
        """Return the pixels of the removed cells, [H, W]."""
        removed = np.zeros(self.pixels.shape[:2], dtype=np.bool_)
        for left, top, right, bottom in self.boxes[~kept]:
            removed[top:bottom, left:right] = True
        return removed

    def _filled(self) -> Array:
        if self.how == "zero":
            return np.zeros_like(self.pixels)
        if self.how == "noise":
            return self._random.random(self.pixels.shape)
        if self.how == "blur":
            side = int((self.boxes[:, 2:] - self.boxes[:, :2]).max(initial=1))
            return np.asarray(rgb_image(self.pixels).filter(ImageFilter.GaussianBlur(side)), dtype=np.float64) / 255
        return np.broadcast_to(self.pixels.mean((0, 1)), self.pixels.shape)

    def _imputed(self, removed: Mask) -> Array:
        """Return the image with its removed pixels imputed, with noise."""
        assert self._noise is not None
        height, width = removed.shape
        scale = min(1.0, LARGEST / max(height, width))
        if scale == 1:
            return imputed(self.pixels, removed) + self._noise
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        small = np.asarray(_resized(self.pixels, size, Image.Resampling.BOX))
        hidden = np.asarray(Image.fromarray(removed).resize(size, Image.Resampling.NEAREST))
        return _resized(imputed(small, hidden), (width, height), Image.Resampling.BILINEAR) + self._noise


def check_fill(how: str) -> None:
    """Raise UserError if a way to fill removed cells is unknown."""
    if how not in get_args(Fill):
        raise UserError(f"removal of cells: {how} is not one of: {', '.join(get_args(Fill))}")


def rgb_image(pixels: Array) -> Image.Image:
    """Return colours from 0 to 1, [H, W, 3], as an 8-bit image."""
    return Image.fromarray(np.rint(255 * pixels.clip(0, 1)).astype(np.uint8))


def imputed(pixels: Array, removed: Mask) -> Array:
    """Return an image whose removed pixels are the weighted means of their neighbours (Rong et al. 2022).

    The equations of all removed pixels are solved together. At the border, the weights of the existing neighbours are
    divided by their sum. Without a kept pixel, every pixel gets the mean colour.

    Args:
        pixels: [H, W, 3].
        removed: bool [H, W].
    """
    found = pixels.copy()
    if removed.all():
        found[:] = pixels.mean((0, 1))
        return found
    if not removed.any():
        return found
    height, width = removed.shape
    number = np.full(removed.shape, -1)
    number[removed] = np.arange(removed.sum())
    y, x = removed.nonzero()
    total, known = np.zeros(len(y)), np.zeros((len(y), 3))
    entries = []
    for (down, across), weight in NEIGHBOURS.items():
        row, col = y + down, x + across
        inside = (row >= 0) & (row < height) & (col >= 0) & (col < width)
        at, row, col = inside.nonzero()[0], row[inside], col[inside]
        total[at] += weight
        hidden = removed[row, col]
        np.add.at(known, at[~hidden], weight * pixels[row[~hidden], col[~hidden]])
        entries.append((at[hidden], number[row[hidden], col[hidden]], np.full(hidden.sum(), -weight)))
    rows, cols, values = (np.concatenate(part) for part in zip(*entries, strict=True))
    matrix = scipy.sparse.csc_matrix((values, (rows, cols)), (len(y), len(y))) + scipy.sparse.diags(total, format="csc")
    found[removed] = scipy.sparse.linalg.spsolve(matrix, known).reshape(len(y), 3)
    return found


def _resized(pixels: Array, size: tuple[int, int], how: Image.Resampling) -> Array:
    """Return an image [H, W, 3] in another size (width, height)."""
    channels = [Image.fromarray(pixels[:, :, k].astype(np.float32)).resize(size, how) for k in range(3)]
    return np.stack([np.asarray(channel, dtype=np.float64) for channel in channels], 2)
