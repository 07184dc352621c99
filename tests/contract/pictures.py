"""Images for the contract tests, with the same pixels on every machine."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

QUESTIONS = ("what color is the square?", "is there a blue circle?", "how many shapes are there?")


def pictures() -> list[Image.Image]:
    """Return two images: a red square and a blue bar on grey, and noise."""
    plain = np.full((128, 128, 3), 160, np.uint8)
    plain[20:60, 16:56] = (210, 30, 40)
    plain[80:100, 50:115] = (30, 50, 200)
    noise = np.random.default_rng(0).integers(0, 255, (16, 24, 3), np.uint8).repeat(6, 0).repeat(6, 1)
    return [Image.fromarray(plain), Image.fromarray(noise)]


def saved_pictures(folder: Path) -> list[Path]:
    """Write the images to a folder and return their paths."""
    paths = [folder / f"picture{number}.png" for number in range(2)]
    for picture, path in zip(pictures(), paths, strict=True):
        picture.save(path)
    return paths
