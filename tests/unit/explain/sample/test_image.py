"""One rule for the pixels of every explained image: from a file, as a PIL image, and in the data of commands."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from clipmapper.data.images import BadImage, FileImage, load_rgb
from explain.sample.image import opened

NOISE = np.random.default_rng(0).integers(0, 256, (16, 24, 4), np.uint8)


def turned() -> dict[str, Any]:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned
    return {"exif": exif}


def sixteen_bits() -> Image.Image:
    return Image.fromarray(NOISE[..., 0].astype(np.uint16) * 257)


def palette() -> Image.Image:
    return Image.fromarray(NOISE[..., :3]).convert("P")


RGB, RGBA = Image.fromarray(NOISE[..., :3]), Image.fromarray(NOISE)
#: An image, the ending of its file, how it is saved, and its pixels in RGB by another way.
IMAGES: dict[str, tuple[Image.Image, str, dict[str, Any], np.ndarray]] = {
    "plain": (RGB, "png", {}, NOISE[..., :3]),
    "turned": (RGB, "png", turned(), np.rot90(NOISE[..., :3], -1)),
    "turned TIFF": (RGB, "tif", turned(), np.rot90(NOISE[..., :3], -1)),
    "grey, 16 bits": (sixteen_bits(), "png", {}, np.repeat(NOISE[..., :1], 3, 2)),
    "transparent": (
        *(RGBA, "png", {}),
        np.rint(255 + (NOISE[..., :3].astype(float) - 255) * NOISE[..., 3:] / 255).astype(np.uint8),
    ),
    "palette": (palette(), "png", {}, np.asarray(palette().convert("RGB"))),
}


@pytest.mark.parametrize("name", IMAGES)
def test_all_readers_give_the_same_pixels(name: str, tmp_path: Path) -> None:
    image, ending, saved, expected = IMAGES[name]
    file = tmp_path / f"image.{ending}"
    image.save(file, **saved)
    with Image.open(file) as given:
        found = [opened(file), opened(str(file)), load_rgb(FileImage(file)), opened(given)]
    for each in found:
        assert each.mode == "RGB"
        np.testing.assert_allclose(np.asarray(each, int), expected, atol=1)
        assert np.array_equal(np.asarray(each), np.asarray(found[0]))


def test_a_png_with_a_wrong_checksum_is_refused(tmp_path: Path) -> None:
    """A decoder does not compare it, and would show what is damaged."""
    file = tmp_path / "image.png"
    RGB.save(file)
    content = bytearray(file.read_bytes())
    content[content.index(b"IEND") - 8] ^= 1  # in the checksum of the pixels, before the length of the last chunk
    file.write_bytes(content)
    with Image.open(file) as undetected:
        undetected.load()
    with pytest.raises(ValueError, match=r"image\.png: cannot be read as an image$"):
        opened(file)
    with pytest.raises(BadImage, match=r"image\.png: "):
        load_rgb(FileImage(file))


def test_pixels_without_a_range_are_refused() -> None:
    with pytest.raises(ValueError, match="the image: floating-point pixels have no known range, save them as"):
        opened(Image.fromarray(NOISE[..., 0].astype(np.float32)))
