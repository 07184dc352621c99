"""Encoded images, and their decoding to 8-bit RGB with one clear error for every image that cannot be decoded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from clipmapper.data.records import ImageSource
from clipmapper.errors import UserError

MAX_PIXELS = 89_478_485  # above this size (256 MiB as RGB), Pillow warns about a decompression bomb


class BadImage(UserError):
    """Error for an image that is missing or cannot be decoded; the message has its name, the reason and a fix."""


@dataclass(frozen=True, slots=True)
class FileImage:
    """An image file, which is not accessed before it is read."""

    path: Path

    @property
    def name(self) -> str:
        """The path as text."""
        return str(self.path)

    def read(self) -> bytes:
        """Return the bytes of the file.

        Raises:
            BadImage: The file is missing or unreadable.
        """
        try:
            return self.path.read_bytes()
        except FileNotFoundError:
            raise BadImage(f"{self.path}: no such image; put the file there or correct the image folder") from None
        except OSError as error:
            raise BadImage(f"{self.path}: cannot be read ({error.strerror}); give a readable image file") from error


@dataclass(frozen=True, slots=True)
class EncodedImage:
    """An encoded image that is stored in a container, such as a cell of a Parquet file."""

    #: Name of the image in messages.
    name: str
    #: Function that returns the encoded bytes.
    get: Callable[[], bytes]

    def read(self) -> bytes:
        """Return the encoded bytes; errors of ``get`` are raised unchanged."""
        return self.get()


def load_rgb(source: ImageSource) -> Image.Image:
    """Decode an image to 8-bit RGB.

    The first frame is taken, the EXIF orientation is applied, and transparent pixels are drawn over white. 16-bit
    greyscale is scaled to 8 bits (Pillow's own conversion clips at 255).

    Raises:
        BadImage: The image is missing, empty, cut off, larger than ``MAX_PIXELS``, not an image, or has pixels without
            a known range.
    """
    encoded = source.read()
    if not encoded:
        raise _bad_image(source, "the file is empty")
    try:
        with Image.open(BytesIO(encoded)) as image:
            return _to_rgb(_turn_upright(image))
    except UnidentifiedImageError as error:  # the original message contains a memory address
        raise _bad_image(source, "not an image that Pillow can read") from error
    except Exception as error:  # for damaged bytes, decoders raise OSError, SyntaxError, KeyError, struct.error …
        raise _bad_image(source, " ".join(str(error).split()) or type(error).__name__) from error


def _bad_image(source: ImageSource, reason: str) -> BadImage:
    return BadImage(f"{source.name}: {reason}; replace it with an intact copy or leave its questions out")


def _turn_upright(image: Image.Image) -> Image.Image:
    if image.width * image.height > MAX_PIXELS:  # so far only the header has been read
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
    """Convert 16-bit greyscale, which Pillow opens in mode I;16 (PNG, TIFF) or in the 32-bit mode I (such as PGM)."""
    pixels = np.asarray(image).astype(np.int32)
    if pixels.min() < 0 or pixels.max() > 65535:
        raise ValueError("32-bit pixels have no known range, save them as 8 or 16 bits")
    return Image.fromarray(((pixels * 255 + 32767) // 65535).astype(np.uint8))
