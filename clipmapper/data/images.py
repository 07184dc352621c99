"""Encoded images and their decoding: what Pillow reads becomes 8-bit RGB, what it does not is one clear error."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from clipmapper.data.records import ImageSource
from clipmapper.errors import UserError

MAX_PIXELS = 89_478_485  # a quarter of a gigabyte as RGB: where Pillow starts to warn of a decompression bomb


class BadImage(UserError):
    """An image that is missing or cannot be decoded; the message names it, the reason and the mend."""


@dataclass(frozen=True, slots=True)
class FileImage:
    """One file of an image folder; nothing is looked up on the disk before it is read."""

    path: Path

    @property
    def name(self) -> str:
        """The path."""
        return str(self.path)

    def read(self) -> bytes:
        """The file's bytes; raises ``BadImage`` where it is missing or unreadable."""
        try:
            return self.path.read_bytes()
        except FileNotFoundError:
            raise BadImage(f"{self.path}: no such image; put the file there or correct the image folder") from None
        except OSError as error:
            raise BadImage(f"{self.path}: cannot be read ({error.strerror}); give a readable image file") from error


@dataclass(frozen=True, slots=True)
class EncodedImage:
    """An encoded image that some other container holds, such as a cell of a Parquet file."""

    name: str
    get: Callable[[], bytes]

    def read(self) -> bytes:
        """What ``get`` returns; raises what ``get`` raises."""
        return self.get()


def load_rgb(source: ImageSource) -> Image.Image:
    """Decodes an image to mode RGB: first frame, turned upright by its EXIF orientation, transparency over white.

    16-bit greyscale is scaled to 8 bits (Pillow's own conversion clips at 255). Raises ``BadImage`` where the image is
    missing, empty, cut off, larger than ``MAX_PIXELS``, no image at all, or has pixels without a known range.
    """
    encoded = source.read()
    if not encoded:
        raise _bad(source, "the file is empty")
    try:
        with Image.open(BytesIO(encoded)) as image:
            return _to_rgb(_upright(image))
    except UnidentifiedImageError as error:  # its own message holds a memory address
        raise _bad(source, "not an image that Pillow can read") from error
    except (
        Exception
    ) as error:  # on damaged bytes Pillow's decoders raise OSError, SyntaxError, KeyError, struct.error …
        raise _bad(source, " ".join(str(error).split()) or type(error).__name__) from error


def _bad(source: ImageSource, reason: str) -> BadImage:
    return BadImage(f"{source.name}: {reason}; replace it with a sound copy or leave its questions out")


def _upright(image: Image.Image) -> Image.Image:
    if image.width * image.height > MAX_PIXELS:  # until here only the header was read
        raise ValueError(f"{image.width}×{image.height} pixels are more than {MAX_PIXELS}, scale it down")
    ImageOps.exif_transpose(image, in_place=True)
    return image


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        image = _to_eight_bits(image)
    if image.mode == "F":
        raise ValueError("floating-point pixels have no known range, save them as 8 or 16 bits")
    if "transparency" in image.info or image.mode in ("RGBA", "LA", "PA"):
        opaque = Image.new("RGBA", image.size, "white")
        opaque.alpha_composite(image.convert("RGBA"))
        image = opaque
    return image.convert("RGB")


def _to_eight_bits(image: Image.Image) -> Image.Image:
    """Pillow holds 16-bit greyscale as I;16 (PNG, TIFF) or, in some formats (PGM), in the 32-bit mode I."""
    pixels = np.asarray(image).astype(np.int32)
    if pixels.min() < 0 or pixels.max() > 65535:
        raise ValueError("32-bit pixels have no known range, save them as 8 or 16 bits")
    return Image.fromarray(((pixels * 255 + 32767) // 65535).astype(np.uint8))
