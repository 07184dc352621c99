"""Fills of removed cells, from their definitions: loops over the pixels of a photo, in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

MEAN = (0.48145466, 0.4578275, 0.40821073)  # of CLIP's training data (Radford et al. 2021)
STD = (0.26862954, 0.26130258, 0.27577711)
CELL = 8  # pixels of a cell's side


def photo(seed: int, size: int = 24) -> Image.Image:
    """Return a photo with dark and bright areas and no extreme colours."""
    draw = np.random.default_rng(seed)
    coarse = draw.integers(70, 190, (4, 4, 3)).repeat(size // 4, 0).repeat(size // 4, 1)
    return Image.fromarray((coarse + draw.integers(-20, 20, (size, size, 3))).astype(np.uint8))


def hidden_pixels(kept: list[bool], size: int = 24) -> np.ndarray:
    """Return which pixels are in removed cells, bool [size, size]; ``kept`` is row by row."""
    cols = size // CELL
    return np.array([[not kept[y // CELL * cols + x // CELL] for x in range(size)] for y in range(size)])


def slow_fill(image: Image.Image, kept: list[bool], how: str, name: str) -> np.ndarray:
    """Return the colours, 0..1, of a photo whose removed cells are filled, [H, W, 3]."""
    colours = np.array(image).astype(np.float64) / 255
    hidden, found = hidden_pixels(kept, len(colours)), colours.copy()
    draws = np.random.default_rng(list(name.encode()))
    if how == "noisy_linear":
        noise = draws.normal(0, 0.01, colours.shape)
        imputed = solved_by_a_loop(colours, hidden) if not hidden.all() else mean_colour(colours)
        filled = imputed + noise
    else:
        fills = {"zero": np.zeros_like, "mean": mean_colour, "blur": blurred, "noise": lambda x: draws.random(x.shape)}
        filled = fills[how](colours)
    for y, x in zip(*hidden.nonzero(), strict=True):
        found[y, x] = filled[y, x]
    return found


def mean_colour(colours: np.ndarray) -> np.ndarray:
    total = np.zeros(3)
    for row in colours:
        for colour in row:
            total += colour
    return np.broadcast_to(total / (colours.shape[0] * colours.shape[1]), colours.shape)


def blurred(colours: np.ndarray) -> np.ndarray:
    """Blur by Pillow's approximation of a Gaussian with a standard deviation of one cell (Gwosdek et al. 2011).

    Along each axis, three box filters of a variance of a third each; the pixels at both ends of a box have part of the
    weight of the others. The border continues with its last colour.
    """
    variance = CELL**2 / 3
    half = int((math.sqrt(12 * variance + 1) - 1) / 2)
    ends = (2 * half + 1) * (half * (half + 1) - 3 * variance) / (6 * (variance - (half + 1) ** 2))
    box = {k: 1.0 if abs(k) <= half else ends for k in range(-half - 1, half + 2)}
    assert sum(w * k * k for k, w in box.items()) / sum(box.values()) == pytest.approx(variance)
    for axis in (1, 1, 1, 0, 0, 0):
        last = colours.shape[axis] - 1
        lines = [
            sum(w * colours.take(min(max(at + k, 0), last), axis) for k, w in box.items()) / sum(box.values())
            for at in range(last + 1)
        ]
        colours = np.stack(lines, axis)
    return colours


def normalised(colours: np.ndarray) -> Tensor:
    """Return colours [H, W, 3] as the encoder's input, [3, H, W], float64."""
    channels = [(colours[:, :, k] - MEAN[k]) / STD[k] for k in range(3)]
    return torch.from_numpy(np.stack(channels))


def solved_by_a_loop(pixels: np.ndarray, removed: np.ndarray) -> np.ndarray:
    """Write ROAD's equations for every removed pixel one after the other, and solve them densely."""
    height, width = removed.shape
    places = [(y, x) for y in range(height) for x in range(width) if removed[y, x]]
    left, right = np.zeros((len(places), len(places))), np.zeros((len(places), 3))
    for k, (y, x) in enumerate(places):
        for down in (-1, 0, 1):
            for across in (-1, 0, 1):
                row, col = y + down, x + across
                if (down, across) == (0, 0) or not (0 <= row < height and 0 <= col < width):
                    continue
                weight = 1 / 6 if 0 in (down, across) else 1 / 12
                left[k, k] += weight
                if removed[row, col]:
                    left[k, places.index((row, col))] -= weight
                else:
                    right[k] += weight * pixels[row, col]
    found = pixels.copy()
    for (y, x), colour in zip(places, np.linalg.solve(left, right), strict=True):
        found[y, x] = colour
    return found
